"""Weak spots: slices of held-out rows whose error is higher than elsewhere, beyond chance.

A slice is a value or range of one column, or of two columns together. Each slice is tested one-sided against all other
rows: of a classification by the exact test of Fisher 1935 ("The logic of inductive inference") on the wrong rows, of a
regression by the rank-sum test of Wilcoxon 1945 and of Mann & Whitney 1947 on the errors, whose ranks are the same for
absolute and squared errors, so that a single large error is no weak spot. The p-values are adjusted for all slices that
were tested by the method of Holm 1979 ("A simple sequentially rejective multiple test procedure"): of models without a
weak spot, at most 5 % report one.

Rows count alike, whatever their weights. The cost is bounded: the columns that are given (`diagnose` gives at most 50),
the pairs of the first `MAX_PAIRED_COLUMNS` of them, and the rows of an evaluation, at most 100,000.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import erfc, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.evaluation.row_slices import ColumnSlices

SIGNIFICANCE = 0.05  # of all slices together
MIN_ROWS = 10  # of a slice, and of the rows elsewhere
MAX_PAIRED_COLUMNS = 8  # 28 pairs
MAX_SPOTS = 10  # that are kept
_MIN_RATIO = 1.2  # of the errors here and elsewhere; with many rows, differences without importance are significant


@dataclass(frozen=True)
class _Slice:
    """The slice of one column, or of two together: the index of its words in each."""

    parts: tuple[tuple[ColumnSlices, int], ...]

    def mask(self) -> NDArray[np.bool_]:
        inside: NDArray[np.bool_] = np.all([slices.codes == code for slices, code in self.parts], axis=0)
        return inside

    def words(self) -> list[dict[str, Any]]:
        return [{"column": slices.column, **slices.words[code]} for slices, code in self.parts]


class FisherTest:
    """Fisher's exact test whether a part of the rows has more ones among its `scores` of 0 and 1 than the others.

    It is `P(X ≥ x)` for x ones in n rows of N, of which K are ones: X is hypergeometric,
    `P(X = x) = C(K, x) C(N - K, n - x) / C(N, n)`.
    """

    name = "fisher_exact"

    def __init__(self, errors: NDArray[np.float64]) -> None:
        self.scores = errors
        self._all, self._wrong = len(errors), int(errors.sum())
        self._log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, len(errors) + 1)))])

    def p_value(self, rows: int, total: float) -> float:
        """Return the p-value of a part of so many rows, whose scores add up to `total`."""
        if total * self._all <= self._wrong * rows:  # no worse than elsewhere
            return 1.0
        wrong, right = np.arange(round(total), min(self._wrong, rows) + 1), self._all - self._wrong
        log_p = self._log_choose(self._wrong, wrong) + self._log_choose(right, rows - wrong)
        return min(1.0, float(np.exp(log_p - self._log_choose(self._all, rows)).sum()))

    def _log_choose(self, n: int, k: Any) -> Any:
        return self._log_factorial[n] - self._log_factorial[k] - self._log_factorial[n - k]


class RankSumTest:
    """The rank-sum test whether a part of the rows has larger errors; `scores` are ranks, of ties their mean.

    With the normal approximation: the sum R of n of N ranks has the mean `n (N + 1) / 2` and the variance
    `n (N - n) / 12 · (N + 1 - Σ (t³ - t) / (N (N - 1)))` for t equal errors; the continuity correction is 1/2.
    """

    name = "rank_sum"

    def __init__(self, errors: NDArray[np.float64]) -> None:
        _, of_row, counts = np.unique(errors, return_inverse=True, return_counts=True)
        last = np.cumsum(counts)
        self.scores = (last - (counts - 1) / 2)[of_row]
        n = self._all = len(errors)
        ties = float((counts.astype(np.float64) ** 3 - counts).sum())
        self._unit = (n + 1 - ties / (n * (n - 1))) / 12

    def p_value(self, rows: int, total: float) -> float:
        """Return the p-value of a part of so many rows, whose ranks add up to `total`."""
        deviation = sqrt(max(0.0, rows * (self._all - rows) * self._unit))
        excess = total - rows * (self._all + 1) / 2 - 0.5
        return 0.5 * erfc(excess / deviation / sqrt(2)) if deviation else 1.0


def find_weak_spots(
    columns: Sequence[ColumnSlices], errors: NDArray[np.float64], measure: str
) -> dict[str, Any] | None:
    """Return the weak spots among the slices of `columns`, the most important first; None if no slice can be tested.

    errors: (n,), of at least 0; only 0 and 1 for the measure "error_rate".

    Spots are in order of significance. Each is worse than elsewhere beyond chance also without the rows of those before
    it, or, if it lies inside one of them, worse than the rest of that one. So a pair that says no more than its single
    column is left out, and so is a column that is weak in a pair only.
    """
    if len(errors) < 2 * MIN_ROWS or not np.isfinite(errors).all():
        return None
    kind: type[FisherTest | RankSumTest] = FisherTest if measure == "error_rate" else RankSumTest
    test = kind(errors)
    tested, p_values = [], []
    for one, rows, total in _candidates(columns, test.scores):
        tested.append(one)
        p_values.append(test.p_value(rows, total))
    if not tested:
        return None
    adjusted = adjust_p_values(np.array(p_values))
    spots: list[dict[str, Any]] = []
    listed: list[NDArray[np.bool_]] = []
    for i in np.argsort(p_values, kind="stable"):
        if adjusted[i] > SIGNIFICANCE or len(spots) == MAX_SPOTS:
            break
        inside = tested[i].mask()
        here, elsewhere = float(errors[inside].mean()), float(errors[~inside].mean())
        if here >= _MIN_RATIO * elsewhere and _says_more(inside, listed, errors, kind, len(tested)):
            listed.append(inside)
            found = {"rows": int(inside.sum()), "error": here, "elsewhere": elsewhere, "p": float(adjusted[i])}
            spots.append({"where": tested[i].words(), **found})
    return {"measure": measure, "test": test.name, "rows": len(errors), "tried": len(tested), "spots": spots}


def adjust_p_values(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return p-values adjusted for their number m: `max over j ≤ i of (m - j + 1) p₍ⱼ₎`, at most 1; Holm 1979."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    factors = len(p_values) - np.arange(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * p_values[order]), 1.0)
    return adjusted


def _candidates(columns: Sequence[ColumnSlices], scores: NDArray[np.float64]) -> Iterator[tuple[_Slice, int, float]]:
    """Yield the slices with enough rows, with the number of these and the sum of their scores."""
    rows_of: dict[str, NDArray[np.int64]] = {}
    for one in columns:
        rows, totals = _sums(one.codes, len(one.words), scores)
        rows_of[one.column] = rows
        for code in _large_enough(rows, len(scores)):
            yield _Slice(((one, code),)), int(rows[code]), float(totals[code])
    for first, second in combinations(columns[:MAX_PAIRED_COLUMNS], 2):
        width = len(second.words)
        rows, totals = _sums(first.codes * width + second.codes, len(first.words) * width, scores)
        for code in _large_enough(rows, len(scores)):
            a, b = divmod(code, width)
            if rows[code] < min(rows_of[first.column][a], rows_of[second.column][b]):  # else it is that of one column
                yield _Slice(((first, a), (second, b))), int(rows[code]), float(totals[code])


def _sums(codes: NDArray[np.int64], count: int, scores: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
    return np.bincount(codes, minlength=count), np.bincount(codes, scores, minlength=count)


def _large_enough(rows: NDArray[np.int64], total: int) -> list[int]:
    codes: list[int] = np.flatnonzero((rows >= MIN_ROWS) & (total - rows >= MIN_ROWS)).tolist()
    return codes


def _says_more(
    inside: NDArray[np.bool_],
    listed: Sequence[NDArray[np.bool_]],
    errors: NDArray[np.float64],
    kind: type[FisherTest | RankSumTest],
    tried: int,
) -> bool:
    """Return whether a slice is worse than others for another reason than the weak spots that are listed.

    tried: the number of slices, which divides the level of this test (Bonferroni).
    """
    around = [spot for spot in listed if not (inside & ~spot).any()]
    others = ~np.logical_or.reduce(listed) if listed else np.ones(len(errors), bool)
    for part in around or [others]:
        rows = int(inside[part].sum())
        if rows < MIN_ROWS:
            return False
        test = kind(errors[part])
        if test.p_value(rows, float(test.scores[inside[part]].sum())) > SIGNIFICANCE / tried:
            return False
    return True
