"""`serve` or `train` without one of its defences: `python -m tests.stress.without DEFENCE [its words]`.

What a control runs, to see that the defence is what keeps a trial's promise.
"""

from __future__ import annotations

import io
import math
import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from model_store.nn import Array
from service.cli import main as serve
from service.http import request_body
from service.inference.runner import InferenceRunner
from service.registry import loader, registry
from service.registry.loaded_version import LoadedVersion
from service.registry.snapshot import Snapshot
from service.server import admission, event_loop, event_worker, gunicorn_app
from training.cli.main import main as train
from training.engine import checkpoint


def patience() -> None:
    event_worker.MAX_QUEUE_SECONDS = math.inf


def vital_requests() -> None:
    event_loop.PRIORITY_PATHS = frozenset()


def making_room() -> None:
    admission.SLOW_CLIENT_SECONDS = math.inf


def draining() -> None:
    def drain(self: event_worker.EventWorker) -> None:
        for connection in list(self.event_loop.connections):
            self.event_loop.close(connection)

    event_worker.EventWorker.drain = drain  # type: ignore[method-assign]


def the_check_of_length() -> None:
    def read(request: Any, max_bytes: int) -> bytes:
        found: bytes = request.environ["wsgi.input"].read(max_bytes)
        return found

    request_body._read_raw_body = read


def the_limit_of_inflating() -> None:
    whole = request_body._decompress
    request_body._decompress = lambda packed, coding, _: whole(packed, coding, 1 << 40)


def returning_memory() -> None:
    gunicorn_app.return_freed_memory = lambda: None


def keeping_what_answered() -> None:
    sync = registry.sync_with_store

    def forgetful(*of: Any) -> Snapshot:
        new = sync(*of)
        lost = any(problem.location == "store" for problem in new.problems)
        return Snapshot({}, new.problems) if lost else new

    registry.sync_with_store = forgetful


def verifying_copies() -> None:
    def cache_file(path: Path, cache: Path) -> Path:
        cache.mkdir(exist_ok=True)
        copy = cache / f"{path.stem}-{path.stat().st_mtime_ns}.npz"
        shutil.copy(path, copy)
        return copy

    loader.cache_file = cache_file


def tidiness() -> None:
    """No defence, but what a house without one would be like."""
    note, kept, files = InferenceRunner.note, [], []

    def leaky(self: InferenceRunner, served: LoadedVersion, inputs: Array, seconds: float) -> None:
        kept.append(bytearray(1000))
        if len(kept) % 100 == 0:
            files.append(os.open(os.devnull, os.O_RDONLY))
        note(self, served, inputs, seconds)

    InferenceRunner.note = leaky  # type: ignore[method-assign]


def publishing_whole() -> None:
    link = os.link

    def in_place(source: Path, target: Path) -> None:
        if target.suffix == ".npz":
            with target.open("xb") as file:
                _slowly(file, source.read_bytes())
        else:
            link(source, target)

    os.link = in_place  # type: ignore[assignment]


def whole_checkpoints() -> None:
    @contextmanager
    def in_place(path: Path) -> Iterator[io.BytesIO]:
        yield (written := io.BytesIO())
        with path.open("wb") as file:
            _slowly(file, written.getvalue())

    checkpoint.replacing = in_place  # type: ignore[assignment]


def _slowly(file: BinaryIO, data: bytes) -> None:
    file.write(data[: len(data) // 2])
    file.flush()
    time.sleep(60)
    file.write(data[len(data) // 2 :])


def a_steady_clock() -> None:
    """Ten years to and fro, at every look."""
    steady = time.time
    time.time = lambda: steady() + random.choice([-1, 1]) * 10 * 365 * 86400


TRAINING = {"publishing whole", "whole checkpoints", "a steady clock"}
DEFENCES: dict[str, Callable[[], None]] = {
    defence.__name__.replace("_", " "): defence
    for defence in (
        patience, vital_requests, making_room, draining, the_check_of_length, the_limit_of_inflating, returning_memory,
        keeping_what_answered, verifying_copies, tidiness, publishing_whole, whole_checkpoints, a_steady_clock,
    )
}  # fmt: skip

if __name__ == "__main__":
    taken_out = sys.argv.pop(1)
    DEFENCES[taken_out]()
    main = train if taken_out in TRAINING else serve
    main()
