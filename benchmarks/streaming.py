"""Streaming: 18 million rows of a table trained from disk, in how much memory, and how fast beside rows in memory.

    python -m benchmarks.streaming [ROWS] [TABLE.parquet]

Each job runs in a process of its own, whose peak is the kernel's (VmHWM). The speeds are those of epochs over the same
encoded rows by the same `train`, in alternating rounds in one process, files warm. The table is like a year of flights,
or the one given, repeated.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from time import perf_counter

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet
from threadpoolctl import threadpool_limits

from benchmarks.rounds import alternate, machine
from training import SGD
from training import train as train_network
from training.job import Prepared, fit, from_dict, prepare
from training.trainer import Progress, Samples

ROWS, ROUNDS, PIECE = 18_000_000, 3, 500_000
AIRPORTS = [f"A{i:02}" for i in range(20)]


def flights(rows: int) -> Iterator[pa.Table]:
    """Tables of flights: what is known before one, and by how many minutes it was late."""
    rng = np.random.default_rng(0)
    while rows:
        count = min(rows, PIECE)
        distance = rng.gamma(3, 250, count).round()
        minute, origin, destination = rng.integers(0, 1440, count), *rng.integers(0, len(AIRPORTS), (2, count))
        delay = 10 * np.sin(minute / 229) + distance / 200 + origin - destination + rng.standard_normal(count) * 8
        names = pa.array(AIRPORTS)
        yield pa.table(
            {
                "distance": distance,
                "minute": minute,
                "origin": names.take(pa.array(origin)),
                "destination": names.take(pa.array(destination)),
                "delay": delay.round(),
            }
        )
        rows -= count


def repeated(path: Path, rows: int) -> Iterator[pa.Table]:
    """A table's columns of numbers and texts, again and again."""
    while rows:
        for batch in parquet.ParquetFile(path).iter_batches(PIECE):
            table = pa.table(batch)
            keep = [f.name for f in table.schema if not (pa.types.is_temporal(f.type))]
            table = table.select(keep).slice(0, min(rows, len(table)))
            rows -= len(table)
            if len(table):
                yield table


def write(tables: Iterator[pa.Table], folder: Path) -> None:
    first = next(tables)
    with (
        parquet.ParquetWriter(folder / "t.parquet", first.schema) as one,
        csv.CSVWriter(folder / "t.csv", first.schema) as other,
    ):
        for table in chain([first], tables):
            one.write_table(table)
            other.write_table(table)


def job(path: Path) -> Prepared:
    data = {"path": path.name, "target": "delay", "task": "regression", "stream": True, "unknown": "bucket"}
    content = {
        "model": {"name": "flights"},
        "data": data,
        "network": {"layers": [32, "tanh"]},
        "train": {"epochs": 1, "batch_size": 256, "learning_rate": 0.01},
    }
    return prepare(from_dict(content, path.parent))


def memory(path: Path) -> dict[str, float]:
    """One job, from the file to its metrics."""
    begin = perf_counter()
    prepared = job(path)
    read = perf_counter() - begin
    fit(prepared)
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    found = {"read": read, "all": perf_counter() - begin, "peak": int(line.split()[1]) / 1024}
    return {**found, "rows": sum(prepared.sizes.values()), "width": prepared.signature.width}


def speed(path: Path) -> dict[str, float]:
    """Rows a second of an epoch from the disk and of one from memory."""
    prepared = job(path)
    blocks = prepared.samples
    x = np.empty((len(blocks), prepared.signature.width), prepared.design.dtype)
    y = np.empty((len(blocks), 1), x.dtype)
    at = 0
    for xs, ys, _, _ in blocks.epoch(Progress(prepared.design.network(np.random.default_rng(0))), 256):
        x[at : at + len(xs)], y[at : at + len(ys)] = xs, ys
        at += len(xs)

    def contestant(samples: Samples) -> Callable[[], dict[str, float]]:
        rng = np.random.default_rng(0)
        network = prepared.design.network(rng)
        optimizer, loss = SGD(network), prepared.design.criterion()

        def measure() -> dict[str, float]:
            begin = perf_counter()
            train_network(network, samples, None, loss, optimizer, 1, 256, rng=rng, on_epoch=None)
            return {"speed": len(samples) / (perf_counter() - begin)}

        return measure

    with threadpool_limits(1, user_api="blas"):
        found = alternate({"stream": contestant(blocks), "memory": contestant(Samples(x, y))}, ROUNDS)
        print(machine(), file=sys.stderr)
    return {"stream": found["stream"]["speed"], "memory": found["memory"]["speed"]}


def alone(task: str, path: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.streaming", task, str(path)]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return found


def main() -> None:
    if sys.argv[1:2] in (["memory"], ["speed"]):
        task = memory if sys.argv[1] == "memory" else speed
        print(json.dumps(task(Path(sys.argv[2]))))
        return
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(repeated(Path(sys.argv[2]), rows) if len(sys.argv) > 2 else flights(rows), folder)
        print(f"Streaming, one epoch over {rows:,} rows, batch 256, each job in a process of its own")
        print(f"{'file':>10} {'size':>9} {'features':>9} {'read':>7} {'in all':>7} {'peak memory':>12}")
        for kind in ("parquet", "csv"):
            path = folder / f"t.{kind}"
            found = alone("memory", path)
            size = path.stat().st_size >> 20
            print(
                f"{kind:>10} {size:>6} MB {found['width']:>9} {found['read']:>5.0f} s {found['all']:>5.0f} s "
                f"{found['peak']:>9,.0f} MB"
            )
        found = alone("speed", folder / "t.parquet")
        ratio = found["stream"] / found["memory"]
        print(f"An epoch, rows/s, median of {ROUNDS} alternating rounds: {found['stream']:,.0f} streamed, ", end="")
        print(f"{found['memory']:,.0f} from memory, {ratio:.2f}x")


if __name__ == "__main__":
    main()
