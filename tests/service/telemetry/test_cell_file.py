"""Files of cells: they grow, survive a reused process number, and are never read half made."""

from __future__ import annotations

import errno
import logging
import os
import signal
from contextlib import suppress

from service.telemetry.cell_file import CellFile
from service.telemetry.mmap_counters import MmapCounters
from tests.service.telemetry.conftest import library_sums


def test_counters_keep_counting_after_their_file_grows(counters):
    answered = counters.counter("answered", "Requests answered.", ("route",))
    first = answered.labels("/first")
    first.inc()
    for number in range(2000):
        answered.labels(f"/{number}").inc(number)
    first.inc()
    found = library_sums(counters)
    assert found["answered_total", "route=/first"] == 2
    assert found["answered_total", "route=/1999"] == 1999
    assert len(found) == 2001


def test_without_space_counting_continues_in_private_memory_and_is_logged(counters, monkeypatch, caplog):
    """Writing to a page that the file system cannot allocate would raise SIGBUS."""
    answered = counters.counter("answered", "Requests answered.", ("route",))
    first = answered.labels("/first")
    first.inc()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.posix_fallocate", full)
    with caplog.at_level(logging.ERROR, "service"):
        for number in range(2000):
            answered.labels(f"/{number}").inc()
        counters.counter("asked", "Requests.").labels().inc()
        counters.histogram("seconds", "Seconds.", (), (1.0,)).labels().observe(0.5)
    first.inc()
    found = library_sums(counters)
    assert found["answered_total", "route=/first"] == 2
    assert 1 < len(found) < 2000
    assert not list(counters.directory.glob("*.new"))
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2  # once per file
    assert all("No space left on device" in line for line in messages)


def test_process_with_a_reused_pid_adds_to_the_earlier_counts(tmp_path):
    for _ in range(2):
        counters = MmapCounters(tmp_path)
        counters.counter("answered", "Requests answered.", ("route",)).labels("/café").inc()
        counters.counter("asked", "Requests.").labels().inc(2)
    assert library_sums(counters) == {("answered_total", "route=/café"): 2, ("asked_total",): 4}


def test_new_file_is_never_read_empty(counters):
    """A thousand files are made during reads; without the rename, a dozen of them were read empty."""
    counters.counter("answered", "Requests answered.").labels().inc()
    pid = os.fork()
    if pid == 0:
        try:
            for number in range(1000):
                CellFile(counters.directory, f"kind{number}")._path.rename(counters.directory / f"gone{number}")
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        with suppress(FileNotFoundError):  # it was renamed meanwhile
            counters.exposition()


def test_dropped_gauges_are_gone_and_the_others_keep_their_cells(counters, monkeypatch):
    kept = [counters.internal_gauge(f"kept {i}") for i in range(2)]
    dropped = {f"dropped {i}" for i in range(2000)}
    stale = [counters.internal_gauge(key) for key in dropped]
    kept[1].set(3.0)
    counters.drop_internal_gauges(dropped)
    assert counters.internal_gauges() == {"kept 0": 0.0, "kept 1": 3.0}
    for cell in stale:
        cell.set(7.0)  # a thread that has the handle still
    kept[0].set(2.0)
    counters.internal_gauge("dropped 1").set(1.0)
    assert counters.internal_gauges() == {"kept 0": 2.0, "kept 1": 3.0, "dropped 1": 1.0}

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("os.posix_fallocate", full)
        counters.drop_internal_gauges({"dropped 1"})
        kept[0].set(4.0)
    assert counters.internal_gauges() == {}  # this process's are missing at /metrics, as the log says
    assert not list(counters.directory.glob("*.new"))
    counters.drop_internal_gauges(set())
    assert counters.internal_gauges() == {"kept 0": 4.0, "kept 1": 3.0}


def test_dropped_gauges_of_one_process_stay_in_another(counters):
    for key in ("a", "b"):
        counters.internal_gauge(key).set(1.0)
    pid = os.fork()
    if pid == 0:
        try:
            counters.drop_internal_gauges({"a"})
            counters.internal_gauge("b").set(10.0)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert counters.internal_gauges() == {"a": 1.0, "b": 11.0}
    counters.merge_dead_processes(pid)
    assert counters.internal_gauges() == {"a": 1.0, "b": 1.0}
