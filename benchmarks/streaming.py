"""Streaming: memory and speed of training on 18 million rows from disk, against rows in memory.

    python -m benchmarks.streaming [ROWS] [TABLE.parquet]

Each job runs in a process of its own, whose peak is the kernel's (VmHWM). The speeds are those of epochs over the same
encoded rows by the same `train`, in alternating rounds in one process, files warm. The table, as Parquet and as CSV, is
like a year of flights, or the one given, repeated; the .npz file has 30 float32 a row, the IDX files 8 by 8 pixels.
"""

import json
import os
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet
from threadpoolctl import threadpool_limits

from benchmarks.rounds import alternate, machine, unpin
from training import SGD
from training import train as train_network
from training.engine.loop import Samples, TrainingState
from training.pipeline.job import PreparedJob, from_dict, prepare, train_and_evaluate

ROWS, ROUNDS, PIECE = 18_000_000, 5, 500_000
AIRPORTS = [f"A{i:02}" for i in range(20)]


def flights(rows: int) -> Iterator[pa.Table]:
    """Yield tables of flights: facts known before the flight, and the delay in minutes."""
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
    """Yield a table's columns of numbers and texts repeatedly."""
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


def write_arrays(rows: int, folder: Path) -> None:
    """Write an .npz file and a pair of IDX files with ten classes, piece by piece."""
    pieces = [min(PIECE, rows - start) for start in range(0, rows, PIECE)]

    def each(seed: int, draw: Callable[[np.random.Generator, int], Any]) -> Iterator[Any]:
        rng = np.random.default_rng(seed)
        return (draw(rng, count) for count in pieces)

    labels = [rng.integers(0, 10, count, np.uint8) for rng in [np.random.default_rng(1)] for count in pieces]
    with zipfile.ZipFile(folder / "t.npz", "w") as archive:
        for key, shape, kind, values in (
            ("x", (rows, 30), "<f4", each(2, lambda rng, count: rng.standard_normal((count, 30), np.float32))),
            ("y", (rows,), "|u1", labels),
        ):
            with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
                header = {"descr": kind, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(member, header)
                for piece in values:
                    member.write(piece.tobytes())
    with (folder / "t.idx").open("wb") as images, (folder / "t.labels").open("wb") as file:
        images.write(struct.pack(">4B3I", 0, 0, 8, 3, rows, 8, 8))
        file.write(struct.pack(">4BI", 0, 0, 8, 1, rows))
        for label, image in zip(labels, each(3, lambda rng, count: rng.bytes(64 * count)), strict=True):
            images.write(image)
            file.write(label.tobytes())


def job(path: Path) -> PreparedJob:
    data: dict[str, Any] = {"path": path.name, "stream": True}
    if path.suffix == ".idx":
        data = {"images": path.name, "labels": "t.labels", "stream": True}
    elif path.suffix != ".npz":
        data |= {"target": "delay", "task": "regression", "unknown": "bucket"}
    content = {
        "model": {"name": "flights"},
        "data": data,
        "network": {"layers": [32, "tanh"]},
        "train": {"epochs": 1, "batch_size": 256, "learning_rate": 0.01},
    }
    return prepare(from_dict(content, path.parent))


def memory(path: Path) -> dict[str, float]:
    """Run one job, from the file to its metrics."""
    begin = perf_counter()
    prepared = job(path)
    read = perf_counter() - begin
    train_and_evaluate(prepared)
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    found = {"read": read, "all": perf_counter() - begin, "peak": int(line.split()[1]) / 1024}
    return {**found, "rows": sum(prepared.sizes.values()), "width": prepared.signature.width}


def speed(path: Path) -> dict[str, float]:
    """Return the rows/s of an epoch from disk and of one from memory."""
    prepared = job(path)
    blocks = prepared.samples
    x = np.empty((len(blocks), prepared.signature.width), prepared.network_spec.dtype)
    y = np.empty((len(blocks), prepared.network_spec.output_size), x.dtype)
    at = 0
    for xs, ys, _, _ in blocks.epoch_blocks(TrainingState(prepared.network_spec.build(np.random.default_rng(0))), 256):
        x[at : at + len(xs)], y[at : at + len(ys)] = xs, ys
        at += len(xs)

    def contestant(samples: Samples) -> Callable[[], dict[str, float]]:
        rng = np.random.default_rng(0)
        network = prepared.network_spec.build(rng)
        optimizer, loss = SGD(network), prepared.network_spec.criterion()

        def measure() -> dict[str, float]:
            begin = perf_counter()
            train_network(network, samples, None, loss, optimizer, 1, 256, rng=rng, on_epoch=None)
            return {"speed": len(samples) / (perf_counter() - begin)}

        return measure

    with threadpool_limits(1, user_api="blas"):
        found = alternate({"stream": contestant(blocks), "memory": contestant(Samples(x, y))}, ROUNDS)
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
        with threadpool_limits(1, user_api="blas"):
            print(f"Streaming {rows:,} rows, batch 256, each job in a process of its own; {machine()}")
        write_arrays(rows, folder)
        os.sync()  # else the first to be measured shares the machine with the writing
        print(f"{'':>8} {'':>8} {'':>9} {'a job':>25}   an epoch, rows/s, median of {ROUNDS} rounds")
        print(f"{'file':>8} {'size':>8} {'features':>9} {'read':>7} {'in all':>7} {'peak':>9}   ", end="")
        print("streamed  from memory   ratio")
        for kind in ("parquet", "csv", "npz", "idx"):
            path = folder / f"t.{kind}"
            found = alone("memory", path) | alone("speed", path)
            print(
                f"{kind:>8} {path.stat().st_size >> 20:>5} MB {found['width']:>9} {found['read']:>5.0f} s "
                f"{found['all']:>5.0f} s {found['peak']:>6,.0f} MB {found['stream']:>10,.0f} {found['memory']:>12,.0f} "
                f"{found['stream'] / found['memory']:>6.2f}x",
                flush=True,
            )


if __name__ == "__main__":
    unpin()
    main()
