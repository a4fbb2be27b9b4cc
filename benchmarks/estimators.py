"""Accuracy of the estimators for scikit-learn with their defaults, on tables that scikit-learn has.

    python -m benchmarks.estimators [--tables iris,wine]

Each table is split five times, 75 % of the rows for training. `MLPClassifier` and `MLPRegressor` have their defaults,
alone and after a `StandardScaler`. The job of `train init` has the same rows in files, the others as its `test_file`,
and the same seed. Prints the means of accuracy, or R² for diabetes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import tomllib
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
from sklearn import datasets
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from training.cli.scaffold import draft_job
from training.pipeline.job import from_dict, run
from training.sklearn import ForwardPassClassifier, ForwardPassRegressor

TABLES = ("iris", "wine", "breast_cancer", "digits", "diabetes")
SPLITS = 5


def init_score(x: Any, x_test: Any, y: Any, y_test: Any, seed: int) -> float:
    """Return the accuracy or R² of the job that `train init` writes for the training rows."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, rows, targets in (("train.csv", x, y), ("test.csv", x_test, y_test)):
            pd.concat([rows, targets.rename("target")], axis=1).to_csv(folder / file, index=False)
        content = tomllib.loads(draft_job(folder / "train.csv", "target", folder / "job.toml").text)
        content["split"] = {key: value for key, value in content["split"].items() if key != "test"}
        content["split"]["test_file"] = "test.csv"
        content["train"]["seed"] = seed
        metrics = run(from_dict(content, folder)).metrics
    return float(metrics["accuracy"] if "accuracy" in metrics else metrics["targets"]["target"]["r2"])


def scores(name: str, seed: int) -> list[float]:
    """Return the scores of one split: estimator, job, MLP, scaled MLP."""
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True, as_frame=True)
    regression = name == "diabetes"
    x, x_test, y, y_test = train_test_split(x, y, test_size=0.25, random_state=seed, stratify=None if regression else y)
    ours, theirs = (ForwardPassRegressor, MLPRegressor) if regression else (ForwardPassClassifier, MLPClassifier)
    models = [
        ours(random_state=seed),
        theirs(random_state=seed),
        make_pipeline(StandardScaler(), theirs(random_state=seed)),
    ]
    found = [float(model.fit(x, y).score(x_test, y_test)) for model in models]
    return [found[0], init_score(x, x_test, y, y_test, seed), *found[1:]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", metavar="NAMES", default=",".join(TABLES), help="default: %(default)s")
    warnings.simplefilter("ignore")  # the defaults of MLPClassifier often do not converge
    print("table          estimator   train init   MLP      scaled MLP")
    for name in parser.parse_args().tables.split(","):
        means = [statistics.mean(column) for column in zip(*(scores(name, s) for s in range(SPLITS)), strict=True)]
        print(f"{name:13} {'   '.join(f'{mean:9.3f}' for mean in means)}", flush=True)


if __name__ == "__main__":
    main()
