"""Forward Pass in the quality benchmark: the commands that a user types, on the training rows and the held-out rows.

    python -m benchmarks.quality.ours TRAIN TEST TARGET (numbers|classes) SEED ANSWER [SECTION.KEY=VALUE ...]

`train init`, `train` and `models predict` run in the order of the tutorial. The job keeps no test rows back, since the
benchmark has its own, and otherwise is what `train init` wrote, changed by the given keys. If a category that training
did not see stops the training or the predictions, the job is trained once more with `unknown = "bucket"`, which a user
would do too, and the answer's `note` says so.
"""

from __future__ import annotations

import csv
import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

BUCKET = "data.unknown=bucket"


def command(name: str, *words: str, folder: Path) -> None:
    program = f"from model_store.entry_points import {name}; {name}()"
    run = subprocess.run(
        [sys.executable, "-c", program, *words], cwd=folder, capture_output=True, text=True, check=False
    )
    if run.returncode:
        lines = [line.strip() for line in run.stderr.splitlines() if line.strip()]
        raise RuntimeError(f"{name} {words[0]}: {' '.join(lines[:2])}")


def trained(train: Path, test: Path, target: str, seed: str, changes: Sequence[str], folder: Path) -> Path:
    """Train and predict in `folder`; return the CSV file of the predictions."""
    store, job, answer = folder / "models", folder / "table.toml", folder / "predictions.csv"
    command("train", "init", str(train), "--target", target, "--output", str(job), "--force", folder=folder)
    words = [word for change in ("split.test=0", *changes) for word in ("--set", change)]
    command("train", str(job), "--seed", seed, *words, "--store", str(store), "--quiet", folder=folder)
    command("models", "predict", "table", str(test), "--store", str(store), "--output", str(answer), folder=folder)
    return answer


def parsed(path: Path, *, classes: bool) -> dict[str, Any]:
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    if not classes:
        return {"predictions": [float(row[0]) for row in rows]}
    labels = [name.removeprefix("probability_") for name in header[1:]]
    return {"labels": labels, "probabilities": [[float(cell) for cell in row[1:]] for row in rows]}


def main() -> None:
    train, test, target, task, seed, answer, *changes = sys.argv[1:]
    found: dict[str, Any] = {}
    with TemporaryDirectory() as folder:
        paths = Path(train).resolve(), Path(test).resolve()
        try:
            predictions = trained(*paths, target, seed, changes, Path(folder))
        except RuntimeError as e:
            if BUCKET in changes:
                raise
            found["note"] = f"trained again with {BUCKET}: {e}"
            predictions = trained(*paths, target, seed, [*changes, BUCKET], Path(folder))
        found |= parsed(predictions, classes=task == "classes")
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    found["seconds"] = usage.ru_utime + usage.ru_stime
    Path(answer).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
