"""Counters that all processes of a service share, and their sums."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import signal
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from service.telemetry.cell_file import CellFile
from service.telemetry.mmap_counters import MmapCounters


def library_sums(counts: MmapCounters) -> dict[tuple[str, ...], float]:
    """The sums over all processes by prometheus_client's own collector, which reads the same files."""
    return {
        (sample.name, *map("=".join, sorted(sample.labels.items()))): sample.value
        for family in MultiProcessCollector(None, str(counts.directory)).collect()
        for sample in family.samples
    }


@pytest.fixture
def counts(tmp_path: Path) -> MmapCounters:
    return MmapCounters(tmp_path)


def exposed(counts: MmapCounters) -> dict[tuple[str, ...], float]:
    """The same sums, parsed from our exposition."""
    return {
        (sample.name, *map("=".join, sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(counts.exposition())
        for sample in family.samples
    }


def in_a_child(task) -> None:
    """Run `task` in a forked process and kill it: nothing is flushed, nothing is closed."""
    pid = os.fork()
    if pid == 0:
        try:
            task()
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL


def merge_dead_processes(counts: MmapCounters) -> None:
    """Merge all processes except this one."""
    for pid in {int(file.stem.rpartition("_")[2]) for file in counts.directory.glob("*.db")} - {os.getpid()}:
        counts.merge_dead_processes(pid)


def test_counts_are_summed_over_processes_and_survive_a_kill(counts):
    answered = counts.counter("answered", "Requests answered.", ("status",))
    answered.labels("200").inc()

    def count() -> None:
        for _ in range(10):
            answered.labels("200").inc()
        answered.labels("503").inc()

    for _ in range(3):
        in_a_child(count)
    assert library_sums(counts) == {("answered_total", "status=200"): 31, ("answered_total", "status=503"): 3}


def test_gauge_of_a_dead_process_is_dropped(counts):
    busy = counts.gauge("busy", "Under way.").labels()
    busy.inc()
    in_a_child(lambda: busy.inc(5))
    assert library_sums(counts) == {("busy",): 6}
    merge_dead_processes(counts)
    assert library_sums(counts) == {("busy",): 1}


def test_counts_of_dead_processes_move_into_the_files_of_a_live_one(counts):
    answered = counts.counter("answered", "Requests answered.", ("status",))
    rows = counts.histogram("rows", "Rows.", (), (1.0, 2.5)).labels()

    def count() -> None:
        answered.labels("200").inc(3)
        rows.observe(2.0)

    count()
    for _ in range(3):
        in_a_child(count)
    before = library_sums(counts)
    merge_dead_processes(counts)
    assert library_sums(counts) == before
    assert before["answered_total", "status=200"] == 12
    assert {file.name for file in counts.directory.glob("*.db")} == {
        f"{kind}_{os.getpid()}.db" for kind in ("counter", "histogram")
    }
    count()
    assert library_sums(counts)["rows_count",] == 5


@pytest.mark.slow
def test_sum_stays_constant_while_counts_move(counts):
    answered = counts.counter("answered", "Requests answered.")
    for _ in range(30):
        in_a_child(lambda: answered.labels().inc())
    seen = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            seen.append(exposed(counts)["answered_total",])

    watcher = threading.Thread(target=watch)
    watcher.start()
    merge_dead_processes(counts)
    over.set()
    watcher.join()
    assert set(seen) == {30}


def test_exposition_equals_prometheus_clients_sums_after_every_change(counts):
    answered = counts.counter("answered", 'Requests "answered",\nby\\route.', ("route", "status"))
    busy = counts.gauge("busy", "Under way.").labels()
    spread = counts.histogram("spread", "Seconds.", ("model",), (0.001, 0.5, 2.0))
    alone = counts.histogram("alone", "Rows.", (), (1.0,))

    def count() -> None:
        busy.inc()
        answered.labels('a\\"b"\nc, d=}', "200").inc(3)
        answered.labels(f"/{os.getpid()}", "404").inc()
        for value in (0.0001, 0.5, 0.7, 9.0):
            spread.labels("größe").observe(value)
        alone.labels().observe(1.0)

    for _ in range(3):
        count()
        in_a_child(count)
        assert exposed(counts) == library_sums(counts)
    for number in range(1000):  # beyond the first mapping
        answered.labels(f"/{number}", "200").inc(number)
    assert exposed(counts) == library_sums(counts)
    merge_dead_processes(counts)
    assert exposed(counts) == library_sums(counts)
    assert exposed(counts)["busy",] == 3
    assert len(exposed(counts)) > 1000
    kinds = {
        family.name: (family.type, family.documentation)
        for family in text_string_to_metric_families(counts.exposition())
    }
    assert kinds["answered"] == ("counter", 'Requests "answered",\nby\\route.')
    assert {name: kind for name, (kind, _) in kinds.items()} == {
        "answered": "counter",
        "busy": "gauge",
        "spread": "histogram",
        "alone": "histogram",
    }


def test_file_of_a_reused_pid_is_read_anew(tmp_path):
    reader = MmapCounters(tmp_path)
    path = tmp_path / "counter_77777.db"
    for name in ("first", "other"):
        made = MmapCounters(tmp_path / name)
        (tmp_path / name).mkdir()
        made.counter(name, "A number.").labels().inc(5)
        (tmp_path / name / f"counter_{os.getpid()}.db").rename(path)
        assert f"{name}_total 5.0" in reader.exposition()
    assert "first_total 0.0" in reader.exposition()


def test_internal_gauges_are_summed_over_live_processes_and_not_exposed(counts):
    share = counts.internal_gauge('["houses", 1, "größe", 0]')
    share.set(5.0)
    in_a_child(lambda: share.set(2.0))
    assert counts.internal_gauges() == {'["houses", 1, "größe", 0]': 7.0}
    assert library_sums(counts) == {}
    (of_the_child,) = [
        int(file.stem.partition("_")[2])
        for file in counts.directory.glob("*.cells")
        if str(os.getpid()) not in file.name
    ]
    counts.merge_dead_processes(of_the_child)
    assert counts.internal_gauges() == {'["houses", 1, "größe", 0]': 5.0}


def test_value_at_a_bound_counts_in_the_bucket_below(counts):
    rows = counts.histogram("rows", "Rows.", ("model",), (1.0, 2.5)).labels("xor")
    for value in (0.5, 1.0, 1.1, 2.5, 2.6, 100.0):
        rows.observe(value)
    assert library_sums(counts) == {
        ("rows_bucket", "le=1.0", "model=xor"): 2,
        ("rows_bucket", "le=2.5", "model=xor"): 4,
        ("rows_bucket", "le=+Inf", "model=xor"): 6,
        ("rows_count", "model=xor"): 6,
        ("rows_sum", "model=xor"): pytest.approx(107.7),
    }


def test_counters_keep_counting_after_their_file_grows(counts):
    answered = counts.counter("answered", "Requests answered.", ("route",))
    first = answered.labels("/first")
    first.inc()
    for number in range(2000):
        answered.labels(f"/{number}").inc(number)
    first.inc()
    found = library_sums(counts)
    assert found["answered_total", "route=/first"] == 2
    assert found["answered_total", "route=/1999"] == 1999
    assert len(found) == 2001


def test_without_space_counting_continues_in_private_memory_and_is_logged(counts, monkeypatch, caplog):
    """Writing to a page that the file system cannot allocate would raise SIGBUS."""
    answered = counts.counter("answered", "Requests answered.", ("route",))
    first = answered.labels("/first")
    first.inc()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.posix_fallocate", full)
    with caplog.at_level(logging.ERROR, "service"):
        for number in range(2000):
            answered.labels(f"/{number}").inc()
        counts.counter("asked", "Requests.").labels().inc()
        counts.histogram("seconds", "Seconds.", (), (1.0,)).labels().observe(0.5)
    first.inc()
    found = library_sums(counts)
    assert found["answered_total", "route=/first"] == 2
    assert 1 < len(found) < 2000
    assert not list(counts.directory.glob("*.new"))
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2  # once per file
    assert all("No space left on device" in line for line in messages)


def test_process_with_a_reused_pid_adds_to_the_earlier_counts(tmp_path):
    for _ in range(2):
        counts = MmapCounters(tmp_path)
        counts.counter("answered", "Requests answered.", ("route",)).labels("/café").inc()
        counts.counter("asked", "Requests.").labels().inc(2)
    assert library_sums(counts) == {("answered_total", "route=/café"): 2, ("asked_total",): 4}


def test_concurrent_threads_lose_no_count(counts):
    answered = counts.counter("answered", "Requests answered.").labels()
    spread = counts.histogram("spread", "Spread.", (), (0.5,)).labels()

    def count() -> None:
        for _ in range(20_000):
            answered.inc()
            spread.observe(1.0)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = library_sums(counts)
    assert (found["answered_total",], found["spread_count",], found["spread_sum",]) == (80_000, 80_000, 80_000)


def test_default_directory_is_deleted_with_its_counters():
    counts = MmapCounters()
    location = counts.directory
    counts.counter("answered", "Requests answered.").labels().inc()
    assert list(location.iterdir())
    del counts
    assert not location.exists()


@pytest.mark.parametrize("lives", ["no process", "a worker"])
def test_next_start_deletes_the_directory_of_a_killed_service_once_all_its_processes_ended(tmp_path, lives):
    """Otherwise a service that the system kills repeatedly would fill the memory."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            counts = MmapCounters(parent=str(tmp_path))
            counts.counter("answered", "Requests answered.").labels().inc()
            os.close(writer)
            if lives == "a worker" and os.fork() == 0:
                os.read(reader, 1)  # until the test ends
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.close(reader)
    try:
        os.waitpid(pid, 0)
        (left,) = tmp_path.iterdir()
        other = MmapCounters(parent=str(tmp_path))
        assert left.exists()  # too new to be stale
        for directory in (left, other.directory):
            os.utime(directory / "held", (1, 1))
        MmapCounters(parent=str(tmp_path))
        assert left.exists() == (lives == "a worker")
        assert other.directory.exists()
    finally:
        os.close(writer)


def test_internal_gauge_of_the_same_key_is_the_same_cell(counts):
    assert counts.internal_gauge("bin") is counts.internal_gauge("bin")


def test_new_file_is_never_read_empty(counts):
    """A thousand files are made during reads; without the rename, a dozen of them were read empty."""
    counts.counter("answered", "Requests answered.").labels().inc()
    pid = os.fork()
    if pid == 0:
        try:
            for number in range(1000):
                CellFile(counts.directory, f"kind{number}")._path.rename(counts.directory / f"gone{number}")
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        with suppress(FileNotFoundError):  # it was renamed meanwhile
            counts.exposition()


def test_counts_by_version_are_summed_over_processes(counts):
    rows = counts.counter("rows", "Rows.", ("model", "version"))
    stages = counts.histogram("stage", "Seconds.", ("stage", "model", "version"), (1.0, 2.5))
    counts.counter("answered", "Requests answered.", ("status", "model", "version")).labels("200", "m", "1").inc()
    errors = counts.counter("errors", "Answers that were errors.", ("code", "model", "version"))
    for code in ("bad_json", "invalid_request"):
        errors.labels(code, "m", "1").inc()

    def count() -> None:
        rows.labels("m", "1").inc(3)
        for seconds in (0.5, 2.0, 9.0):
            stages.labels("parse", "m", "1").observe(seconds)

    count()
    in_a_child(count)
    rows.labels("m", "2").inc()
    assert counts.by_version() == {
        ("m", "1"): {"rows_total": 6, "stage_count:parse": 6, "stage_sum:parse": 23, "errors_total": 2},
        ("m", "2"): {"rows_total": 1},
    }


def test_merging_does_not_wait_for_a_process_that_hangs_while_reading(counts):
    """A worker may be stopped while it reads, and the master that would replace it must not wait."""
    answered = counts.counter("answered", "Requests answered.")
    in_a_child(lambda: answered.labels().inc())
    (left,) = counts.directory.glob("counter_*.db")
    pid = int(left.stem.rpartition("_")[2])
    with counts._locked(fcntl.LOCK_SH):
        counts.merge_dead_processes(pid)
        assert left.exists()
    counts.merge_dead_processes()
    assert not left.exists()
    assert exposed(counts) == {("answered_total",): 1}
