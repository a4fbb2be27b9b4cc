"""Concurrent processes publish and move aliases: nothing is lost and no number is used twice, on every backend."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from model_store.registry.store import Store, open_store
from model_store.storage.local import LocalStorage
from tests.model_store.conftest import BACKENDS
from tests.model_store.s3 import S3

ROOT = Path(__file__).parents[3]
FEW, MANY = 4, 8
VERSIONS = {"directory": 40, "s3": 40, "gs": 40, "seaweedfs": 1000, "az": 240}

PUBLISHER = """
import sys
import numpy as np
from datetime import datetime, UTC
from model_store.errors import ConflictError
from model_store.artifact.model import Model
from model_store.nn import Linear, Sequential
from model_store.schema.signature import NumberColumn, Signature, RegressionOutput
from model_store.registry.store import open_store

root, who, processes, count = *sys.argv[1:3], *map(int, sys.argv[3:])
store = open_store(root)
signature = Signature((NumberColumn("x"),), RegressionOutput(("y",), (0.0,), (1.0,)))
print("ready", flush=True)
sys.stdin.readline()
for i in range(count // processes):
    network = Sequential([Linear(1, 1, rng=np.random.default_rng(i))])
    version = store.publish("line", Model(network, signature, f"{who} {i}"))
    try:
        moved = store.set_alias("line", "champion", version.number, who=who, why="", when=datetime.now(UTC))
        print(version.number, version.digest, moved.number, flush=True)
    except ConflictError:
        print(version.number, version.digest, 0, flush=True)
"""

RACER = """
import json, sys
from model_store.storage.base import put_object
from model_store.registry.store import open_store

location, who, processes, count = *sys.argv[1:3], *map(int, sys.argv[3:])
storage = open_store(location).storage
numbers = list(range(1, count + 1))
start = int(who[1:]) * count // processes  # each process tries all keys, starting at another one
print("ready", flush=True)
sys.stdin.readline()
won = [n for n in numbers[start:] + numbers[:start] if put_object(storage, f"race/{n}.npz", f"{who} {n}".encode())]
print(json.dumps(won))
"""


@pytest.fixture(params=BACKENDS)
def location(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Store, int, int]:
    """Return a store, the number of processes, and how many versions they publish. Real servers have no proxy."""
    if request.param == "directory":
        return open_store(tmp_path / "models"), FEW, VERSIONS[request.param]
    server: S3 = request.getfixturevalue(request.param)
    if not server.behind:
        return open_store(server.url, tmp_path / "cache"), FEW, VERSIONS[request.param]
    for name, value in server.environ(server.behind).items():
        monkeypatch.setenv(name, value)
    return open_store(server.url, tmp_path / "cache"), MANY, VERSIONS[request.param]


def run_processes(program: str, location: tuple[Store, int, int]) -> list[str]:
    """Start the processes at the same moment. Return what each printed."""
    store, count, versions = location
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", program, store.storage.location, f"p{i}", str(count), str(versions)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for i in range(count)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:  # all are ready: start them
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    outputs = [racer.communicate(timeout=500)[0] for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * count
    return outputs


@pytest.mark.slow
def test_every_acknowledged_version_and_revision_exists_once(location: tuple[Store, int, int]) -> None:
    """On SeaweedFS, eight processes publish 1000 versions."""
    lines = [line.split() for text in run_processes(PUBLISHER, location) for line in text.splitlines()]
    store, _, versions = location
    winners = Counter(int(number) for number, _, _ in lines)
    assert winners == dict.fromkeys(range(1, versions + 1), 1)
    assert store.versions("line") == list(range(1, versions + 1))
    digests = {int(number): digest for number, digest, _ in lines}
    found = {n: store.manifest("line", n)[0].digest for n in digests}
    assert found == digests
    assert len(set(digests.values())) == versions

    moves = {move.number: move.version for move in store.history("line", "champion")}
    assert moves == {int(move): int(number) for number, _, move in lines if move != "0"}
    assert sorted(moves) == list(range(1, len(moves) + 1))
    if isinstance(store.storage, LocalStorage):
        assert not list(store.root.rglob(".tmp-*"))


@pytest.mark.slow
def test_concurrent_puts_of_each_key_have_one_winner(location: tuple[Store, int, int]) -> None:
    """On SeaweedFS, eight processes each try to put every one of 1000 keys."""
    won = {f"p{i}": json.loads(line) for i, line in enumerate(run_processes(RACER, location))}
    store, _, keys = location
    assert Counter(number for numbers in won.values() for number in numbers) == dict.fromkeys(range(1, keys + 1), 1)
    assert sum(1 for numbers in won.values() if numbers) > 1, "there was no race"
    assert len(store.storage.keys("race/*")) == keys
    for who, numbers in won.items():
        assert all(store.storage.get(f"race/{number}.npz") == f"{who} {number}".encode() for number in numbers)
