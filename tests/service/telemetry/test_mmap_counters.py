"""Counters that all processes of a service share, and their sums."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import threading

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.telemetry.mmap_counters import CountsUnavailableError, MmapCounters
from tests.service.telemetry.conftest import library_sums


def exposed(counters: MmapCounters) -> dict[tuple[str, ...], float]:
    """The same sums, parsed from our exposition."""
    return {
        (sample.name, *map("=".join, sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(counters.exposition())
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


def merge_dead_processes(counters: MmapCounters) -> None:
    """Merge all processes except this one."""
    for pid in {int(file.stem.rpartition("_")[2]) for file in counters.directory.glob("*.db")} - {os.getpid()}:
        counters.merge_dead_processes(pid)


def test_counts_are_summed_over_processes_and_survive_a_kill(counters):
    answered = counters.counter("answered", "Requests answered.", ("status",))
    answered.labels("200").inc()

    def count() -> None:
        for _ in range(10):
            answered.labels("200").inc()
        answered.labels("503").inc()

    for _ in range(3):
        in_a_child(count)
    assert library_sums(counters) == {("answered_total", "status=200"): 31, ("answered_total", "status=503"): 3}


def test_gauge_of_a_dead_process_is_dropped(counters):
    busy = counters.gauge("busy", "Under way.").labels()
    busy.inc()
    in_a_child(lambda: busy.inc(5))
    assert library_sums(counters) == {("busy",): 6}
    merge_dead_processes(counters)
    assert library_sums(counters) == {("busy",): 1}


def test_counts_of_dead_processes_move_into_the_files_of_a_live_one(counters):
    answered = counters.counter("answered", "Requests answered.", ("status",))
    rows = counters.histogram("rows", "Rows.", (), (1.0, 2.5)).labels()

    def count() -> None:
        answered.labels("200").inc(3)
        rows.observe(2.0)

    count()
    for _ in range(3):
        in_a_child(count)
    before = library_sums(counters)
    merge_dead_processes(counters)
    assert library_sums(counters) == before
    assert before["answered_total", "status=200"] == 12
    assert {file.name for file in counters.directory.glob("*.db")} == {
        f"{kind}_{os.getpid()}.db" for kind in ("counter", "histogram")
    }
    count()
    assert library_sums(counters)["rows_count",] == 5


@pytest.mark.slow
def test_sum_stays_constant_while_counts_move(counters):
    answered = counters.counter("answered", "Requests answered.")
    for _ in range(30):
        in_a_child(lambda: answered.labels().inc())
    seen = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            seen.append(exposed(counters)["answered_total",])

    watcher = threading.Thread(target=watch)
    watcher.start()
    merge_dead_processes(counters)
    over.set()
    watcher.join()
    assert set(seen) == {30}


def test_exposition_equals_prometheus_clients_sums_after_every_change(counters):
    answered = counters.counter("answered", 'Requests "answered",\nby\\route.', ("route", "status"))
    busy = counters.gauge("busy", "Under way.").labels()
    spread = counters.histogram("spread", "Seconds.", ("model",), (0.001, 0.5, 2.0))
    alone = counters.histogram("alone", "Rows.", (), (1.0,))

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
        assert exposed(counters) == library_sums(counters)
    for number in range(1000):  # beyond the first mapping
        answered.labels(f"/{number}", "200").inc(number)
    assert exposed(counters) == library_sums(counters)
    merge_dead_processes(counters)
    assert exposed(counters) == library_sums(counters)
    assert exposed(counters)["busy",] == 3
    assert len(exposed(counters)) > 1000
    kinds = {
        family.name: (family.type, family.documentation)
        for family in text_string_to_metric_families(counters.exposition())
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


def test_internal_gauges_are_summed_over_live_processes_and_not_exposed(counters):
    share = counters.internal_gauge('["houses", 1, "größe", 0]')
    share.set(5.0)
    in_a_child(lambda: share.set(2.0))
    assert counters.internal_gauges() == {'["houses", 1, "größe", 0]': 7.0}
    assert library_sums(counters) == {}
    (of_the_child,) = [
        int(file.stem.partition("_")[2])
        for file in counters.directory.glob("*.cells")
        if str(os.getpid()) not in file.name
    ]
    counters.merge_dead_processes(of_the_child)
    assert counters.internal_gauges() == {'["houses", 1, "größe", 0]': 5.0}


def test_value_at_a_bound_counts_in_the_bucket_below(counters):
    rows = counters.histogram("rows", "Rows.", ("model",), (1.0, 2.5)).labels("xor")
    for value in (0.5, 1.0, 1.1, 2.5, 2.6, 100.0):
        rows.observe(value)
    assert library_sums(counters) == {
        ("rows_bucket", "le=1.0", "model=xor"): 2,
        ("rows_bucket", "le=2.5", "model=xor"): 4,
        ("rows_bucket", "le=+Inf", "model=xor"): 6,
        ("rows_count", "model=xor"): 6,
        ("rows_sum", "model=xor"): pytest.approx(107.7),
    }


def test_concurrent_threads_lose_no_count(counters):
    answered = counters.counter("answered", "Requests answered.").labels()
    spread = counters.histogram("spread", "Spread.", (), (0.5,)).labels()

    def count() -> None:
        for _ in range(20_000):
            answered.inc()
            spread.observe(1.0)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = library_sums(counters)
    assert (found["answered_total",], found["spread_count",], found["spread_sum",]) == (80_000, 80_000, 80_000)


def test_default_directory_is_deleted_with_its_counters():
    counters = MmapCounters()
    location = counters.directory
    counters.counter("answered", "Requests answered.").labels().inc()
    assert list(location.iterdir())
    del counters
    assert not location.exists()


@pytest.mark.parametrize("lives", ["no process", "a worker"])
def test_next_start_deletes_the_directory_of_a_killed_service_once_all_its_processes_ended(tmp_path, lives):
    """Otherwise a service that the system kills repeatedly would fill the memory."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            counters = MmapCounters(parent=str(tmp_path))
            counters.counter("answered", "Requests answered.").labels().inc()
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


def test_internal_gauge_of_the_same_key_is_the_same_cell(counters):
    assert counters.internal_gauge("bin") is counters.internal_gauge("bin")


def test_counts_by_version_are_summed_over_processes(counters):
    rows = counters.counter("rows", "Rows.", ("model", "version"))
    stages = counters.histogram("stage", "Seconds.", ("stage", "model", "version"), (1.0, 2.5))
    counters.counter("answered", "Requests answered.", ("status", "model", "version")).labels("200", "m", "1").inc()
    errors = counters.counter("errors", "Answers that were errors.", ("code", "model", "version"))
    for code in ("bad_json", "invalid_request"):
        errors.labels(code, "m", "1").inc()

    def count() -> None:
        rows.labels("m", "1").inc(3)
        for seconds in (0.5, 2.0, 9.0):
            stages.labels("parse", "m", "1").observe(seconds)

    count()
    in_a_child(count)
    rows.labels("m", "2").inc()
    assert counters.totals_by_model_version() == {
        ("m", "1"): {"rows_total": 6, "stage_count:parse": 6, "stage_sum:parse": 23, "errors_total": 2},
        ("m", "2"): {"rows_total": 1},
    }


def test_merging_does_not_wait_for_a_process_that_hangs_while_reading(counters):
    """A worker may be stopped while it reads, and the master that would replace it must not wait."""
    answered = counters.counter("answered", "Requests answered.")
    in_a_child(lambda: answered.labels().inc())
    (left,) = counters.directory.glob("counter_*.db")
    pid = int(left.stem.rpartition("_")[2])
    with counters._locked(fcntl.LOCK_SH):
        counters.merge_dead_processes(pid)
        assert left.exists()
    counters.merge_dead_processes()
    assert not left.exists()
    assert exposed(counters) == {("answered_total",): 1}


def test_a_removed_directory_stops_the_scrape_and_nothing_else(tmp_path, caplog):
    """It ended the master with all workers once one of them died."""
    counters = MmapCounters(parent=str(tmp_path))
    answered = counters.counter("answered", "Requests answered.")
    answered.labels().inc()
    shutil.rmtree(counters.directory)
    counters.merge_dead_processes(12345)
    assert "the counts of processes that ended are lost: cannot read the counts in" in caplog.text
    for read in (counters.exposition, counters.internal_gauges, counters.totals_by_model_version):
        with pytest.raises(CountsUnavailableError, match=r"cannot read the counts in .*: No such file"):
            read()

    def count_on() -> None:
        answered.labels().inc()
        counters.counter("more", "More.").labels().inc()

    in_a_child(count_on)
    count_on()
