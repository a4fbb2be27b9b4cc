"""Conformal prediction: intervals of a regression and sets of labels that hold the truth as often as promised.

    conformal = Conformal("absolute", sorted_scores)
    low, high = conformal.intervals(values, 0.9)                # (n, targets) each
    has_label = conformal.sets(probabilities, 0.9)              # (n, labels), True for those in the set

Split conformal prediction (Papadopoulos et al. 2002; Vovk, Gammerman & Shafer 2005): scores say how badly the model
predicts rows that neither its training nor its early stopping has seen. Of n + 1 exchangeable rows, the next one has a
score of at most the `⌈(n + 1) level⌉`-th of the n with a probability of at least `level`. The methods:

    absolute     |y - ŷ|
    normalized   |y - ŷ| / s(ŷ), the local scale s between knots on ŷ; Lei et al. 2018, section 5.2
    aps          the sum of the probabilities of the labels before the true one; Romano, Sesia & Candès 2020 (u = 1)
    raps         the same, and `penalty` for each place after the first `rank`; Angelopoulos et al. 2021

The paper subtracts a random share u of the true label's own probability. Here it is all of it: an answer is the same
each time, no set is empty, and a model that is right more often than the level gives sets of one label. With u = 0, a
penguin of 99.96 % had a second label at the level 0.9.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from model_store.nn import Array

METHODS = ("absolute", "normalized", "aps", "raps")
MAX_SCORES = 10_000  # for each target, in an artifact
MAX_KNOTS = 100
PENALTY, RANK = 0.01, 5  # of raps; Angelopoulos et al. 2021, section 4.1, use like values for ImageNet


class TooFewScoresError(ValueError):
    """A level that so few rows cannot promise: the quantile would be infinite."""


@dataclass(frozen=True)
class LocalScale:
    """A positive scale of errors by the prediction ŷ: linear between ascending `knots`, constant outside."""

    knots: Array
    scales: Array

    def __call__(self, values: Array) -> Array:
        """Return the scale at each value (n,)."""
        return np.interp(values, self.knots, self.scales)


@dataclass(frozen=True)
class Conformal:
    """The scores (targets, n) of calibration rows, ascending for each target; of labels (1, n).

    `scales` has the local scale of each target, for `normalized`.
    """

    method: str
    scores: Array
    scales: tuple[LocalScale, ...] = ()
    penalty: float = 0.0
    rank: int = 0

    @property
    def rows(self) -> int:
        """The number of calibration rows that the scores count for."""
        return int(self.scores.shape[1])

    @property
    def max_level(self) -> float:
        """The largest level that can be promised, `n / (n + 1)`, rounded down to three digits."""
        return 1000 * self.rows // (self.rows + 1) / 1000

    def astype(self, dtype: np.dtype[Any]) -> Conformal:
        """Return the scores in another precision, rounded up: a quantile that is too small would break the promise."""
        with np.errstate(over="ignore"):
            scores = self.scores.astype(dtype)
        scores = np.where(scores < self.scores, np.nextafter(scores, np.array(np.inf, dtype)), scores)
        scales = tuple(LocalScale(one.knots.astype(dtype), one.scales.astype(dtype)) for one in self.scales)
        return replace(self, scores=scores, scales=scales)

    def intervals(self, values: Array, level: float) -> tuple[Array, Array]:
        """Return the lower and upper ends for predictions (n, targets) in their units. TooFewScoresError."""
        half = np.empty(values.shape)
        for target, scores in enumerate(self.scores):
            half[:, target] = quantile(scores, level)
            if self.scales:
                half[:, target] *= self.scales[target](values[:, target])
        return values - half, values + half

    def sets(self, probabilities: Array, level: float) -> Array:
        """Return which labels (n, labels) are in the set of each row; the most probable one always is."""
        within: Array = self.label_scores(probabilities) <= quantile(self.scores[0], level)
        within[np.arange(len(within)), probabilities.argmax(axis=1)] = True
        return within

    def label_scores(self, probabilities: Array) -> Array:
        """Return the score that each label (n, labels) would have if it were the true one."""
        return label_scores(probabilities, self.penalty, self.rank)


def label_scores(probabilities: Array, penalty: float = 0.0, rank: int = 0) -> Array:
    """Return `Σ p` of the more probable labels before each one, in float64, `+ penalty · max(0, place - rank)`.

    Places count from 1; equally probable labels are in the output's order.
    """
    p = probabilities.astype(np.float64)
    order = np.argsort(-p, axis=1, kind="stable")
    sums = np.zeros_like(p)
    np.cumsum(np.take_along_axis(p, order, axis=1)[:, :-1], axis=1, out=sums[:, 1:])
    sums += penalty * np.maximum(0, np.arange(1, p.shape[1] + 1) - rank)
    scores = np.empty_like(sums)
    np.put_along_axis(scores, order, sums, axis=1)
    return scores


def quantile(scores: Array, level: float) -> float:
    """Return the `⌈(n + 1) level⌉`-th smallest of ascending scores (n,). TooFewScoresError if there are fewer."""
    place = score_rank(len(scores), level)
    if place > len(scores):
        problem = f"expected {rows_needed(level)} calibration rows or more for the level {level}, found {len(scores)}"
        raise TooFewScoresError(problem)
    return float(scores[place - 1])


def score_rank(n: int, level: float) -> int:
    """Return `⌈(n + 1) level⌉`, of the level as it is written: 0.9 is nine tenths, not the nearest double.

    ValueError unless the level is above 0 and below 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number between 0 and 1, found {level}")
    return math.ceil((n + 1) * Fraction(repr(float(level))))


def rows_needed(level: float) -> int:
    """Return the least number of calibration rows that can promise a level: `⌈level / (1 - level)⌉`."""
    share = Fraction(repr(float(level)))
    return math.ceil(share / (1 - share))


def reduced_scores(scores: Array, most: int = MAX_SCORES) -> Array:
    """Return ascending scores (n,), of more than `most` so many of them whose quantiles are none too small.

    The j-th of m is the `⌈j (n + 1) / (m + 1)⌉`-th of n. So for any level that m scores can promise, the quantile of
    the m is that of the n, or the next ones above it: `⌈⌈(m + 1) l⌉ (n + 1) / (m + 1)⌉ >= ⌈(n + 1) l⌉`.
    """
    ordered = np.sort(scores)
    n = len(ordered)
    if n <= most:
        return ordered
    j = np.arange(1, most + 1)
    return ordered[-(-j * (n + 1) // (most + 1)) - 1]
