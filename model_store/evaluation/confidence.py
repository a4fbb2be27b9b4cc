"""Confidence intervals of accuracies and of their difference."""

from __future__ import annotations

from math import sqrt

_Z_95 = 1.959963984540054  # the 97.5 % quantile of the normal distribution: 95 % confidence, two-sided


def wilson_interval(correct: float, rows: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of the share `correct / rows`: Wilson 1927, valid for few rows too."""
    share, z2 = correct / rows, _Z_95 * _Z_95
    middle = (share + z2 / (2 * rows)) / (1 + z2 / rows)
    half = _Z_95 / (1 + z2 / rows) * sqrt(share * (1 - share) / rows + z2 / (4 * rows * rows))
    return max(0.0, middle - half), min(1.0, middle + half)


def difference_interval(first: tuple[float, int], second: tuple[float, int]) -> tuple[float, float]:
    """Return the 95 % confidence interval of the second share minus the first, each given as (correct, rows).

    Newcombe 1998, method 10, for independent samples.
    """
    (a, n), (b, m) = first, second
    p, q = a / n, b / m
    (low_p, high_p), (low_q, high_q) = wilson_interval(a, n), wilson_interval(b, m)
    gain = q - p
    return gain - sqrt((q - low_q) ** 2 + (high_p - p) ** 2), gain + sqrt((high_q - q) ** 2 + (p - low_p) ** 2)
