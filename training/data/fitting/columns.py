"""The fit of one column from its statistics: offset, scale, categories, cycles and the value to fill in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model_store.errors import Fault
from model_store.schema.columns import ArrayColumn, CategoryColumn, DateColumn, NumberColumn
from model_store.schema.columns.boolean_words import find_boolean_words
from model_store.schema.columns.category import MISSING_CATEGORY
from model_store.schema.columns.date import CYCLES, DAY
from model_store.schema.columns.decile_statistics import decile_statistics
from model_store.schema.columns.scaled_numbers import compress
from model_store.utils.values import exact_unit
from training.config.settings import DataSection
from training.data.fitting.statistics import (
    ArrayStatistics,
    CategoryStatistics,
    NumberStatistics,
    skewness,
    summarize,
)
from training.data.type_inference import MAX_CATEGORIES
from training.errors import DataError

Missing = Literal["impute", "refuse"]
Unknown = Literal["refuse", "bucket"]


_MIN_SKEWNESS = 2.0
_LINEAR_SHARE = 0.01


def fit_number(
    name: str, statistics: NumberStatistics, missing: Missing, scaling: str, *, asinh: bool = False
) -> NumberColumn | None:
    """Fit a numeric column: offset and scale are mean and standard deviation, the fill value is the median.

    With the scaling "robust", offset and scale are the median and the range between the quartiles, or if that is 0 half
    of the whole range: outliers do not compress the other values. Mean and deviation replace them if they overflow.

    asinh: compresses the numbers first, unless they are constant: offset and scale are those of `asinh(value / w)`.
    """
    summary, sample = statistics.summary, statistics.sample
    if summary is None:
        return None
    spread = decile_statistics(sample if len(sample) else np.array([summary.mean]))
    fill = spread["deciles"][5] if missing == "impute" else None
    found = {**summary.statistics(), "missing": statistics.missing, **spread}
    width = _fit_linear_width(sample) if asinh and not summary.is_constant else None
    if width is not None:
        sample = compress(sample, width)
        summary = summarize(sample)
    offset, scale = summary.scaling(scaling != "none")
    if scaling == "robust" and not summary.is_constant:
        with np.errstate(over="ignore", invalid="ignore"):
            low, median, high = np.quantile(sample, (0.25, 0.5, 0.75)).tolist()
        middle_range = high - low or (summary.maximum - summary.minimum) / 2
        if np.isfinite([median, middle_range]).all():
            offset, scale = median, middle_range
    return NumberColumn(name, offset, scale, fill, found, linear_width=width)


def is_skewed(statistics: NumberStatistics) -> bool:
    """Return True if numbers are of at least 0, and their skewness is 2 or more, as that of many prices and counts."""
    summary, sample = statistics.summary, statistics.sample
    if summary is None or summary.minimum < 0 or summary.is_constant or sample.min() == sample.max():
        return False
    return skewness(sample) >= _MIN_SKEWNESS


def _fit_linear_width(sample: NDArray[np.float64]) -> float | None:
    """Return the number that a hundredth of the sizes above 0 do not exceed: `asinh` is about logarithmic above it."""
    sizes = np.abs(sample[sample != 0])
    return float(np.quantile(sizes, _LINEAR_SHARE)) if len(sizes) else None


def fit_date(name: str, statistics: NumberStatistics, section: DataSection) -> DateColumn | None:
    """Fit dates as numbers: seconds. Cycles are those in which the training rows have more than one place."""
    summary, sample = statistics.summary, statistics.sample
    if summary is None:
        return None
    spread = decile_statistics(sample if len(sample) else np.array([summary.mean]))
    offset, scale = summary.mean, summary.scaling(standardise=True)[1]
    fill = float(np.floor(spread["deciles"][5])) if section.missing == "impute" else None
    days = np.floor(sample / DAY)
    places = {"day": sample % DAY, "week": days % 7, "year": np.floor(days % (CYCLES["year"] / DAY))}
    cycles = tuple(cycle for cycle, found in places.items() if len(np.unique(found)) > 1)
    found = {**summary.statistics(), "missing": statistics.missing, **spread}
    return DateColumn(name, offset, scale, fill, found, cycles=cycles)


def fit_category(
    name: str, statistics: CategoryStatistics, missing: Missing, unknown: Unknown, *, indicated: bool = False
) -> CategoryColumn | None:
    """Fit a category: sorted categories; the fill value is the most frequent one, the first of equals.

    indicated: missing values are a category of their own, the last one. Cells with its name belong to it.

    Of more than `MAX_CATEGORIES` categories, the most frequent ones are kept. DataError if the others are refused.
    """
    counts = _merge_spellings(statistics.counts)
    if not counts:
        return None
    if statistics.distinct > MAX_CATEGORIES and unknown == "refuse":
        problem = f"{statistics.distinct} distinct values, at most {MAX_CATEGORIES} can be told apart"
        raise DataError("", [Fault(f"column {name}", problem, "write unknown = 'bucket' in [data], or exclude it")])
    frequencies = dict(sorted(counts.items()))
    found = {"count": statistics.count, "missing": statistics.missing, "frequencies": frequencies}
    if statistics.distinct > MAX_CATEGORIES:
        found["distinct"] = statistics.distinct
    if indicated and missing == "impute":
        categories = tuple(dict.fromkeys([*frequencies, MISSING_CATEGORY]))
        return CategoryColumn(name, categories, unknown, MISSING_CATEGORY, found)
    fill = max(frequencies, key=lambda category: frequencies[category]) if missing == "impute" else None
    return CategoryColumn(name, tuple(frequencies), unknown, fill, found)


def _merge_spellings(counts: Mapping[str, int]) -> Mapping[str, int]:
    """Return the counts with all spellings of true under the most frequent one, and those of false."""
    words = find_boolean_words(counts)
    if len(counts) < 3 or words is None:
        return counts
    merged = {}
    for value in (False, True):
        found = {text: count for text, count in counts.items() if text.lower() in words.of(value)}
        if found:
            merged[max(sorted(found), key=lambda text: found[text])] = sum(found.values())
    return merged


def fit_array(name: str, statistics: ArrayStatistics, standardise: bool) -> ArrayColumn | None:
    """Fit arrays: integers are divided by their range; floats are standardised by one mean and deviation."""
    dtype, shape, summary, sample = statistics.dtype, statistics.shape, statistics.summary, statistics.sample
    if summary is None:
        return None
    low, high = summary.minimum, summary.maximum
    unit = exact_unit(sample)
    rows = (sample if unit == 1 else sample / unit).reshape(len(sample), -1)
    means = rows.mean(axis=1, dtype=np.float64) * unit
    found = {**summary.statistics(), "count": shape[0], "means": decile_statistics(means)}
    if dtype.kind == "f":
        offset, scale = summary.scaling(standardise)
        return ArrayColumn(name, shape[1:], offset, scale, None, None, found)
    limits = np.iinfo(dtype)
    scale = float(limits.max) if high > limits.max // 2 else max(high, -low)
    exact = dtype.itemsize <= 4
    lowest, highest = (float(limits.min), float(limits.max)) if exact else (None, None)
    return ArrayColumn(name, shape[1:], 0.0, (scale or 1.0) if standardise else 1.0, lowest, highest, found)
