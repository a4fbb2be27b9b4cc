"""Notes on the data before training: target leakage, constant columns, missing values, swapped image axes, and more.

A column that alone almost determines the target is rarely known at prediction time: usually it was filled in later, or
is the target in other words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.schema.signature import Signature
from model_store.utils.values import integral_floats_to_ints, list_names

MIN_ROWS = 50  # with fewer, a column may predict the target by chance
MAX_ROWS = 100_000  # that are checked
_MAX_CLASS_ERROR = 0.005  # of the rows, and at most a tenth of the error of the most frequent class
_MAX_NAMED_CLASSES = 5
_MAX_UNEXPLAINED = 0.001  # of the variance of a quantity's ranks


def find_leakage(inputs: Mapping[str, NDArray[Any]], targets: NDArray[Any], classes: bool) -> list[str]:
    """Return a warning for each numeric or categorical column that alone almost determines the target.

    Rows are sorted by the column. If it determines the target, a row has the target of a neighbour. Equal values are
    sorted in random order.
    """
    step = max(1, len(targets) // MAX_ROWS)
    shuffled = np.random.default_rng(0).permutation(len(targets))[: len(targets) // step]
    if len(shuffled) < MIN_ROWS:
        return []
    drawn = targets[shuffled].reshape(len(shuffled), -1)
    warnings = []
    for name, values in inputs.items():
        if values.ndim > 1:
            continue
        ranked = drawn[np.argsort(_sortable(values[shuffled]), kind="stable")]
        if found := _class_leakage(ranked) if classes else _quantity_leakage(ranked):
            warnings.append(
                f"column {name} is suspiciously predictive: it alone {found}. If its values are not known at "
                "prediction time, exclude it: list the other columns in data.columns"
            )
    return warnings


def count_missing(signature: Signature, inputs: Mapping[str, NDArray[Any]], *, streamed: bool) -> dict[str, int]:
    """Return the number of missing values of each column in all rows; `inputs` of a stream are held-out rows only."""
    return {
        column.name: column.count_missing(inputs[column.name])
        + (int(column.statistics.get("missing", 0)) if streamed else 0)
        for column in signature.inputs
    }


def find_filled_columns(signature: Signature, missing: Mapping[str, int]) -> list[str]:
    """Return a note of the columns with missing values: how many there are, and what they are replaced by."""
    filled = [
        f"{missing[column.name]} of {column.name} with {integral_floats_to_ints([column.fill])[0]}"
        for column in signature.inputs
        if missing[column.name]
    ]
    return [f"filled in missing values: {list_names(filled)}"] if filled else []


def find_constant_columns(signature: Signature) -> list[str]:
    """Return a note for each column with a single value in all training rows."""
    return [
        f"column {column.name} has one value in all training rows and carries no information"
        for column in signature.inputs
        if column.is_constant
    ]


def find_channels_first(shape: Sequence[int]) -> list[str]:
    """Return a note if the shape of images for convolutions looks like (channels, height, width)."""
    if len(shape) != 3 or shape[0] not in (1, 3, 4) or min(shape[1:]) <= 4:
        return []
    height, width, channels = shape
    return [
        f"images are read as {height} high and {width} wide with {channels} channels; "
        "if the channels come first, save np.moveaxis(x, 1, -1)"
    ]


def find_untested_classes(labels: Sequence[str | int], targets: NDArray[Any]) -> list[str]:
    """Return a note about the classes that no test row has; `targets` are those of the test rows."""
    absent = [
        repr(label) for label, rows in zip(labels, np.bincount(targets, minlength=len(labels)), strict=True) if not rows
    ]
    if not absent or not len(targets):
        return []
    if len(absent) == 1:
        return [f"class {absent[0]} has no test row: the metrics do not cover it"]
    names = ", ".join(absent[:_MAX_NAMED_CLASSES]) + (", ..." if len(absent) > _MAX_NAMED_CLASSES else "")
    return [f"{len(absent)} classes have no test row ({names}): the metrics do not cover them"]


def _class_leakage(ranked: NDArray[Any]) -> str:
    """Return what the column predicts, if nearly all rows have the class of a neighbour.

    That must be far more rows than have the most frequent class.
    """
    targets = ranked[:, 0]
    same = targets[1:] == targets[:-1]
    wrong = 1 - float((np.append(same, False) | np.append(False, same)).mean())
    others = 1 - float(np.unique(targets, return_counts=True)[1].max()) / len(targets)
    return f"predicts {1 - wrong:.1%} of the training rows" if wrong <= min(_MAX_CLASS_ERROR, others / 10) else ""


def _quantity_leakage(ranked: NDArray[Any]) -> str:
    """Return what the column explains, if neighbours share nearly all of the order of one of the targets.

    Ranks are compared, so that outliers weigh no more than other values.
    """
    ranks = np.column_stack([np.unique(target, return_inverse=True)[1] for target in ranked.T])
    with np.errstate(all="ignore"):
        unexplained = (np.diff(ranks, axis=0) ** 2.0).mean(axis=0) / 2 / ranks.var(axis=0)
    least = float(np.nanmin(unexplained, initial=1.0))
    return f"explains {1 - least:.1%} of the target's order" if least <= _MAX_UNEXPLAINED else ""


def _sortable(values: NDArray[Any]) -> NDArray[Any]:
    """Return numbers unchanged, a missing one last; strings as their ranks, a missing one first."""
    if values.dtype.kind != "O":
        return values
    ranks = {text: rank for rank, text in enumerate(sorted({value for value in values if value is not None}))}
    return np.array([ranks.get(value, -1) for value in values])
