"""The split of rows into training, validation and test rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.errors import Fault
from training.errors import DataError

RowIndices = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Indices of rows, ascending."""

    training: RowIndices
    validation: RowIndices
    test: RowIndices

    @property
    def evaluation_rows(self) -> RowIndices:
        """The rows that metrics are computed on: the test rows, or the training rows if there are no test rows."""
        return self.test if len(self.test) else self.training


@dataclass(frozen=True)
class Fold:
    """Fold `number`, from 1, of `count` folds of all rows, each of which is the test set once."""

    number: int
    count: int


def split(
    targets: NDArray[Any],
    labels: Sequence[str | int],
    test: float,
    validation: float,
    rng: np.random.Generator,
    source: str = "data",
    fold: Fold | None = None,
) -> Split:
    """Draw the fractions `test` and `validation` of the rows, stratified by class if there are labels.

    With a `fold`, its rows are the test rows. With identically seeded generators, the folds partition the rows.

    DataError if a fraction rounds to no row, or no training row of a class is left.
    """
    groups = [np.flatnonzero(targets == i) for i in range(len(labels))] if labels else [np.arange(len(targets))]
    if fold is not None:
        test = 1 / fold.count
        if fold.count > (largest := max(map(len, groups))):
            what = f"the largest class has {largest} rows" if labels else f"there are {largest} rows"
            problem = f"expected at most {largest} folds, as {what}, found {fold.count}"
            raise DataError(source, [Fault("folds", problem, f"use {largest} folds or fewer")])
    parts: list[list[RowIndices]] = [[], [], []]
    faults = []
    for group, rows in enumerate(groups):
        drawn = rng.permutation(rows)
        largest_test = held_out = share_size(test, len(drawn))
        if fold is not None:
            start, stop = ((fold.number - 1 + end) * len(drawn) // fold.count for end in (0, 1))
            drawn, held_out, largest_test = np.roll(drawn, -start), stop - start, math.ceil(len(drawn) / fold.count)
        not_training = held_out + share_size(validation, len(drawn))
        parts[0].append(drawn[not_training:])
        parts[1].append(drawn[held_out:not_training])
        parts[2].append(drawn[:held_out])
        # Check the largest fold, so that the error comes before the first fold is trained.
        if not_training + largest_test - held_out >= len(drawn):
            what = f"class {labels[group]!r}" if labels else "the data"
            count = "1 row" if len(drawn) == 1 else f"{len(drawn)} rows"
            problem = f"{what} has {count}, and none is left for training" + (" in one of the folds" if fold else "")
            fix = (
                "add rows, or lower test and validation"
                if fold is None
                else "add rows, lower split.validation, or remove the class"
            )
            faults.append(Fault("split", problem, fix))
    training_rows, validation_rows, test_rows = (np.sort(np.concatenate(part)) for part in parts)
    for key, fraction, drawn in (("test", test, test_rows), ("validation", validation, validation_rows)):
        if fraction and not len(drawn) and not faults:
            of = f"the rows of each class, at most {max(map(len, groups))}," if labels else f"{len(targets)} rows"
            problem = f"{fraction:g} of {of} rounds to no row"
            faults.append(Fault(f"split.{key}", problem, f"add rows, or write {key} = 0"))
    if faults:
        raise DataError(source, faults)
    return Split(training_rows, validation_rows, test_rows)


def share_size(fraction: float, rows: int) -> int:
    """Return the number of rows in a fraction of `rows`, rounded half up."""
    return int(fraction * rows + 0.5)
