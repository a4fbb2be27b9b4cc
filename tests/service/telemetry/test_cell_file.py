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
