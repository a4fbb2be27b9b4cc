"""The split: which rows teach, which decide when to stop, and which are held out to judge the model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.errors import Fault
from training.errors import DataError

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Indices of rows, ascending."""

    training: Rows
    validation: Rows
    test: Rows

    @property
    def judged(self) -> Rows:
        """The rows that metrics are about: those held out, or those of training when none are."""
        return self.test if len(self.test) else self.training


@dataclass(frozen=True)
class Fold:
    """One of `of` parts of all rows, `number` from 1, that take turns in being held out."""

    number: int
    of: int


def split(
    answers: NDArray[Any],
    labels: Sequence[str | int],
    test: float,
    validation: float,
    rng: np.random.Generator,
    source: str = "data",
    fold: Fold | None = None,
) -> Split:
    """Draw `test` and `validation` of the rows; of each class alike when there are labels.

    With a `fold`, its rows are held out instead of `test`. All folds, drawn from equal generators, have each row once.

    DataError when a share comes to no row, or nothing is left to learn a class from.
    """
    groups = [np.flatnonzero(answers == i) for i in range(len(labels))] if labels else [np.arange(len(answers))]
    if fold is not None:
        test = 1 / fold.of
        if fold.of > (most := max(map(len, groups))):
            what = f"the largest class has {most} rows" if labels else f"there are {most} rows"
            raise DataError(source, [Fault("folds", f"{what}; found {fold.of} folds", f"take {most} at most")])
    parts: list[list[Rows]] = [[], [], []]
    faults = []
    for group, rows in enumerate(groups):
        drawn = rng.permutation(rows)
        most = held = share(test, len(drawn))
        if fold is not None:
            start, stop = ((fold.number - 1 + end) * len(drawn) // fold.of for end in (0, 1))
            drawn, held, most = np.roll(drawn, -start), stop - start, math.ceil(len(drawn) / fold.of)
        checked = held + share(validation, len(drawn))
        parts[0].append(drawn[checked:])
        parts[1].append(drawn[held:checked])
        parts[2].append(drawn[:held])
        if checked + most - held >= len(drawn):  # of folds the largest counts: it is known before the first is learned
            what = f"class {labels[group]!r}" if labels else "the data"
            count = "1 row" if len(drawn) == 1 else f"{len(drawn)} rows"
            problem = f"{what} has {count}, of which none is left to learn from" + (
                " in one of the folds" if fold else ""
            )
            fix = (
                "add rows, or lower test and validation"
                if fold is None
                else "add rows, lower split.validation, or leave the class out"
            )
            faults.append(Fault("split", problem, fix))
    training, checking, holding = (np.sort(np.concatenate(part)) for part in parts)
    for key, part, rows in (("test", test, holding), ("validation", validation, checking)):
        if part and not len(rows) and not faults:
            of = f"the rows of each class, {max(map(len, groups))} at most," if labels else f"{len(answers)} rows"
            problem = f"{part:g} of {of} is no row"
            faults.append(Fault(f"split.{key}", problem, f"add rows, or write {key} = 0"))
    if faults:
        raise DataError(source, faults)
    return Split(training, checking, holding)


def share(part: float, rows: int) -> int:
    """How many of so many rows a share is."""
    return int(part * rows + 0.5)
