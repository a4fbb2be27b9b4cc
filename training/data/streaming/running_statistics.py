"""Statistics of the columns of a stream, updated batch by batch."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.checks.row_weights import zero_weights_fault
from training.data.fitting.statistics import NumericSummary, summarize
from training.data.invalid_cells import FINITE_NUMBER, InvalidCells
from training.data.streaming.source import (
    FOLD_FIELD,
    NUMBER_FIELD,
    WEIGHT_FIELD,
    DataSource,
    DictionaryColumn,
)
from training.data.streaming.text_codes import TextCodes
from training.errors import DataError


class RunningStatistics:
    """The statistics of the training rows read so far: a summary of each numeric column, counts of each category.

    without: columns that need none.
    """

    def __init__(self, without: Collection[str] = ()) -> None:
        self._without = {*without, FOLD_FIELD, NUMBER_FIELD}
        self.summaries: dict[str, NumericSummary] = {}
        self.missing: dict[str, int] = {}
        self.codes: dict[str, TextCodes] = {}
        self.counts: dict[str, NDArray[np.int64]] = {}  # of each text in memory, and last of all others
        self.invalid: dict[str, InvalidCells] = {}  # numbers that are not finite, of all rows

    def encode(self, name: str, column: DictionaryColumn, kept: NDArray[np.bool_], source: str) -> NDArray[np.int32]:
        """Return a column as codes. Values that no row has get no code, nor do rows that are not `kept`: 0."""
        known = self.codes.setdefault(name, TextCodes(source))
        used = np.zeros(len(column.values), bool)
        used[column.codes[kept]] = True
        mapping = np.zeros(len(column.values), np.int32)
        mapping[used] = known.encode(column.values[i] for i in np.flatnonzero(used))
        codes: NDArray[np.int32] = mapping[column.codes]
        return codes

    def update(self, records: NDArray[Any]) -> None:
        """Add training rows."""
        for name in records.dtype.names or ():
            values = records[name]
            if name in self._without:
                continue
            if name in self.codes:
                others = len(self.codes[name].remembered)
                counts = np.bincount(np.minimum(values, others), minlength=others + 1)
                previous = self.counts.get(name, np.zeros(1, np.int64))
                counts[: len(previous) - 1] += previous[:-1]
                counts[-1] += previous[-1]
                self.counts[name] = counts
                continue
            if values.ndim == 1:
                absent = np.isnan(values)
                self.missing[name] = self.missing.get(name, 0) + int(absent.sum())
                values = values[~absent]
            if values.size:
                summary = summarize(values)
                self.summaries[name] = self.summaries[name].merge(summary) if name in self.summaries else summary

    def note_invalid(self, name: str, values: NDArray[Any], invalid: NDArray[np.bool_], rows_before: int) -> None:
        """Count the rows of a batch whose values are `invalid`."""
        cells = self.invalid.setdefault(name, InvalidCells())
        for row in np.flatnonzero(invalid.reshape(len(invalid), -1).any(axis=1)):
            cell = float(values[row][invalid[row]].flat[0])
            cells.add("none" if math.isnan(cell) else cell, f"row {rows_before + 1 + row}")

    def raise_if_invalid(self, source: DataSource) -> None:
        """Raise DataError for invalid numbers, and if no training row has a weight above 0."""
        faults = []
        for name, cells in self.invalid.items():
            if name == WEIGHT_FIELD:
                fix = "write 0 for a row to ignore"
                faults.append(cells.fault(source.extra[name], "a weight of at least 0", fix))
            else:
                faults.append(cells.fault(name, FINITE_NUMBER))
        if faults:
            raise DataError(source.name, faults)
        weights = self.summaries.get(WEIGHT_FIELD)
        if weights is not None and not weights.maximum:
            raise DataError(source.name, [zero_weights_fault(source.extra[WEIGHT_FIELD], "training")])

    def count_missing(self, name: str) -> int:
        """Return how many values of a column are missing."""
        return int(self.counts[name][0]) if name in self.codes else self.missing.get(name, 0)

    def count_texts(self, name: str) -> dict[str, int]:
        """Return how often each text of a column occurs, if all are in memory."""
        counts = zip(self.codes[name].remembered, self.counts[name].tolist(), strict=False)
        return {text: count for text, count in counts if text is not None and count}
