"""Statistics of columns: what fitting knows of the training rows, in memory or in a stream."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.utils.values import exact_unit
from training.data import type_inference

_MAX_SUMMARIZED = 1 << 26  # numbers at once: the deviation takes them twice in float64


@dataclass(frozen=True)
class NumericSummary:
    """A summary of numbers from a single pass: count, mean, standard deviation, minimum and maximum.

    Numbers that differ by rounding errors only, such as 0.3 and 0.1 + 0.2, are a constant. Only the deviation of equal
    numbers is 0; that of different denormal numbers is the smallest number above 0 at least.
    """

    count: int
    mean: float
    std: float
    minimum: float
    maximum: float

    @property
    def is_constant(self) -> bool:
        """True if all numbers are equal up to rounding: their range is a few units in the last place of float64."""
        return type_inference.is_constant_range(self.minimum, self.maximum)

    def statistics(self) -> dict[str, Any]:
        std = 0.0 if self.is_constant else self.std
        return {"count": self.count, "mean": self.mean, "std": std, "min": self.minimum, "max": self.maximum}

    def scaling(self, standardise: bool) -> tuple[float, float]:
        """Return offset and scale. A constant has the scale 1, or its size if it is larger.

        Divided by its deviation, a constant up to rounding would give features of ±1, and any other value a huge one.
        """
        if not standardise:
            return 0.0, 1.0
        return self.mean, max(1.0, abs(self.mean)) if self.is_constant else self.std

    def merge(self, other: NumericSummary) -> NumericSummary:
        """Return the summary of both together: `n = n₁ + n₂`, `δ = m₂ - m₁`, `m = m₁ + δ n₂/n`,
        `n s² = n₁ s₁² + n₂ s₂² + δ² n₁ n₂ / n`; Chan, Golub & LeVeque 1983.
        """
        count = self.count + other.count
        low, high = min(self.minimum, other.minimum), max(self.maximum, other.maximum)
        if low == high:
            return NumericSummary(count, low, 0.0, low, high)
        unit, share = exact_unit(np.array([low, high])), other.count / count
        first, second, delta = self.std / unit, other.std / unit, other.mean / unit - self.mean / unit
        variance = (1 - share) * first**2 + share * second**2 + delta**2 * share * (1 - share)
        mean = (self.mean / unit + delta * share) * unit
        return NumericSummary(count, _clip(mean, low, high), math.sqrt(variance) * unit or math.ulp(0.0), low, high)


def summarize(values: NDArray[Any]) -> NumericSummary:
    """Summarize at least one number, none missing. The deviation of a constant is exactly 0, without rounding error."""
    if values.size > _MAX_SUMMARIZED:
        flat = values.reshape(-1)
        parts = (flat[start : start + _MAX_SUMMARIZED] for start in range(0, len(flat), _MAX_SUMMARIZED))
        return reduce(NumericSummary.merge, map(summarize, parts))
    low, high = float(values.min()), float(values.max())
    if low == high:
        return NumericSummary(values.size, low, 0.0, low, high)
    unit = exact_unit(values)
    values = values if unit == 1 else values / unit
    mean, deviation = float(values.mean(dtype=np.float64)) * unit, float(values.std(dtype=np.float64)) * unit
    return NumericSummary(values.size, _clip(mean, low, high), deviation or math.ulp(0.0), low, high)


def skewness(values: NDArray[np.float64]) -> float:
    """Return `m₃ / m₂^(3/2)` of the central moments of numbers that are not all equal."""
    values = values / exact_unit(values)
    centered = values - values.mean()
    centered /= np.abs(centered).max()  # the cubes of larger numbers overflow
    return float((centered**3).mean() / (centered**2).mean() ** 1.5)


def _clip(mean: float, low: float, high: float) -> float:
    """Return a mean that rounding does not move out of the range."""
    return min(max(mean, low), high)


@dataclass(frozen=True)
class NumberStatistics:
    """The statistics of a numeric column. `sample` holds present values; `summary` is None if all are missing."""

    summary: NumericSummary | None
    missing: int
    sample: NDArray[np.float64]

    @classmethod
    def from_values(cls, values: NDArray[np.float64]) -> NumberStatistics:
        """Return the statistics of (n,) numbers, NaN where one is missing."""
        present = values[~np.isnan(values)]
        return cls(summarize(present) if len(present) else None, len(values) - len(present), present)


@dataclass(frozen=True)
class CategoryStatistics:
    """How often the most frequent texts of a column occur, the numbers of missing cells, of others, and of
    different texts.
    """

    counts: Mapping[str, int]
    missing: int
    count: int
    distinct: int

    @classmethod
    def from_values(cls, values: NDArray[np.object_]) -> CategoryStatistics:
        """Return the statistics of (n,) strings, None where one is missing."""
        counts = Counter(values.tolist())
        missing = counts.pop(None, 0)
        return cls.from_counts(counts, missing)

    @classmethod
    def from_counts(cls, counts: Mapping[str, int], missing: int) -> CategoryStatistics:
        """Return the statistics of texts that occur so often."""
        frequent = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[: type_inference.MAX_CATEGORIES]
        return cls(dict(frequent), missing, sum(counts.values()), len(counts))


@dataclass(frozen=True)
class ArrayStatistics:
    """The statistics of a column of arrays. `shape` (n, ...) is that of all rows, `sample` holds some of them."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    summary: NumericSummary | None
    sample: NDArray[Any]

    @classmethod
    def from_values(cls, values: NDArray[Any]) -> ArrayStatistics:
        """Return the statistics of arrays (n, ...)."""
        return cls(values.dtype, values.shape, summarize(values), values)


@dataclass(frozen=True)
class StreamedColumn:
    """What a stream records of a column: `counts` of its distinct texts, or a summary and a sample of its numbers."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]  # of all rows
    missing: int
    counts: Mapping[str, int]
    summary: NumericSummary | None
    sample: NDArray[Any]
    distinct: int | None = None  # texts, if `counts` holds only the most frequent ones
