"""Many processes publish and move aliases at once: nobody's work is lost, no number is used twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from model_store import artifact
from model_store.store import open_store

PROCESSES, VERSIONS = 4, 10

PUBLISHER = """
import sys
import numpy as np
from datetime import datetime, UTC
from model_store.errors import ConflictError
from model_store.model import Model
from model_store.nn import Linear, Sequential
from model_store.signature import Number, Signature, Values
from model_store.store import open_store

root, who, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
store = open_store(root)
signature = Signature((Number("x"),), Values(("y",), (0.0,), (1.0,)))
print("ready", flush=True)
sys.stdin.readline()
for i in range(count):
    network = Sequential([Linear(1, 1, rng=np.random.default_rng(i))])
    version = store.publish("line", Model(network, signature, f"{who} {i}"))
    try:
        moved = store.set_alias("line", "champion", version.number, who=who, why="", when=datetime.now(UTC))
        print(version.number, version.digest, moved.number, flush=True)
    except ConflictError:
        print(version.number, version.digest, 0, flush=True)
"""


def test_every_acknowledged_version_and_move_is_there_once(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    publishers = [
        subprocess.Popen(
            [sys.executable, "-c", PUBLISHER, str(tmp_path / "models"), f"p{i}", str(VERSIONS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
        )
        for i in range(PROCESSES)
    ]
    for publisher in publishers:
        assert publisher.stdout is not None
        assert publisher.stdout.readline() == "ready\n"
    for publisher in publishers:  # all are up: go
        assert publisher.stdin is not None
        publisher.stdin.write("go\n")
        publisher.stdin.flush()
    told = [line.split() for publisher in publishers for line in publisher.communicate(timeout=60)[0].splitlines()]
    assert [publisher.returncode for publisher in publishers] == [0] * PROCESSES

    store = open_store(tmp_path / "models")
    digests = {int(number): digest for number, digest, _ in told}
    assert sorted(digests) == store.versions("line") == list(range(1, PROCESSES * VERSIONS + 1))
    assert {number: artifact.digest(store.path("line", number)) for number in digests} == digests
    assert len(set(digests.values())) == PROCESSES * VERSIONS

    moves = {move.number: move.version for move in store.history("line", "champion")}
    acknowledged = {int(move): int(number) for number, _, move in told if move != "0"}
    assert moves == acknowledged
    assert sorted(moves) == list(range(1, len(moves) + 1))
    assert not list(store.root.rglob(".tmp-*"))
