"""Diagnostics of a model on its evaluation rows: the data of the charts in its report.

    calibration   {"of": label, "rows", "expected_error", "log_loss", "bins": [...]}; a bin is
                  {"low", "high", "rows", "said", "found"}: the mean predicted probability and the observed frequency
    roc           {"of": label, "area", "points": [[false-positive rate, true-positive rate], ...]}, for two classes
    residuals     {"left_out", "targets": {name: {"rows", "bias", "median", "p90", "points": [[true, predicted], ...],
                  "step", "edges", "counts", "outside"}}}; median and p90 of the absolute error, a histogram of the
                  errors; the points are rounded to a grid with cells of `step`, None for the values of rows
    importance    {"measure", "score", "rows", "repeats", "left_out", "parts": [{"name", "cost", "deviation"}]}, in
                  descending order of cost; for images by patch, with "grid" and "patch", both [rows, columns]

All of it is JSON: unrounded numbers, None for undefined ones, and no more of them than a page can show. All randomness
comes from the generator passed in. The keys are part of the manifest of every published artifact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.nn import Sequential
from model_store.schema.signature import ClassificationOutput, RegressionOutput, Signature
from training.evaluation.metrics import finite_or_none, log_loss, log_probabilities, predicted_classes

CALIBRATION_BINS = 10
MAX_EVALUATION_ROWS = 100_000  # a sample of more rows is used: precise enough for every metric here, and little memory
MAX_IMPORTANCE_PARTS = 30  # columns whose importance is kept
MAX_TARGETS = 6  # of a regression whose residuals are kept
_MAX_SCATTER_POINTS = 300
_GRID_CELLS = 50  # on each axis, for points that are rounded
_MAX_ROC_POINTS = 100
_MAX_IMPORTANCE_ROWS = 2000
_MIN_IMPORTANCE_ROWS = 100
_MAX_REPEATS = 5
_PATCHES_PER_SIDE = 8  # of an image


def diagnose(
    network: Sequential,
    signature: Signature,
    x: NDArray[Any],
    y_true: NDArray[Any],
    outputs: NDArray[Any],
    rng: np.random.Generator,
    row_budget: int,
    *,
    raw_values: bool = False,
) -> dict[str, Any]:
    """Return the diagnostics of a network's raw `outputs` for encoded rows `x` with targets `y_true`.

    row_budget: the number of rows that permutation importance may send through the network.
    raw_values: True if the points of a regression may be the values of rows.
    """
    output, evaluation_targets = signature.output, y_true
    evaluation_rows: Any = slice(None)
    if len(y_true) > MAX_EVALUATION_ROWS:
        evaluation_rows = np.sort(rng.permutation(len(y_true))[:MAX_EVALUATION_ROWS])
        evaluation_targets = y_true[evaluation_rows]
    diagnostics: dict[str, Any] = {}
    if isinstance(output, ClassificationOutput):
        log_p = log_probabilities(network, x[evaluation_rows])
        diagnostics["calibration"] = calibration(output.labels, evaluation_targets, log_p)
        if len(output.labels) == 2:
            diagnostics["roc"] = roc(output.labels[1], evaluation_targets == 1, log_p[:, 1] - log_p[:, 0])
    else:
        diagnostics["residuals"] = residuals(
            output, evaluation_targets, outputs[evaluation_rows], rng, raw_values=raw_values
        )
    diagnostics["importance"] = importance(network, signature, x, y_true, rng, row_budget)
    return diagnostics


def calibration(labels: Sequence[str | int], y_true: NDArray[Any], log_p: NDArray[np.float64]) -> dict[str, Any]:
    """Return the bins of the reliability diagram, the expected calibration error and the log loss.

    log_p: see `log_probabilities`.

    With two labels the bins are of the second label's probability, else of the predicted label's. The expected
    calibration error is `Σ rows_b / rows · |said_b - found_b|` over the bins b.
    """
    p = np.exp(log_p)
    confidence, correct = (p[:, 1], y_true == 1) if len(labels) == 2 else (p.max(axis=1), p.argmax(axis=1) == y_true)
    bins = []
    indices = np.clip((confidence * CALIBRATION_BINS).astype(np.int64), 0, CALIBRATION_BINS - 1)
    for i in range(CALIBRATION_BINS):
        inside = indices == i
        if rows := int(inside.sum()):
            means = {"said": float(confidence[inside].mean()), "found": float(correct[inside].mean())}
            bins.append({"low": i / CALIBRATION_BINS, "high": (i + 1) / CALIBRATION_BINS, "rows": rows, **means})
    return {
        "of": str(labels[1]) if len(labels) == 2 else None,
        "rows": len(p),
        "expected_error": sum(part["rows"] * abs(part["said"] - part["found"]) for part in bins) / len(p),
        "log_loss": log_loss(log_p, y_true),
        "bins": bins,
    }


def roc(label: str | int, positive: NDArray[np.bool_], score: NDArray[Any]) -> dict[str, Any] | None:
    """Return false- and true-positive rates for falling thresholds, and the area; None if all rows are of one class."""
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return None
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)  # of the rows with an equal score
    tpr = np.concatenate([[0.0], np.cumsum(positive[order])[last] / positives])
    fpr = np.concatenate([[0.0], np.cumsum(~positive[order])[last] / negatives])
    area = float((np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2).sum())
    kept = np.unique(np.linspace(0, len(tpr) - 1, _MAX_ROC_POINTS).astype(np.int64))
    return {"of": str(label), "area": area, "points": np.column_stack([fpr[kept], tpr[kept]]).tolist()}


def residuals(
    output: RegressionOutput,
    y_true: NDArray[Any],
    outputs: NDArray[Any],
    rng: np.random.Generator,
    *,
    raw_values: bool = False,
) -> dict[str, Any] | None:
    """Return points (true, predicted) and the distribution of the errors (predicted - true) of each target.

    Without `raw_values` the points are rounded to the centers of the cells of a grid over their range.

    With 200 rows or more, the range of the histogram is from the 0.5 to the 99.5 percentile. None if an error
    overflows.
    """
    y_pred = outputs.astype(np.float64) * output.scale + output.offset
    with np.errstate(over="ignore"):
        if not np.isfinite(((y_pred - y_true) ** 2).sum()):
            return None
    sample = np.sort(rng.permutation(len(y_true))[:_MAX_SCATTER_POINTS])
    targets = {}
    for i, name in enumerate(output.names[:MAX_TARGETS]):
        errors = y_pred[:, i] - y_true[:, i]
        low, high = np.quantile(errors, [0.005, 0.995]) if len(errors) >= 200 else (errors.min(), errors.max())
        bins = int(np.clip(len(errors) ** 0.5, 5, 30))
        counts, edges = np.histogram(errors, bins=bins, range=_nonempty_range(low, high))
        absolute = np.abs(errors)
        points = np.column_stack([y_true[sample, i], y_pred[sample, i]])
        step = None if raw_values else float(np.ptp(points)) / _GRID_CELLS
        if step:
            cells = np.clip((points - points.min()) // step, 0, _GRID_CELLS - 1)
            points = points.min() + (cells + 0.5) * step
        targets[name] = {
            "rows": len(errors),
            "bias": float(errors.mean()),
            "median": float(np.median(absolute)),
            "p90": float(np.quantile(absolute, 0.9)),
            "points": points.tolist(),
            "step": step,
            "edges": edges.tolist(),
            "counts": counts.tolist(),
            "outside": int(len(errors) - counts.sum()),
        }
    return {"left_out": max(0, len(output.names) - MAX_TARGETS), "targets": targets}


@dataclass(frozen=True)
class _FeatureGroup:
    """Features that are shuffled together: those of a column, or of a patch of an image."""

    name: str
    features: NDArray[np.int64]


def importance(
    network: Sequential,
    signature: Signature,
    x: NDArray[Any],
    y_true: NDArray[Any],
    rng: np.random.Generator,
    row_budget: int,
) -> dict[str, Any] | None:
    """Return the permutation importance (Breiman 2001): the cost of shuffling one feature group among the rows.

    The cost is the loss of accuracy; for arrays the increase of the log loss, which a single patch or value changes
    too; for a regression the increase of the RMSE, with several targets each divided by its scale. It is the mean over
    `repeats` shuffles, with its standard deviation. None if there are fewer than two rows to shuffle.
    """
    groups, grid = _feature_groups(signature)
    rows = min(len(x), _MAX_IMPORTANCE_ROWS, max(_MIN_IMPORTANCE_ROWS, row_budget // len(groups)))
    repeats = int(np.clip(row_budget // (rows * len(groups) or 1), 1, _MAX_REPEATS))
    if rows < 2:
        return None
    sample = np.sort(rng.permutation(len(x))[:rows])
    measure, loss = _importance_loss(network, signature, y_true[sample])
    x = x[sample]
    before = loss(x)
    costs = []
    for group in groups:
        original = x[:, group.features]
        losses = []
        for _ in range(repeats):
            x[:, group.features] = original[rng.permutation(rows)]
            losses.append(loss(x) - before)
        x[:, group.features] = original
        cost, deviation = finite_or_none(_mean(losses)), finite_or_none(np.std(losses))
        costs.append({"name": group.name, "cost": cost, "deviation": deviation})
    score = 1 - before if measure == "accuracy" else before
    found = {"measure": measure, "score": finite_or_none(score), "rows": rows, "repeats": repeats}
    if grid is not None:
        return {**found, **grid, "parts": costs}
    costs.sort(key=lambda part: -np.inf if part["cost"] is None else part["cost"], reverse=True)
    left_out = max(0, len(costs) - MAX_IMPORTANCE_PARTS)
    return {**found, "left_out": left_out, "parts": costs[:MAX_IMPORTANCE_PARTS]}


def _feature_groups(signature: Signature) -> tuple[list[_FeatureGroup], dict[str, Any] | None]:
    """Return the groups to shuffle; for an image also the grid of its patches, row by row."""
    first = signature.inputs[0]
    if not first.is_whole_row:
        ends = list(accumulate(column.width for column in signature.inputs))
        spans = zip(signature.inputs, [0, *ends], ends, strict=False)
        return [_FeatureGroup(column.name, np.arange(start, end)) for column, start, end in spans], None
    features = np.arange(first.width)
    if len(first.shape) == 1:
        runs = np.array_split(features, min(len(features), _PATCHES_PER_SIDE**2))
        return [_FeatureGroup(_range_name(first.name, run), run) for run in runs], None
    height, width = first.shape[:2]
    pixels = features.reshape(height, width, -1)
    patch = -(-height // _PATCHES_PER_SIDE), -(-width // _PATCHES_PER_SIDE)
    tops, lefts = range(0, height, patch[0]), range(0, width, patch[1])
    patches = [
        _FeatureGroup(f"row {top}, column {left}", pixels[top : top + patch[0], left : left + patch[1]].reshape(-1))
        for top in tops
        for left in lefts
    ]
    return patches, {"grid": [len(tops), len(lefts)], "patch": list(patch)}


def _range_name(name: str, run: NDArray[np.int64]) -> str:
    return f"{name} {run[0]}" if len(run) == 1 else f"{name} {run[0]} to {run[-1]}"


def _importance_loss(
    network: Sequential, signature: Signature, y_true: NDArray[Any]
) -> tuple[str, Callable[[NDArray[Any]], float]]:
    """Return the name of the measure, and a function from encoded rows to the loss whose increase is the cost."""
    output = signature.output
    if isinstance(output, RegressionOutput):
        scaled = (y_true - output.offset) / output.scale
        unit = output.scale[0] if len(output.scale) == 1 else 1.0
        return "rmse", lambda x: float(np.sqrt(((network(x) - scaled) ** 2).mean()) * unit)
    if signature.inputs[0].is_whole_row:
        return "log_loss", lambda x: log_loss(log_probabilities(network, x), y_true)
    return "accuracy", lambda x: float((predicted_classes(network(x)) != y_true).mean())


def _mean(values: Sequence[float]) -> float:
    """Return the mean; exactly 0 if the values cancel out except for rounding."""
    mean = float(np.mean(values))
    return 0.0 if abs(mean) <= 1e-12 * np.abs(values).max() else mean


def _nonempty_range(low: Any, high: Any) -> tuple[float, float]:
    """Return a range wide enough for a histogram, also if all errors are equal."""
    middle, half = (float(low) + float(high)) / 2, (float(high) - float(low)) / 2
    half = max(half, abs(middle) * 1e-6, 1e-9)
    return middle - half, middle + half
