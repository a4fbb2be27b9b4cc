"""The kinds of columns: how training recognises, reads and fits each. A new kind has an entry in `COLUMN_KINDS`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from model_store.schema.columns import Column, TextColumn
from model_store.schema.columns.date_text import DateFormat
from model_store.schema.columns.number_text import NumberFormat
from model_store.schema.columns.text import TEXT_FEATURES
from training.config.settings import DataSection
from training.data import type_inference
from training.data.fitting.columns import fit_array, fit_category, fit_date, fit_number, is_skewed
from training.data.fitting.statistics import ArrayStatistics, CategoryStatistics, NumberStatistics, StreamedColumn
from training.data.readers import Table

_MIN_INDICATED_ROWS, _MIN_INDICATED_SHARE = 5, 0.01  # of the training rows that lack a number with an indicator

# A network of a few hundred rows learns noise from many features: RMSE or log loss of the names of 196 cars and 645
# passengers was 5 % and 1 % lower with fewer.
_TEXTS_PER_FEATURE, _MIN_TEXT_FEATURES = 8, 32


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
        written = self.find_format(cells)
        return written is not None and not (written.group == ":" and DateKind().accepts(cells))  # a time of day

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
        asinh = is_skewed(statistics) if section.asinh == "skewed" else name in section.asinh_names
        column = fit_number(name, statistics, missing, section.scale, asinh=asinh)
        return column and replace(column, indicator=_is_indicated(column, statistics, section))


def _is_indicated(column: Column, statistics: NumberStatistics, section: DataSection) -> bool:
    """Return True if so many rows lack a value that a feature says which."""
    if column.fill is None or not section.indicators or statistics.summary is None:
        return False
    return are_often_missing(statistics.missing, statistics.missing + statistics.summary.count)


def are_often_missing(missing: int, rows: int) -> bool:
    """Return True if so many of the training rows lack a value that a network learns what that means."""
    return missing >= max(_MIN_INDICATED_ROWS, _MIN_INDICATED_SHARE * rows)


class DateKind(NumberKind):
    def accepts(self, cells: Sequence[str | None]) -> bool:
        return self.find_format(cells) is not None

    def find_format(self, cells: Sequence[str | None]) -> Any:
        return type_inference.find_date_format(cells)

    def read(self, table: Table, name: str, written: Any, *, declared: bool) -> NDArray[Any]:
        del declared
        return type_inference.parse_dates(table, name, written or DateFormat())

    def fit(self, name: str, statistics: Any, section: DataSection) -> Column | None:
        column = fit_date(name, statistics, section)
        return column and replace(column, indicator=_is_indicated(column, statistics, section))


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
        if stream.distinct is None:
            return CategoryStatistics.from_counts(stream.counts, stream.missing)
        return CategoryStatistics(stream.counts, stream.missing, stream.shape[0] - stream.missing, stream.distinct)


class TextKind(_CountedTexts):
    def accepts(self, cells: Sequence[str | None]) -> bool:
        present = [cell for cell in cells if cell is not None]
        return not type_inference.rare_invalid_numbers(cells) and type_inference.looks_like_identifier(present)

    def read(self, table: Table, name: str, written: Any, *, declared: bool) -> NDArray[Any]:
        del written, declared
        return self.from_texts(table.columns[name], name)

    def fit(self, name: str, statistics: Any, section: DataSection) -> Column | None:
        if not statistics.count:
            return None
        found = {"count": statistics.count, "missing": statistics.missing, "distinct": statistics.distinct}
        features = 1 << max(1, statistics.count // _TEXTS_PER_FEATURE).bit_length() - 1  # a power of 2
        features = max(_MIN_TEXT_FEATURES, min(TEXT_FEATURES, features))
        return TextColumn(name, features, "" if section.missing == "impute" else None, found)


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
        often = are_often_missing(statistics.missing, statistics.missing + statistics.count)
        return fit_category(name, statistics, missing, unknown, indicated=section.indicators and often)


class ArrayKind(ColumnKind):
    def statistics(self, values: NDArray[Any]) -> ArrayStatistics:
        return ArrayStatistics.from_values(values)

    def streamed_statistics(self, stream: StreamedColumn) -> ArrayStatistics:
        return ArrayStatistics(stream.dtype, stream.shape, stream.summary, stream.sample)

    def fit(self, name: str, statistics: Any, section: DataSection) -> Column | None:
        column = fit_array(name, statistics, section.scale != "none")
        if column is None or section.image is None:
            return column
        offset, scale = statistics.summary.scaling(section.scale != "none")
        return replace(column, offset=offset, scale=scale, image_crop=section.image.crop)


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
