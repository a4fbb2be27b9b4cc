"""The operations of the crash tests on a store, run in processes that can die at any moment.

    python -m tests.crashes.operations [DEFECT ...]

reads lines such as `publish /some/store 7` from standard input and writes a line of JSON for each. With `fork` before
the operation it writes a process id, waits for a line, and then lets that process run the operation. So the system
calls of two runs are the same, and `getsid` marks the start and the end of the operation.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from model_store.artifact.model import Golden, Model
from model_store.errors import ModelStoreError
from model_store.nn import Linear, Sequential
from model_store.registry.store import Store, open_store
from model_store.schema.signature import NumberColumn, RegressionOutput, Signature

NAME, ALIAS = "line", "champion"
_PR_SET_PTRACER = 0x59616D61  # lets a strace attach that is not an ancestor
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def model(seed: int, inputs: int = 1) -> Model:
    """Return a linear model; each seed gives another digest."""
    network = Sequential([Linear(inputs, 1, rng=np.random.default_rng(seed))])
    signature = Signature(tuple(NumberColumn(f"x{i}") for i in range(inputs)), RegressionOutput(("y",), (0.0,), (1.0,)))
    rows = [[float(i) for i in range(inputs)]]
    return Model(network, signature, f"line {seed}", golden=Golden(rows, network(signature.encode(rows))))


def publish(store: Store, seed: int) -> str:
    version = store.publish(NAME, model(seed))
    return f"{version.number} {version.digest}"


def move(store: Store, version: int) -> str:
    return str(store.set_alias(NAME, ALIAS, version, who="ada", why="", when=NOW).number)


def remove(store: Store, version: int) -> str:
    store.remove(NAME, version)
    return str(version)


OPERATIONS: dict[str, Callable[[Store, int], str]] = {"publish": publish, "move": move, "remove": remove}


def _rename_for_link() -> None:
    def link(source: Path, target: Path) -> None:
        os.rename(source, target)  # noqa: PTH104 - replaces os.link

    os.link = link  # type: ignore[assignment]


def _no_sync() -> None:
    os.fsync = lambda _: None


def _no_directory_sync() -> None:
    fsync = os.fsync
    os.fsync = lambda location: None if os.path.isdir(f"/proc/self/fd/{location}") else fsync(location)  # noqa: PTH112


def _in_place() -> None:
    """Write artifacts in place, where readers see them."""

    def link(source: Path, target: Path) -> None:
        with Path(target).open("xb", buffering=0) as file:
            for chunk in Path(source).read_bytes().partition(b"PK"):
                file.write(chunk)

    os.link = link  # type: ignore[assignment]


DEFECTS = {
    "rename-for-link": _rename_for_link,
    "no-sync": _no_sync,
    "no-directory-sync": _no_directory_sync,
    "in-place": _in_place,
}
"""Defects of a store, for tests that must detect them."""


def write_line(something: object) -> None:
    os.write(1, json.dumps(something).encode() + b"\n")


def run_operation(operation: str, root: str, number: str) -> None:
    """Run an operation and write its result as one line."""
    try:
        result = {"done": OPERATIONS[operation](open_store(root), int(number))}
    except ModelStoreError as e:
        result = {"rejected": str(e)}
    except BaseException as e:  # noqa: BLE001 - the test decides
        result = {"crashed": f"{type(e).__name__}: {e}"}
    os.getsid(0)
    write_line(result)


def fork(words: list[str]) -> None:
    """Run an operation in a child process, which starts when a line arrives on standard input."""
    ready, go = os.pipe()
    started, start = os.pipe()
    child = os.fork()
    if child == 0:
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, ctypes.c_ulong(-1))
        os.write(start, b"started")
        select.select([ready], [], [])
        os.getsid(0)
        run_operation(*words)
        os._exit(0)
    os.read(started, 8)  # what Python does after a fork, such as seeding `random`, is not traced
    write_line(child)
    sys.stdin.readline()
    os.write(go, b"go")
    _, status = os.waitpid(child, 0)
    for end in (ready, go, started, start):
        os.close(end)
    if status:
        write_line({"killed": os.waitstatus_to_exitcode(status)})


if __name__ == "__main__":
    for defect in sys.argv[1:]:
        DEFECTS[defect]()
    for line in sys.stdin:
        if line.startswith("fork "):
            fork(line.split()[1:])
        else:
            run_operation(*line.split())
