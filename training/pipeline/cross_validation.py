"""k-fold cross-validation: how good a job is, regardless of which rows are held out; Stone 1974.

The rows are divided into k folds, stratified by class. Each fold in turn is the test set of its own training,
preprocessing included. So every row is tested once, and the spread shows how far to trust the mean. Repeated folds
divide the rows anew.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from model_store.errors import Fault
from model_store.evaluation.record import main_metric
from training.data.dataset import Dataset
from training.data.splitting import Fold
from training.errors import JobError
from training.pipeline.job import Job, Outcome, prepare, train_and_evaluate

MetricValues = dict[str, float | None]


def cross_validate(
    job: Job, folds: int, on_fold: Callable[[Fold, Outcome], None] | None = None, *, repeats: int = 1
) -> list[Outcome]:
    """Return the job's outcome with each fold as the test set, `repeats` times. Nothing is published.

    JobError for repeated folds by time, which are always the same.
    """
    if repeats > 1 and job.settings.split.by == "time":
        raise JobError(job.source, [Fault("split.by", "folds by time are the same in every repetition", "repeat once")])
    outcomes: list[Outcome] = []
    dataset: Dataset | None = None
    for i in range(folds * repeats):
        fold = Fold(i % folds + 1, folds, i // folds + 1)
        prepared = prepare(job, fold, dataset)
        dataset = prepared.dataset
        outcomes.append(train_and_evaluate(prepared, diagnostics=False))
        if on_fold is not None:
            on_fold(fold, outcomes[-1])
    return outcomes


def headline_metrics(metrics: Mapping[str, Any], baseline: Mapping[str, Any]) -> MetricValues:
    """Return the few metrics of an outcome that summarize its quality, by name."""
    if "targets" in metrics:
        targets = metrics["targets"]
        return {
            key if len(targets) == 1 else f"{name} {key}": value
            for name, row in targets.items()
            for metric in (main_metric(row),)
            for key, value in {**row, f"baseline {metric}": baseline["targets"][name][metric]}.items()
        }
    if "exact_match" in metrics:
        names = ("exact_match", "micro_f1", "macro_f1", "hamming_loss", "log_loss")
        found = {name.replace("_", " "): metrics[name] for name in names}
        return {**found, "baseline log loss": baseline["log_loss"]}
    return {
        "accuracy": metrics["accuracy"],
        "macro f1": statistics.fmean(row["f1"] for row in metrics["classes"].values() if row["support"]),
        "baseline accuracy": baseline["accuracy"],
    }


def summarize_folds(outcomes: Sequence[Outcome]) -> dict[str, MetricValues]:
    """Return the mean, standard deviation (n - 1), minimum and maximum over the folds of each metric.

    All are None for a metric that is undefined in a fold.
    """
    folds = [headline_metrics(outcome.metrics, outcome.baseline) for outcome in outcomes]
    return {name: _summarize_values([metrics[name] for metrics in folds]) for name in folds[0]}


def _summarize_values(values: Sequence[float | None]) -> MetricValues:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return dict.fromkeys(("mean", "sd", "min", "max"))
    return {"mean": statistics.fmean(known), "sd": statistics.stdev(known), "min": min(known), "max": max(known)}
