"""Conformal scores of calibration rows, and how often the intervals and sets hold the truth of other rows.

conformal = regression_scores(names, y_true, y_pred, scales)    # or classification_scores(y_true, p)
table = coverage(conformal, output, y_true, predictions)        # the entry "coverage" of a training record
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.artifact.conformal import (
    MAX_KNOTS,
    PENALTY,
    RANK,
    Conformal,
    LocalScale,
    label_scores,
    quantile,
    reduced_scores,
    rows_needed,
)
from model_store.schema.outputs import ClassificationOutput, RegressionOutput

LEVELS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)  # of the table of coverage
_GROUPED_LEVEL = 0.9  # at which classes or terciles are compared
_MIN_BIN_ROWS = 30  # of a local scale
_MIN_SCALE = 1e-2  # of the mean error: no interval is a point because some errors were 0
_MIN_GAIN = 0.02  # of the mean width, by which a local scale must be better
_MAX_APS_LABELS = 10  # of more labels, long sets are penalised
MAX_GROUPS = 20


def regression_scores(
    y_true: NDArray[np.float64], y_pred: NDArray[np.float64], scales: tuple[LocalScale, ...] | None = None
) -> Conformal:
    """Return the conformal scores of targets and predictions (n, targets), with the local scale of each target."""
    errors = np.abs(y_true - y_pred).T
    if scales is None:
        return Conformal("absolute", np.stack([reduced_scores(own) for own in errors]))
    scaled = [own / scale(values) for own, scale, values in zip(errors, scales, y_pred.T, strict=True)]
    return Conformal("normalized", np.stack([reduced_scores(own) for own in scaled]), scales)


def classification_scores(y_true: NDArray[np.int64], probabilities: NDArray[Any]) -> Conformal:
    """Return the conformal scores of class indices (n,), probabilities (n, labels): raps of many labels, else aps."""
    many = probabilities.shape[1] > _MAX_APS_LABELS
    penalty, rank = (PENALTY, RANK) if many else (0.0, 0)
    scores = label_scores(probabilities, penalty, rank)[np.arange(len(y_true)), y_true]
    return Conformal("raps" if many else "aps", reduced_scores(scores)[None], penalty=penalty, rank=rank)


def fit_local_scales(
    y_true: NDArray[np.float64], y_pred: NDArray[np.float64], rng: np.random.Generator
) -> tuple[LocalScale, ...] | None:
    """Return the local scale of each target, or None unless it makes the intervals of other rows narrower.

    It is the mean absolute error in bins of the prediction, each with 30 rows or more. These are no calibration rows:
    the scale may depend on rows in any way, as long as the scores are those of others. Each half of the rows, drawn by
    `rng`, is measured with the scale of the other half, at the level 0.9 and over all targets in units of their errors.
    """
    n = len(y_true)
    if n < 4 * _MIN_BIN_ROWS:
        return None
    order = rng.permutation(n)
    halves = [np.sort(order[i::2]) for i in range(2)]
    errors = np.abs(y_true - y_pred)
    if not np.isfinite(errors).all() or not errors.any(axis=0).all():
        return None
    ratios = []
    for rows, others in (halves, halves[::-1]):
        for target in range(y_true.shape[1]):
            own, values = errors[rows, target], y_pred[rows, target]
            scales = _local_scale(y_pred[others, target], errors[others, target])(values)
            width = quantile(np.sort(own / scales), _GROUPED_LEVEL) * scales.mean()
            ratios.append(width / max(quantile(np.sort(own), _GROUPED_LEVEL), np.finfo(np.float64).tiny))
    if np.mean(ratios) > 1 - _MIN_GAIN:
        return None
    return tuple(_local_scale(y_pred[:, target], errors[:, target]) for target in range(y_true.shape[1]))


def _local_scale(values: NDArray[np.float64], errors: NDArray[np.float64]) -> LocalScale:
    order = np.argsort(values, kind="stable")
    bins = np.array_split(order, max(1, min(MAX_KNOTS, len(order) // _MIN_BIN_ROWS)))
    knots, place = np.unique([values[rows].mean() for rows in bins], return_inverse=True)
    means = np.bincount(place, [errors[rows].mean() for rows in bins]) / np.bincount(place)
    scales = np.maximum(means, _MIN_SCALE * errors.mean())
    missing = len(bins) - len(knots)  # of equal predictions: targets have as many knots each
    return LocalScale(np.append(knots, [knots[-1]] * missing), np.append(scales, [scales[-1]] * missing))


def coverage(
    conformal: Conformal, output: ClassificationOutput | RegressionOutput, y_true: NDArray[Any], answers: NDArray[Any]
) -> dict[str, Any]:
    """Return how often intervals or sets of evaluation rows hold the truth, as JSON data.

        {"rows", "calibration_rows", "method", "levels": [{"level", "covered", "size"}],
         "groups": {"level": 0.9, "parts": [{"name", or "low" and "high"; "rows", "covered", "size"}]}}

    answers: probabilities (n, labels), or predictions (n, targets). `size` is the mean number of labels of a set, or
    the mean width of the intervals of the first target, which the table is of. Groups are the true classes, the most
    frequent ones first, or thirds of the rows by their prediction. A level that the calibration rows cannot promise is
    left out.
    """
    known = [level for level in LEVELS if conformal.rows >= rows_needed(level)]
    found: dict[str, Any] = {"rows": len(y_true), "calibration_rows": conformal.rows, "method": conformal.method}
    measured = {level: _measure(conformal, output, y_true, answers, level) for level in known}
    found["levels"] = [
        {"level": level, "covered": float(covered.mean()), "size": float(sizes.mean())}
        for level, (covered, sizes) in measured.items()
    ]
    if _GROUPED_LEVEL in measured:
        covered, sizes = measured[_GROUPED_LEVEL]
        parts = [
            {**name, "rows": int(rows.sum()), "covered": float(covered[rows].mean()), "size": float(sizes[rows].mean())}
            for name, rows in _groups(output, y_true, answers)
            if rows.any()
        ]
        found["groups"] = {"level": _GROUPED_LEVEL, "parts": parts}
    return found


def _measure(
    conformal: Conformal, output: Any, y_true: NDArray[Any], answers: NDArray[Any], level: float
) -> tuple[NDArray[np.bool_], NDArray[Any]]:
    """Return whether the truth of each row is held, and the size of each set or interval."""
    if isinstance(output, RegressionOutput):
        low, high = (ends[:, 0] for ends in conformal.intervals(answers, level))
        true = y_true[:, 0]
        return (true >= low) & (true <= high), high - low
    held = conformal.sets(answers, level)
    return held[np.arange(len(y_true)), y_true], held.sum(axis=1)


def _groups(output: Any, y_true: NDArray[Any], answers: NDArray[Any]) -> list[tuple[dict[str, Any], NDArray[np.bool_]]]:
    if isinstance(output, RegressionOutput):
        values = answers[:, 0]
        ends = np.quantile(values, [0, 1 / 3, 2 / 3, 1])
        third = np.searchsorted(ends[1:3], values, side="left")
        return [({"low": float(ends[i]), "high": float(ends[i + 1])}, third == i) for i in range(3)]
    frequent = np.argsort(-np.bincount(y_true, minlength=len(output.labels)), kind="stable")[:MAX_GROUPS]
    return [({"name": str(output.labels[i])}, y_true == i) for i in frequent.tolist()]
