"""Folds: how good a job is, whatever rows happen to be held out. k-fold cross-validation; Stone 1974.

The rows fall into k parts, in a classification each class alike. Each part in turn is held out from a training of its
own, preprocessing included, and judges it; so every row judges once, and the spread tells how far to trust the mean.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from training.data.dataset import Dataset
from training.data.splitting import Fold
from training.pipeline.job import Job, Outcome, fit, prepare

Figures = dict[str, float | None]


def cross_validate(job: Job, folds: int, on_fold: Callable[[Fold, Outcome], None] | None = None) -> list[Outcome]:
    """The job's outcome with each fold held out. Nothing is published."""
    outcomes: list[Outcome] = []
    rows: Dataset | None = None
    for number in range(1, folds + 1):
        fold = Fold(number, folds)
        prepared = prepare(job, fold, rows)
        rows = prepared.dataset
        outcomes.append(fit(prepared, diagnostics=False))
        if on_fold is not None:
            on_fold(fold, outcomes[-1])
    return outcomes


def figures(metrics: Mapping[str, Any], baseline: Mapping[str, Any]) -> Figures:
    """The few numbers of an outcome that say how good it is, by name."""
    if "targets" in metrics:
        names = metrics["targets"]
        return {
            key if len(names) == 1 else f"{name} {key}": value
            for name, row in names.items()
            for key, value in {**row, "baseline rmse": baseline["targets"][name]["rmse"]}.items()
        }
    return {
        "accuracy": metrics["accuracy"],
        "macro f1": statistics.fmean(row["f1"] for row in metrics["classes"].values() if row["support"]),
        "baseline accuracy": baseline["accuracy"],
    }


def summary(outcomes: Sequence[Outcome]) -> dict[str, Figures]:
    """Of each figure the mean over the folds, the standard deviation (n - 1), the least and the greatest.

    All are None for a figure that a fold does not have.
    """
    every = [figures(outcome.metrics, outcome.baseline) for outcome in outcomes]
    return {name: _spread([found[name] for found in every]) for name in every[0]}


def _spread(values: Sequence[float | None]) -> Figures:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return dict.fromkeys(("mean", "sd", "min", "max"))
    return {"mean": statistics.fmean(known), "sd": statistics.stdev(known), "min": min(known), "max": max(known)}
