"""The decision threshold of two classes: the probability of the second label from which it is predicted.

    chosen = choose_threshold("f1", probabilities, positive)     # on rows that the network was not trained on

A row is positive if its label is the second one. The candidates are all thresholds that part the rows differently.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rule = str | float | Mapping[str, Any]  # of a job file; see `find_threshold_problem`


class UnreachableThresholdError(ValueError):
    """No threshold reaches the precision asked for, or all rows are of one class."""


@dataclass(frozen=True)
class ChosenThreshold:
    """A threshold and what it was chosen by: `score` on `rows`; of costs the mean per row, the lower the better."""

    threshold: float
    rule: str
    score: float | None
    rows: int

    def as_json(self) -> dict[str, Any]:
        """Return the entry "threshold" of a training record."""
        return {"value": self.threshold, "by": self.rule, "score": self.score, "rows": self.rows}


def choose_threshold(
    rule: Rule, probabilities: NDArray[Any], positive: NDArray[np.bool_], weights: NDArray[np.float64] | None = None
) -> ChosenThreshold:
    """Return the best threshold of a rule for the probabilities (n,) of the second label.

    rule: a threshold; `"f1"` or `"balanced_accuracy"`; `{"cost": {"false_positive": a, "false_negative": b}}`, whose
    sum over the rows is least; or `{"precision": p}`, the largest recall of a precision of at least p.

    Of equally good thresholds, the one closest to 1/2. UnreachableThresholdError if all rows are of one class, or none
    reaches the precision.
    """
    if isinstance(rule, int | float):
        return ChosenThreshold(float(rule), "fixed", None, 0)
    name, goal = next(iter(({rule: None} if isinstance(rule, str) else rule).items()))
    amounts: NDArray[Any] = np.ones(len(positive)) if weights is None else weights
    positives, negatives = (float(amounts[rows].sum()) for rows in (positive, ~positive))
    if not positives or not negatives:
        raise UnreachableThresholdError("expected rows of both labels, found one label only")
    thresholds, true, false = _counts(probabilities.astype(np.float64), positive, amounts)
    flagged = true + false
    if name == "f1":
        scores = 2 * true / (flagged + positives)
    elif name == "balanced_accuracy":
        scores = (true / positives + 1 - false / negatives) / 2
    elif name == "cost":
        costs = false * goal["false_positive"] + (positives - true) * goal["false_negative"]
        scores = -costs / amounts.sum()
    else:
        precision = true / np.where(flagged > 0, flagged, 1)
        reached = (precision >= goal) & (true > 0)
        if not reached.any():
            largest = f"{precision.max():.4g}"
            raise UnreachableThresholdError(f"expected a precision of {goal}, found {largest} at most")
        scores = np.where(reached, true / positives, -1.0)
    best = np.flatnonzero(scores >= scores.max() - 1e-12)
    place = best[np.abs(thresholds[best] - 0.5).argmin()]
    score = float(scores[place])
    words = name if goal is None or name == "cost" else f"{name} >= {goal}"
    return ChosenThreshold(float(thresholds[place]), words, -score if name == "cost" else score, len(positive))


def _counts(
    p: NDArray[np.float64], positive: NDArray[np.bool_], amounts: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return thresholds that ascend, and the true and false positives of each.

    A threshold is half-way between two probabilities; 1/2 itself is one, and so is one on either side of all of them.
    """
    found, place = np.unique(p, return_inverse=True)
    between = found[:-1] + (found[1:] - found[:-1]) / 2
    thresholds = np.unique(np.concatenate([between, [found[0] / 2, (1 + found[-1]) / 2, 0.5]]))
    thresholds = thresholds[(thresholds > 0) & (thresholds < 1)]
    sums = [np.bincount(place, own, len(found))[::-1].cumsum() for own in (amounts * positive, amounts * ~positive)]
    first = np.searchsorted(found, thresholds)  # the first probability that reaches it
    true, false = (np.append(total[::-1], 0.0)[first] for total in sums)
    return thresholds, true, false
