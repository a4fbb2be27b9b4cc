"""Fitting: the preprocessing that a model learns from its training rows.

The statistics, offsets, scales, categories and fills of a signature are fitted on the training rows alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from model_store.errors import Fault
from model_store.schema.signature import (
    ArrayColumn,
    CategoryColumn,
    ClassificationOutput,
    InputColumn,
    NumberColumn,
    RegressionOutput,
    Signature,
)
from training.config.settings import DataSection
from training.errors import DataError

Missing = Literal["impute", "refuse"]
Unknown = Literal["refuse", "bucket"]


@dataclass(frozen=True)
class NumberStatistics:
    """What is known of a column of numbers; `sample` is of those present, `summary` is None where none is."""

    summary: Summary | None
    missing: int
    sample: NDArray[np.float64]

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> NumberStatistics:
        """Of (n,) numbers, NaN where one is missing."""
        present = values[~np.isnan(values)]
        return cls(summary_of(present) if len(present) else None, len(values) - len(present), present)


@dataclass(frozen=True)
class CategoryStatistics:
    """How often each category comes in a column, and how many cells are missing."""

    counts: Mapping[str, int]
    missing: int

    @classmethod
    def of(cls, values: NDArray[np.object_]) -> CategoryStatistics:
        """Of (n,) texts, None where one is missing."""
        counts = Counter(values.tolist())
        missing = counts.pop(None, 0)
        return cls(counts, missing)


@dataclass(frozen=True)
class ArrayStatistics:
    """What is known of a column of arrays; `shape` is that of all rows, `sample` is of them."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    summary: Summary | None
    sample: NDArray[Any]

    @classmethod
    def of(cls, values: NDArray[Any]) -> ArrayStatistics:
        """Of arrays (n, ...)."""
        return cls(values.dtype, values.shape, summary_of(values), values)


ColumnStatistics = NumberStatistics | CategoryStatistics | ArrayStatistics


def statistics_of(kind: str, values: NDArray[Any]) -> ColumnStatistics:
    """The statistics of a column in memory."""
    if kind == "number":
        return NumberStatistics.of(values)
    return CategoryStatistics.of(values) if kind == "category" else ArrayStatistics.of(values)


def fit_signature(
    source: str,
    columns: Iterable[tuple[str, ColumnStatistics]],
    output: ClassificationOutput | Mapping[str, Summary],
    section: DataSection,
) -> Signature:
    """The signature of columns with these statistics; `output` is a classification's, or a summary of each target."""
    standardise = section.scale == "standard"
    missing: Any = section.missing
    unknown: Any = section.unknown
    inputs: list[InputColumn] = []
    faults: list[Fault] = []
    for name, statistics in columns:
        try:
            if isinstance(statistics, NumberStatistics):
                inputs.append(fit_number(name, statistics, missing, standardise))
            elif isinstance(statistics, CategoryStatistics):
                inputs.append(fit_category(name, statistics, missing, unknown))
            else:
                inputs.append(fit_array(name, statistics, standardise))
        except DataError as error:
            faults += error.faults
    summaries = {} if isinstance(output, ClassificationOutput) else output
    faults += [constant_target(name, one.low) for name, one in summaries.items() if one.low == one.high]
    if faults:
        raise DataError(source, faults)
    if isinstance(output, ClassificationOutput):
        return Signature(tuple(inputs), output)
    offsets, scales = zip(*(summary.scaling(standardise) for summary in summaries.values()), strict=True)
    return Signature(tuple(inputs), RegressionOutput(tuple(summaries), offsets, scales))


def fit_number(name: str, statistics: NumberStatistics, missing: Missing, standardise: bool) -> NumberColumn:
    """Offset and scale are the mean and the standard deviation, the fill is the median, of the values given."""
    summary, sample = statistics.summary, statistics.sample
    if summary is None:
        raise all_missing(name)
    spread = spread_of(sample if len(sample) else np.array([summary.mean]))
    offset, scale = summary.scaling(standardise)
    fill = spread["deciles"][5] if missing == "impute" else None
    return NumberColumn(name, offset, scale, fill, {**summary.statistics(), "missing": statistics.missing, **spread})


def fit_category(name: str, statistics: CategoryStatistics, missing: Missing, unknown: Unknown) -> CategoryColumn:
    """The categories in order of the alphabet; the fill is the most frequent one, of equals the first."""
    counts = statistics.counts
    if not counts:
        raise all_missing(name)
    frequencies = dict(sorted(counts.items()))
    found = {"count": sum(counts.values()), "missing": statistics.missing, "frequencies": frequencies}
    fill = max(frequencies, key=lambda category: frequencies[category]) if missing == "impute" else None
    return CategoryColumn(name, tuple(frequencies), unknown, fill, found)


def fit_array(name: str, statistics: ArrayStatistics, standardise: bool) -> ArrayColumn:
    """Whole numbers are divided by their range; other numbers are standardised, all by one mean and deviation."""
    dtype, shape, summary, sample = statistics.dtype, statistics.shape, statistics.summary, statistics.sample
    if summary is None:
        raise all_missing(name)
    low, high = summary.low, summary.high
    unit = _unit(sample)
    rows = (sample if unit == 1 else sample / unit).reshape(len(sample), -1)
    means = rows.mean(axis=1, dtype=np.float64) * unit
    found = {**summary.statistics(), "count": shape[0], "means": spread_of(means)}
    if dtype.kind == "f":
        offset, scale = summary.scaling(standardise)
        return ArrayColumn(name, shape[1:], offset, scale, None, None, found)
    limits = np.iinfo(dtype)
    scale = float(limits.max) if high > limits.max // 2 else max(high, -low)
    exact = dtype.itemsize <= 4
    lowest, highest = (float(limits.min), float(limits.max)) if exact else (None, None)
    return ArrayColumn(name, shape[1:], 0.0, (scale or 1.0) if standardise else 1.0, lowest, highest, found)


def constant_target(name: str, value: float) -> Fault:
    problem = f"expected a quantity that varies; found {value:g} in every training row"
    return Fault(f"column {name}", problem, "choose another target, or add rows of others")


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
