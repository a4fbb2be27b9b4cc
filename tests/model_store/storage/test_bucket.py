"""A bucket keeps what a directory keeps, whatever its server and the network between them do."""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks.loading import write_model
from model_store.artifact import npz
from model_store.artifact.model import Model
from model_store.cli import main
from model_store.errors import ArtifactError, ConflictError, NotFoundError, StoreError
from model_store.registry import promotion, signing
from model_store.registry.store import Store, open_store
from model_store.storage import conformance
from model_store.storage.base import MAX_SMALL_OBJECT_BYTES, StorageBackend, put_object
from model_store.storage.bucket import BucketStorage
from model_store.storage.local import LocalStorage
from tests.model_store.conftest import BUCKETS, PLACES, MakeModel
from tests.model_store.s3 import S3

BY: dict[str, Any] = {"who": "ada", "why": "better", "when": datetime(2026, 1, 2, tzinfo=UTC)}


@pytest.fixture(params=BUCKETS)
def server(request: pytest.FixtureRequest) -> S3:
    found: S3 = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def bucket(server: S3, tmp_path: Path) -> BucketStorage:
    return BucketStorage(server.url, tmp_path / "cache")


@pytest.fixture(params=PLACES)
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> StorageBackend:
    if request.param == "directory":
        (tmp_path / "models").mkdir()
        return LocalStorage(tmp_path / "models")
    return BucketStorage(request.getfixturevalue(request.param).url, tmp_path / "cache")


@pytest.fixture
def remote(server: S3, tmp_path: Path) -> Store:
    return open_store(server.url, tmp_path / "cache")


def test_an_object_is_put_once_and_stays_as_it_was(objects: StorageBackend) -> None:
    assert put_object(objects, "chess/1.npz", b"first")
    assert not put_object(objects, "chess/1.npz", b"second")
    assert objects.get("chess/1.npz") == b"first"


def test_patterns_find_the_words_of_keys_and_nothing_else(objects: StorageBackend) -> None:
    for key in ("chess/1.npz", "chess/aliases/best/1.json", "chess/aliases/best/2.json", "go/1.npz", "chess/.hidden"):
        put_object(objects, key, b"")
    assert sorted(objects.keys("*/*")) == ["chess/1.npz", "go/1.npz"]
    assert objects.keys("chess/*") == ["chess/1.npz"]
    assert objects.keys("chess/aliases/*/*") == ["chess/aliases/best/1.json", "chess/aliases/best/2.json"]
    assert objects.keys("*/aliases/*/*", "go/*") == [*objects.keys("*/aliases/*/*"), "go/1.npz"]
    assert objects.keys("che/*", "chess/2.npz", "chess/1.npz") == ["chess/1.npz"]


def test_deleting_makes_a_key_free_and_deleting_again_does_nothing(objects: StorageBackend) -> None:
    put_object(objects, "chess/1.npz", b"first")
    for _ in range(2):
        objects.delete("chess/1.npz")
    assert objects.keys("*/*") == []
    with pytest.raises(FileNotFoundError):
        objects.get("chess/1.npz")
    assert put_object(objects, "chess/1.npz", b"second")
    assert objects.get("chess/1.npz") == b"second"


def test_a_write_whose_answer_is_lost_is_known_again(bucket: BucketStorage, server: S3) -> None:
    for number, lost in ((1, 1), (2, 100)):
        server.answers_to_lose = lost
        assert put_object(bucket, f"chess/{number}.npz", b"mine")
        server.answers_to_lose = 0
    server.answers_to_lose = 100
    assert not put_object(bucket, "chess/1.npz", b"mine")


def test_a_conflict_in_which_nobody_wins_is_tried_again(bucket: BucketStorage, server: S3) -> None:
    server.conflicts_to_tell = 2
    assert put_object(bucket, "chess/1.npz", b"mine")
    server.conflicts_to_tell = 1000
    with pytest.raises(OSError, match="though nothing has that key"):
        put_object(bucket, "chess/2.npz", b"mine")


def test_a_store_that_is_away_is_told_in_the_same_words_each_time(remote: Store, model: Model, server: S3) -> None:
    remote.publish("chess", model)
    server.away = True
    told = set()
    for _ in range(2):
        with pytest.raises(
            StoreError, match=r"(s3|gs|az)://models/.*: cannot read the model store: .* \(SlowDown\)$"
        ) as caught:
            remote.state()
        told.add(str(caught.value))
    assert len(told) == 1
    with pytest.raises(StoreError, match="SlowDown"):
        remote.publish("chess", model)
    server.away = False
    assert remote.versions("chess") == [1]


def test_a_bucket_that_is_not_there_is_told(server: S3, tmp_path: Path) -> None:
    told = r"(s3|gs|az)://nobody/models: cannot read the model store: .*(NoSuchBucket|ContainerNotFound)"
    with pytest.raises(StoreError, match=told):
        open_store(f"{server.url[:2]}://nobody/models", tmp_path).names()


def test_credentials_that_are_refused_are_told_as_the_cause(server: S3, tmp_path: Path) -> None:
    server.forbidden = True
    with pytest.raises(StoreError, match=r"\(AccessDenied\); check the credentials in the environment"):
        open_store(server.url, tmp_path).names()


@pytest.mark.parametrize("address", ["s3://", "s3:///models", "az://container/models"])
def test_an_address_that_lacks_something_is_told(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.startswith("AZURE_")]:
        monkeypatch.delenv(variable)
    with pytest.raises(StoreError, match=f"{address}: cannot open the model store"):
        open_store(address)


def test_without_obstore_it_is_told_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "model_store.storage.bucket", raising=False)
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(StoreError, match=r"pip install 'forward-pass\[buckets\]'"):
        open_store("s3://bucket/models")


def test_a_version_is_fetched_once_and_then_read_from_its_verified_copy(
    remote: Store, model: Model, server: S3
) -> None:
    version = remote.publish("chess", model)
    path = remote.path("chess", 1)
    assert path.parent.stat().st_mode & 0o077 == 0
    assert npz.read_digest(path) == version.digest
    inode = path.stat().st_ino
    assert remote.path("chess", 1).stat().st_ino == inode
    assert remote.load("chess")[0] == version


def test_a_version_that_was_damaged_in_the_bucket_is_found_in_spite_of_its_copy(
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
def test_what_is_no_artifact_is_told_with_its_address(bucket: BucketStorage, remote: Store, data: bytes) -> None:
    put_object(bucket, "chess/1.npz", data)
    for look in (remote.path, remote.load, remote.manifest):
        with pytest.raises(ArtifactError, match=r"^(s3|gs|az)://models/.*/chess/1\.npz: expected"):
            look("chess", 1)


def test_a_look_at_a_manifest_fetches_no_arrays(remote: Store, server: S3, tmp_path: Path) -> None:
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
    assert [str(result) for result in results] == ["accuracy>=chess/1: 0.9 against 0.9 of chess/1"]
    assert not (tmp_path / "cache").exists()


def test_an_object_larger_than_any_artifact_does_not_fill_the_cache(
    remote: Store, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote.publish("chess", model)
    monkeypatch.setattr(npz, "MAX_FILE_BYTES", remote.size_bytes("chess", 1) - 1)
    with pytest.raises(ArtifactError, match=r"chess/1\.npz: expected an artifact, found \d+ bytes"):
        remote.path("chess", 1)
    assert list(tmp_path.glob("cache/*.npz")) == []


def test_what_a_look_for_a_place_to_write_to_left_is_garbage(
    remote: Store, bucket: BucketStorage, model: Model
) -> None:
    remote.publish("chess", model)
    left = ["chess/.probe-0123456789abcdef", "go/.probe-fedcba9876543210"]
    for key in left:
        put_object(bucket, key, b"")
    found = remote.find_garbage(now=datetime.now(UTC), grace=timedelta(0))
    assert [leftover.key for leftover in found] == left
    for leftover in found:
        remote.delete_garbage(leftover)
    assert remote.find_garbage(now=datetime.now(UTC), grace=timedelta(0)) == []
    assert remote.versions("chess") == [1]


def test_an_object_too_large_to_be_small_is_not_fetched(objects: StorageBackend) -> None:
    for size, name in ((MAX_SMALL_OBJECT_BYTES, "1"), (MAX_SMALL_OBJECT_BYTES + 1, "2")):
        put_object(objects, f"chess/aliases/best/{name}.json", bytes(size))
    assert len(objects.get("chess/aliases/best/1.json")) == MAX_SMALL_OBJECT_BYTES
    with pytest.raises(OSError, match="expected 1048576 bytes at most, found more"):
        objects.get("chess/aliases/best/2.json")


def test_a_follower_makes_one_request_while_nothing_changes(remote: Store, model: Model, server: S3) -> None:
    for name in ("chess", "go"):
        remote.publish(name, model)
        remote.set_alias(name, "champion", 1, **BY)
    first = remote.state()
    server.requests.clear()
    assert remote.state() == first
    assert [request.split()[0] for request in server.requests] == ["GET"]
    remote.set_alias("go", "champion", remote.publish("go", model).number, **BY)
    assert remote.state()["go"] == {"versions": (1, 2), "aliases": {"champion": 2}, "unreadable": {}}


def test_an_object_that_was_replaced_against_the_rules_is_read_anew(bucket: BucketStorage) -> None:
    put_object(bucket, "chess/aliases/best/1.json", b"first")
    assert bucket.keys("*/aliases/*/*")
    assert bucket.get("chess/aliases/best/1.json") == b"first"
    bucket.delete("chess/aliases/best/1.json")
    put_object(bucket, "chess/aliases/best/1.json", b"other")
    bucket.keys("*/aliases/*/*")
    assert bucket.get("chess/aliases/best/1.json") == b"other"


@pytest.mark.slow
def test_a_listing_of_many_pages_is_whole(bucket: BucketStorage, remote: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: put_object(bucket, f"chess/{number}.npz", b""), range(1, 1101)))
    assert remote.versions("chess") == list(range(1, 1101))


def test_a_forked_process_is_told_instead_of_waiting_for_ever(bucket: BucketStorage) -> None:
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


def test_whether_a_bucket_can_be_written_is_known_beforehand(remote: Store, server: S3) -> None:
    remote.check_writable("chess")
    assert remote.names() == []
    server.away = True
    with pytest.raises(StoreError, match="cannot publish"):
        remote.check_writable("chess")


@pytest.mark.slow
def test_every_command_takes_an_address(
    server: S3, remote: Store, make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conformance, "ROUNDS", 2)  # SeaweedFS lets writers of one key wait for seconds

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
    assert run("promote", "chess", "2", "--if", "accuracy>=champion")["move"]["version"] == 2
    assert run("protect", "chess", "champion")["protected"]
    assert run("rollback", "chess")["version"] == 2
    assert [move["version"] for move in run("history", "chess")] == [1, 2, 2, 2]
    assert run("rm", "chess/1", "--yes")["removed"] == 1
    put_object(remote.storage, "chess/1.html", b"left by one who died")
    assert [leftover["key"] for leftover in run("gc", "--grace", "0s")] == ["chess/1.html"]
    assert remote.state()["chess"]["versions"] == (2, 3)


@pytest.mark.slow
def test_a_place_where_races_have_one_winner_is_proven_and_left_empty(objects: StorageBackend) -> None:
    conformance.check_conformance(objects)
    assert objects.keys("*") == []


def test_init_makes_the_directory_of_a_store(tmp_path: Path) -> None:
    result = CliRunner().invoke(main.main, ["init", "--store", str(tmp_path / "a" / "b")])
    assert result.exit_code == 0, result.stderr
    assert "exactly one winner each time" in result.stderr
    assert list((tmp_path / "a" / "b").iterdir()) == []


@pytest.mark.parametrize("server", BUCKETS[:-1], indirect=True)  # Azure's client signs the condition, too
@pytest.mark.parametrize("conditions", ["ignored", "raced"])
def test_init_refuses_a_server_that_only_pretends_to_honour_conditions(conditions: str, server: S3) -> None:
    server.conditions = conditions
    result = CliRunner().invoke(main.main, ["init", "--store", server.url])
    assert result.exit_code == 5
    assert "8 writers race 25 times; on a bucket this can take a minute." in result.stderr
    assert "expected one of 8 who write at once to win, found" in result.stderr.replace("\n", " ")
    assert "choose a place that honours conditional writes" in result.stderr.replace("\n", " ")


def test_init_refuses_a_file_system_where_a_name_can_be_taken_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def linked(source: Path, target: Path) -> None:
        Path(target).write_bytes(Path(source).read_bytes())

    monkeypatch.setattr(os, "link", linked)
    with pytest.raises(StoreError, match="expected one of 8 who write at once to win, found 8"):
        conformance.check_conformance(LocalStorage(tmp_path))


def test_refusals_are_the_same_as_in_a_directory(remote: Store, model: Model) -> None:
    remote.publish("chess", model)
    remote.set_alias("chess", "champion", 1, **BY)
    with pytest.raises(ConflictError, match="found champion"):
        remote.remove("chess", 1)
    with pytest.raises(NotFoundError, match="did you mean 'chess'"):
        remote.versions("ches")
    with pytest.raises(StoreError, match="expected a directory"):
        _ = remote.root
