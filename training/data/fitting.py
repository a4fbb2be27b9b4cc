"""Fitting: the preprocessing that a model learns from its training rows.

The statistics, offsets, scales, categories and fills of a signature are fitted on the training rows alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from model_store.errors import Fault
from model_store.schema.signature import ArrayColumn, CategoryColumn, NumberColumn
from training.errors import DataError

Missing = Literal["impute", "refuse"]
Unknown = Literal["refuse", "bucket"]


def fit_number(name: str, values: NDArray[np.float64], missing: Missing, standardise: bool) -> NumberColumn:
    """Offset and scale are the mean and the standard deviation, the fill is the median, of the values given."""
    present = values[~np.isnan(values)]
    if not len(present):
        raise all_missing(name)
    return number_of(name, summary_of(present), len(values) - len(present), present, missing, standardise)


def number_of(
    name: str, summary: Summary, absent: int, sample: NDArray[np.float64], missing: Missing, standardise: bool
) -> NumberColumn:
    """The column of which this is known; `absent` is how many values are missing, `sample` is of those that are not."""
    spread = spread_of(sample if len(sample) else np.array([summary.mean]))
    offset, scale = summary.scaling(standardise)
    fill = spread["deciles"][5] if missing == "impute" else None
    return NumberColumn(name, offset, scale, fill, {**summary.statistics(), "missing": absent, **spread})


def fit_category(name: str, values: NDArray[np.object_], missing: Missing, unknown: Unknown) -> CategoryColumn:
    """The categories in order of the alphabet; the fill is the most frequent one, of equals the first."""
    counts = Counter(values.tolist())
    return category_of(name, counts, counts.pop(None, 0), missing, unknown)


def category_of(
    name: str, counts: Mapping[str, int], absent: int, missing: Missing, unknown: Unknown
) -> CategoryColumn:
    """The column of which this is known: how often each category comes, and how many are missing."""
    if not counts:
        raise all_missing(name)
    frequencies = dict(sorted(counts.items()))
    statistics = {"count": sum(counts.values()), "missing": absent, "frequencies": frequencies}
    fill = max(frequencies, key=lambda category: frequencies[category]) if missing == "impute" else None
    return CategoryColumn(name, tuple(frequencies), unknown, fill, statistics)


def fit_array(name: str, values: NDArray[Any], standardise: bool) -> ArrayColumn:
    """Whole numbers are divided by their range; other numbers are standardised, all by one mean and deviation."""
    return array_of(name, values.dtype, values.shape, summary_of(values), values, standardise)


def array_of(
    name: str, dtype: np.dtype[Any], shape: Sequence[int], summary: Summary, sample: NDArray[Any], standardise: bool
) -> ArrayColumn:
    """The column of arrays of which this is known; `shape` is that of all rows, `sample` is of them."""
    low, high = summary.low, summary.high
    unit = _unit(sample)
    rows = (sample if unit == 1 else sample / unit).reshape(len(sample), -1)
    means = rows.mean(axis=1, dtype=np.float64) * unit
    statistics = {**summary.statistics(), "count": shape[0], "means": spread_of(means)}
    shape = tuple(shape[1:])
    if dtype.kind == "f":
        offset, scale = summary.scaling(standardise)
        return ArrayColumn(name, shape, offset, scale, None, None, statistics)
    limits = np.iinfo(dtype)
    scale = float(limits.max) if high > limits.max // 2 else max(high, -low)
    exact = dtype.itemsize <= 4
    lowest, highest = (float(limits.min), float(limits.max)) if exact else (None, None)
    return ArrayColumn(name, shape, 0.0, (scale or 1.0) if standardise else 1.0, lowest, highest, statistics)


def constant_target(name: str, value: float) -> Fault:
    problem = f"expected a quantity that varies; found {value:g} in every training row"
    return Fault(f"column {name}", problem, "choose another target, or add rows of others")


def fit_values(values: NDArray[np.float64], standardise: bool) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Offset and scale of each target of a regression, from (n, outputs)."""
    scaled = [summary_of(column).scaling(standardise) for column in values.T]
    return tuple(offset for offset, _ in scaled), tuple(scale for _, scale in scaled)


@dataclass(frozen=True)
class Summary:
    """What a single pass over numbers tells: how many, their mean, deviation, lowest and highest."""

    count: int
    mean: float
    deviation: float
    low: float
    high: float

    def statistics(self) -> dict[str, Any]:
        return {"count": self.count, "mean": self.mean, "std": self.deviation, "min": self.low, "max": self.high}

    def scaling(self, standardise: bool) -> tuple[float, float]:
        """Offset and scale."""
        return (self.mean, self.deviation or 1.0) if standardise else (0.0, 1.0)

    def joined(self, other: Summary) -> Summary:
        """The summary of both together: `n = n₁ + n₂`, `δ = m₂ - m₁`, `m = m₁ + δ n₂/n`,
        `n s² = n₁ s₁² + n₂ s₂² + δ² n₁ n₂ / n`; Chan, Golub & LeVeque 1983.
        """
        count, delta = self.count + other.count, other.mean - self.mean
        share = other.count / count
        variance = (1 - share) * self.deviation**2 + share * other.deviation**2 + delta**2 * share * (1 - share)
        low, high = min(self.low, other.low), max(self.high, other.high)
        mean = self.mean + delta * share
        return Summary(count, mean if low < high else low, math.sqrt(variance) if low < high else 0.0, low, high)


def summary_of(values: NDArray[Any]) -> Summary:
    """Of numbers, one at least, none missing. A constant has the deviation 0 exactly, not a rounding error's."""
    low, high = float(values.min()), float(values.max())
    if low == high:
        return Summary(values.size, low, 0.0, low, high)
    unit = _unit(values)
    values = values if unit == 1 else values / unit
    mean, deviation = float(values.mean(dtype=np.float64)) * unit, float(values.std(dtype=np.float64)) * unit
    return Summary(values.size, mean, deviation, low, high)


def spread_of(values: NDArray[np.float64]) -> dict[str, Any]:
    """How numbers are spread: `deciles`, and `counts` of the values up to each decile, of equal ones once.

    So the first counts those that equal the lowest, and a value that comes often has a count of its own.
    """
    deciles = deciles_of(values)
    ends = np.unique(deciles)
    at = np.minimum(np.searchsorted(ends, values), len(ends) - 1)  # a quantile may be rounded below the highest
    return {"deciles": deciles, "counts": np.bincount(at, minlength=len(ends)).tolist()}


def deciles_of(values: NDArray[np.float64]) -> list[float]:
    """The lowest number, those that tenths of all lie below, and the highest."""
    unit = _unit(values)
    return [float(value) * unit for value in np.quantile(values / unit, np.arange(11) / 10)]


def _unit(values: NDArray[Any]) -> float:
    """1, or for numbers whose squares and sums overflow a power of two to divide them by; that loses no bit."""
    return 2.0**600 if max(abs(float(values.min())), abs(float(values.max()))) > 2.0**500 else 1.0


def all_missing(name: str) -> DataError:
    problem = "every value in the training rows is missing"
    fix = "leave the column out: list the others as data.columns"
    return DataError("data", [Fault(f"column {name}", problem, fix)])
