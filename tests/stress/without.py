"""`serve` or `train` without one of its defences: `python -m tests.stress.without DEFENCE [ARGUMENTS]`.

Controls run it to show that the defence is what makes a trial pass.
"""

from __future__ import annotations

import fcntl
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
from service import app
from service.cli import main as serve
from service.http import request_body
from service.inference.runner import InferenceRunner
from service.registry import loader, registry
from service.registry.loaded_version import LoadedVersion
from service.registry.snapshot import Snapshot
from service.security import access_control, api_keys
from service.server import admission, event_loop, event_worker, gunicorn_app
from service.telemetry import mmap_counters
from training.cli.main import main as train
from training.engine import checkpoint


def replace(owner: Any, name: str, value: Any) -> None:
    """Replace an attribute that exists: a renamed one must fail here, or its control would keep the defence."""
    getattr(owner, name)
    setattr(owner, name, value)


def queue_time_limit() -> None:
    replace(admission, "MAX_QUEUE_SECONDS", math.inf)


def health_check_priority() -> None:
    replace(event_loop, "PRIORITY_PATHS", frozenset())


def shedding_of_slow_uploads() -> None:
    replace(admission, "SLOW_CLIENT_SECONDS", math.inf)


def share_of_the_input_limit() -> None:
    replace(admission.AdmissionController, "is_large", lambda self, connection: connection.input_bytes > 0)


def required_keys() -> None:
    replace(access_control.AccessControl, "check", lambda *_: "")
    replace(api_keys.ApiKeys, "is_known", lambda *_: True)


def refusal_of_pipes() -> None:
    replace(api_keys, "open_regular", lambda path: path.open("rb"))


def check_of_the_origin() -> None:
    replace(app, "check_no_foreign_page", lambda _: None)


def readiness_of_unloaded_models() -> None:
    replace(registry.ModelRegistry, "is_ready", property(lambda self: bool(self.snapshot.default_versions)))


def containment_of_lost_counts() -> None:
    def merge(self: mmap_counters.MmapCounters, *pids: int) -> None:
        for pid in pids:
            with self._locked(fcntl.LOCK_EX):
                self._merge_process(pid)

    replace(mmap_counters.MmapCounters, "merge_dead_processes", merge)


def a_cache_folder_of_its_own() -> None:
    replace(app, "store_cache_dir", lambda cache_dir, _: cache_dir)


def copies_of_versions() -> None:
    replace(loader, "cache_file", lambda path, _: path)


def draining() -> None:
    def drain(self: event_worker.EventWorker) -> None:
        for connection in list(self.event_loop.connections):
            self.event_loop.close(connection)

    replace(event_worker.EventWorker, "drain", drain)


def length_check() -> None:
    def read(request: Any, max_bytes: int) -> bytes:
        found: bytes = request.environ["wsgi.input"].read(max_bytes)
        return found

    replace(request_body, "_read_raw_body", read)


def decompression_limit() -> None:
    whole = request_body._decompress
    replace(request_body, "_MAX_COMPRESSION", 1 << 40)
    replace(request_body, "_decompress", lambda packed, coding, _: whole(packed, coding, 1 << 40))


def returning_memory() -> None:
    replace(gunicorn_app, "configure_malloc_trim", lambda: None)


def keeping_loaded_versions() -> None:
    sync = registry.sync_with_store

    def forgetful(*of: Any) -> Snapshot:
        new = sync(*of)
        lost = any(problem.location == "store" for problem in new.problems)
        return Snapshot({}, new.problems) if lost else new

    replace(registry, "sync_with_store", forgetful)


def verifying_copies() -> None:
    def cache_file(path: Path, cache: Path) -> Path:
        cache.mkdir(exist_ok=True)
        copy = cache / f"{path.stem}-{path.stat().st_mtime_ns}.npz"
        shutil.copy(path, copy)
        return copy

    replace(loader, "cache_file", cache_file)


def absence_of_leaks() -> None:
    """Add a leak of memory and one of descriptors."""
    record_pass, kept, files = InferenceRunner.record_pass, [], []

    def leaky(self: InferenceRunner, served: LoadedVersion, inputs: Array, seconds: float) -> None:
        kept.append(bytearray(1000))
        if len(kept) % 100 == 0:
            files.append(os.open(os.devnull, os.O_RDONLY))
        record_pass(self, served, inputs, seconds)

    replace(InferenceRunner, "record_pass", leaky)


def atomic_publishing() -> None:
    link = os.link

    def in_place(source: Path, target: Path) -> None:
        if target.suffix == ".npz":
            with target.open("xb") as file:
                _slowly(file, source.read_bytes())
        else:
            link(source, target)

    replace(os, "link", in_place)


def atomic_checkpoints() -> None:
    @contextmanager
    def in_place(path: Path) -> Iterator[io.BytesIO]:
        yield (written := io.BytesIO())
        with path.open("wb") as file:
            _slowly(file, written.getvalue())

    replace(checkpoint, "atomic_write", in_place)


def _slowly(file: BinaryIO, data: bytes) -> None:
    file.write(data[: len(data) // 2])
    file.flush()
    time.sleep(60)
    file.write(data[len(data) // 2 :])


def steady_clock() -> None:
    """Let the clock jump by ten years at every call."""
    steady = time.time
    replace(time, "time", lambda: steady() + random.choice([-1, 1]) * 10 * 365 * 86400)


TRAINING = {"atomic publishing", "atomic checkpoints", "steady clock"}
DEFENCES: dict[str, Callable[[], None]] = {
    defence.__name__.replace("_", " "): defence
    for defence in (
        queue_time_limit,
        health_check_priority,
        shedding_of_slow_uploads,
        share_of_the_input_limit,
        required_keys,
        refusal_of_pipes,
        check_of_the_origin,
        readiness_of_unloaded_models,
        containment_of_lost_counts,
        a_cache_folder_of_its_own,
        copies_of_versions,
        draining,
        length_check,
        decompression_limit,
        returning_memory,
        keeping_loaded_versions,
        verifying_copies,
        absence_of_leaks,
        atomic_publishing,
        atomic_checkpoints,
        steady_clock,
    )
}

if __name__ == "__main__":
    removed = sys.argv.pop(1)
    DEFENCES[removed]()
    main = train if removed in TRAINING else serve
    main()
