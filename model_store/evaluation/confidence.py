"""Confidence intervals of accuracies and errors, of their difference, and the test of McNemar."""

from __future__ import annotations

from math import comb, erfc, sqrt

import numpy as np
from numpy.typing import NDArray

_MAX_EXACT = 1000  # discordant rows; with more the normal approximation has three digits
_Z_95 = 1.959963984540054  # the 97.5 % quantile of the normal distribution: 95 % confidence, two-sided


def wilson_interval(correct: float, rows: float) -> tuple[float, float]:
    """Return the 95 % confidence interval of the share `correct / rows`: Wilson 1927, valid for few rows too."""
    share, z2 = correct / rows, _Z_95 * _Z_95
    middle = (share + z2 / (2 * rows)) / (1 + z2 / rows)
    half = _Z_95 / (1 + z2 / rows) * sqrt(share * (1 - share) / rows + z2 / (4 * rows * rows))
    return max(0.0, middle - half), min(1.0, middle + half)


def mean_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % confidence interval of the mean of at least two values, by the central limit theorem."""
    mean, half = float(values.mean()), _Z_95 * float(values.std(ddof=1)) / sqrt(len(values))
    return mean - half, mean + half


def difference_interval(first: tuple[float, int], second: tuple[float, int]) -> tuple[float, float]:
    """Return the 95 % confidence interval of the second share minus the first, each given as (correct, rows).

    Newcombe 1998, method 10, for independent samples.
    """
    (a, n), (b, m) = first, second
    p, q = a / n, b / m
    (low_p, high_p), (low_q, high_q) = wilson_interval(a, n), wilson_interval(b, m)
    gain = q - p
    return gain - sqrt((q - low_q) ** 2 + (high_p - p) ** 2), gain + sqrt((high_q - q) ** 2 + (p - low_p) ** 2)


def paired_difference_interval(both: int, first: int, second: int, neither: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of the second share minus the first, of the same rows.

    both, first, second, neither: how many rows both answered correctly, only the first, only the second, and neither.
    Newcombe 1998, "Improved confidence intervals for the difference between binomial proportions based on paired
    data", method 10.
    """
    n = both + first + second + neither
    p, q = (both + first) / n, (both + second) / n
    (low_p, high_p), (low_q, high_q) = wilson_interval(both + first, n), wilson_interval(both + second, n)
    product = (both + first) * (second + neither) * (both + second) * (first + neither)
    covariance = both * neither - first * second
    phi = (max(covariance - n / 2, 0.0) if covariance > 0 else covariance) / sqrt(product) if product else 0.0

    def distance(of_q: float, of_p: float) -> float:
        return sqrt(max(0.0, of_q * of_q - 2 * phi * of_q * of_p + of_p * of_p))

    return q - p - distance(q - low_q, high_p - p), q - p + distance(high_q - q, p - low_p)


def mcnemar_p_value(first: int, second: int) -> float:
    """Return the two-sided p-value of McNemar's test (1947) that both versions are right equally often.

    first, second: the discordant rows, which only the first or only the second version answered correctly. Up to 1,000
    of them the test is exact (binomial), else normal with the continuity correction of Edwards 1948.
    """
    n, fewer = first + second, min(first, second)
    if n > _MAX_EXACT:
        return erfc(max(0, abs(first - second) - 1) / sqrt(2 * n))
    return min(1.0, 2 * sum(comb(n, i) for i in range(fewer + 1)) / (1 << n))


def loss_ratio_deviation(first: NDArray[np.float64], second: NDArray[np.float64], rows: int) -> float | None:
    """Return the standard error of the mean over the targets of `ln(loss of second / loss of first)`, of the same rows.

    first, second: losses (n, targets) of n rows, such as squared errors, which stand for all `rows`; the loss of a
    version is their mean. It is the delta method on paired losses, which Diebold and Mariano 1995 compare. None if a
    loss is not above 0. The logarithm of a ratio of RMSEs is half of that of their squares.
    """
    means = first.mean(axis=0), second.mean(axis=0)
    if not ((means[0] > 0).all() and (means[1] > 0).all()):
        return None
    influence = (second / means[1] - first / means[0]).mean(axis=1)
    return float(influence.std(ddof=1)) / sqrt(rows)


def student_quantile(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t distribution, to three digits from 5 degrees of freedom on.

    Cornish-Fisher expansion; Abramowitz and Stegun 1964, 26.7.5.
    """
    z, v = _Z_95, freedom
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return float(z + sum(term / v**power for power, term in enumerate(terms, 1)))
