"""Rows/s of batch scoring from Parquet to Parquet: one Dask worker, two, and one and two processes without Dask.

    python -m benchmarks.batch_scoring [STORE] [ROWS] [ROUNDS] [ROWS OF A PART]
    python -m benchmarks.batch_scoring tasks       # processor time of client and scheduler for a task

Each round scores the same parts with each contestant, in alternating order. A machine with other work gives two workers
less than two cores, which the column `cores` shows; rows for each second of processor time do not depend on it much.
Two processes without Dask, each with half of the parts, are the most that two workers could reach on this machine.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from benchmarks.rounds import machine, unpin
from model_store.artifact.model import Model
from model_store.batch import cluster
from model_store.batch.job import BatchJob, score_here
from model_store.batch.model_source import ModelSource
from model_store.batch.plan import BatchOptions, Part, ScoredModel, make_plan
from model_store.batch.scoring import PartResult
from model_store.registry.store import open_store
from model_store.storage.input_files import InputFile, list_input_files

ROW_GROUP = 100_000
MODEL = "penguins"


def make_rows(rows: int) -> Any:
    """Return rows like those of examples/penguins.csv, with an id."""
    rng = np.random.default_rng(0)
    means = {"bill_length_mm": 44, "bill_depth_mm": 17, "flipper_length_mm": 200, "body_mass_g": 4200}
    numbers = {name: rng.normal(mean, mean / 10, rows).round(1) for name, mean in means.items()}
    words = {"island": ["Dream", "Biscoe", "Torgersen"], "sex": ["MALE", "FEMALE"]}
    texts = {name: rng.choice(values, rows) for name, values in words.items()}
    return pa.table({"id": np.arange(rows), **numbers, **texts})


def unchecked(_: Any) -> None:
    """Accept any table."""


@cache
def loaded(source: ModelSource) -> Model:
    return source.load()


def score_share(job: BatchJob, parts: list[Part], source: ModelSource) -> tuple[int, float]:
    """Return the rows that a process without Dask has scored, and the processor time that it has used."""
    return sum(result.rows for result in score_here(job, parts, loaded(source))), time.process_time()


class Contestants:
    """Ways to score the same parts, each into a new folder."""

    def __init__(self, store: str, folder: Path, rows: int, part_rows: int, opened: ExitStack) -> None:
        self.folder, self.rows = folder, rows
        version, _ = open_store(store).manifest(MODEL, open_store(store).resolve(MODEL))
        self.source = ModelSource(store, ScoredModel(MODEL, version.number, version.digest))
        self.model = self.source.load()
        parquet.write_table(make_rows(rows), folder / "rows.parquet", row_group_size=part_rows)
        files, options = list_input_files([str(folder / "rows.parquet")]), BatchOptions(("id",))
        self.plan = make_plan(self.source.model, files, options, unchecked)
        self.clients = {count: opened.enter_context(cluster.connect(f"local:{count}")) for count in (1, 2)}
        for client in self.clients.values():
            client.register_plugin(cluster.ShipModel(self.source))
        # One for each process, so that each gets a share: a pool of two may give both shares to the first.
        processes = (ProcessPoolExecutor(1, get_context("spawn")) for _ in range(2))
        self.processes = [opened.enter_context(process) for process in processes]
        self.used = [0.0, 0.0]

    def here(self) -> Mapping[str, float]:
        return self._measure(lambda job: score_here(job, job.missing_parts(), self.model), time.process_time)

    def dask(self, count: int) -> Mapping[str, float]:
        client = self.clients[count]
        return self._measure(
            lambda job: cluster.score_all(client, partial(cluster.score_in_worker, job.part_job), job.missing_parts()),
            lambda: sum(client.run(time.process_time).values()),
        )

    def two_processes(self) -> Mapping[str, float]:
        def score(job: BatchJob) -> Iterator[PartResult]:
            parts = job.missing_parts()
            shares = [parts[index :: len(self.processes)] for index in range(len(self.processes))]
            waiting = [
                process.submit(score_share, job, share, self.source)
                for process, share in zip(self.processes, shares, strict=True)
            ]
            for index, future in enumerate(waiting):
                rows, self.used[index] = future.result()
                yield PartResult(index, rows)

        return self._measure(score, lambda: sum(self.used))

    def _measure(self, score: Callable[[BatchJob], Any], processor_time: Callable[[], float]) -> Mapping[str, float]:
        job = BatchJob(self.plan, str(self.folder / "out"))
        used, started = processor_time(), time.perf_counter()
        done = sum(result.rows for result in score(job))
        seconds, used = time.perf_counter() - started, processor_time() - used
        if done != self.rows:
            raise RuntimeError(f"expected {self.rows} rows, found {done}")
        shutil.rmtree(self.folder / "out")
        return {"rows/s": done / seconds, "cores": used / seconds, "rows per processor second": done / used}


def main(store: str = "models", rows: int = 2_000_000, rounds: int = 5, part_rows: int = ROW_GROUP) -> None:
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        contestants = Contestants(store, folder, rows, part_rows, opened)
        ways: dict[str, Callable[[], Mapping[str, float]]] = {
            "one process": contestants.here,
            "two processes": contestants.two_processes,
            "one worker": lambda: contestants.dask(1),
            "two workers": lambda: contestants.dask(2),
        }
        size = (folder / "rows.parquet").stat().st_size
        print(f"Batch scoring of {rows:,} rows, {size / rows:.1f} bytes a row, {rounds} alternating rounds")
        print(machine())
        measured: dict[str, list[Mapping[str, float]]] = {name: [] for name in ways}
        for way in ways.values():
            way()  # warm up: imports, and the file in the page cache
        for turn in range(rounds):
            first = turn % len(ways)
            names = list(ways)[first:] + list(ways)[:first]
            for name in names:
                measured[name].append(ways[name]())
            print(f"round {turn + 1}: load {os.getloadavg()[0]:.1f}", flush=True)
        keys = ("rows/s", "cores", "rows per processor second")
        print(" " * 13, *(f"{key:>26}" for key in keys))
        for name, found in measured.items():
            print(f"{name:>13}", *(f"{median(one[key] for one in found):>26,.2f}" for key in keys))
        for two, one in (("two processes", "one process"), ("two workers", "one worker")):
            for key, factor in (("rows/s", 1), ("rows per processor second", 2)):
                pairs = zip(measured[two], measured[one], strict=True)
                ratios = sorted(factor * each[key] / single[key] for each, single in pairs)
                what = f"{two} to {one}" if factor == 1 else "the same with a core for each"
                print(f"{what}: median {median(ratios):.2f}x, {ratios[0]:.2f} to {ratios[-1]:.2f}")


def score_nothing(part: Part) -> PartResult:
    return PartResult(part.number)


def measure_tasks(count: int = 400) -> None:
    """Print the processor time of this process, which client and scheduler run in, for a task that does nothing."""
    parts = [Part(i, InputFile("s3://bucket/in/rows.parquet", 1, "0" * 32), i) for i in range(count)]
    with cluster.connect("local:2") as client:
        for _ in range(3):
            used, started = time.process_time(), time.perf_counter()
            done = sum(1 for _ in cluster.score_all(client, score_nothing, parts))
            used, seconds = time.process_time() - used, time.perf_counter() - started
            print(f"{done} tasks in {seconds:.1f} s: {1000 * used / done:.1f} ms of client and scheduler a task")


if __name__ == "__main__":
    unpin()
    if sys.argv[1:] == ["tasks"]:
        measure_tasks()
    else:
        main(*(sys.argv[1:2] or ["models"]), *map(int, sys.argv[2:]))
