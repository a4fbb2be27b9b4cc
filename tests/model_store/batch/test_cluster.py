"""Batch scoring on Dask: processes of this machine, a scheduler elsewhere, and workers and clients that are killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from pyarrow import parquet

from model_store.registry.store import Store, open_store
from tests.model_store.batch.batch_inputs import ROOT, part_digests, start, write_files
from tests.model_store.conftest import chess
from tests.service.server.server_process import Server, free_port

pytestmark = pytest.mark.slow

KILLS = 20
PATIENCE_SECONDS = 3600


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = open_store(tmp_path / "models")
    store.publish("chess", chess())
    return store


def run(store: Store, folder: Path, *arguments: str, code: int = 0) -> str:
    process = start(store.root, folder, *arguments)
    assert process.wait(PATIENCE_SECONDS) == code, (folder / "predict.log").read_text()
    return (folder / "predict.log").read_text()


def workers_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Return the worker processes of a client with a local cluster."""
    try:
        children = psutil.Process(process.pid).children(recursive=True)
        return [child for child in children if any("spawn_main" in word for word in child.cmdline())]
    except psutil.NoSuchProcess:
        return []


class OutputFolder:
    """Parts as they appear: each must stay the file that it was when it was seen first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen: dict[str, tuple[int, int]] = {}

    def look(self) -> int:
        """Return the number of parts."""
        for entry in os.scandir(self.path) if self.path.exists() else ():
            if entry.name.startswith("part-"):
                status = entry.stat()
                identity = (status.st_ino, status.st_mtime_ns)
                assert self.seen.setdefault(entry.name, identity) == identity, entry.name
        return len(self.seen)


def test_twenty_kills_of_workers_and_clients_leave_each_part_exactly_once(store: Store, tmp_path: Path) -> None:
    """The output equals, part by part, that of one process; and row by row the answers of a server."""
    inputs, rng = write_files(tmp_path / "in", files=4, groups=100, rows=250), random.Random(time.time_ns())
    words = ("chess/1", f"{inputs}/*.parquet", "--keep", "id,age,town", "--output")
    killed, output = {"worker": 0, "client": 0}, OutputFolder(tmp_path / "out")
    arguments = (*words, f"{output.path}/", "--cluster", "local:2")
    client, deadline = start(store.root, tmp_path, *arguments), time.monotonic() + PATIENCE_SECONDS
    while sum(killed.values()) < KILLS:
        parts = output.look() + rng.randrange(2, 12)
        while output.look() < parts:
            assert client.poll() is None, (tmp_path / "predict.log").read_text()
            assert time.monotonic() < deadline, (killed, output.look())
            time.sleep(0.005)
        victim = "client" if rng.random() < 0.3 else "worker"
        if victim == "client":
            client.kill()
            client.wait(30)
            client = start(store.root, tmp_path, *arguments)
        elif workers := workers_of(client):
            rng.choice(workers).kill()
        else:
            continue
        killed[victim] += 1
    assert client.wait(PATIENCE_SECONDS) == 0, (tmp_path / "predict.log").read_text()
    assert output.look() == 400
    assert (output.path / "_SUCCESS").exists()
    assert sorted(path.name for path in output.path.iterdir() if path.name not in output.seen) == [
        "_SUCCESS",
        "_job.json",
    ]

    run(store, tmp_path, *words, f"{tmp_path}/one/")
    assert part_digests(output.path) == part_digests(tmp_path / "one")
    check_against_a_server(store, tmp_path, output.path)


def check_against_a_server(store: Store, tmp_path: Path, output: Path) -> None:
    """Compare all rows of a job with the predictions of a running service."""
    (tmp_path / "server").mkdir()
    server = Server(store, tmp_path / "server")
    try:
        rows = parquet.read_table(output).to_pylist()
        assert len(rows) == 100_000
        for at in range(0, len(rows), 5000):
            some = rows[at : at + 5000]
            instances = [{"age": row["age"], "town": row["town"]} for row in some]
            status, answer = server.ask("POST", "/models/chess/versions/1/predict", {"instances": instances})
            assert status == 200, answer
            for row, prediction in zip(some, answer["predictions"], strict=True):
                probabilities = {label: row[f"probability_{label}"] for label in ("no", "yes")}
                assert {"label": row["chess"], "probabilities": probabilities} == prediction
    finally:
        server.process.kill()
        server.process.wait(30)


@contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """Start a scheduler and two workers that share no cache with the client. Yield the scheduler's address."""
    folder.mkdir()
    address = f"tcp://127.0.0.1:{free_port()}"
    environ = os.environ | {"XDG_CACHE_HOME": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    scheduler = ("scheduler", "--host", address, "--no-dashboard", "--no-show")
    worker = ("worker", address, "--nworkers", "2", "--nthreads", "1", "--no-dashboard")
    with (folder / "log").open("wb") as log:
        processes = [
            subprocess.Popen([sys.executable, "-m", "dask", *words], cwd=folder, env=environ, stdout=log, stderr=log)
            for words in (scheduler, worker)
        ]
    try:
        yield address
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGINT)
            process.wait(60)


def test_a_scheduler_elsewhere_gets_the_model_and_the_parts(store: Store, tmp_path: Path) -> None:
    inputs = write_files(tmp_path / "in", files=2, groups=5, rows=100)
    words = ("chess/1", f"{inputs}/", "--keep-all", "--output")
    with cluster(tmp_path / "elsewhere") as address:
        run(store, tmp_path, *words, f"{tmp_path}/out/", "--cluster", address)
        run(store, tmp_path, *words, f"{tmp_path}/again/", "--cluster", address)
    run(store, tmp_path, *words, f"{tmp_path}/one/")
    assert part_digests(tmp_path / "out") == part_digests(tmp_path / "again") == part_digests(tmp_path / "one")
    copies = list((tmp_path / "elsewhere" / "cache").rglob("*.npz"))
    assert [copy.read_bytes() for copy in copies] == [(store.root / "chess" / "1.npz").read_bytes()]


def test_an_invalid_row_on_a_cluster_is_named_and_the_other_parts_are_written(store: Store, tmp_path: Path) -> None:
    inputs = write_files(tmp_path / "in", files=1, groups=5, rows=100)
    (inputs / "rows.csv").write_text("age,town\nold,Bath\n")
    log = run(store, tmp_path, "chess/1", f"{inputs}/", "--output", f"{tmp_path}/out/", "--cluster", "local:1", code=3)
    assert "rows.csv line 2, column age: expected a number, found 'old'" in log
    assert len(part_digests(tmp_path / "out")) == 5


def test_without_a_scheduler_the_error_says_how_to_start_one(store: Store, tmp_path: Path, monkeypatch) -> None:
    inputs = write_files(tmp_path / "in", files=1, groups=1, rows=10)
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT", "1s")
    words = ("chess/1", f"{inputs}/", "--output", f"{tmp_path}/out/", "--cluster", f"tcp://127.0.0.1:{free_port()}")
    log = run(store, tmp_path, *words, code=5)
    assert "expected a Dask scheduler with workers, found none" in log
    assert "dask worker tcp://" in log
