"""The metric that early stopping watches, of those that are reported."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.errors import Fault
from model_store.nn import Array
from model_store.schema.signature import ClassificationOutput, MultiLabelOutput, Output, RegressionOutput
from training.config.defaults import CLASS_METRICS, LABEL_METRICS, LOSS_METRICS, METRIC_DIRECTIONS, QUANTITY_METRICS
from training.config.settings import EarlyStoppingSection
from training.engine.early_stopping import ValidationMetric
from training.evaluation.loss_metrics import SQUARED_ERROR, TargetLoss
from training.evaluation.metrics import Weights, evaluate
from training.evaluation.threshold_curves import threshold_curves

_LOCATION = "train.early_stopping.metric"


def check_metric(section: EarlyStoppingSection | None, output: Output, validation_rows: int, loss: str) -> list[Fault]:
    """Return the faults of a metric that task and loss do not have, or that has no rows to be computed on."""
    name = None if section is None else section.metric
    if name in (None, "loss"):
        return []
    faults = []
    of_losses = [key for key, metrics in LOSS_METRICS.items() if name in metrics]
    own: Sequence[str] = list(LABEL_METRICS if isinstance(output, MultiLabelOutput) else CLASS_METRICS)
    if isinstance(output, RegressionOutput):
        own = [*QUANTITY_METRICS, *LOSS_METRICS.get(loss, ())]
    if name not in own and of_losses:
        problem = f"'{name}' belongs to {'the loss' if len(of_losses) == 1 else 'the losses'} {', '.join(of_losses)}"
        faults.append(Fault(_LOCATION, f"{problem}; found the loss '{loss}'", f"use {', '.join(own)}"))
    elif name not in own:
        faults.append(Fault(_LOCATION, f"expected a metric of the task, found '{name}'", f"use {', '.join(own)}"))
    elif name == "roc_auc" and isinstance(output, ClassificationOutput) and len(output.labels) > 2:
        problem = f"'roc_auc' is for two classes, found {len(output.labels)}"
        faults.append(Fault(_LOCATION, problem, "use 'log_loss', for example"))
    if not validation_rows:
        fix = "write validation = 0.1 in [split], or remove the metric"
        faults.append(Fault(_LOCATION, "expected validation rows for a metric, found none", fix))
    return faults


def make_metric(
    section: EarlyStoppingSection | None,
    output: Output,
    y_true: NDArray[Any],
    weights: Weights = None,
    loss: TargetLoss = SQUARED_ERROR,
) -> ValidationMetric | None:
    """Return the metric of the job for rows with these targets (see `Dataset`); None for the loss.

    All are weighted. An undefined metric, such as R² of equal values, is the worst value.
    """
    name = None if section is None else section.metric
    if name is None or name == "loss":
        return None
    higher = METRIC_DIRECTIONS[name]

    def measure(outputs: Array) -> float:
        found = _value(outputs)
        return found if np.isfinite(found) else -np.inf if higher else np.inf

    def _value(outputs: Array) -> float:
        if isinstance(output, MultiLabelOutput):
            value = evaluate(output, y_true, outputs, weights)[name]
            return np.nan if value is None else value
        return _class_metric(name, output, y_true, outputs, weights) if name in CLASS_METRICS else _mean(name, outputs)

    def _mean(name: str, outputs: Array) -> float:
        targets = evaluate(output, y_true, outputs, weights, loss)["targets"].values()
        return statistics.fmean(np.nan if row[name] is None else row[name] for row in targets)

    return ValidationMetric(measure, higher)


def _class_metric(name: str, output: Output, y_true: NDArray[Any], outputs: Array, weights: Weights) -> float:
    """Return a metric of probabilities (n, labels), or (n, 1) of the second label."""
    if name in ("accuracy", "macro_f1"):
        found = evaluate(output, y_true, outputs, weights)
        if name == "accuracy":
            return float(found["accuracy"])
        return statistics.fmean(row["f1"] for row in found["classes"].values() if row["support"])
    p = outputs.astype(np.float64)
    p = np.concatenate([1 - p, p], axis=1) if p.shape[1] == 1 else p
    log_p = np.log(np.maximum(p, np.finfo(outputs.dtype).tiny))
    if name == "log_loss":
        return -float(np.average(log_p[np.arange(len(p)), y_true], weights=weights))
    curves = threshold_curves("", y_true == 1, log_p[:, 1] - log_p[:, 0], weights)
    return float(curves["roc"]["area"]) if curves else np.nan
