"""Eight publishers and four readers, killed at random during garbage collection: no version is lost or half-read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from model_store.registry.store import open_store
from tests.crashes.operations import ALIAS, NAME
from tests.crashes.processes import ROOT

SECONDS = 10

pytestmark = pytest.mark.slow


def run_killed_processes(store: Path, seconds: float, *defects: str) -> dict[str, Any]:
    words = [sys.executable, "-m", "tests.crashes.killed_processes", str(store), str(seconds), "4", *defects]
    environ = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=ROOT, env=environ, stdout=subprocess.PIPE, check=True, timeout=seconds + 60)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def acknowledged_twice(result: dict[str, Any], operation: str) -> list[int]:
    counts = Counter(
        number for kind, number, *_ in (line for line in result["lines"] if len(line) > 1) if kind == operation
    )
    return [number for number, count in counts.items() if count > 1]


def test_what_killed_processes_acknowledged_exists_once(tmp_path: Path) -> None:
    result = run_killed_processes(tmp_path / "models", SECONDS)
    lines = result["lines"]
    assert [line for line in lines if line[0] == "bad"] == []
    assert acknowledged_twice(result, "published") == acknowledged_twice(result, "moved") == []

    store = open_store(tmp_path / "models")
    loaded = [store.load(NAME, number)[0] for number in store.versions(NAME)]
    assert [version.number for version in loaded] == list(range(1, len(loaded) + 1))
    digests = {version.number: version.digest for version in loaded}
    assert len(set(digests.values())) == len(digests)
    assert {
        number: digest for kind, number, digest in (x for x in lines if x[0] == "published")
    }.items() <= digests.items()

    moves = {move.number: move.version for move in store.history(NAME, ALIAS)}
    assert sorted(moves) == list(range(1, len(moves) + 1))
    assert {number: version for kind, number, version in (x for x in lines if x[0] == "moved")}.items() <= moves.items()

    for garbage in store.find_garbage(now=datetime.now(UTC), grace=timedelta(0)):
        store.delete_garbage(garbage)
    assert not list(store.root.rglob(".tmp-*"))

    counts = Counter(line[0] for line in lines)
    assert min(counts["published"], counts["moved"], counts["read"], result["deaths"]) > 10
    assert counts["collected"] > 0


def test_a_store_that_renames_instead_of_linking_is_detected(tmp_path: Path) -> None:
    result = run_killed_processes(tmp_path / "models", SECONDS / 2, "rename-for-link")
    assert acknowledged_twice(result, "published")
