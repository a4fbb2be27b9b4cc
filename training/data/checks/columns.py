"""Checks of the data before training: constant columns, missing values, untested classes, swapped image axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.schema.signature import CategoryColumn, Signature
from model_store.utils.values import list_names
from training.data.dataset import Dataset
from training.data.splitting import Split

_MAX_NAMED_CLASSES = 5


def count_missing(signature: Signature, rows: Dataset, split: Split, *, streamed: bool) -> dict[str, int]:
    """Return the number of missing values of each column; those of a streamed training are in its statistics."""
    if not streamed:
        return {column.name: column.count_missing(rows.inputs[column.name]) for column in signature.inputs}
    held_out = np.concatenate([split.validation, split.test])
    return {
        column.name: column.count_missing(rows.inputs[column.name][held_out]) + int(column.statistics.get("missing", 0))
        for column in signature.inputs
    }


def find_filled_columns(signature: Signature, missing: Mapping[str, int]) -> list[str]:
    """Return notes of the columns with missing values: how many there are, and what they are replaced by."""
    filled, own = [], []
    for column in signature.inputs:
        if not (count := missing[column.name]):
            continue
        if isinstance(column, CategoryColumn) and column.has_missing_category:
            own.append(f"{count} of {column.name}")
        else:
            fill = column.shown_fill()
            filled.append(f"{count} of {column.name} with {'an empty text' if fill == '' else fill}")
    notes = [f"filled in missing values: {list_names(filled)}"] if filled else []
    return notes + ([f"missing values are a category of their own: {list_names(own)}"] if own else [])


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
