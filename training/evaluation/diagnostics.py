"""Diagnostics of a model on its evaluation rows: the data of the charts in its report.

    calibration       {"of": label, "rows", "expected_error", "log_loss", "bins": [...]}; a bin is {"low", "high",
                      "rows", "said", "found"}: the mean predicted probability and the observed frequency
                      a row of a multi-label classifier is a pair of a row and a label there
    uncalibrated      the same of the probabilities before temperature scaling, if there was any
    roc               for two classes: {"of": label, "area", "points": [[false-positive rate, true-positive rate], ...]}
    label_roc         for several labels: {"left_out", "curves": [...]}, a "roc" of each of the most frequent ones that
                      some rows have and others do not
    precision_recall  for two classes: {"of": label, "average", "points": [[recall, precision], ...]}
    costs             for two classes: {"of": label, "rows", "positives", "options": [{"cost_ratio", "threshold",
                      "false_positives", "false_negatives"}]}
    residuals         {"left_out", "targets": {name: {"rows", "bias", "median", "p90", "points": [[true, predicted],
                      ...], "step", "edges", "counts", "outside"}}}; median and p90 of the absolute error, a histogram
                      of the errors; the points are rounded to a grid with cells of `step`, None for the values of rows
    importance        {"measure", "score", "rows", "repeats", "left_out", "parts": [{"name", "cost", "low", "high"}]},
                      in descending order of cost; for images by patch, with "grid" and "patch", both [rows, columns]
    worst_rows        [{"row": location, "true", "predicted", "probability"}], or for a regression [{"row", "target",
                      "error"}]
    slices            {"measure", "error", "columns": [{"column", "slices": [{"value", or "low" and "high", or
                      "others", or "missing"; "rows", "error": {"value", "low", "high"}, "bias"}]}]}
    weak_spots        see `find_weak_spots`: {"measure", "test", "rows", "tried", "spots": [{"where": [{"column", and
                      as a slice}], "rows", "error", "elsewhere", "p"}]}, of held-out rows
    slice_metrics     see there: [{"column", "slices": [as a slice, and "rows"], "metrics": {name: one per slice}}]

All of it is JSON: unrounded numbers, None for undefined ones, and no more of them than a page can show. All randomness
comes from the generator passed in. The keys are part of the manifest of every published artifact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.schema.columns import Column
from model_store.schema.signature import ClassificationOutput, MultiLabelOutput, RegressionOutput, Signature
from training.encoded_rows import EncodedRows
from training.evaluation.error_analysis import (
    error_slices,
    target_units,
    worst_classified,
    worst_labelled,
    worst_predicted,
)
from training.evaluation.importance import permutation_importance
from training.evaluation.label_metrics import label_log_probabilities
from training.evaluation.loss_metrics import SQUARED_ERROR, TargetLoss
from training.evaluation.metrics import Weights, log_loss, log_probabilities
from training.evaluation.predictor import Predictor
from training.evaluation.row_slices import ColumnSlices, cut_column
from training.evaluation.slice_metrics import slice_metrics
from training.evaluation.temperature import unscale_log_probabilities
from training.evaluation.threshold_curves import label_roc, threshold_curves
from training.evaluation.weak_spots import find_weak_spots

CALIBRATION_BINS = 10
MAX_EVALUATION_ROWS = 100_000  # a sample of more rows is used: precise enough for every metric here, and little memory
MAX_EVALUATION_PAIRS, _MIN_LABELLED_ROWS = 1 << 22, 2000  # of rows and labels: 34 MB each for p, its logarithms, ...
ANY_LABEL = "a label"  # whose probability is calibrated, if a row may have several
MAX_SLICED_COLUMNS = 50  # the most important ones, whose slices are measured and searched for weak spots
MAX_CATEGORIES, MIN_SLICE_ROWS = 20, 10  # of such a column, that get a slice; all others share one
MAX_TARGETS = 6  # of a regression whose residuals are kept
_MAX_SCATTER_POINTS = 300
_GRID_CELLS = 50  # on each axis, for points that are rounded


@dataclass(frozen=True)
class EvaluatedRows:
    """Rows with the network's raw `outputs`: encoded `x`, targets `y`, parsed `inputs` by column name.

    `locate` returns the location of a row, given its index, such as "line 7". Without `weights`, all rows count alike.
    """

    x: EncodedRows
    y: NDArray[Any]
    outputs: NDArray[Any]
    inputs: Mapping[str, NDArray[Any]]
    locate: Callable[[int], str]
    weights: Weights = None

    def sample(self, indices: NDArray[np.int64]) -> EvaluatedRows:
        """Return the rows with these indices."""
        y, outputs = self.y[indices], self.outputs[indices]
        inputs = {name: values[indices] for name, values in self.inputs.items()}
        weights = None if self.weights is None else self.weights[indices]
        return EvaluatedRows(self.x[indices], y, outputs, inputs, lambda i: self.locate(int(indices[i])), weights)


def diagnose(
    predictor: Predictor,
    signature: Signature,
    rows: EvaluatedRows,
    rng: np.random.Generator,
    row_budget: int,
    *,
    raw_values: bool = False,
    loss: TargetLoss = SQUARED_ERROR,
    held_out: bool = True,
    temperature: float | None = None,
) -> dict[str, Any]:
    """Return the diagnostics of the network that predicts the rows, or of the networks of an ensemble out of fold.

    held_out: False if the network was trained on the rows; weak spots are not looked for then.
    loss: that of a regression, whose metric measures importance and slices if it has one of its own.
    row_budget: the number of rows that permutation importance may send through the network.
    temperature: that the logits were divided by, if they were.
    raw_values: True if the points of a regression may be the values of rows.
    """
    output, part, part_predictor = signature.output, rows, predictor
    most = MAX_EVALUATION_ROWS
    if isinstance(output, MultiLabelOutput):
        most = min(most, max(_MIN_LABELLED_ROWS, MAX_EVALUATION_PAIRS // len(output.labels)))
    if len(rows.y) > most:
        sample = np.sort(rng.permutation(len(rows.y))[:most])
        part, part_predictor = rows.sample(sample), predictor.select(sample)
    diagnostics: dict[str, Any] = {}
    row_values: dict[str, NDArray[np.float64]] = {}
    if isinstance(output, ClassificationOutput):
        log_p = part_predictor.apply(log_probabilities, part.x)
        diagnostics["calibration"] = calibration(output.labels, part.y, log_p, part.weights)
        if temperature is not None:
            before = unscale_log_probabilities(log_p, temperature)
            diagnostics["uncalibrated"] = calibration(output.labels, part.y, before, part.weights)
        if len(output.labels) == 2:
            diagnostics |= threshold_curves(output.labels[1], part.y == 1, log_p[:, 1] - log_p[:, 0], part.weights)
        classes = output.predicted(part.outputs)
        diagnostics["worst_rows"] = worst_classified(output, part.y, classes, log_p, part.locate)
        measure, errors = "error_rate", (classes != part.y).astype(np.float64)
        row_values = {"error_rate": errors, "log_loss": -log_p[np.arange(len(log_p)), part.y]}
    elif isinstance(output, MultiLabelOutput):
        log_p = part_predictor.apply(label_log_probabilities, part.x)
        log_yes, log_no = np.moveaxis(log_p, 1, 0)
        true, predicted = part.y > 0, output.decode(part.outputs)["labels"]
        row_losses = -np.where(true, log_yes, log_no).mean(axis=1)
        diagnostics["calibration"] = label_calibration(true, log_p, part.weights)
        if temperature is not None:
            before = unscale_log_probabilities(log_p, temperature)
            diagnostics["uncalibrated"] = label_calibration(true, before, part.weights)
        diagnostics["label_roc"] = label_roc(output.labels, true, log_yes - log_no, part.weights)
        diagnostics["worst_rows"] = worst_labelled(output, true, predicted, row_losses, part.locate)
        measure, errors = "error_rate", (true != predicted).any(axis=1).astype(np.float64)
    else:
        diagnostics["residuals"] = residuals(
            output, part.y, part.outputs, rng, raw_values=raw_values, weights=part.weights
        )
        differences, units = output.decode(part.outputs) - part.y, target_units(output, part.y)
        diagnostics["worst_rows"] = worst_predicted(output, differences, units, part.locate)
        measure, errors = "rmse", differences[:, 0]
        if loss.metric is not None and len(output.names) == 1:
            measure, errors = loss.metric, loss.errors(part.y, output.decode(part.outputs))[:, 0]
        elif len(output.names) > 1:
            measure, errors = "relative_rmse", np.sqrt(((differences / units) ** 2).mean(axis=1))
    by_importance: list[Column] = []
    found = permutation_importance(predictor, signature, rows.x, rows.y, rng, row_budget, rows.weights, loss)
    diagnostics["importance"] = found
    if found is not None and "grid" not in found:
        columns = {column.name: column for column in signature.inputs}
        by_importance = [columns[one["name"]] for one in found["parts"] if one["name"] in columns]
        diagnostics["slices"] = error_slices(part.inputs, errors, measure, by_importance, part.weights)
    others = [column for column in signature.inputs if column not in by_importance]
    cut = _cut_columns([*by_importance, *others], part.inputs)
    if held_out:
        diagnostics["weak_spots"] = _weak_spots([fifths for fifths, _ in cut], errors, measure, part.weights)
    thirds = [by_third for _, by_third in cut]
    diagnostics["slice_metrics"] = slice_metrics(thirds, output, part.y, part.outputs, row_values, part.weights, loss)
    return diagnostics


def _cut_columns(
    columns: Sequence[Column], inputs: Mapping[str, NDArray[Any]]
) -> list[tuple[ColumnSlices, ColumnSlices]]:
    """Return the slices of the first columns that have some, with numbers in fifths and in thirds.

    Texts in words are left out: they are no groups of rows.
    """
    found: list[tuple[ColumnSlices, ColumnSlices]] = []
    for column in columns:
        if len(found) == MAX_SLICED_COLUMNS:
            break
        if column.kind == "text":
            continue
        values = inputs[column.name]
        limits = {"categories": MAX_CATEGORIES, "min_rows": MIN_SLICE_ROWS}
        fifths = cut_column(values, column, ranges=5, **limits)
        if fifths is not None:
            thirds = cut_column(values, column, ranges=3, **limits) if values.dtype.kind != "O" else fifths
            found.append((fifths, thirds or fifths))
    return found


def _weak_spots(
    columns: Sequence[ColumnSlices], errors: NDArray[np.float64], measure: str, weights: Weights
) -> dict[str, Any] | None:
    """Return the weak spots of the rows with a weight above 0, whose `errors` have a measure of `error_slices`."""
    if weights is not None and not weights.all():
        rows = np.flatnonzero(weights)
        columns, errors = [replace(one, codes=one.codes[rows]) for one in columns], errors[rows]
    mean_of = {"rmse": "mae", "relative_rmse": "relative_error"}
    return find_weak_spots(columns, np.abs(errors), mean_of.get(measure, measure))


def calibration(
    labels: Sequence[str | int], y_true: NDArray[Any], log_p: NDArray[np.float64], weights: Weights = None
) -> dict[str, Any]:
    """Return the bins of the reliability diagram, the expected calibration error and the log loss.

    log_p: see `log_probabilities`.

    With two labels the bins are of the second label's probability, else of the predicted label's. The expected
    calibration error is `Σ rows_b / rows · |said_b - found_b|` over the bins b. With `weights`, means and shares are
    weighted, and a bin whose rows all have a weight of 0 is left out.
    """
    p = np.exp(log_p)
    confidence, correct = (p[:, 1], y_true == 1) if len(labels) == 2 else (p.max(axis=1), p.argmax(axis=1) == y_true)
    bins, error = _calibration_bins(confidence, correct, weights)
    return {
        "of": str(labels[1]) if len(labels) == 2 else None,
        "rows": len(p),
        "expected_error": error,
        "log_loss": log_loss(log_p, y_true, weights),
        "bins": bins,
    }


def label_calibration(y_true: NDArray[np.bool_], log_p: NDArray[np.float64], weights: Weights = None) -> dict[str, Any]:
    """Return the same for all pairs of a row and a label together: y_true (rows, labels), log_p (rows, 2, labels).

    log_p: see `label_log_probabilities`.
    """
    log_yes, log_no = np.moveaxis(log_p, 1, 0)
    p = np.exp(log_yes)
    log_loss = float(np.average(-np.where(y_true, log_yes, log_no).mean(axis=1), weights=weights))
    of_pairs = None if weights is None else np.repeat(weights, p.shape[1])
    bins, error = _calibration_bins(p.reshape(-1), y_true.reshape(-1), of_pairs)
    return {"of": ANY_LABEL, "rows": len(p), "expected_error": error, "log_loss": log_loss, "bins": bins}


def _calibration_bins(
    confidence: NDArray[np.float64], correct: NDArray[np.bool_], weights: Weights
) -> tuple[list[dict[str, Any]], float]:
    """Return the bins of probabilities (n,), and the expected calibration error."""
    bins = []
    indices = np.clip((confidence * CALIBRATION_BINS).astype(np.int64), 0, CALIBRATION_BINS - 1)
    expected_error = 0.0
    for i in range(CALIBRATION_BINS):
        inside = indices == i
        own = None if weights is None else weights[inside]
        amount = float(inside.sum() if own is None else own.sum())
        if amount:
            said, found = (float(np.average(of[inside], weights=own)) for of in (confidence, correct))
            limits = {"low": i / CALIBRATION_BINS, "high": (i + 1) / CALIBRATION_BINS}
            bins.append({**limits, "rows": int(inside.sum()), "said": said, "found": found})
            expected_error += amount * abs(said - found)
    return bins, expected_error / float(len(confidence) if weights is None else weights.sum())


def residuals(
    output: RegressionOutput,
    y_true: NDArray[Any],
    outputs: NDArray[Any],
    rng: np.random.Generator,
    *,
    raw_values: bool = False,
    weights: Weights = None,
) -> dict[str, Any] | None:
    """Return points (true, predicted) and the distribution of the errors (predicted - true) of each target.

    Without `raw_values` the points are rounded to the centers of the cells of a grid over their range.

    With `weights`, bias and quantiles are weighted; points and histogram are of rows.

    With 200 rows or more, the range of the histogram is from the 0.5 to the 99.5 percentile. None if an error
    overflows.
    """
    y_pred = output.decode(outputs)
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
            "bias": float(np.average(errors, weights=weights)),
            "median": _quantile(absolute, 0.5, weights),
            "p90": _quantile(absolute, 0.9, weights),
            "points": points.tolist(),
            "step": step,
            "edges": edges.tolist(),
            "counts": counts.tolist(),
            "outside": int(len(errors) - counts.sum()),
        }
    return {"left_out": max(0, len(output.names) - MAX_TARGETS), "targets": targets}


def _quantile(values: NDArray[np.float64], level: float, weights: Weights) -> float:
    """Return a quantile: between two values, or with weights the first that has its share of them below or at it."""
    if weights is None:
        return float(np.quantile(values, level))
    return float(np.quantile(values, level, weights=weights, method="inverted_cdf"))


def _nonempty_range(low: Any, high: Any) -> tuple[float, float]:
    """Return a range wide enough for a histogram, also if all errors are equal."""
    middle, half = (float(low) + float(high)) / 2, (float(high) - float(low)) / 2
    half = max(half, abs(middle) * 1e-6, 1e-9)
    return middle - half, middle + half
