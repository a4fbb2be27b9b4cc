"""What the page `/traffic` shows beside the counters, shared by all workers in small files beside the counters.

    history.json       the traffic of the last hour (`service.telemetry.traffic_history`)
    reloads.json       the last changes of what is served
    recent_PID.json    the last requests of each worker, written only while a page is open

Each worker's thread calls `tick` every second. The page itself does so too, so it also works without threads.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import orjson

from model_store.utils.atomic_write import atomic_write
from service.pages.reload_log import changes, state_of
from service.registry.snapshot import Snapshot
from service.telemetry.mmap_counters import CountsUnavailableError, MmapCounters
from service.telemetry.request_record import MAX_RECENT, RequestRecorder
from service.telemetry.traffic_history import History, TrafficSampler, read_history

log = logging.getLogger("service")

TICK_SECONDS = 1.0
WATCHED_SECONDS = 15.0  # after a page has asked
MAX_RELOADS = 100
_FORGET_SECONDS = 3600.0  # after the last request of a worker that ended


class TrafficMonitor:
    def __init__(
        self,
        counters: MmapCounters,
        recorder: RequestRecorder,
        snapshot: Callable[[], Snapshot | None],
        now: Callable[[], float] = time.time,
    ) -> None:
        """`snapshot`: what the service serves, None while this process is still loading it."""
        self.directory = counters.directory / "traffic"
        self._recorder, self._snapshot, self._now = recorder, snapshot, now
        self._sampler = TrafficSampler(counters, self.directory, now)
        self._logged: Snapshot | None = None  # the snapshot that the reload log has
        self._written: Any = None  # the newest request in this process's file
        self._failed = False
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the thread of this process."""
        threading.Thread(target=self._run, name="traffic", daemon=True).start()

    def _run(self) -> None:
        while True:
            time.sleep(TICK_SECONDS)
            self.tick()

    def tick(self) -> None:
        """Sample the counters, log changes of what is served, and write the recent requests if a page is open."""
        try:
            with self._lock:
                if self._sampler.is_owner():
                    self._sampler.sample()
                    self._log_reloads()
                if self._is_watched():
                    self._write_recent()
            self._failed = False
        except (CountsUnavailableError, OSError) as e:
            if not self._failed:  # the next tick tries again
                log.warning("the page /traffic shows no new data: %s", e)
            self._failed = True

    def watch(self) -> None:
        """Note that a page is open, so that all workers write their recent requests."""
        self.directory.mkdir(exist_ok=True)
        (self.directory / "watched").touch()
        self.tick()

    def history(self) -> History:
        return read_history(self.directory)

    def reloads(self) -> list[dict[str, Any]]:
        """Return the last changes of what is served, newest first."""
        return list(reversed(self._read("reloads.json", {"log": []})["log"]))

    def recent(self) -> list[list[Any]]:
        """Return the last requests of all workers (see `RecentRequest`), newest first."""
        files = [self._read(path.name, []) for path in self.directory.glob("recent_*.json")]
        return sorted((each for file in files for each in file), key=lambda each: -each[0])[:MAX_RECENT]

    def _is_watched(self) -> bool:
        try:
            return time.time() - (self.directory / "watched").stat().st_mtime < WATCHED_SECONDS
        except FileNotFoundError:
            return False

    def _write_recent(self) -> None:
        found = list(self._recorder.recent)
        if found and found[-1] is not self._written:
            self._write(f"recent_{os.getpid()}.json", found)
            self._written = found[-1]

    def _log_reloads(self) -> None:
        snapshot = self._snapshot()
        if snapshot is None or snapshot is self._logged:
            return
        known = self._read("reloads.json", {"state": None, "log": []})
        state = state_of(snapshot)
        new = [{"time": self._now(), **change} for change in changes(known["state"], state)]
        self._write("reloads.json", {"state": state, "log": [*known["log"], *new][-MAX_RELOADS:]})
        self._logged = snapshot
        for path in self.directory.glob("recent_*.json"):
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _FORGET_SECONDS:
                    path.unlink()

    def _read(self, name: str, empty: Any) -> Any:
        try:
            return orjson.loads((self.directory / name).read_bytes())
        except FileNotFoundError:
            return empty

    def _write(self, name: str, value: Any) -> None:
        with atomic_write(self.directory / name) as file:
            file.write(orjson.dumps(value))
