"""The split: which rows teach, which decide when to stop, and which are held out to judge the model."""

from __future__ import annotations

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


def split(
    answers: NDArray[Any],
    labels: Sequence[str | int],
    test: float,
    validation: float,
    rng: np.random.Generator,
    source: str = "data",
) -> Split:
    """Draw `test` and `validation` of the rows; of each class alike when there are labels.

    DataError when a share comes to no row, or nothing is left to learn a class from.
    """
    groups = [np.flatnonzero(answers == i) for i in range(len(labels))] if labels else [np.arange(len(answers))]
    parts: list[list[Rows]] = [[], [], []]
    faults = []
    for group, rows in enumerate(groups):
        drawn = rng.permutation(rows)
        held = share(test, len(drawn))
        checked = held + share(validation, len(drawn))
        parts[0].append(drawn[checked:])
        parts[1].append(drawn[held:checked])
        parts[2].append(drawn[:held])
        if checked >= len(drawn):
            what = f"class {labels[group]!r}" if labels else "the data"
            problem = f"{what} has {len(drawn)} rows, of which none is left to learn from"
            faults.append(Fault("split", problem, "add rows, or lower test and validation"))
    training, checking, holding = (np.sort(np.concatenate(part)) for part in parts)
    for key, part, rows in (("test", test, holding), ("validation", validation, checking)):
        if part and not len(rows) and not faults:
            problem = f"{part} of {len(answers)} rows is no row"
            faults.append(Fault(f"split.{key}", problem, f"add rows, or write {key} = 0"))
    if faults:
        raise DataError(source, faults)
    return Split(training, checking, holding)


def share(part: float, rows: int) -> int:
    """How many of so many rows a share is."""
    return int(part * rows + 0.5)
