"""Splits by a column: all rows of a group in one part, or the latest rows held out.

Rows of a patient, a customer or a day resemble each other. If some of them are trained on, the others are easier to
predict than those of a new patient, and the metrics promise too much.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.errors import Fault
from model_store.utils.values import describe_value, parse_finite_number
from training.data.splitting import Fold, Split
from training.data.text_hash import hash_text
from training.errors import DataError

_YEAR_FIRST = re.compile(r"\d{4}\D")
_DAY_FORMATS = ("%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y.%m.%d")


def split_by_group(
    groups: Sequence[Any],
    classes: NDArray[np.int64] | None,
    test: float,
    validation: float,
    rng: np.random.Generator,
    source: str,
    fold: Fold | None = None,
) -> Split:
    """Draw groups for the test and the validation rows until each part has its share of the rows, as nearly as can be.

    In random order, a group joins a part if that brings the part's size closer to its share. With a `fold`, the groups
    are divided into folds of similar size, the largest first, each to the smallest fold (Graham 1969). No group leaves
    a class, if there are `classes` (n,), without a training row.

    DataError if there are too few groups for a group in each part.
    """
    hashes = group_hashes(groups)
    counts = GroupCounts.of_rows(hashes, np.zeros(len(hashes), np.int64) if classes is None else classes)
    part = assign_groups(counts, test, validation, rng, source, fold)[np.searchsorted(counts.groups, hashes)]
    return Split(np.flatnonzero(part == 0), np.flatnonzero(part == 1), np.flatnonzero(part == 2))


def assign_groups(
    counts: GroupCounts,
    test: float,
    validation: float,
    rng: np.random.Generator,
    source: str,
    fold: Fold | None = None,
) -> NDArray[np.int8]:
    """Return the part of each group, as `split_by_group` draws them: 0 training, 1 validation, 2 test."""
    sizes, remaining = counts.sizes, _RemainingClasses(counts)
    part = np.zeros(len(sizes), np.int8)
    order = rng.permutation(len(sizes))
    needed = 1 + (test > 0 or fold is not None) + (validation > 0)
    if len(sizes) < max(needed, fold.count if fold else 0):
        wanted = f"{fold.count} folds" if fold and fold.count > needed else f"{needed} parts"
        problem = f"expected a group for each of {wanted}, found {len(sizes)} groups"
        raise DataError(source, [Fault("split.column", problem, "use fewer parts or folds, or another column")])
    if fold is not None:
        part[_fold_of_groups(sizes, order, fold.count) == fold.number - 1] = 2
        remaining.take(np.flatnonzero(part == 2))
        if len(absent := remaining.absent_classes()):
            problem = f"all rows of {len(absent)} classes are in the groups of fold {fold.number}"
            raise DataError(source, [Fault("split.column", problem, "use more folds, or remove the classes")])
    else:
        _draw_groups(part, 2, test, sizes, order, remaining, source, kept=1 + (validation > 0))
    _draw_groups(part, 1, validation, sizes, order, remaining, source, kept=1)
    return part


def split_by_time(
    times: NDArray[np.float64], test: float, validation: float, source: str, fold: Fold | None = None
) -> Split:
    """Hold out the latest rows for testing, and the latest before them for validation. Equal times stay together.

    With a `fold`, the rows are divided into one more part than there are folds, in order of time. A fold tests on the
    part after those that it trains on.

    DataError if there are too few different times for one in each part.
    """
    _, codes, counts = np.unique(times, return_inverse=True, return_counts=True)
    middle, start, stop = cut_times(counts, test, validation, source, fold)
    return Split(
        np.flatnonzero(codes < middle),
        np.flatnonzero((codes >= middle) & (codes < start)),
        np.flatnonzero((codes >= start) & (codes < stop)),
    )


def cut_times(
    counts: NDArray[np.int64], test: float, validation: float, source: str, fold: Fold | None = None
) -> tuple[int, int, int]:
    """Return where `split_by_time` cuts a series of times with so many rows each: the index of the first time of the
    validation, of the test, and after the test.
    """
    ends = counts.cumsum()  # rows up to each time
    rows = int(ends[-1])
    first = 1 + (validation > 0)  # times that are not tested, at least
    needed = first + (fold.count if fold else test > 0)
    if len(counts) < needed:
        problem = f"expected at least {needed} different times, found {len(counts)}"
        raise DataError(source, [Fault("split.column", problem, "use fewer parts or folds, or another column")])
    start = stop = len(counts)
    if fold is not None:
        bounds = [first - 1]
        for number in range(1, fold.count + 1):
            share = number * rows / (fold.count + 1)
            bounds.append(_cut(ends, share, bounds[-1] + 1, len(counts) - fold.count + number - 1))
        start, stop = [*bounds[1:], len(counts)][fold.number - 1 : fold.number + 1]
    elif test:
        start = _cut(ends, (1 - test) * rows, first, len(counts) - 1)
    before = float(ends[start - 1]) - validation * float(ends[stop - 1])
    return _cut(ends, before, 1, start - 1) if validation else start, start, stop


def parse_times(cells: Sequence[str | None], locations: Sequence[str], source: str, column: str) -> NDArray[np.float64]:
    """Return cells as times that can be compared: numbers; dates in seconds; texts that begin with a year by rank.

    DataError for a missing cell, or if they are none of these.
    """
    if missing := [location for location, cell in zip(locations, cells, strict=True) if cell is None]:
        raise DataError(source, [missing_time_fault(column, missing[0], len(missing))])
    texts = [str(cell) for cell in cells]
    distinct = sorted(set(texts))  # not an array of texts: each would take the memory of the longest
    parse = find_time_parser(distinct)
    if parse is None:
        others = [i for i, text in enumerate(texts) if not _is_date(text)]
        example = next((i for i in others if parse_finite_number(texts[i]) is None), next(iter(others), 0))
        raise DataError(source, [invalid_time_fault(column, locations[example], texts[example])])
    times = {text: parse(text) for text in distinct}
    return np.fromiter(map(times.__getitem__, texts), np.float64, len(texts))


def find_time_parser(texts: Sequence[str]) -> Callable[[str], float] | None:
    """Return the function that turns texts, sorted and all different, into times; None if they are no times.

    It raises ValueError or KeyError for another text that it cannot parse.
    """
    candidates = [_parse_number, _seconds(datetime.fromisoformat)]
    candidates += [_seconds(_day_parser(form)) for form in _unambiguous_formats(texts)]
    for parse in candidates:
        try:
            for text in texts:
                parse(text)
        except ValueError:
            continue
        return parse
    if all(_YEAR_FIRST.match(text) for text in texts) and len({len(text) for text in texts}) == 1:
        return {text: float(rank) for rank, text in enumerate(texts)}.__getitem__
    return None


def missing_time_fault(column: str, location: str, count: int) -> Fault:
    problem = f"expected a time in every row, found none in {count} rows, such as {location}"
    return Fault(f"column {column}", problem, "fill in the times, or remove the rows")


def invalid_time_fault(column: str, location: str, text: str) -> Fault:
    problem = f"expected times: numbers, or dates in one format, found {describe_value(text)}"
    return Fault(f"{location}, column {column}", problem, "write dates such as 2024-01-31")


def _parse_number(text: str) -> float:
    if (number := parse_finite_number(text)) is None:
        raise ValueError(f"expected a number, found {text!r}")
    return number


def _seconds(parse: Callable[[str], datetime]) -> Callable[[str], float]:
    """Return the function that turns a text into seconds; without an offset in UTC."""

    def parse_seconds(text: str) -> float:
        time = parse(text)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()

    return parse_seconds


def group_hashes(groups: Sequence[Any]) -> NDArray[np.uint64]:
    """Return a number for each group, by which groups are sorted; rows without a group are a group of their own."""
    hashes = {group: hash_text("" if group is None else f"={group}") for group in dict.fromkeys(groups)}
    return np.fromiter(map(hashes.__getitem__, groups), np.uint64, len(groups))


@dataclass(frozen=True)
class GroupCounts:
    """How many rows of each class are in each group: `counts` of pairs of a group and a class, sorted by both.

    The pairs of the group with the hash `groups[i]` begin at `starts[i]`, the last start is the number of pairs.
    """

    groups: NDArray[np.uint64]
    starts: NDArray[np.int64]
    classes: NDArray[np.int64]
    counts: NDArray[np.int64]

    @classmethod
    def of_rows(
        cls, groups: NDArray[np.uint64], classes: NDArray[np.int64], counts: NDArray[np.int64] | None = None
    ) -> GroupCounts:
        """Return the counts of rows of these groups and classes, or of pairs that have so many rows."""
        order = np.lexsort((classes, groups))
        groups, classes = groups[order], classes[order]
        is_first = np.ones(len(order), bool)
        is_first[1:] = (groups[1:] != groups[:-1]) | (classes[1:] != classes[:-1])
        pairs = np.flatnonzero(is_first)
        rows = np.ones(len(order), np.int64) if counts is None else counts[order]
        groups, starts = np.unique(groups[pairs], return_index=True)
        total = np.add.reduceat(rows, pairs) if len(pairs) else rows
        return cls(groups, np.append(starts, len(pairs)), classes[pairs], total)

    def merge(self, *others: GroupCounts) -> GroupCounts:
        """Return the counts of the rows of all."""
        every = (self, *others)
        groups = np.concatenate([np.repeat(one.groups, np.diff(one.starts)) for one in every])
        classes, counts = (np.concatenate([getattr(one, key) for one in every]) for key in ("classes", "counts"))
        return self.of_rows(groups, classes, counts)

    def select(self, mask: NDArray[np.bool_]) -> GroupCounts:
        """Return the counts of some of the groups."""
        kept = np.repeat(mask, np.diff(self.starts))
        groups = np.repeat(self.groups, np.diff(self.starts))[kept]
        return self.of_rows(groups, self.classes[kept], self.counts[kept])

    @property
    def sizes(self) -> NDArray[np.int64]:
        """The number of rows of each group."""
        return np.add.reduceat(self.counts, self.starts[:-1]) if len(self.counts) else self.counts

    def of_group(self, group: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the classes of a group and how many rows of each there are."""
        pairs = slice(self.starts[group], self.starts[group + 1])
        return self.classes[pairs], self.counts[pairs]


def _fold_of_groups(sizes: NDArray[np.int64], order: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return the fold of each group: the largest first, each to the fold with the fewest rows."""
    fold_of, rows = np.zeros(len(sizes), np.int64), np.zeros(count, np.int64)
    for group in order[np.argsort(-sizes[order], kind="stable")]:
        fold_of[group] = rows.argmin()
        rows[fold_of[group]] += sizes[group]
    return fold_of


def _draw_groups(
    part: NDArray[np.int8],
    number: int,
    share: float,
    sizes: NDArray[np.int64],
    order: NDArray[np.int64],
    remaining: _RemainingClasses,
    source: str,
    *,
    kept: int,
) -> None:
    """Set `part` to `number` for groups with about a `share` of all rows, at least one if the share is above 0.

    So many groups are `kept` for the parts that are drawn later.
    """
    wanted = share * sizes.sum()
    rows = 0
    candidates = [group for group in order if part[group] == 0]
    free = max(0, len(candidates) - kept)
    for group in candidates:
        if not free or rows >= wanted:
            break
        if abs(rows + sizes[group] - wanted) < abs(rows - wanted) and remaining.may_take(group):
            remaining.take(np.array([group]))
            part[group], rows, free = number, rows + int(sizes[group]), free - 1
    if wanted and not rows:
        allowed = [group for group in candidates if remaining.may_take(group)]
        if not allowed or not free:
            key = "test" if number == 2 else "validation"
            problem = "no group can be held out: each one has all the training rows of a class, or is the last one"
            raise DataError(source, [Fault(f"split.{key}", problem, f"write {key} = 0, or use another column")])
        smallest = min(allowed, key=lambda group: int(sizes[group]))
        remaining.take(np.array([smallest]))
        part[smallest] = number


class _RemainingClasses:
    """The training rows of each class that are left while groups are taken."""

    def __init__(self, groups: GroupCounts) -> None:
        self._groups = groups
        self._counts = np.bincount(groups.classes, groups.counts).astype(np.int64)
        self._present = self._counts > 0

    def may_take(self, group: int) -> bool:
        """Return True if each class of the group has rows elsewhere."""
        found, counts = self._groups.of_group(group)
        return bool((self._counts[found] > counts).all())

    def take(self, groups: NDArray[np.int64]) -> None:
        for group in groups:
            found, counts = self._groups.of_group(group)
            self._counts[found] -= counts

    def absent_classes(self) -> NDArray[np.int64]:
        return np.flatnonzero(self._present & (self._counts == 0))


def _cut(ends: NDArray[np.int64], rows: float, low: int, high: int) -> int:
    """Return how many of the first times have about so many `rows`: a number from `low` to `high`."""
    return low + int(np.abs(ends[low - 1 : high] - rows).argmin())


def _unambiguous_formats(texts: Sequence[str]) -> list[str]:
    """Return the format of day, month and year that fits all texts, if there is only one."""
    found = [form for form in _DAY_FORMATS if all(_is_date(text, form) for text in texts)]
    return found if len(found) == 1 else []


def _day_parser(form: str) -> Any:
    return lambda text: datetime.strptime(text, form).replace(tzinfo=UTC)


def _is_date(text: str, form: str | None = None) -> bool:
    try:
        _ = datetime.fromisoformat(text) if form is None else datetime.strptime(text, form).replace(tzinfo=UTC)
    except ValueError:
        return False
    return True
