"""Where a model errs: the rows with the largest errors, and the error in slices of the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.evaluation.confidence import wilson_interval
from model_store.evaluation.diagnostics_schema import MAX_SLICE_CANDIDATES
from model_store.schema.columns import Column
from model_store.schema.signature import ClassificationOutput, MultiLabelOutput, RegressionOutput
from training.evaluation.metrics import Weights, finite_or_none
from training.evaluation.row_slices import cut_column

MAX_WORST_ROWS = 10
MAX_SLICED_COLUMNS = 5
_MAX_CATEGORIES = 6  # of a column, that get a slice of their own; all others share one
_NUMBER_SLICES = 5
_MIN_SLICE_ROWS = 10
_Z_95 = 1.96


def worst_classified(
    output: ClassificationOutput,
    y_true: NDArray[Any],
    predicted: NDArray[Any],
    log_p: NDArray[np.float64],
    locate: Callable[[int], str],
) -> list[dict[str, Any]]:
    """Return the wrong rows whose true label has the lowest probability, lowest first.

    locate: returns the location of an evaluated row in the data, such as "line 7".
    """
    true = log_p[np.arange(len(log_p)), y_true]
    wrong = np.flatnonzero(predicted != y_true)
    return [
        {
            "row": locate(int(i)),
            "true": output.labels[y_true[i]],
            "predicted": output.labels[predicted[i]],
            "probability": float(np.exp(log_p[i, predicted[i]])),
        }
        for i in wrong[np.argsort(true[wrong], kind="stable")][:MAX_WORST_ROWS]
    ]


def worst_labelled(
    output: MultiLabelOutput,
    true: NDArray[np.bool_],
    predicted: NDArray[np.bool_],
    losses: NDArray[np.float64],
    locate: Callable[[int], str],
) -> list[dict[str, Any]]:
    """Return the rows with a wrong label whose log loss (n,) is largest; `true` and `predicted` are (n, labels)."""
    wrong = np.flatnonzero((true != predicted).any(axis=1))
    return [
        {"row": locate(int(i)), "true": _names(output, true[i]), "predicted": _names(output, predicted[i])}
        for i in wrong[np.argsort(-losses[wrong], kind="stable")][:MAX_WORST_ROWS]
    ]


def _names(output: MultiLabelOutput, present: NDArray[np.bool_]) -> str:
    return ", ".join(output.labels[i] for i in np.flatnonzero(present)) or "no label"


def target_units(output: RegressionOutput, y_true: NDArray[Any]) -> NDArray[np.float64]:
    """Return what the errors of each target are divided by to compare them: about a standard deviation."""
    if output.transform is None:
        return np.array(output.scale)
    deviations: NDArray[np.float64] = y_true.std(axis=0)
    deviations[deviations == 0] = 1.0
    return deviations


def worst_predicted(
    output: RegressionOutput, errors: NDArray[np.float64], units: NDArray[np.float64], locate: Callable[[int], str]
) -> list[dict[str, Any]]:
    """Return the rows with the largest `errors` (n, targets), predicted minus true value, in the units of the targets.

    With several targets, errors are compared in `units` (see `target_units`), and a row is listed with its largest one.
    """
    relative = np.abs(errors) / units
    largest = relative.argmax(axis=1)
    order = np.argsort(-relative[np.arange(len(errors)), largest], kind="stable")[:MAX_WORST_ROWS]
    return [
        {"row": locate(int(i)), "target": output.names[largest[i]], "error": finite_or_none(errors[i, largest[i]])}
        for i in order
        if errors[i, largest[i]]
    ]


def error_slices(
    inputs: Mapping[str, NDArray[Any]],
    errors: NDArray[np.float64],
    measure: str,
    columns: Sequence[Column],
    weights: Weights = None,
) -> dict[str, Any] | None:
    """Return the error of the rows in each slice of the `columns`, with its 95 % interval.

    A category is a slice. Numbers have a slice for each fifth of the training rows, or for each value if they are few:
    the deciles of the signature are its limits, so that no other value of a row is recorded. Rows without a value are a
    slice too. Of many columns, only the first `MAX_SLICE_CANDIDATES` are examined. None if there is no slice, or the
    errors overflow.

    weights: (n,), of the errors; default 1.
    errors: (n,); 0 or 1 for the measure "error_rate", differences for "rmse", else errors whose mean is the measure.
    """
    found: list[dict[str, Any]] = []
    with np.errstate(over="ignore"):
        if not np.isfinite((errors**2).sum()):
            return None
    for column in columns[:MAX_SLICE_CANDIDATES]:
        if len(found) == MAX_SLICED_COLUMNS:
            break
        slices = cut_column(inputs[column.name], column, ranges=_NUMBER_SLICES, categories=_MAX_CATEGORIES)
        if slices is None:
            continue
        parts = [
            {**words, **_slice_error(errors[rows], measure, None if weights is None else weights[rows])}
            for words, rows in slices.masks()
            if rows.sum() >= _MIN_SLICE_ROWS and (weights is None or weights[rows].any())
        ]
        if len(parts) > 1:
            found.append({"column": column.name, "slices": parts})
    if not found:
        return None
    return {"measure": measure, "error": _slice_error(errors, measure, weights)["error"]["value"], "columns": found}


def _slice_error(errors: NDArray[np.float64], measure: str, weights: Weights) -> dict[str, Any]:
    """Return rows and error with its interval: Wilson's of an error rate, the delta method's of an RMSE.

    Weighted rows count as `(Σ w)² / Σ w²` rows in an interval, their effective number; Kish 1965.
    """
    rows = len(errors)
    effective = float(rows if weights is None else weights.sum() ** 2 / (weights**2).sum())
    if measure == "error_rate":
        rate = float(np.average(errors, weights=weights))
        low, high = wilson_interval(rate * effective, effective)
        return {"rows": rows, "error": {"value": rate, "low": low, "high": high}}
    if measure not in ("rmse", "relative_rmse"):
        mean = float(np.average(errors, weights=weights))
        variance = float(np.average((errors - mean) ** 2, weights=weights))
        margin = _Z_95 * (variance / (effective - 1)) ** 0.5 if effective > 1 else 0.0
        return {"rows": rows, "error": {"value": mean, "low": max(0.0, mean - margin), "high": mean + margin}}
    squares = errors**2
    mean = float(np.average(squares, weights=weights))
    variance = float(np.average((squares - mean) ** 2, weights=weights))
    margin = _Z_95 * (variance / (effective - 1)) ** 0.5 if effective > 1 else 0.0
    error = {"value": mean**0.5, "low": max(0.0, mean - margin) ** 0.5, "high": (mean + margin) ** 0.5}
    if measure == "relative_rmse":
        return {"rows": rows, "error": error}
    return {"rows": rows, "error": error, "bias": float(np.average(errors, weights=weights))}
