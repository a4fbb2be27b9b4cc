"""Training on several MPI ranks beside one process: where it pays, and where it cannot.

    python -m benchmarks.data_parallel [--rounds 3]

Strong scaling: the same batch, divided among 1 and 2 ranks. Weak scaling: a batch twice as large on twice the ranks.
Each row trains the same network on the same random rows in one process, with `reduce = "exact"` on 1 and 2 ranks and
with `reduce = "fast"` on 2 ranks, in turn; the table has the median microseconds of a step and the speed relative to
one process. A rank has a core of its own; more ranks than cores measure only the exchange.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np

from model_store.nn import Linear, Sequential, Tanh
from training import MSE, Adam, train
from training.cli import ranks
from training.engine.data_parallel import DataParallel

SETTINGS = [  # layers, rows of a batch
    ([8, 16, 1], 32),
    ([30, 64, 32, 1], 256),
    ([100, 256, 256, 1], 256),
    ([100, 256, 256, 1], 4096),
    ([784, 1024, 1024, 10], 512),
    ([784, 1024, 1024, 10], 4096),
]
SECONDS = 1.0  # of steps that are measured
MODES = {
    "one process": (1, ""),
    "exact, 1 rank": (1, "exact"),
    "exact, 2 ranks": (2, "exact"),
    "fast, 2 ranks": (2, "fast"),
}


def measure(sizes: list[int], batch: int, mode: str) -> float:
    """Return the seconds of a step, on every rank."""
    communicator = ranks.connect()
    parallel = DataParallel(communicator, exact=mode == "exact") if mode else None
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch * 8, sizes[0]), np.float32)
    y = rng.standard_normal((batch * 8, sizes[-1]), np.float32)
    layers = [layer for a, b in pairwise(sizes) for layer in (Linear(a, b, rng=rng), Tanh())][:-1]
    network = Sequential(layers)
    optimizer = Adam(network, 1e-3)
    steps, begin = 0, 0.0

    def ended(epoch: int, *_: object) -> bool:
        nonlocal steps, begin
        if epoch == 1:  # compiled
            begin = time.perf_counter()
            return False
        steps += 8
        return time.perf_counter() - begin > SECONDS

    train(network, x, y, MSE(), optimizer, 10**9, batch, rng=rng, on_epoch=ended, parallel=parallel)
    return (time.perf_counter() - begin) / max(steps, 1)


def run(sizes: list[int], batch: int, mode: str) -> float:
    """Measure in processes of their own."""
    count, reduce = MODES[mode]
    words = [sys.executable, "-m", "benchmarks.data_parallel", "--one", json.dumps([sizes, batch, reduce])]
    if count > 1:
        words = [str(Path(sys.executable).with_name("mpirun")), "-n", str(count), *words]
    names = [f"{prefix}_ALLOW_RUN_AS_ROOT{suffix}" for prefix in ("OMPI", "PRTE") for suffix in ("", "_CONFIRM")]
    environ = os.environ | dict.fromkeys([*names, "OPENBLAS_NUM_THREADS"], "1")
    done = subprocess.run(words, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one is not None:
        sizes, batch, reduce = json.loads(given.one)
        seconds = measure(sizes, batch, reduce)
        if os.environ.get("OMPI_COMM_WORLD_RANK", "0") == "0":
            print(seconds)
        return
    print(f"{'network':22} {'batch':>6} {'parameters':>11}" + "".join(f" {mode:>22}" for mode in MODES))
    for sizes, batch in SETTINGS:
        rounds = [{mode: run(sizes, batch, mode) for mode in MODES} for _ in range(given.rounds)]
        found = {mode: statistics.median(each[mode] for each in rounds) for mode in MODES}
        speed = {mode: statistics.median(each["one process"] / each[mode] for each in rounds) for mode in MODES}
        parameters = sum((a + 1) * b for a, b in pairwise(sizes))
        cells = "".join(f" {found[mode] * 1e6:13,.0f} {speed[mode]:7.2f}x" for mode in MODES)
        print(f"{'-'.join(map(str, sizes)):22} {batch:6,} {parameters:11,}{cells}", flush=True)


if __name__ == "__main__":
    main()
