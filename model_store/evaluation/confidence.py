"""Chance: how far from the truth a share may be that was counted on so many rows."""

from __future__ import annotations

from math import sqrt

_Z = 1.959963984540054  # of 95 %


def interval(right: float, rows: int) -> tuple[float, float]:
    """The 95 % confidence interval of the share `right / rows`; Wilson 1927, which holds for few rows too."""
    share, z2 = right / rows, _Z * _Z
    middle = (share + z2 / (2 * rows)) / (1 + z2 / rows)
    half = _Z / (1 + z2 / rows) * sqrt(share * (1 - share) / rows + z2 / (4 * rows * rows))
    return max(0.0, middle - half), min(1.0, middle + half)


def difference(first: tuple[float, int], second: tuple[float, int]) -> tuple[float, float]:
    """The 95 % confidence interval of the second share less the first, each (right, rows); Newcombe 1998, method 10."""
    (a, n), (b, m) = first, second
    p, q = a / n, b / m
    (low_p, high_p), (low_q, high_q) = interval(a, n), interval(b, m)
    gap = q - p
    return gap - sqrt((q - low_q) ** 2 + (high_p - p) ** 2), gap + sqrt((high_q - q) ** 2 + (p - low_p) ** 2)
