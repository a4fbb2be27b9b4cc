"""Buckets: the guarantees of a directory hold, whatever the server and the network do."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
from click.testing import CliRunner

from benchmarks.loading import write_model
from model_store.artifact import npz
from model_store.artifact.model import Model
from model_store.cli import main
from model_store.errors import ArtifactError, ConflictError, NotFoundError, StoreError
from model_store.registry import promotion, signing
from model_store.registry.store import Store, open_store
from model_store.storage import bucket as bucket_module
from model_store.storage import conformance
from model_store.storage.base import MAX_SMALL_OBJECT_BYTES, StorageBackend, put_object
from model_store.storage.bucket import BucketStorage
from model_store.storage.local import LocalStorage
from tests.model_store.conftest import BACKENDS, BUCKETS, MakeModel
from tests.model_store.s3 import S3

BY: dict[str, Any] = {"who": "ada", "why": "better", "when": datetime(2026, 1, 2, tzinfo=UTC)}


@pytest.fixture(params=BUCKETS)
def server(request: pytest.FixtureRequest) -> S3:
    found: S3 = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def bucket(server: S3, tmp_path: Path) -> BucketStorage:
    return BucketStorage(server.url, tmp_path / "cache")


@pytest.fixture(params=BACKENDS)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> StorageBackend:
    if request.param == "directory":
        (tmp_path / "models").mkdir()
        return LocalStorage(tmp_path / "models")
    return BucketStorage(request.getfixturevalue(request.param).url, tmp_path / "cache")


@pytest.fixture
def remote(server: S3, tmp_path: Path) -> Store:
    return open_store(server.url, tmp_path / "cache")


def test_put_succeeds_once_per_key_and_never_overwrites(storage: StorageBackend) -> None:
    assert put_object(storage, "chess/1.npz", b"first")
    assert not put_object(storage, "chess/1.npz", b"second")
    assert storage.get("chess/1.npz") == b"first"


def test_key_patterns_match_valid_names_only(storage: StorageBackend) -> None:
    for key in ("chess/1.npz", "chess/aliases/best/1.json", "chess/aliases/best/2.json", "go/1.npz", "chess/.hidden"):
        put_object(storage, key, b"")
    assert sorted(storage.keys("*/*")) == ["chess/1.npz", "go/1.npz"]
    assert storage.keys("chess/*") == ["chess/1.npz"]
    assert storage.keys("chess/aliases/*/*") == ["chess/aliases/best/1.json", "chess/aliases/best/2.json"]
    assert storage.keys("*/aliases/*/*", "go/*") == [*storage.keys("*/aliases/*/*"), "go/1.npz"]
    assert storage.keys("che/*", "chess/2.npz", "chess/1.npz") == ["chess/1.npz"]


def test_delete_frees_a_key_and_is_idempotent(storage: StorageBackend) -> None:
    put_object(storage, "chess/1.npz", b"first")
    for _ in range(2):
        storage.delete("chess/1.npz")
    assert storage.keys("*/*") == []
    with pytest.raises(FileNotFoundError):
        storage.get("chess/1.npz")
    assert put_object(storage, "chess/1.npz", b"second")
    assert storage.get("chess/1.npz") == b"second"


def test_put_succeeds_although_its_response_is_lost(bucket: BucketStorage, server: S3) -> None:
    for number, lost in ((1, 1), (2, 100)):
        server.responses_to_lose = lost
        assert put_object(bucket, f"chess/{number}.npz", b"mine")
        server.responses_to_lose = 0
    server.responses_to_lose = 100
    assert not put_object(bucket, "chess/1.npz", b"mine")


def test_put_retries_a_conflict_without_a_winner(bucket: BucketStorage, server: S3) -> None:
    server.conflicts_to_send = 2
    assert put_object(bucket, "chess/1.npz", b"mine")
    server.conflicts_to_send = 1000
    with pytest.raises(OSError, match="although the key is free"):
        put_object(bucket, "chess/2.npz", b"mine")


def test_an_unreachable_bucket_raises_the_same_message_each_time(remote: Store, model: Model, server: S3) -> None:
    remote.publish("chess", model)
    server.away = True
    messages = set()
    for _ in range(2):
        with pytest.raises(
            StoreError, match=r"(s3|gs|az)://models/.*: cannot read the model store: .* \(SlowDown\)$"
        ) as caught:
            remote.state()
        messages.add(str(caught.value))
    assert len(messages) == 1
    with pytest.raises(StoreError, match="SlowDown"):
        remote.publish("chess", model)
    server.away = False
    assert remote.versions("chess") == [1]


def test_a_missing_bucket_raises_its_cause(server: S3, tmp_path: Path) -> None:
    message = r"(s3|gs|az)://missing/models: cannot read the model store: .*(NoSuchBucket|ContainerNotFound)"
    with pytest.raises(StoreError, match=message):
        open_store(f"{server.url[:2]}://missing/models", tmp_path).names()


def test_rejected_credentials_raise_access_denied_with_a_fix(server: S3, tmp_path: Path) -> None:
    server.forbidden = True
    with pytest.raises(StoreError, match=r"\(AccessDenied\); check the credentials in the environment"):
        open_store(server.url, tmp_path).names()


@pytest.mark.parametrize("url", ["s3://", "s3:///models", "az://container/models"])
def test_an_incomplete_url_is_rejected(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.startswith("AZURE_")]:
        monkeypatch.delenv(variable)
    with pytest.raises(StoreError, match=f"{url}: cannot open the model store"):
        open_store(url)


def test_a_missing_obstore_raises_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "model_store.storage.bucket", raising=False)
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(StoreError, match=r"pip install 'obstore>="):
        open_store("s3://bucket/models")


def test_a_version_is_fetched_once_then_read_from_its_verified_copy(remote: Store, model: Model, server: S3) -> None:
    version = remote.publish("chess", model)
    path = remote.path("chess", 1)
    assert path.parent.stat().st_mode & 0o077 == 0
    assert npz.read_digest(path) == version.digest
    inode = path.stat().st_ino
    assert remote.path("chess", 1).stat().st_ino == inode
    assert remote.load("chess")[0] == version


def test_load_detects_a_damaged_object_although_a_good_copy_exists(
    remote: Store, model: Model, bucket: BucketStorage
) -> None:
    remote.publish("chess", model)
    data = bytearray(remote.path("chess", 1).read_bytes())
    data[-200] ^= 1
    bucket.delete("chess/1.npz")
    put_object(bucket, "chess/1.npz", bytes(data))
    with pytest.raises(ArtifactError, match=r"^(s3|gs|az)://models/.*/chess/1\.npz: "):
        remote.load("chess")
    assert npz.read(remote.path("chess", 1)).predict([[30, "Bath"]]) == model.predict([[30, "Bath"]])


@pytest.mark.parametrize("data", [b"", b"x", b"x" * 1000, b"PK\x03\x04" + b"\xff" * 1000])
def test_an_invalid_artifact_raises_with_its_url(bucket: BucketStorage, remote: Store, data: bytes) -> None:
    put_object(bucket, "chess/1.npz", data)
    for read in (remote.path, remote.load, remote.manifest):
        with pytest.raises(ArtifactError, match=r"^(s3|gs|az)://models/.*/chess/1\.npz: expected"):
            read("chess", 1)


def test_manifest_fetches_no_arrays(remote: Store, server: S3, tmp_path: Path) -> None:
    write_model(tmp_path / "large.npz", [64, 500, 500, 10])
    large = npz.read(tmp_path / "large.npz")
    remote.publish("chess", large)
    server.sent = 0
    version, manifest = remote.manifest("chess", 1)
    assert (version.digest, version.location) == (npz.read_digest(tmp_path / "large.npz"), f"{server.url}/chess/1.npz")
    assert manifest == npz.read_manifest(tmp_path / "large.npz")
    assert server.sent < 100_000 < remote.size_bytes("chess", 1)
    with pytest.raises(NotFoundError, match="no version 2"):
        remote.manifest("chess", 2)


def test_a_promotion_fetches_manifests_but_no_arrays(remote: Store, server: S3, tmp_path: Path) -> None:
    write_model(tmp_path / "large.npz", [64, 500, 500, 10])
    large = replace(npz.read(tmp_path / "large.npz"), training={"metrics": {"accuracy": 0.9}})
    for _ in range(2):
        remote.publish("chess", large)
    server.sent = 0
    gates = [promotion.parse_gate("accuracy>=chess/1")]
    revision, results = promotion.promote(remote, "chess", 2, "champion", gates, **BY)
    assert server.sent < 200_000 < remote.size_bytes("chess", 1)
    assert revision is not None
    assert [str(result) for result in results] == ["accuracy>=chess/1: 0.9 against 0.9 of chess/1 (higher is better)"]
    assert not (tmp_path / "cache").exists()


def test_an_object_larger_than_any_artifact_does_not_fill_the_cache(
    remote: Store, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote.publish("chess", model)
    monkeypatch.setattr(npz, "MAX_FILE_BYTES", remote.size_bytes("chess", 1) - 1)
    with pytest.raises(ArtifactError, match=r"chess/1\.npz: expected an artifact, found \d+ bytes"):
        remote.path("chess", 1)
    assert list(tmp_path.glob("cache/*.npz")) == []


def test_probes_of_an_interrupted_check_writable_are_garbage(
    remote: Store, bucket: BucketStorage, model: Model
) -> None:
    remote.publish("chess", model)
    probes = ["chess/.probe-0123456789abcdef", "go/.probe-fedcba9876543210"]
    for key in probes:
        put_object(bucket, key, b"")
    found = remote.find_garbage(now=datetime.now(UTC), grace=timedelta(0))
    assert [garbage.key for garbage in found] == probes
    for garbage in found:
        remote.delete_garbage(garbage)
    assert remote.find_garbage(now=datetime.now(UTC), grace=timedelta(0)) == []
    assert remote.versions("chess") == [1]


def test_get_rejects_an_object_above_the_size_limit(storage: StorageBackend) -> None:
    for size, name in ((MAX_SMALL_OBJECT_BYTES, "1"), (MAX_SMALL_OBJECT_BYTES + 1, "2")):
        put_object(storage, f"chess/aliases/best/{name}.json", bytes(size))
    assert len(storage.get("chess/aliases/best/1.json")) == MAX_SMALL_OBJECT_BYTES
    with pytest.raises(OSError, match="expected 1048576 bytes at most, found more"):
        storage.get("chess/aliases/best/2.json")


def test_state_makes_one_request_while_nothing_changes(remote: Store, model: Model, server: S3) -> None:
    for name in ("chess", "go"):
        remote.publish(name, model)
        remote.set_alias(name, "champion", 1, **BY)
    first = remote.state()
    server.requests.clear()
    assert remote.state() == first
    assert [request.split()[0] for request in server.requests] == ["GET"]
    remote.set_alias("go", "champion", remote.publish("go", model).number, **BY)
    found = remote.state()["go"]
    assert (found["versions"], found["aliases"], list(found["publications"])) == ((1, 2), {"champion": 2}, [2])


def test_a_replaced_object_is_fetched_again(bucket: BucketStorage) -> None:
    put_object(bucket, "chess/aliases/best/1.json", b"first")
    assert bucket.keys("*/aliases/*/*")
    assert bucket.get("chess/aliases/best/1.json") == b"first"
    bucket.delete("chess/aliases/best/1.json")
    put_object(bucket, "chess/aliases/best/1.json", b"other")
    bucket.keys("*/aliases/*/*")
    assert bucket.get("chess/aliases/best/1.json") == b"other"


@pytest.mark.slow
def test_a_listing_of_many_pages_is_complete(bucket: BucketStorage, remote: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: put_object(bucket, f"chess/{number}.npz", b""), range(1, 1101)))
    assert remote.versions("chess") == list(range(1, 1101))


def test_a_forked_process_raises_instead_of_waiting_for_ever(bucket: BucketStorage) -> None:
    bucket.keys("*/*")
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            bucket.keys("*/*")
        except OSError as e:
            os.write(writing, str(e).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert b"forked" in os.read(reading, 1000)


def test_check_writable_raises_for_an_unreachable_bucket_and_leaves_nothing(remote: Store, server: S3) -> None:
    remote.check_writable("chess")
    assert remote.names() == []
    server.away = True
    with pytest.raises(StoreError, match="cannot publish"):
        remote.check_writable("chess")


@pytest.mark.slow
def test_every_models_command_accepts_a_bucket_url(
    server: S3, remote: Store, make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conformance, "ROUNDS", 2)  # SeaweedFS delays concurrent writers of one key for seconds

    def run(*arguments: str) -> Any:
        words = [*arguments, "--store", server.url, "--json"]
        result = CliRunner().invoke(main.main, words, env={"XDG_CACHE_HOME": str(tmp_path)})
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    key, page = str(tmp_path / "release.pem"), str(tmp_path / "report.html")
    signing.generate_key(Path(key))
    assert run("init")["races"] == 2
    for seed in range(3):
        remote.publish("chess", make_model(seed))
    assert run("list")[0]["description"] == "Who plays chess"
    assert run("show", "chess/2")["version"] == 2
    assert run("compare", "chess/1", "chess/2")["first"] == "chess/1"
    assert run("report", "chess/2", "--output", page)["report"] == page
    assert [one["ok"] for one in run("verify")] == [True] * 3
    assert run("sign", "chess/2", "--key", key)["added"]
    assert run("verify", "chess/2", "--key", f"{key}.pub")[0]["ok"]
    assert run("predict", "chess", "--row", '[30, "Bath"]')["version"] == 3
    assert run("alias", "chess", "champion", "1")["version"] == 1
    assert run("promote", "chess", "2", "--alias", "champion", "--if", "accuracy>=champion")["move"]["version"] == 2
    assert run("protect", "chess", "champion")["protected"]
    assert run("rollback", "chess")["version"] == 2
    assert [move["version"] for move in run("history", "chess")] == [1, 2, 2, 2]
    assert run("rm", "chess/1", "--yes")["removed"] == 1
    put_object(remote.storage, "chess/1.html", b"report without a version")
    assert [garbage["key"] for garbage in run("gc", "--grace", "0s")] == ["chess/1.html"]
    assert remote.state()["chess"]["versions"] == (2, 3)


@pytest.mark.slow
def test_check_conformance_passes_and_leaves_the_storage_empty(storage: StorageBackend) -> None:
    conformance.check_conformance(storage)
    assert storage.keys("*") == []


def test_init_creates_the_store_directory(tmp_path: Path) -> None:
    result = CliRunner().invoke(main.main, ["init", "--store", str(tmp_path / "a" / "b")])
    assert result.exit_code == 0, result.stderr
    assert "exactly one winner each time" in result.stderr
    assert list((tmp_path / "a" / "b").iterdir()) == []


@pytest.mark.parametrize(
    "server", BUCKETS[:-1], indirect=True
)  # Azure's client includes the condition in its signature
@pytest.mark.parametrize("conditions", ["ignored", "raced"])
def test_init_rejects_a_server_that_ignores_conditional_writes(conditions: str, server: S3) -> None:
    server.conditions = conditions
    result = CliRunner().invoke(main.main, ["init", "--store", server.url])
    assert result.exit_code == 5
    assert "8 writers race 25 times; on a bucket this can take a minute." in result.stderr
    assert "expected 1 of 8 concurrent writers to succeed, found" in result.stderr.replace("\n", " ")
    assert "choose a backend that honours conditional writes" in result.stderr.replace("\n", " ")


def test_check_conformance_rejects_a_file_system_without_exclusive_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy_instead_of_link(source: Path, target: Path) -> None:
        Path(target).write_bytes(Path(source).read_bytes())

    monkeypatch.setattr(os, "link", copy_instead_of_link)
    with pytest.raises(StoreError, match="expected 1 of 8 concurrent writers to succeed, found 8"):
        conformance.check_conformance(LocalStorage(tmp_path))


def test_a_bucket_raises_the_same_errors_as_a_directory(remote: Store, model: Model) -> None:
    remote.publish("chess", model)
    remote.set_alias("chess", "champion", 1, **BY)
    with pytest.raises(ConflictError, match="alias 'champion' points to it"):
        remote.remove("chess", 1)
    with pytest.raises(NotFoundError, match="did you mean 'chess'"):
        remote.versions("ches")
    with pytest.raises(StoreError, match="expected a directory"):
        _ = remote.root


def test_a_listing_that_does_not_end_is_an_error(bucket: BucketStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that always announces a further page took 4 GB in 45 s."""
    for number in range(4):
        put_object(bucket, f"chess/{number}.json", b"{}")
    assert len(bucket.keys("*/*")) == 4
    monkeypatch.setattr("model_store.storage.bucket.MAX_LISTED_OBJECTS", 3)
    with pytest.raises(OSError, match="expected at most 3 objects in the store, found more"):
        bucket.keys("*/*")


def test_a_listing_leaves_no_thread_in_python(bucket: BucketStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command whose last request was a listing was aborted at its end, 8 times in 100: a callback still ran."""
    call_soon = asyncio.BaseEventLoop.call_soon_threadsafe

    def call_slowly(*args: Any, **kwargs: Any) -> asyncio.Handle:
        handle = call_soon(*args, **kwargs)
        time.sleep(0.05)  # the event loop goes on
        return handle

    monkeypatch.setattr(asyncio.BaseEventLoop, "call_soon_threadsafe", call_slowly)
    put_object(bucket, "chess/1.json", b"{}")
    others = sys._current_frames().keys()  # threads that Python's module threading did not start
    for _ in range(5):
        assert bucket.keys("chess/*") == ["chess/1.json"]
        in_python = sys._current_frames().keys()
        assert in_python - others <= {thread.ident for thread in threading.enumerate()}


def test_a_small_object_that_is_longer_than_its_stated_size_is_not_read_whole() -> None:
    """A hostile server stated 50 bytes and sent 2 GB, which a worker read and kept."""
    sent: list[int] = []

    class Lying:
        meta: ClassVar = {"size": 50}

        def stream(self) -> Iterator[bytes]:
            for size in [MAX_SMALL_OBJECT_BYTES] * 5:
                sent.append(size)
                yield bytes(size)

    with pytest.raises(OSError, match="expected 1048576 bytes at most, found more"):
        bucket_module._read_small(cast("Any", Lying()))
    assert len(sent) == 2
