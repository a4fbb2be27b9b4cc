"""Throughput of a shared forward pass against one pass per request, on a 64 MB network.

    python -m benchmarks.batching

`serve` as it is, and `serve` told that sharing never pays, in alternating rounds: one worker on a core of its own,
wrk on another, one row a request, from 1 and from 32 connections.
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.contestants import CONTESTANTS, ROOT, Contestant, Setting, free_port
from benchmarks.rounds import alternate, machine, unpin
from benchmarks.serving_process import Service, bodies
from model_store.artifact.model import Model
from model_store.nn import Linear, Module, ReLU, Sequential, Softmax
from model_store.registry.store import open_store
from model_store.schema.signature import ArrayColumn, ClassificationOutput, Signature

SIZES = [2048, 4096, 2048, 10]  # 16.8 million float32 parameters
CONNECTIONS = (1, 32)
ROUNDS, SECONDS = 3, 4

APART = """
import sys
from service.registry.batching_policy import BatchingPolicy
BatchingPolicy.target_batch_rows = property(lambda policy: 1, lambda policy, rows: None)
from service.cli import main
sys.argv[0] = "serve"
main()
"""


def wide() -> Model:
    rng = np.random.default_rng(0)
    layers: list[Module] = []
    for inputs, outputs in pairwise(SIZES):
        layers += [Linear(inputs, outputs, rng=rng, initializer="he_normal"), ReLU()]
    network = Sequential([*layers[:-1], Softmax()])
    return Model(
        network,
        Signature((ArrayColumn("x", (SIZES[0],), 0.0, 1.0),), ClassificationOutput("y", tuple(range(SIZES[-1])))),
    )


def apart(setting: Setting) -> list[str]:
    words = ["--store", str(setting.store), "--port", str(setting.port), "--workers", "1", "--quiet"]
    return ["python", "-c", APART, *words]


def measured(contestant: Contestant, folder: Path) -> dict[str, float]:
    setting = Setting(folder / "models", Path(), Path(), 1, free_port(), folder)
    row = np.random.default_rng(1).random((1, SIZES[0])).round(4).tolist()
    asked = bodies(contestant, {1: row}, folder)[1]
    served_on, loaded_from = [str(core) for core in sorted(os.sched_getaffinity(0))[:2]]
    found = {}
    with Service(contestant, setting, served_on, asked.read_bytes()) as service:
        for connections in CONNECTIONS:
            told = service.load(asked, connections, SECONDS, loaded_from)
            found |= {f"{connections} {key}": value for key, value in told.items()}
    return found


def main() -> None:
    ours = replace(CONTESTANTS[0], environment=Path(sys.prefix))
    alone = replace(
        ours, name="apart", command=apart, environ=lambda setting: {**ours.environ(setting), "PYTHONPATH": str(ROOT)}
    )
    with tempfile.TemporaryDirectory() as folder:
        open_store(str(Path(folder) / "models")).publish("wide", wide())
        found = alternate({one.name: partial(measured, one, Path(folder)) for one in (ours, alone)}, ROUNDS)
    print(f"Requests/s of one row through {'-'.join(map(str, SIZES))}, medians of {ROUNDS} rounds; {machine()}")
    for connections in CONNECTIONS:
        shared, apart_ = (
            [found[name][f"{connections} {key}"] for key in ("rate", "p50", "p99")] for name in (ours.name, alone.name)
        )
        print(
            f"{connections:3} connections   shared {shared[0]:6.0f}/s, p50 {shared[1]:.1f}, p99 {shared[2]:.1f} ms   "
            f"apart {apart_[0]:6.0f}/s, p50 {apart_[1]:.1f}, p99 {apart_[2]:.1f} ms   {shared[0] / apart_[0]:.2f}x"
        )


if __name__ == "__main__":
    unpin()
    main()
