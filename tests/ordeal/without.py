"""The service without one of its defences: `python -m tests.ordeal.without DEFENCE [words of serve]`.

What a control runs, to see that the defence is what keeps a trial's promise.
"""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service import body, cli, gunicorn_conf, loader, worker
from service.catalog import Catalog, Snapshot


def patience() -> None:
    worker.PATIENCE_SECONDS = math.inf


def vital_requests() -> None:
    worker.VITAL = set()


def making_room() -> None:
    worker.SLOW_SECONDS = math.inf


def draining() -> None:
    def drain(self: worker.EventWorker) -> None:
        for connection in list(self.connections):
            self._close(connection)

    worker.EventWorker.drain = drain  # type: ignore[method-assign]


def the_check_of_length() -> None:
    def read(request: Any, max_bytes: int) -> bytes:
        found: bytes = request.environ["wsgi.input"].read(max_bytes)
        return found

    body._read = read


def the_limit_of_inflating() -> None:
    whole = body._inflated
    body._inflated = lambda packed, coding, _: whole(packed, coding, 1 << 40)


def returning_memory() -> None:
    gunicorn_conf.return_large_memory = lambda: None


def keeping_what_answered() -> None:
    seen = Catalog._seen

    def forgetful(self: Catalog, old: Snapshot) -> Snapshot:
        new = seen(self, old)
        lost = any(problem.place == "store" for problem in new.problems)
        return Snapshot({}, new.problems) if lost else new

    Catalog._seen = forgetful  # type: ignore[method-assign]


def verifying_copies() -> None:
    def localise(path: Path, cache: Path) -> Path:
        cache.mkdir(exist_ok=True)
        copy = cache / f"{path.stem}-{path.stat().st_mtime_ns}.npz"
        shutil.copy(path, copy)
        return copy

    loader.localise = localise


DEFENCES: dict[str, Callable[[], None]] = {
    defence.__name__.replace("_", " "): defence
    for defence in (
        patience, vital_requests, making_room, draining, the_check_of_length, the_limit_of_inflating, returning_memory,
        keeping_what_answered, verifying_copies,
    )
}  # fmt: skip

if __name__ == "__main__":
    DEFENCES[sys.argv.pop(1)]()
    cli.main(prog_name="serve")
