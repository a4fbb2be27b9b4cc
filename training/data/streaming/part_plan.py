"""The parts of a stream's rows by the groups or times of a column, decided in a pass over that column alone.

The rules are those of column_splitting.py. Groups are counted by hashes, times in a table of bounded size: memory grows
with the number of groups, not of rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from training.config.settings import SplitSection
from training.data.column_splitting import (
    GroupCounts,
    assign_groups,
    cut_times,
    find_time_parser,
    group_hashes,
    invalid_time_fault,
    missing_time_fault,
)
from training.data.splitting import Fold, quantile_count
from training.data.streaming.source import SPLIT_FIELD, DataSource, DictionaryColumn, as_texts, has_target
from training.data.streaming.text_codes import TextCodes
from training.errors import DataError

MAX_TIMES = 1 << 20  # different ones that are counted; more are counted in steps of a few
_MAX_TIME_TEXTS = 1 << 16  # different ones that decide how times are written
_MERGED_ROWS = 1 << 18  # pairs of a group and a class that are merged at once

Parts = NDArray[np.int8]  # of each row: 0 training, 1 validation, 2 test, -1 none of them


@dataclass
class GroupPlan:
    """The part of each group, 0 training, 1 validation, 2 test."""

    column: str
    counts: GroupCounts
    part: Parts

    @property
    def sizes(self) -> list[int]:
        """The number of rows of each part."""
        return [int(count) for count in np.bincount(self.part, self.counts.sizes, 3)]

    def divide(self, count: int, rng: np.random.Generator, source: str) -> NDArray[np.uint8]:
        """Make the validation groups training groups, and return the fold, from 0, of each of the training groups."""
        self.part[self.part == 1] = 0
        folds, seed = np.zeros(len(self.part), np.uint8), int(rng.integers(2**63))
        training = self.counts.select(self.part == 0)
        for number in range(count):
            fold = Fold(number + 1, count)
            found = assign_groups(training, 0, 0, np.random.default_rng(seed), source, fold)
            folds[np.flatnonzero(self.part == 0)[found == 2]] = number
        return folds

    def index(self, cells: DictionaryColumn) -> NDArray[np.int64]:
        """Return the group of each row."""
        found = np.searchsorted(self.counts.groups, group_hashes(cells.values)).clip(max=len(self.part) - 1)
        return np.asarray(found.take(cells.codes))

    def assign(self, cells: DictionaryColumn) -> Parts:
        """Return the parts of rows."""
        return self.part.take(self.index(cells))

    def describe(self) -> str:
        """Return a note on the groups of each part."""
        counts = zip(("training", "validation", "test"), np.bincount(self.part, minlength=3).tolist(), strict=True)
        return f"split by {self.column}: {', '.join(f'{count} {name}' for name, count in counts if count)} groups"


@dataclass
class TimePlan:
    """The part of each time. The part of `times[i]` is that of all times from the one before it."""

    column: str
    parse: Callable[[str], float]
    times: NDArray[np.float64]
    part: Parts
    sizes: list[int]  # rows of each part
    _spans: dict[int, list[tuple[float, str]]] = field(default_factory=dict)  # first and last time of each part

    def assign(self, cells: DictionaryColumn) -> Parts:
        """Return the parts of rows; those of a time that is missing, as their target is, mean nothing."""
        used = [code for code in np.unique(cells.codes).tolist() if cells.values[code] is not None]
        parts: Parts = np.full(len(cells.values), -1, np.int8)
        for code in used:
            try:
                time = self.parse(cells.values[code])
            except (ValueError, KeyError):
                continue
            part = int(self.part[min(int(np.searchsorted(self.times, time)), len(self.part) - 1)])
            known = [*self._spans.get(part, []), (time, cells.values[code])]
            self._spans[part], parts[code] = [min(known), max(known)], part
        return parts.take(cells.codes)

    def describe(self) -> str:
        """Return a note on the times of each part."""
        shown = []
        for part, name in enumerate(("training", "validation", "test")):
            if part in self._spans:
                (_, first), (_, last) = self._spans[part]
                shown.append(f"{name} {first}" if first == last else f"{name} {first} to {last}")
        return f"split by {self.column}: {', '.join(shown)}"


PartPlan = GroupPlan | TimePlan


def plan_parts(
    source: DataSource,
    shares: SplitSection,
    rng: np.random.Generator,
    fold: Fold | None = None,
) -> PartPlan:
    """Read the column of a split and decide the part of each group or time.

    DataError if there are too few, or if a cell is not a time.
    """
    column = str(shares.column)
    if shares.by == "group":
        counts = _count_groups(source)
        part = assign_groups(counts, shares.test, shares.validation, rng, source.name, fold)
        return GroupPlan(column, counts, part)
    parse, times = _count_times(source, column)
    middle, start, stop = cut_times(times.counts, shares.test, shares.validation, source.name, fold)
    index = np.arange(len(times.values))
    part = np.select([index < middle, index < start, index < stop], [0, 1, 2], -1).astype(np.int8)
    sizes = [int(times.counts[part == number].sum()) for number in range(3)]
    return TimePlan(column, parse, times.values, part, sizes)


def _split_cells(source: DataSource) -> Iterator[tuple[DictionaryColumn, NDArray[np.int64], int]]:
    """Yield the cells of the split's column, the classes of the rows, and the number of rows before.

    Rows without a target are left out.
    """
    codes, rows = TextCodes(source.name), 0
    for batch in replace(source, kinds={}, extra={SPLIT_FIELD: source.extra[SPLIT_FIELD]}).batches():
        kept = has_target(batch, source)
        cells, target = as_texts(batch[SPLIT_FIELD]), batch[source.target_names[0]]
        classes = np.zeros(len(kept), np.int64)
        if isinstance(target, DictionaryColumn) and source.label_separator is None:
            classes = codes.encode(target.values)[target.codes].astype(np.int64)
        yield DictionaryColumn(np.where(kept, cells.codes, -1), cells.values), classes, rows
        rows += len(kept)


def _count_groups(source: DataSource) -> GroupCounts:
    nothing = np.zeros(0, np.int64)
    counts = GroupCounts.of_rows(nothing.astype(np.uint64), nothing)
    pending: list[GroupCounts] = []
    for cells, classes, _ in _split_cells(source):
        kept = cells.codes >= 0
        hashes = group_hashes(cells.values)[cells.codes[kept]]
        pending.append(GroupCounts.of_rows(hashes, classes[kept]))
        if sum(len(one.counts) for one in pending) > max(_MERGED_ROWS, len(counts.counts)):
            counts, pending = counts.merge(*pending), []
    return counts.merge(*pending)


def _count_times(source: DataSource, column: str) -> tuple[Callable[[str], float], NumberCounts]:
    """Return the function that parses the times, and the number of rows of each time."""
    texts: Counter[str] = Counter()
    where: dict[str, int] = {}
    parse: Callable[[str], float] | None = None
    times = NumberCounts()
    for cells, _, before in _split_cells(source):
        kept = np.flatnonzero(cells.codes >= 0)
        codes, first, counts = np.unique(cells.codes[kept], return_index=True, return_counts=True)
        for code, row, count in zip(codes.tolist(), kept[first].tolist(), counts.tolist(), strict=True):
            if (text := cells.values[code]) is None:
                raise DataError(source.name, [missing_time_fault(column, f"row {before + 1 + row}", count)])
            texts[text] += count
            where.setdefault(text, before + 1 + row)
        if parse is None and len(texts) > _MAX_TIME_TEXTS:
            parse = _find_parser(source, column, where)
        if parse is not None:
            _add_times(times, texts, where, parse, source, column)
    if parse is None:
        parse = _find_parser(source, column, where)
        _add_times(times, texts, where, parse, source, column)
    times.merge()
    return parse, times


def _find_parser(source: DataSource, column: str, rows: dict[str, int]) -> Callable[[str], float]:
    parse = find_time_parser(sorted(rows))
    if parse is None:
        example = next((text for text in rows if find_time_parser([text]) is None), next(iter(rows)))
        raise DataError(source.name, [invalid_time_fault(column, f"row {rows[example]}", example)])
    return parse


def _add_times(
    times: NumberCounts,
    texts: Counter[str],
    rows: dict[str, int],
    parse: Callable[[str], float],
    source: DataSource,
    column: str,
) -> None:
    """Move the counts of `texts`, first seen in `rows`, to those of times."""
    values = []
    for text in texts:
        try:
            values.append(parse(text))
        except (ValueError, KeyError) as error:
            raise DataError(source.name, [invalid_time_fault(column, f"row {rows[text]}", text)]) from error
    times.add(np.array(values, np.float64), np.array(list(texts.values()), np.int64))
    texts.clear()
    rows.clear()


class NumberCounts:
    """How often each number occurs. With more than `MAX_TIMES` numbers, `counts` are those of ranges.

    A range ends at its number, and begins after the one before it. So the number of rows up to each of the numbers is
    exact, in any case.
    """

    def __init__(self) -> None:
        self.values, self.counts = np.zeros(0), np.zeros(0, np.int64)
        self._pending: list[tuple[NDArray[np.float64], NDArray[np.int64]]] = []
        self._pending_rows = 0
        self._are_ranges = False

    def add(self, values: NDArray[np.float64], counts: NDArray[np.int64] | None = None) -> None:
        """Add numbers, which occur so often."""
        self._pending.append((values, np.ones(len(values), np.int64) if counts is None else counts))
        self._pending_rows += len(values)
        if self._pending_rows > max(_MERGED_ROWS, len(self.values)):
            self.merge()

    def merge(self) -> None:
        """Bring `values` and `counts` up to date."""
        added = np.concatenate([self.values[:0], *(values for values, _ in self._pending)])
        rows = np.concatenate([self.counts[:0], *(counts for _, counts in self._pending)])
        self._pending, self._pending_rows = [], 0
        if self._are_ranges:
            inside = added <= self.values[-1]
            np.add.at(self.counts, np.searchsorted(self.values, added[inside]), rows[inside])
            added, rows = added[~inside], rows[~inside]
        values, codes = np.unique(np.concatenate([self.values, added]), return_inverse=True)
        self.counts = np.bincount(codes, np.concatenate([self.counts, rows]), len(values)).astype(np.int64)
        self.values = values
        while len(self.values) > MAX_TIMES:
            self._are_ranges = True
            even = len(self.values) - len(self.values) % 2
            self.counts = np.append(self.counts[:even].reshape(-1, 2).sum(axis=1), self.counts[even:])
            self.values = np.append(self.values[1:even:2], self.values[even:])

    def quantile_classes(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the class of each number, as `splitting.quantile_classes` does; equal numbers are in one class."""
        rows = int(self.counts.sum())
        middle = self.counts.cumsum() - (self.counts + 1) // 2
        classes: NDArray[np.int64] = middle * quantile_count(rows) // max(1, rows)
        return classes.take(np.searchsorted(self.values, values), mode="clip")


def count_targets(source: DataSource) -> NumberCounts:
    """Return how often each number of the first target occurs."""
    counts = NumberCounts()
    for batch in replace(source, kinds={}, extra={}).batches():
        values = batch[source.target_names[0]]
        if not isinstance(values, DictionaryColumn):
            counts.add(values[has_target(batch, source)])
    counts.merge()
    return counts
