"""What a threshold on the probability of the second of two classes gives: ROC, precision and recall, and costs.

A row is positive if its label is the second one, and flagged if its score is at least the threshold. Rows count
by their weights, if they have any.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_POINTS = 100  # of a curve
MAX_LABEL_CURVES = 8  # of several labels
COST_RATIOS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # the cost of a missed positive row, in false alarms


def threshold_curves(
    label: str | int,
    positive: NDArray[np.bool_],
    log_odds: NDArray[Any],
    weights: NDArray[np.float64] | None = None,
) -> dict[str, Any]:
    """Return the entries "roc", "precision_recall" and "costs" of the diagnostics; none if all rows are of one class.

    positive, log_odds: (n,); the log odds `ln p/(1 - p)` order rows whose probability is rounded to 0 or 1.
    weights: (n,), of mean 1; default 1.
    """
    amounts: NDArray[Any] = np.ones(len(positive), np.int64) if weights is None else weights
    positives, negatives = amounts[positive].sum().item(), amounts[~positive].sum().item()
    if not positives or not negatives:
        return {}
    order = np.argsort(-log_odds, kind="stable")
    last = np.append(np.flatnonzero(np.diff(log_odds[order])), len(order) - 1)  # of the rows with an equal score
    true_positives = np.cumsum((amounts * positive)[order])[last]
    flagged = np.cumsum(amounts[order])[last]
    precision = true_positives / np.where(flagged > 0, flagged, 1)  # the first rows may have a weight of 0
    return {
        "roc": _roc(str(label), true_positives / positives, (flagged - true_positives) / negatives),
        "precision_recall": _precision_recall(str(label), true_positives / positives, precision),
        "costs": {
            "of": str(label),
            "rows": len(positive),
            "positives": positives,
            "options": [_cost_option(ratio, positive, log_odds, amounts) for ratio in COST_RATIOS],
        },
    }


def label_roc(
    labels: Sequence[str],
    true: NDArray[np.bool_],
    log_odds: NDArray[Any],
    weights: NDArray[np.float64] | None = None,
) -> dict[str, Any]:
    """Return the entry "label_roc" of the diagnostics: the curves of at most `MAX_LABEL_CURVES` labels.

    true, log_odds: (rows, labels), as in `threshold_curves`. The most frequent labels come first.
    """
    counts = true.sum(axis=0)
    varying = np.flatnonzero((counts > 0) & (counts < len(true)))
    shown = varying[np.argsort(-counts[varying], kind="stable")][:MAX_LABEL_CURVES]
    curves = [threshold_curves(labels[i], true[:, i], log_odds[:, i], weights).get("roc") for i in shown.tolist()]
    found = [curve for curve in curves if curve is not None]
    return {"left_out": len(labels) - len(found), "curves": found}


def roc_area(positive: NDArray[np.bool_], scores: NDArray[Any]) -> float | None:
    """Return the area under the ROC curve; None if all rows are of one class.

    The probability that a positive row has a higher score than a negative one, where equal scores count half; from the
    sum of the ranks of the positive rows (Mann & Whitney 1947).
    """
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return None
    _, codes, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = counts.cumsum() - (counts - 1) / 2  # the mean rank of equal scores
    above = ranks[codes[positive]].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def _roc(label: str, tpr: NDArray[np.float64], fpr: NDArray[np.float64]) -> dict[str, Any]:
    """Return false- and true-positive rates for falling thresholds, and the area under the curve."""
    tpr, fpr = np.append(0.0, tpr), np.append(0.0, fpr)
    area = float((np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2).sum())
    return {"of": label, "area": area, "points": _thin(fpr, tpr)}


def _precision_recall(label: str, recall: NDArray[np.float64], precision: NDArray[np.float64]) -> dict[str, Any]:
    """Return recall and precision for falling thresholds, and the average precision.

    The average is `Σ (recallᵢ - recallᵢ₋₁) precisionᵢ` over the thresholds, without interpolation, which would be too
    optimistic; Davis & Goadrich 2006.
    """
    average = float((np.diff(recall, prepend=0.0) * precision).sum())
    return {"of": label, "average": average, "points": _thin(recall, precision)}


def _cost_option(
    ratio: float, positive: NDArray[np.bool_], log_odds: NDArray[Any], amounts: NDArray[Any]
) -> dict[str, Any]:
    """Return the threshold with the least expected cost if a missed positive row costs `ratio` false alarms.

    To flag a row costs `1 - p` on average and not to flag it `ratio · p`: the threshold is `1 / (1 + ratio)`; Elkan
    2001, "The foundations of cost-sensitive learning". It is not chosen on these rows, which only count the errors.
    """
    flagged = log_odds >= -math.log(ratio)
    return {
        "cost_ratio": ratio,
        "threshold": 1 / (1 + ratio),
        "false_positives": amounts[flagged & ~positive].sum().item(),
        "false_negatives": amounts[~flagged & positive].sum().item(),
    }


def _thin(x: NDArray[np.float64], y: NDArray[np.float64]) -> list[list[float]]:
    """Return at most `MAX_POINTS` evenly spaced points, with the first and the last."""
    kept = np.unique(np.linspace(0, len(x) - 1, MAX_POINTS).astype(np.int64))
    points: list[list[float]] = np.column_stack([x[kept], y[kept]]).tolist()
    return points
