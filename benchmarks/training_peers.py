"""Training throughput in samples/s, compared with PyTorch, scikit-learn, JAX and the per-sample loop in one run.

    python -m benchmarks.training_peers PEERS_PYTHON [ROUNDS]

PEERS_PYTHON is the interpreter of an environment with the peers, which `make bench-training` creates. Every contestant
is a process for each number of threads; they take turns, and the better number of threads counts. PyTorch's best eager
is the best of its three optimizers, plain, foreach and fused; the last column names it and its threads.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.per_sample import PerSample
from benchmarks.rounds import alternate, unpinned

CONTESTANT = Path(__file__).parent / "peers" / "contestant.py"
OURS = "forward pass"
PEERS = ["torch/plain", "torch/foreach", "torch/fused", "scikit-learn", "jax"]
# Long enough for a processor to leave its idle state: the second case took 13.7 µs a step in 7 ms, 12.2 in 30 ms.
CASES: list[dict[str, Any]] = [
    {"sizes": [2, 3, 1], "rows": 4, "batch": 4, "epochs": 10000},
    {"sizes": [30, 64, 32, 1], "rows": 8192, "batch": 32, "epochs": 10},
    {"sizes": [30, 64, 32, 1], "rows": 32768, "batch": 256, "epochs": 5},
    {"sizes": [784, 100, 50, 10], "rows": 1000, "batch": 1, "epochs": 1},
    {"sizes": [784, 100, 50, 10], "rows": 8192, "batch": 32, "epochs": 1},
    {"sizes": [784, 100, 50, 10], "rows": 16384, "batch": 128, "epochs": 1},
    {"sizes": [784, 100, 50, 10], "rows": 16384, "batch": 1024, "epochs": 1},
    {"sizes": [1024, 2048, 2048, 10], "rows": 1024, "batch": 256, "epochs": 1},
]


class Contestant:
    def __init__(self, python: str, name: str, threads: int) -> None:
        environ = {**unpinned(os.environ), "PYTHONPATH": str(Path.cwd())}
        command = [python, str(CONTESTANT), name, str(threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ)

    def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        print(json.dumps(command), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            sys.exit(f"{self.process.args}: ended without an answer")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        self.process.communicate()


def gigaflops(case: dict[str, Any], speed: float) -> float:
    """Return the GF/s of the matrix products: forward, weight gradients, and input gradients but the first layer's."""
    products = [inputs * outputs for inputs, outputs in pairwise(case["sizes"])]
    return (6 * sum(products) - 2 * products[0]) * speed / 1e9


def per_sample(case: dict[str, Any]) -> Any:
    rows = min(case["rows"], 200)
    rng = np.random.default_rng(0)
    network = PerSample(case["sizes"], rng, 0.001, 0.9)
    x, y = rng.random((rows, case["sizes"][0], 1)), rng.random((rows, case["sizes"][-1], 1))

    def measure() -> dict[str, float]:
        begin = perf_counter()
        network.epoch(x, y)
        return {"speed": rows / (perf_counter() - begin)}

    return measure


def measured(case: dict[str, Any], python: str, rounds: int) -> tuple[dict[str, float], float]:
    """Return the samples/s of every contestant and number of threads, `name#threads`, and the peak GF/s of sgemm."""
    processes = {
        (name, threads): Contestant(sys.executable if name == OURS else python, name, threads)
        for name in [OURS, *PEERS]
        for threads in sorted({1, os.cpu_count() or 1})
    }
    peaks = [process.ask({"prepare": case, "peak": name == OURS})["peak"] for (name, _), process in processes.items()]

    def measure(process: Contestant) -> Any:
        samples = case["rows"] * case["epochs"]
        return lambda: {"speed": samples / process.ask({"measure": True})["seconds"]}

    turns = {f"{name}#{threads}": measure(process) for (name, threads), process in processes.items()}
    found = alternate({**turns, "per sample#1": per_sample(case)}, rounds)
    for process in processes.values():
        process.close()
    speeds = {key: figures["speed"] for key, figures in found.items()}
    return speeds, max(peak for peak in peaks if peak)


def main() -> None:
    python, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 5
    print(f"Training, float32, samples/s, medians of {rounds} alternating rounds; ratios are ours to theirs")
    heads = ["torch", "scikit-learn", "jax", "per sample"]
    titles = " ".join(f"{head:>13}" for head in heads)
    print(f"{'network':>18} {'batch':>5} {'ours':>11} {titles}  {'GF/s of sgemm':>14}  best eager torch")
    for case in CASES:
        speeds, peak = measured(case, python, rounds)
        best = {head: max((key for key in speeds if key.startswith(head)), key=speeds.__getitem__) for head in heads}
        ours = max(speed for key, speed in speeds.items() if key.startswith(OURS))
        ratios = " ".join(f"{ours / speeds[best[head]]:>12.1f}x" for head in heads)
        name = "-".join(map(str, case["sizes"]))
        work = f"{gigaflops(case, ours):.1f} of {peak:.0f}"
        kind, _, threads = best["torch"].removeprefix("torch/").partition("#")
        print(
            f"{name:>18} {case['batch']:>5} {ours:>11,.0f} {ratios}  {work:>14}  {kind}, {threads} thread(s)",
            flush=True,
        )


if __name__ == "__main__":
    main()
