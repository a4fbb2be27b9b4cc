"""On Azurite, Microsoft's own emulator of Azure Blob Storage: what holds for other buckets holds there."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import shutil
import subprocess
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from model_store import artifact, cli
from model_store.bucket import Bucket
from model_store.errors import ConflictError, StoreError
from model_store.objects import put
from model_store.store import Store, open_store
from tests.model_store.conftest import MakeModel
from tests.model_store.test_seaweedfs import PROCESSES, RACER, raced
from tests.model_store.test_store_races import PUBLISHER

pytestmark = pytest.mark.slow

PACKAGE, ACCOUNT = "azurite@3.35.0", "forwardpass"
KEY = base64.b64encode(b"a key that opens nothing but a test").decode()
KEYS, VERSIONS = 100, 3
BY: dict[str, Any] = {"who": "ada", "why": "better", "when": datetime(2026, 1, 2, tzinfo=UTC)}


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("azurite")
    command = [*program(directory), "--inMemoryPersistence", "--blobHost", "127.0.0.1", "--blobPort", "0",
               "--silent", "--disableTelemetry", "--skipApiVersionCheck"]  # fmt: skip
    environment = {**os.environ, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"}
    log = directory / "log"
    with log.open("wb") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, cwd=directory, env=environment)
    try:
        deadline = time.monotonic() + 60
        while not (told := re.search(r"listens on (http://\S+)", log.read_text())):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        make_container(f"{told[1]}/{ACCOUNT}/models")
        yield f"{told[1]}/{ACCOUNT}"
    finally:
        server.kill()
        server.wait(30)


def program(directory: Path) -> list[str]:
    """The emulator that is installed; else one that is installed here and gone with the tests."""
    if found := shutil.which("azurite-blob"):
        return [found]
    if shutil.which("node") is None or (npm := shutil.which("npm")) is None:
        pytest.skip("Azurite wants node and npm")
    install = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(directory), PACKAGE]
    done = subprocess.run(install, check=False, capture_output=True, text=True, timeout=300)
    if done.returncode:
        pytest.skip(f"Azurite cannot be installed: {done.stderr[-300:]}")
    return [str(directory / "node_modules" / ".bin" / "azurite-blob")]


def make_container(address: str) -> None:
    """A request signed as Azure's Shared Key wants it."""
    headers = {"x-ms-date": format_datetime(datetime.now(UTC), usegmt=True), "x-ms-version": "2021-12-02"}
    signed = [f"{name}:{value}" for name, value in headers.items()]
    text = "\n".join(["PUT", *[""] * 11, *signed, f"/{ACCOUNT}/{ACCOUNT}/models", "restype:container"])
    signature = base64.b64encode(hmac.digest(base64.b64decode(KEY), text.encode(), hashlib.sha256)).decode()
    headers["Authorization"] = f"SharedKey {ACCOUNT}:{signature}"
    urllib.request.urlopen(
        urllib.request.Request(f"{address}?restype=container", method="PUT", headers=headers)
    ).close()


@pytest.fixture
def address(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", endpoint)
    return f"az://models/{uuid.uuid4().hex}"


@pytest.fixture
def bucket(address: str, tmp_path: Path) -> Bucket:
    return Bucket(address, tmp_path)


@pytest.fixture
def store(address: str, tmp_path: Path) -> Store:
    return open_store(address, tmp_path)


def test_an_object_is_put_once_found_and_deleted(bucket: Bucket) -> None:
    assert put(bucket, "chess/1.npz", b"first")
    assert not put(bucket, "chess/1.npz", b"second")
    assert bucket.get("chess/1.npz") == b"first"
    put(bucket, "chess/aliases/best/1.json", b"move")
    assert bucket.keys("*/*") == ["chess/1.npz"]
    assert sorted(bucket.keys("*/aliases/*/*", "chess/1.npz", "go/1.npz")) == [
        "chess/1.npz",
        "chess/aliases/best/1.json",
    ]
    for _ in range(2):
        bucket.delete("chess/1.npz")
    assert bucket.keys("*/*") == []
    with pytest.raises(FileNotFoundError):
        bucket.get("chess/1.npz")
    assert bucket.mark("chess/1.npz") is None


def test_a_writer_knows_its_own_object_again(bucket: Bucket) -> None:
    with bucket.draft("chess/1.npz") as draft:
        draft.file.write(b"mine")
        assert draft.keep("chess/1.npz")
        assert draft.keep("chess/1.npz")  # as one whose first answer was lost
    assert not put(bucket, "chess/1.npz", b"mine")


def test_versions_and_aliases_live_as_elsewhere(store: Store, make_model: MakeModel) -> None:
    store.check_writable("chess")
    assert store.names() == []
    versions = [store.publish("chess", make_model(seed)) for seed in range(3)]
    assert store.load("chess", 2)[0] == versions[1]
    assert store.load("chess")[1].predict([[30, "Bath"]]) == make_model(2).predict([[30, "Bath"]])
    for number in (1, 3):
        store.set_alias("chess", "champion", number, **BY)
    with pytest.raises(ConflictError, match="found champion"):
        store.remove("chess", 3)
    assert store.rollback("chess", "champion", **BY).version == 1
    assert [move.version for move in store.history("chess", "champion")] in ([1, 3, 1], [1, 3, 1][::-1])
    store.remove("chess", 3)
    assert store.state() == {"chess": {"versions": (1, 2), "aliases": {"champion": 1}, "unreadable": {}}}
    assert store.publish("chess", make_model(4)).number == 4


def test_the_commands_prove_list_verify_and_collect(address: str, store: Store, make_model: MakeModel) -> None:
    def run(*arguments: str) -> str:
        result = CliRunner().invoke(cli.main, [*arguments, "--store", address])
        assert result.exit_code == 0, result.stderr
        return result.stdout + result.stderr

    assert "one won each time" in run("init")
    assert store.names() == []
    store.publish("chess", make_model(0))
    assert "Who plays chess" in run("list")
    run("verify")
    run("gc")
    assert store.versions("chess") == [1]


def test_processes_race_for_keys_and_each_has_one_winner(address: str, tmp_path: Path) -> None:
    won = {f"p{i}": json.loads(line) for i, line in enumerate(raced(RACER, address, str(KEYS)))}
    winners = Counter(number for numbers in won.values() for number in numbers)
    assert winners == dict.fromkeys(range(1, KEYS + 1), 1)
    assert sum(1 for numbers in won.values() if numbers) > 1, "nobody raced"
    bucket = Bucket(address, tmp_path)
    for who, numbers in won.items():
        assert all(bucket.get(f"race/{number}.npz") == f"{who} {number}".encode() for number in numbers[:20])


def test_publishers_lose_nothing_and_number_without_gaps(address: str, tmp_path: Path) -> None:
    told = [line.split() for text in raced(PUBLISHER, address, str(VERSIONS)) for line in text.splitlines()]
    store = open_store(address, tmp_path)
    digests = {int(number): digest for number, digest, _ in told}
    assert sorted(digests) == store.versions("line") == list(range(1, PROCESSES * VERSIONS + 1))
    assert {number: artifact.digest(store.path("line", number)) for number in digests} == digests


def test_wrong_credentials_are_told(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", base64.b64encode(b"another key").decode())
    with pytest.raises(StoreError, match="check the credentials in the environment"):
        open_store(address, tmp_path).names()
