"""The split of rows into training, validation and test rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.errors import Fault
from training.config.settings import SplitSection
from training.errors import DataError

_MAX_QUANTILES, _ROWS_PER_QUANTILE = 10, 20

RowIndices = NDArray[np.int64]
RowCounts = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Indices of rows, ascending. Neither training nor early stopping sees the `calibration` rows."""

    training: RowIndices
    validation: RowIndices
    test: RowIndices
    calibration: RowIndices = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def evaluation_rows(self) -> RowIndices:
        """The rows that metrics are computed on: the test rows, or the training rows if there are no test rows."""
        return self.test if len(self.test) else self.training


@dataclass(frozen=True)
class Fold:
    """Fold `number`, from 1, of `count` folds of all rows, each of which is the test set once.

    Repeated folds, numbered by `repeat` from 1, divide the rows anew.
    """

    number: int
    count: int
    repeat: int = 1


def quantile_classes(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the class of each value of a quantity: its tenth, or with fewer than 200 rows one of `n / 20` parts."""
    count = quantile_count(len(values))
    classes = np.empty(len(values), np.int64)
    classes[np.argsort(values, kind="stable")] = np.arange(len(values)) * count // max(1, len(values))
    return classes


def quantile_count(rows: int) -> int:
    """Return the number of classes of `quantile_classes` for so many rows."""
    return int(np.clip(rows // _ROWS_PER_QUANTILE, 1, _MAX_QUANTILES))


def split(
    targets: NDArray[Any],
    labels: Sequence[str | int],
    test: float,
    validation: float,
    rng: np.random.Generator,
    source: str = "data",
    fold: Fold | None = None,
) -> Split:
    """Draw the fractions `test` and `validation` of the rows, stratified by class if the targets are classes (n,).

    Both parts have the size that their fraction gives for all rows, divided among the classes by `part_sizes`. With a
    `fold`, its rows are the test rows. With identically seeded generators, the folds partition the rows; their sizes
    differ by at most 1, as do their rows of any class. The only row of a class is a training row in every fold.

    DataError if a fraction or a fold holds out no row.
    """
    classes = targets if targets.ndim == 1 else np.zeros(len(targets), np.int64)
    counts = np.bincount(classes, minlength=len(labels) if targets.ndim == 1 else 1)
    if fold is not None:
        check_folds(counts, fold, source)
    groups = np.split(np.argsort(classes, kind="stable"), counts.cumsum()[:-1])
    drawn = np.concatenate([rng.permutation(rows) for rows in groups])
    classes = classes[drawn]
    if fold is None:
        test_sizes, validation_sizes = part_sizes(counts, test, validation, rng)
    else:
        # Every count-th row of the rows sorted by class is a fold. The validation rows come from the folds after it.
        can_leave = counts[classes] > 1  # the only row of a class is a training row in every fold
        turn = np.where(can_leave, (can_leave.cumsum() - fold.number) % fold.count, 1)
        order = np.lexsort((turn, classes))
        test_sizes = np.bincount(classes[turn == 0], minlength=len(counts))
        validation_sizes = divide_rows(validation, counts, counts - 1 - test_sizes, rng)
        drawn = drawn[order]
    check_part_sizes(counts, {"test": (test, test_sizes), "validation": (validation, validation_sizes)}, source)
    place = np.arange(len(drawn)) - np.repeat(counts.cumsum() - counts, counts)  # within the class
    is_test = place < test_sizes[classes]
    is_held_out = place < (test_sizes + validation_sizes)[classes]
    parts = (drawn[~is_held_out], drawn[is_held_out & ~is_test], drawn[is_test])
    return Split(*(np.sort(part) for part in parts))


def check_stratified(section: SplitSection, task: str, source: str) -> None:
    """Raise DataError if a classification is not to be stratified."""
    if task == "classification" and section.stratify is False:
        fault = Fault("split.stratify", "classifications are always stratified by class, found false", "remove it")
        raise DataError(source, [fault])


def part_sizes(
    counts: RowCounts, test: float, validation: float, rng: np.random.Generator
) -> tuple[RowCounts, RowCounts]:
    """Return how many rows of each class are test and validation rows, for classes with `counts` rows.

    The sums are the fractions of all rows, rounded half up, and a class has its own fraction, rounded down or up: by
    the method of the largest remainder (Hamilton's apportionment), classes without a row first, equal ones by chance.
    Each class keeps a training row. Classes of a single row can make the sums smaller.
    """
    test_sizes = divide_rows(test, counts, counts - 1, rng)
    most = np.minimum(counts - 1, np.ceil(_quotas(test + validation, counts)).astype(np.int64))
    return test_sizes, divide_rows(validation, counts, most - test_sizes, rng)


def check_part_sizes(counts: RowCounts, parts: dict[str, tuple[float, RowCounts]], source: str) -> None:
    """Raise DataError for a part whose fraction is above 0 and that has no rows."""
    faults = []
    rows = int(counts.sum())
    for key, (fraction, sizes) in parts.items():
        if fraction and not sizes.sum():
            problem = f"{fraction:g} of {rows} rows rounds to no row"
            if _share_size(fraction, rows):
                each = "each class" if len(counts) > 1 else "the training"
                problem = f"expected {fraction:g} of {rows} rows, found none, as {each} needs a training row"
            faults.append(Fault(f"split.{key}", problem, f"add rows, or write {key} = 0"))
    if faults:
        raise DataError(source, faults)


def divide_rows(fraction: float, counts: RowCounts, most: RowCounts, rng: np.random.Generator) -> RowCounts:
    """Divide a fraction of all rows among the classes by largest remainder; at most `most` rows of each class."""
    quotas = _quotas(fraction, counts)
    sizes = np.clip(np.floor(quotas).astype(np.int64), 0, np.maximum(most, 0))
    remainder = quotas - sizes
    can_grow = (remainder > 0) & (sizes < most)
    order = np.lexsort((rng.permutation(len(counts)), -remainder, sizes > 0, ~can_grow))
    open_rows = max(0, _share_size(fraction, int(counts.sum())) - int(sizes.sum()))
    sizes[order[: min(open_rows, int(can_grow.sum()))]] += 1
    return sizes


def _quotas(fraction: float, counts: RowCounts) -> NDArray[np.float64]:
    """Return the fraction of each count, without the rounding error of products such as 0.29 * 100."""
    return np.round(fraction * counts, 9)


def _share_size(fraction: float, rows: int) -> int:
    """Return the number of rows in a fraction of `rows`, rounded half up."""
    return int(round(fraction * rows, 9) + 0.5)


def check_folds(counts: RowCounts, fold: Fold, source: str) -> None:
    """Check all folds, so that the error comes before the first one is trained."""
    if fold.count > (rows := int(counts[counts > 1].sum())):
        kind = "rows of classes with at least 2 rows" if (counts == 1).any() else "rows"
        problem = f"expected at most {rows} folds, as there are {rows} {kind}, found {fold.count}"
        raise DataError(source, [Fault("folds", problem, f"use {rows} folds or fewer")])
