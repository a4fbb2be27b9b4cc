"""Fitting of the preprocessing: the statistics, offsets, scales, categories and fill values of a signature.

Everything is fitted on the training rows alone. Rows in memory and streamed rows are both described by
statistics of each column, from which `fit_signature` makes the signature.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from model_store.errors import Fault
from model_store.schema.category_column import FALSE_SPELLINGS, TRUE_SPELLINGS, are_booleans
from model_store.schema.columns import Column, DateColumn, TextColumn
from model_store.schema.date_column import CYCLES, DAY
from model_store.schema.date_text import DateFormat, infer_date_format
from model_store.schema.decile_statistics import decile_statistics
from model_store.schema.number_text import NumberFormat
from model_store.schema.signature import (
    ArrayColumn,
    CategoryColumn,
    ClassificationOutput,
    NumberColumn,
    RegressionOutput,
    Signature,
)
from model_store.schema.text_column import TEXT_FEATURES
from model_store.utils.values import exact_unit
from training.config.settings import DataSection
from training.data import type_inference
from training.data.readers import Table
from training.errors import DataError

_MIN_INDICATED_ROWS, _MIN_INDICATED_SHARE = 5, 0.01  # of the training rows that lack a number with an indicator

Missing = Literal["impute", "refuse"]
Unknown = Literal["refuse", "bucket"]


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
    """The count of each category of a column, and the number of missing cells."""

    counts: Mapping[str, int]
    missing: int

    @classmethod
    def from_values(cls, values: NDArray[np.object_]) -> CategoryStatistics:
        """Return the statistics of (n,) strings, None where one is missing."""
        counts = Counter(values.tolist())
        missing = counts.pop(None, 0)
        return cls(counts, missing)


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


# The kinds of columns ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StreamedColumn:
    """What a stream records of a column: `counts` of its distinct texts, or a summary and a sample of its numbers."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]  # of all rows
    missing: int
    counts: Mapping[str, int]
    summary: NumericSummary | None
    sample: NDArray[Any]


class ColumnKind(ABC):
    """How training reads and fits a kind of columns. Its name is that of the column in `model_store.schema.columns`."""

    streams_numbers: ClassVar[bool] = False  # else the cells of a stream are counted as texts

    def accepts(self, cells: Sequence[str | None]) -> bool:
        """Return True if a column with these cells is of this kind, unless one before it in `COLUMN_KINDS` is."""
        del cells
        return False

    def find_format(self, cells: Sequence[str | None]) -> Any:
        """Return how the cells of a column of this kind spell its values, None if there is one way only."""
        del cells
        return None

    def read(self, table: Table, name: str, written: Any, *, declared: bool) -> NDArray[Any]:
        """Return a column of a table as `Column.encode` takes it. DataError lists invalid cells.

        `written` is what `find_format` returned.
        """
        raise NotImplementedError

    def check_first_rows(self, table: Table, name: str, written: Any, *, declared: bool) -> None:
        """Raise DataError if a stream that starts with these rows cannot be read."""
        self.read(table, name, written, declared=declared)

    def from_texts(self, texts: Sequence[str | None], name: str) -> NDArray[Any]:
        """Return the distinct texts of a streamed column as `Column.encode` takes them."""
        raise NotImplementedError

    def has_missing(self, values: NDArray[Any]) -> bool:
        """Return True if one of the values in memory is missing."""
        del values
        return False

    @abstractmethod
    def statistics(self, values: NDArray[Any]) -> Any:
        """Return the statistics of values in memory."""

    @abstractmethod
    def streamed_statistics(self, stream: StreamedColumn) -> Any:
        """Return the same of values in a stream."""

    @abstractmethod
    def fit(self, name: str, statistics: Any, section: DataSection) -> Column | None:
        """Return the fitted column, None if all values are missing."""


class NumberKind(ColumnKind):
    streams_numbers = True

    def accepts(self, cells: Sequence[str | None]) -> bool:
        if type_inference.are_numbers(cells):
            return not type_inference.are_codes(cells)
        return self.find_format(cells) is not None

    def find_format(self, cells: Sequence[str | None]) -> NumberFormat | None:
        return type_inference.find_number_format(cells)

    def read(self, table: Table, name: str, written: Any, *, declared: bool) -> NDArray[Any]:
        del declared
        return type_inference.parse_numbers(table, name, written)

    def check_first_rows(self, table: Table, name: str, written: Any, *, declared: bool) -> None:
        """Do nothing: the stream reports invalid cells of all rows."""

    def has_missing(self, values: NDArray[Any]) -> bool:
        return bool(np.isnan(values).any())

    def statistics(self, values: NDArray[Any]) -> NumberStatistics:
        return NumberStatistics.from_values(values)

    def streamed_statistics(self, stream: StreamedColumn) -> NumberStatistics:
        return NumberStatistics(stream.summary, stream.missing, stream.sample[~np.isnan(stream.sample)])

    def fit(self, name: str, statistics: Any, section: DataSection) -> Column | None:
        missing: Any = section.missing
        column = fit_number(name, statistics, missing, section.scale)
        if column is None or column.fill is None or not section.indicators or statistics.summary is None:
            return column
        least = max(_MIN_INDICATED_ROWS, _MIN_INDICATED_SHARE * (statistics.missing + statistics.summary.count))
        return replace(column, indicator=statistics.missing >= least)


class DateKind(NumberKind):
    def accepts(self, cells: Sequence[str | None]) -> bool:
        return self.find_format(cells) is not None

    def find_format(self, cells: Sequence[str | None]) -> Any:
        return infer_date_format({cell for cell in cells if cell is not None})

    def read(self, table: Table, name: str, written: Any, *, declared: bool) -> NDArray[Any]:
        del declared
        return type_inference.parse_dates(table, name, written or DateFormat())

    def fit(self, name: str, statistics: Any, section: DataSection) -> Column | None:
        return fit_date(name, statistics, section)


class _CountedTexts(ColumnKind):
    """Columns of strings, None where one is missing, whose statistics are the count of each."""

    def from_texts(self, texts: Sequence[str | None], name: str) -> NDArray[Any]:
        del name
        values = np.empty(len(texts), object)
        values[:] = texts
        return values

    def has_missing(self, values: NDArray[Any]) -> bool:
        return None in values.tolist()

    def statistics(self, values: NDArray[Any]) -> CategoryStatistics:
        return CategoryStatistics.from_values(values)

    def streamed_statistics(self, stream: StreamedColumn) -> CategoryStatistics:
        return CategoryStatistics(stream.counts, stream.missing)


class TextKind(_CountedTexts):
    def accepts(self, cells: Sequence[str | None]) -> bool:
        present = [cell for cell in cells if cell is not None]
        return not type_inference.rare_invalid_numbers(cells) and type_inference.looks_like_identifier(present)

    def read(self, table: Table, name: str, written: Any, *, declared: bool) -> NDArray[Any]:
        del written, declared
        return self.from_texts(table.columns[name], name)

    def fit(self, name: str, statistics: Any, section: DataSection) -> Column | None:
        if not statistics.counts:
            return None
        found = {"count": sum(statistics.counts.values()), "missing": statistics.missing}
        fill = "" if section.missing == "impute" else None
        return TextColumn(name, TEXT_FEATURES, fill, {**found, "distinct": len(statistics.counts)})


class CategoryKind(_CountedTexts):
    def accepts(self, cells: Sequence[str | None]) -> bool:
        del cells
        return True

    def read(self, table: Table, name: str, written: Any, *, declared: bool) -> NDArray[Any]:
        del written
        return type_inference.parse_categories(table, name, declared=declared)

    def fit(self, name: str, statistics: Any, section: DataSection) -> Column | None:
        missing: Any = section.missing
        unknown: Any = section.unknown
        return fit_category(name, statistics, missing, unknown)


class ArrayKind(ColumnKind):
    def statistics(self, values: NDArray[Any]) -> ArrayStatistics:
        return ArrayStatistics.from_values(values)

    def streamed_statistics(self, stream: StreamedColumn) -> ArrayStatistics:
        return ArrayStatistics(stream.dtype, stream.shape, stream.summary, stream.sample)

    def fit(self, name: str, statistics: Any, section: DataSection) -> Column | None:
        return fit_array(name, statistics, section.scale != "none")


# Type inference chooses the first kind that accepts the cells.
COLUMN_KINDS: dict[str, ColumnKind] = {
    "number": NumberKind(),
    "date": DateKind(),
    "text": TextKind(),
    "category": CategoryKind(),
    "array": ArrayKind(),
}


def infer_kind(cells: Sequence[str | None]) -> str:
    """Return the kind of a column of a table: "number" if all cells that are not missing are, else "category"."""
    return next(name for name, kind in COLUMN_KINDS.items() if kind.accepts(cells))


# Fitting -------------------------------------------------------------------------------------------------------------


def fit_signature(
    source: str,
    columns: Iterable[tuple[str, str, Any]],
    output: ClassificationOutput | Mapping[str, NumericSummary],
    section: DataSection,
    incomplete: Collection[str],
    formats: Mapping[str, Any],
) -> Signature:
    """Return the signature. `columns` holds the name, kind and statistics of each column, `formats` how
    texts spell its values.

    `output` is that of a classification, or for a regression a summary of each target. Only columns that are
    `incomplete` or optional in the job get a value to fill in: the others are required. Columns without any value in
    the training rows are left out.

    DataError if no column is left, or a target is constant.
    """
    inputs: list[Column] = []
    faults: list[Fault] = []
    for name, kind, statistics in columns:
        required = name not in incomplete and name not in (section.optional or ())
        own = replace(section, missing="refuse") if required else section
        column = COLUMN_KINDS[kind].fit(name, statistics, own)
        if column is not None:
            written = formats.get(name)
            inputs.append(column if written is None else replace(column, format=written))  # type: ignore[type-var]
    if not inputs:
        faults.append(Fault("", "no column has a value in the training rows", "add rows, or input columns"))
    summaries = {} if isinstance(output, ClassificationOutput) else output
    faults += [constant_target_fault(name, one.minimum) for name, one in summaries.items() if one.is_constant]
    if faults:
        raise DataError(source, faults)
    if isinstance(output, ClassificationOutput):
        return Signature(tuple(inputs), output)
    offsets, scales = zip(*(summary.scaling(section.scale != "none") for summary in summaries.values()), strict=True)
    return Signature(tuple(inputs), RegressionOutput(tuple(summaries), offsets, scales))


def fit_number(name: str, statistics: NumberStatistics, missing: Missing, scaling: str) -> NumberColumn | None:
    """Fit a numeric column: offset and scale are mean and standard deviation, the fill value is the median.

    With the scaling "robust", offset and scale are the median and the range between the quartiles, or if that is 0 half
    of the whole range: outliers do not compress the other values.
    """
    summary, sample = statistics.summary, statistics.sample
    if summary is None:
        return None
    spread = decile_statistics(sample if len(sample) else np.array([summary.mean]))
    offset, scale = summary.scaling(scaling != "none")
    if scaling == "robust" and not summary.is_constant:
        low, offset, high = np.quantile(sample, (0.25, 0.5, 0.75)).tolist()
        scale = high - low or (summary.maximum - summary.minimum) / 2
    fill = spread["deciles"][5] if missing == "impute" else None
    return NumberColumn(name, offset, scale, fill, {**summary.statistics(), "missing": statistics.missing, **spread})


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
    name: str, statistics: CategoryStatistics, missing: Missing, unknown: Unknown
) -> CategoryColumn | None:
    """Fit a category: sorted categories; the fill value is the most frequent one, the first of equals."""
    counts = _merge_spellings(statistics.counts)
    if not counts:
        return None
    frequencies = dict(sorted(counts.items()))
    found = {"count": sum(counts.values()), "missing": statistics.missing, "frequencies": frequencies}
    fill = max(frequencies, key=lambda category: frequencies[category]) if missing == "impute" else None
    return CategoryColumn(name, tuple(frequencies), unknown, fill, found)


def _merge_spellings(counts: Mapping[str, int]) -> Mapping[str, int]:
    """Return the counts with all spellings of true under the most frequent one, and those of false."""
    if len(counts) < 3 or not are_booleans(counts):
        return counts
    merged = {}
    for words in (FALSE_SPELLINGS, TRUE_SPELLINGS):
        found = {text: count for text, count in counts.items() if text.lower() in words}
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


def constant_target_fault(name: str, value: float) -> Fault:
    problem = f"expected a target that varies, found {value:g} in every training row"
    return Fault(f"column {name}", problem, "choose another target, or add rows with other values")


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
    low, high = float(values.min()), float(values.max())
    if low == high:
        return NumericSummary(values.size, low, 0.0, low, high)
    unit = exact_unit(values)
    values = values if unit == 1 else values / unit
    mean, deviation = float(values.mean(dtype=np.float64)) * unit, float(values.std(dtype=np.float64)) * unit
    return NumericSummary(values.size, _clip(mean, low, high), deviation or math.ulp(0.0), low, high)


def _clip(mean: float, low: float, high: float) -> float:
    """Return a mean that rounding does not move out of the range."""
    return min(max(mean, low), high)
