"""MNIST, time and accuracy: the two example jobs against the same layers in scikit-learn and PyTorch.

    python -m benchmarks.mnist PEERS_PYTHON

PEERS_PYTHON is the interpreter of an environment with the peers (`make bench-training` makes it); the images are those
that `sh examples/fetch_mnist.sh` fetches. All train on the same rows with the job's batch size and as many epochs, on
one thread, and are judged on the same 10,000 images that none has seen. Times are of the processor, so that a busy
machine does not count. Ours is the whole job, validation and the figures of the report included; the peers train
and do nothing else.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

from benchmarks.rounds import unpin
from training.config.settings import DataSection
from training.data import loading
from training.pipeline import job

ROOT = Path(__file__).parents[1]
PEER = Path(__file__).parent / "peers" / "mnist.py"
TEST = DataSection(images="mnist/t10k-images-idx3-ubyte", labels="mnist/t10k-labels-idx1-ubyte")
JOBS = {"mnist": ("scikit-learn", "torch"), "mnist-conv": ("torch",)}


def ours(prepared: job.PreparedJob, x: Any, y: Any) -> dict[str, float]:
    begin = process_time()
    outcome = job.train_and_evaluate(prepared)
    seconds = process_time() - begin
    model = outcome.model
    answers = model.network(model.signature.encode_columns({model.signature.names[0]: x}, model.network.dtype))
    return {"seconds": seconds, "accuracy": (answers.argmax(1) == y).mean(), "held_out": outcome.metrics["accuracy"]}


def peer(python: str, name: str, layers: str, rows: Path) -> dict[str, float]:
    environ = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [python, str(PEER), name, layers, str(rows)]
    answer = subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout
    found: dict[str, float] = json.loads(answer.splitlines()[-1])
    return found


def main() -> None:
    python = sys.argv[1]
    test = loading.load(TEST, ROOT / "examples")
    x_test, y_test = test.inputs["image"], test.targets
    print(f"{'job':>11} {'by':>13} {'CPU time':>8}   accuracy on 10,000 images (on the job's own held-out rows)")
    for name, peers in JOBS.items():
        prepared = job.prepare(job.load(ROOT / "examples" / f"{name}.toml"))
        found = ours(prepared, x_test, y_test)
        accuracies = f"{found['accuracy']:.2%} ({found['held_out']:.2%})"
        print(f"{name:>11} {'forward pass':>13} {found['seconds']:>6.1f} s   {accuracies}", flush=True)
        train = prepared.job.settings.train
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rows.npz"
            np.savez(
                path,
                x=prepared.x_training,
                y=prepared.dataset.targets[prepared.split.training],
                x_test=x_test.reshape(len(x_test), -1).astype(np.float32) / 255,
                y_test=y_test,
                epochs=train.epochs,
                batch_size=train.batch_size,
            )
            for one in peers:
                found = peer(python, one, name, path)
                print(f"{name:>11} {one:>13} {found['seconds']:>6.1f} s   {found['accuracy']:.2%}", flush=True)


if __name__ == "__main__":
    unpin()
    main()
