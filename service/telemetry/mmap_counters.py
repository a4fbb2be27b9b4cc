"""Counters and histograms that all workers share, kept in memory-mapped files.

    counters = MmapCounters(directory)
    requests = counters.counter("forward_pass_requests", "Requests answered.", ("status",))
    requests.labels("200").inc()

Every process counts in files of its own (see `cell_file`) and a scrape adds them up. Counts of processes that ended are
kept, so a counter never decreases while the service runs.

prometheus_client's multiprocess mode costs 144,000 instructions a prediction, this 46,000 (10 updates each); its scrape
of 10 or 200 versions in 2 processes blocks the event loop for 34 or 1100 ms, this for 2 or 75 ms.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Generic, TypeVar

from service.telemetry.cell_file import CellFile, CounterCell, HistogramCells, read_cells
from service.telemetry.exposition import ExpositionWriter

log = logging.getLogger("service")

_LIVE_GAUGE = "gauge_livesum"  # summed over the processes that are alive
_INTERNAL = "internal"  # gauges that /metrics does not show
_PREFIX, _LOCK_NAME, _STALE_AFTER_SECONDS = "forward-pass-counts-", "held", 60.0


class CountsUnavailableError(Exception):
    """The directory of the counts cannot be read. Processes count on, each for itself."""


_Cell = TypeVar("_Cell", CounterCell, HistogramCells)


class MetricFamily(Generic[_Cell]):
    """A metric with labels: one cell or histogram for each combination of label values, made when first used."""

    def __init__(self, counters: MmapCounters, make_cell: Callable[[tuple[str, ...]], _Cell]) -> None:
        self._counters = counters
        self._make_cell: Callable[[tuple[str, ...]], _Cell] = make_cell
        self._cells: dict[tuple[str, ...], _Cell] = {}

    def labels(self, *values: str) -> _Cell:
        cell = self._cells.get(values)
        if cell is None:
            with self._counters.lock:
                cell = self._cells.get(values) or self._make_cell(values)
                self._cells[values] = cell
        return cell


class MmapCounters:
    def __init__(self, directory: Path | None = None, *, parent: str = "") -> None:
        """Count in `directory`, or in a new one below `parent` (default: in memory).

        A new directory is deleted when this object is, or when the process that made it ends.
        """
        if directory is None:
            directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent or memory_directory()))
            _remove_stale_directories(directory.parent)
            weakref.finalize(self, _remove, directory, os.getpid(), _lock_directory(directory))
        self.directory = directory
        self.lock = threading.RLock()
        self.cell_lock = threading.Lock()  # of all cells: one request counts in several files
        self._writer = ExpositionWriter(directory)
        self._files: dict[str, CellFile] = {}
        self._internal: dict[str, CounterCell] = {}
        self._dead_pids: set[int] = set()  # processes whose counts are still to be merged
        this = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _reopen(this()))

    def counter(self, name: str, description: str, labels: Sequence[str] = ()) -> MetricFamily[CounterCell]:
        def make_cell(values: tuple[str, ...]) -> CounterCell:
            return self._file("counter").counter(_key(name, f"{name}_total", labels, values, description))

        return MetricFamily(self, make_cell)

    def gauge(self, name: str, description: str, labels: Sequence[str] = ()) -> MetricFamily[CounterCell]:
        """Return a gauge that is summed over the processes that are alive."""

        def make_cell(values: tuple[str, ...]) -> CounterCell:
            return self._file(_LIVE_GAUGE).counter(_key(name, name, labels, values, description))

        return MetricFamily(self, make_cell)

    def histogram(
        self, name: str, description: str, labels: Sequence[str], bounds: Sequence[float]
    ) -> MetricFamily[HistogramCells]:
        upper_bounds = [*map(str, bounds), "+Inf"]

        def make_cell(values: tuple[str, ...]) -> HistogramCells:
            def key(suffix: str, *bound: str) -> str:
                names = (*labels, "le") if bound else labels
                return _key(name, f"{name}_{suffix}", names, (*values, *bound), description)

            keys = [*(key("bucket", bound) for bound in upper_bounds), key("sum")]
            return self._file("histogram").histogram(bounds, keys)

        return MetricFamily(self, make_cell)

    def internal_gauge(self, key: str) -> CounterCell:
        """Return this process's cell of a gauge that `internal_gauges` sums and /metrics does not show."""
        with self.lock:
            if key not in self._internal:
                self._internal[key] = self._file(_INTERNAL, "cells").counter(key)
            return self._internal[key]

    def drop_internal_gauges(self, keys: Set[str]) -> None:
        """Free this process's cells of internal gauges."""
        with self.lock:
            for key in keys:
                self._internal.pop(key, None)
            self._file(_INTERNAL, "cells").drop(keys)

    def internal_gauges(self) -> dict[str, float]:
        """Return the sum of each internal gauge over the processes that are alive."""
        sums: dict[str, float] = {}
        with self._locked(fcntl.LOCK_SH):
            for path in self.directory.glob(f"{_INTERNAL}_*.cells"):
                for key, value in read_cells(path):
                    sums[key] = sums.get(key, 0.0) + value
        return sums

    def exposition(self) -> str:
        """Return the counts of all processes in Prometheus's text format."""
        with self.lock, self._locked(fcntl.LOCK_SH):
            return self._writer.render()

    def totals_by_model_version(self) -> dict[tuple[str, str], dict[str, float]]:
        """Return the counts of all processes by model and version."""
        with self.lock, self._locked(fcntl.LOCK_SH):
            return self._writer.totals_by_model_version()

    def series_totals(self) -> tuple[list[str], list[float]]:
        """Return the keys of all counters, in the order in which they were found, and the sum of each."""
        with self.lock, self._locked(fcntl.LOCK_SH):
            return self._writer.series_totals()

    def merge_dead_processes(self, *pids: int) -> None:
        """Add the counters of processes that ended to this process's files, and drop their gauges.

        Otherwise a service whose workers are often replaced would add up more and more files. This never blocks: if
        another process is reading (it may be stopped in the middle of it), the next call merges. Counts that cannot be
        read or written are lost, with an error in the log: the service matters more.
        """
        self._dead_pids.update(pids)
        if not self._dead_pids:
            return
        try:
            with suppress(BlockingIOError), self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB):
                while self._dead_pids:
                    self._merge_process(self._dead_pids.pop())
        except (CountsUnavailableError, OSError) as e:
            self._dead_pids.clear()
            log.error("the counts of processes that ended are lost: %s", e)

    def _merge_process(self, pid: int) -> None:
        for name in (f"{_LIVE_GAUGE}_{pid}.db", f"{_INTERNAL}_{pid}.cells"):
            (self.directory / name).unlink(missing_ok=True)
        for path in self.directory.glob(f"*_{pid}.db"):
            file = self._file(path.name.rpartition("_")[0])
            for key, value in read_cells(path):
                cells, index = file.locate(key)
                cells[index] += value
            path.unlink()

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        """Exclude readers while counts move from one file to another: they would miss them or count them twice."""
        try:
            lock = (self.directory / "lock").open("w")
        except OSError as e:
            raise CountsUnavailableError(f"cannot read the counts in {self.directory}: {e.strerror}") from e
        with lock:
            fcntl.flock(lock, how)
            yield

    def _file(self, kind: str, suffix: str = "db") -> CellFile:
        if kind not in self._files:
            self._files[kind] = CellFile(self.directory, kind, suffix, self.cell_lock)
        return self._files[kind]

    def reopen(self) -> None:
        """In a forked process: count from zero in files of its own."""
        self.lock, self.cell_lock = threading.RLock(), threading.Lock()
        for file in self._files.values():
            file.reopen(self.cell_lock)


def _key(metric: str, name: str, labels: Sequence[str], values: Sequence[str], description: str) -> str:
    return json.dumps([metric, name, dict(zip(labels, values, strict=True)), description], sort_keys=True)


def _reopen(counters: MmapCounters | None) -> None:
    if counters is not None:
        counters.reopen()


def _lock_directory(directory: Path) -> int:
    """Mark a directory as in use while this process or a fork of it lives. Return the descriptor of the lock."""
    descriptor = os.open(directory / _LOCK_NAME, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def _remove_stale_directories(parent: Path) -> None:
    """Remove directories of this user's services that were killed. New ones stay: they may not be locked yet."""
    for path in parent.glob(f"{_PREFIX}*/{_LOCK_NAME}"):
        with suppress(OSError):
            lock = os.open(
                path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
            )  # it may be any kind of file
            try:
                status = os.fstat(lock)
                if status.st_uid == os.geteuid() and time.time() - status.st_mtime > _STALE_AFTER_SECONDS:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path.parent, ignore_errors=True)
            finally:
                os.close(lock)


def _remove(directory: Path, owner: int, lock: int) -> None:
    os.close(lock)
    if os.getpid() == owner:
        shutil.rmtree(directory, ignore_errors=True)


def memory_directory() -> str | None:
    """Return a directory in memory for small files that are written often: a slow disk would stall the workers."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - mkdtemp makes a private directory there
