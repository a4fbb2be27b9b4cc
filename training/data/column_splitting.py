"""Splits by a column: all rows of a group in one part, or the latest rows held out.

Rows of a patient, a customer or a day resemble each other. If some of them are trained on, the others are easier to
predict than those of a new patient, and the metrics promise too much.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.errors import Fault
from model_store.utils.values import describe_value, parse_finite_number
from training.data.splitting import Fold, RowIndices, Split
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
    codes = np.unique(_as_texts(groups), return_inverse=True)[1]
    sizes = np.bincount(codes)
    remaining = _RemainingClasses(codes, classes)
    part = np.zeros(len(sizes), np.int64)  # of each group: 0 training, 1 validation, 2 test
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
    of_row = part[codes]
    return Split(np.flatnonzero(of_row == 0), np.flatnonzero(of_row == 1), np.flatnonzero(of_row == 2))


def split_by_time(
    times: NDArray[np.float64], test: float, validation: float, source: str, fold: Fold | None = None
) -> Split:
    """Hold out the latest rows for testing, and the latest before them for validation. Equal times stay together.

    With a `fold`, the rows are divided into one more part than there are folds, in order of time. A fold tests on the
    part after those that it trains on.

    DataError if there are too few different times for one in each part.
    """
    values, codes, counts = np.unique(times, return_inverse=True, return_counts=True)
    ends = counts.cumsum()  # rows up to each time
    first = 1 + (validation > 0)  # times that are not tested, at least
    needed = first + (fold.count if fold else test > 0)
    if len(values) < needed:
        problem = f"expected at least {needed} different times, found {len(values)}"
        raise DataError(source, [Fault("split.column", problem, "use fewer parts or folds, or another column")])
    start = stop = len(values)
    if fold is not None:
        bounds = [first - 1]
        for number in range(1, fold.count + 1):
            share = number * len(times) / (fold.count + 1)
            bounds.append(_cut(ends, share, bounds[-1] + 1, len(values) - fold.count + number - 1))
        start, stop = [*bounds[1:], len(values)][fold.number - 1 : fold.number + 1]
    elif test:
        start = _cut(ends, (1 - test) * len(times), first, len(values) - 1)
    before = float(ends[start - 1]) - validation * float(ends[stop - 1])
    middle = _cut(ends, before, 1, start - 1) if validation else start
    return Split(
        np.flatnonzero(codes < middle),
        np.flatnonzero((codes >= middle) & (codes < start)),
        np.flatnonzero((codes >= start) & (codes < stop)),
    )


def parse_times(cells: Sequence[str | None], locations: Sequence[str], source: str, column: str) -> NDArray[np.float64]:
    """Return cells as times that can be compared: numbers; dates in seconds; texts that begin with a year by rank.

    DataError for a missing cell, or if they are none of these.
    """
    if missing := [location for location, cell in zip(locations, cells, strict=True) if cell is None]:
        problem = f"expected a time in every row, found none in {len(missing)} rows, such as {missing[0]}"
        raise DataError(source, [Fault(f"column {column}", problem, "fill in the times, or remove the rows")])
    texts = [str(cell) for cell in cells]
    if None not in (numbers := [parse_finite_number(text) for text in texts]):
        return np.array(numbers, np.float64)
    distinct, codes = np.unique(np.array(texts), return_inverse=True)
    for parse in (datetime.fromisoformat, *map(_day_parser, _unambiguous_formats(distinct))):
        try:
            parsed = [parse(str(text)) for text in distinct]
        except ValueError:
            continue
        seconds = [(time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() for time in parsed]
        return np.array(seconds, np.float64)[codes]
    if all(_YEAR_FIRST.match(text) for text in distinct) and len({len(text) for text in distinct}) == 1:
        return codes.astype(np.float64)
    example = next((i for i, text in enumerate(texts) if not _is_date(text)), 0)
    problem = f"expected times: numbers, or dates in one format, found {describe_value(texts[example])}"
    fix = "write dates such as 2024-01-31"
    raise DataError(source, [Fault(f"{locations[example]}, column {column}", problem, fix)])


def _as_texts(groups: Sequence[Any]) -> NDArray[Any]:
    """Return groups as texts that differ if the groups do; rows without a group are a group of their own."""
    return np.array(["" if group is None else f"={group}" for group in groups])


def _fold_of_groups(sizes: NDArray[np.int64], order: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return the fold of each group: the largest first, each to the fold with the fewest rows."""
    fold_of, rows = np.zeros(len(sizes), np.int64), np.zeros(count, np.int64)
    for group in order[np.argsort(-sizes[order], kind="stable")]:
        fold_of[group] = rows.argmin()
        rows[fold_of[group]] += sizes[group]
    return fold_of


def _draw_groups(
    part: NDArray[np.int64],
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

    def __init__(self, codes: NDArray[np.int64], classes: NDArray[np.int64] | None) -> None:
        self._rows: list[RowIndices] = []
        self._classes = classes
        if classes is not None:
            order = np.argsort(codes, kind="stable")
            self._rows = np.split(order, np.bincount(codes).cumsum()[:-1])
            self._counts = np.bincount(classes)
            self._present = self._counts > 0

    def may_take(self, group: int) -> bool:
        """Return True if each class of the group has rows elsewhere."""
        if self._classes is None:
            return True
        found, counts = np.unique(self._classes[self._rows[group]], return_counts=True)
        return bool((self._counts[found] > counts).all())

    def take(self, groups: NDArray[np.int64]) -> None:
        if self._classes is not None:
            for group in groups:
                self._counts = self._counts - np.bincount(self._classes[self._rows[group]], minlength=len(self._counts))

    def absent_classes(self) -> NDArray[np.int64]:
        return np.empty(0, np.int64) if self._classes is None else np.flatnonzero(self._present & (self._counts == 0))


def _cut(ends: NDArray[np.int64], rows: float, low: int, high: int) -> int:
    """Return how many of the first times have about so many `rows`: a number from `low` to `high`."""
    return low + int(np.abs(ends[low - 1 : high] - rows).argmin())


def _unambiguous_formats(texts: NDArray[Any]) -> list[str]:
    """Return the format of day, month and year that fits all texts, if there is only one."""
    found = [form for form in _DAY_FORMATS if all(_is_date(str(text), form) for text in texts)]
    return found if len(found) == 1 else []


def _day_parser(form: str) -> Any:
    return lambda text: datetime.strptime(text, form).replace(tzinfo=UTC)


def _is_date(text: str, form: str | None = None) -> bool:
    try:
        _ = datetime.fromisoformat(text) if form is None else datetime.strptime(text, form).replace(tzinfo=UTC)
    except ValueError:
        return False
    return True
