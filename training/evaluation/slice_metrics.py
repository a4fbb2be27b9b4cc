"""Metrics of the evaluated rows by slice of each column, with which gates compare groups of rows without the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.evaluation.record import OVERALL_LABEL_METRICS
from model_store.schema.signature import ClassificationOutput, MultiLabelOutput, Output
from training.evaluation.loss_metrics import TargetLoss
from training.evaluation.metrics import Weights, evaluate
from training.evaluation.row_slices import ColumnSlices

MIN_ROWS = 10  # of a slice
_MAX_TARGETS = 6  # of a regression


def slice_metrics(
    columns: Sequence[ColumnSlices],
    output: Output,
    y_true: NDArray[Any],
    outputs: NDArray[Any],
    row_values: Mapping[str, NDArray[np.float64]],
    weights: Weights,
    loss: TargetLoss,
) -> list[dict[str, Any]]:
    """Return the metrics of each slice with at least `MIN_ROWS` rows, for columns with two such slices.

    They are [{"column", "slices": [{words, "rows"}], "metrics": {name: [a number or None for each slice]}}].

    A classification has accuracy, error_rate and log_loss, and of two classes precision, recall and f1 of the second;
    several labels have their overall metrics. A regression has those of `evaluate`, with the name of the target and a
    dot before each if there are several.

    row_values: error_rate and log_loss (n,) of each row of a classification.
    """
    found = []
    for column in columns:
        slices, metrics = [], []
        for words, rows in column.masks():
            count = int(rows.sum())
            own = None if weights is None else weights[rows]
            if count < MIN_ROWS or (own is not None and not own.any()):
                continue
            slices.append({**words, "rows": count})
            part = _metrics(output, evaluate(output, y_true[rows], outputs[rows], own, loss))
            part |= {name: float(np.average(values[rows], weights=own)) for name, values in row_values.items()}
            metrics.append(part)
        if len(slices) > 1:
            by_name = {name: [part[name] for part in metrics] for name in metrics[0]}
            found.append({"column": column.column, "slices": slices, "metrics": by_name})
    return found


def _metrics(output: Output, metrics: dict[str, Any]) -> dict[str, float | None]:
    """Return the metrics of a slice by name."""
    if isinstance(output, MultiLabelOutput):
        return {name: metrics[name] for name in OVERALL_LABEL_METRICS}
    if isinstance(output, ClassificationOutput):
        found = {"accuracy": metrics["accuracy"]}
        if len(output.labels) == 2:
            positive = metrics["classes"][str(output.labels[1])]
            undefined = not positive["support"]
            found |= {name: None if undefined else positive[name] for name in ("precision", "recall", "f1")}
        return found
    targets = list(metrics["targets"].items())[:_MAX_TARGETS]
    if len(targets) == 1:
        return dict(targets[0][1])
    return {f"{target}.{name}": value for target, part in targets for name, value in part.items()}
