"""The evaluation of one set of values: a training without the test rows, measured on rows held out for validation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from model_store.errors import Fault
from model_store.schema.signature import RegressionOutput
from training.config.defaults import METRIC_DIRECTIONS
from training.config.settings import EarlyStoppingSection
from training.data.splitting import Split
from training.encoded_rows import apply_in_pieces
from training.engine.early_stopping import EpochCallback, EpochResult
from training.engine.loop import DivergedError
from training.errors import JobError
from training.evaluation.predictor import Predictor
from training.pipeline.network_training import TrainedNetwork, train_ensemble, train_network
from training.pipeline.prepared_job import PreparedJob
from training.pipeline.validation_metric import check_metric, make_metric

_NO_ROWS = np.empty(0, np.int64)
# What changes the loss itself, so that trials cannot be compared by it.
_LOSS_KEYS = ("train.loss", "train.quantile", "train.class_weights", "network.output")
_TARGET_KEYS = ("data.target_transform", "data.scale")  # of a regression, whose loss is of scaled targets


@dataclass(frozen=True)
class Evaluation:
    """The metric of one set of values, and the epochs that were trained (of the first network)."""

    value: float
    epochs: int


def search_metric(prepared: PreparedJob) -> str:
    """Return the metric that trials are compared by: that of `[search]`, that of early stopping, or the loss.

    prepared: the job itself. JobError if the metric does not fit it, or no rows are held out for validation.
    """
    job = prepared.job
    search, section, ensemble = job.settings.search, job.settings.train.early_stopping, job.settings.train.ensemble
    if search is None:
        raise ValueError("expected a job with [search]")
    name = search.metric or (section and section.metric) or "loss"
    folded = ensemble is not None or search.folds is not None
    rows = prepared.sizes["training"] if folded else len(prepared.split.validation)
    if not rows and "train.ensemble" not in search.space.parameters:
        problem = "expected rows held out for validation, which trials are compared on; found none"
        fix = "write validation = 0.1 in [split], or folds = 5 in [search]"
        raise JobError(job.source, [Fault("split.validation", problem, fix)])
    output, loss = prepared.signature.output, prepared.network_spec.loss
    if faults := check_metric(EarlyStoppingSection(metric=name), output, 1, loss):
        raise JobError(job.source, [replace(fault, location="search.metric") for fault in faults])
    if name == "loss":
        keys = (*_LOSS_KEYS, *(_TARGET_KEYS if isinstance(output, RegressionOutput) else ()))
        if changed := next((key for key in search.space.parameters if key in keys), None):
            problem = f"the losses of trials with different values of {changed} cannot be compared"
            better = "'rmse'" if isinstance(output, RegressionOutput) else "'log_loss'"
            raise JobError(job.source, [Fault("search.metric", problem, f"write metric = {better}, for example")])
    return name


def is_higher_better(metric: str) -> bool:
    return METRIC_DIRECTIONS.get(metric, False)


def without_test_rows(prepared: PreparedJob) -> PreparedJob:
    """Return a prepared job that has no test rows, so that nothing of a search can depend on them."""
    parts = prepared.split
    return replace(prepared, split=Split(parts.training, parts.validation, _NO_ROWS))


def evaluate(prepared: PreparedJob, metric: str, on_epoch: EpochCallback | None = None) -> Evaluation:
    """Train the network or the networks of a job and return its metric for the rows that each was not trained on.

    Those of an ensemble are all training rows, each predicted by the network that has not learned it. DivergedError if
    the metric is not finite.
    """
    settings = prepared.job.settings
    with threadpool_limits(settings.train.threads, user_api="blas"), np.errstate(all="ignore"):
        if settings.train.ensemble is None:
            trained = train_network(prepared, on_epoch)
            value = _watched_value(trained, metric, settings.train.early_stopping)
            if value is None:
                value = _measure(prepared, metric, Predictor([trained.network]), prepared.split.validation)
        else:
            trained = train_ensemble(prepared, settings.train.ensemble, on_epoch)
            if trained.out_of_fold is None:
                raise ValueError("expected an ensemble with predictions out of fold")
            value = _measure(prepared, metric, trained.out_of_fold.predictor, trained.out_of_fold.rows)
    if not math.isfinite(value):
        raise DivergedError(trained.best_epoch, trained.steps, value)
    return Evaluation(value, trained.epochs)


def epoch_value(epoch: EpochResult, metric: str, watched: str | None) -> float | None:
    """Return what pruning compares after an epoch: the metric if early stopping watches it, or the validation loss.

    A loss counts as negative if a higher metric is better. None for all networks of an ensemble but the first.
    """
    if epoch.network > 1 or epoch.validation_loss is None:
        return None
    if metric == watched and epoch.metric is not None:
        return epoch.metric
    return -epoch.validation_loss if is_higher_better(metric) else epoch.validation_loss


def _watched_value(trained: TrainedNetwork, metric: str, section: EarlyStoppingSection | None) -> float | None:
    """Return the metric of the best epoch if training has measured it."""
    best: dict[str, Any] = next((point for point in trained.history if point["epoch"] == trained.best_epoch), {})
    if metric == "loss":
        found: float | None = best.get("validation_loss")
        return found
    return best.get("validation_metric") if section is not None and section.metric == metric else None


def _measure(prepared: PreparedJob, metric: str, predictor: Predictor, rows: Any) -> float:
    outputs = predictor.apply(apply_in_pieces, prepared.encode_rows(rows))
    if metric == "loss":
        loss = prepared.network_spec.criterion(smoothed=False)
        return float(loss.loss(prepared.encode_learned(rows), outputs))
    targets, weights = prepared.dataset.targets[rows], prepared.weights(rows)
    section = EarlyStoppingSection(metric=metric)
    found = make_metric(section, prepared.signature.output, targets, weights, prepared.target_loss)
    if found is None:
        raise ValueError(f"expected a metric, found {metric!r}")
    measure: Callable[[Any], float] = found.measure
    return measure(outputs)
