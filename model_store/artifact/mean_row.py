"""The mean of encoded rows, which come in pieces: what explanations compare an answer with."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.artifact.answers import Answers
from model_store.artifact.model import Model
from model_store.errors import Fault, InputError
from model_store.schema.columns import CategoryColumn
from model_store.schema.signature import Signature

_PIECE_VALUES = 1 << 18  # encoded at a time


def code_counts(signature: Signature) -> dict[int, int]:
    """Return the positions of features that are the number of a category, and how many numbers each may have."""
    found, position = {}, 0
    for column in signature.inputs:
        if isinstance(column, CategoryColumn) and column.encoding == "code":
            found[position] = len(column.categories) + 1  # the last one is for unknown categories
        position += column.width
    return found


class MeanRow:
    """The mean of rows that come in pieces: of each feature, or the most frequent number of a category."""

    def __init__(self, signature: Signature) -> None:
        self._rows, self._sums = 0, np.zeros(signature.width)
        self._counts = {position: np.zeros(count, np.int64) for position, count in code_counts(signature).items()}

    def add(self, x: NDArray[np.floating]) -> None:
        """Add a piece of rows (n, width)."""
        self._rows += len(x)
        self._sums = self._sums + x.sum(axis=0, dtype=np.float64)
        for position, counts in self._counts.items():
            numbers = np.bincount(x[:, position].astype(np.intp), minlength=len(counts))
            self._counts[position] = counts + numbers

    @staticmethod
    def joined(means: Iterable[MeanRow]) -> MeanRow:
        """Return the mean of the rows of all, which have the same columns."""
        parts = list(means)
        found = copy.copy(parts[0])
        found._rows = sum(part._rows for part in parts)
        found._sums = np.sum([part._sums for part in parts], axis=0)
        found._counts = {
            position: np.sum([part._counts[position] for part in parts], axis=0) for position in found._counts
        }
        return found

    @property
    def row(self) -> NDArray[np.float64]:
        """The mean (width,) in float64."""
        row = self._sums / self._rows
        for position, counts in self._counts.items():
            row[position] = np.argmax(counts)
        return row


def mean_of_rows(model: Model, rows: Sequence[Any] | NDArray[Any], location: str) -> Answers:
    """Return the baseline of explanations from rows as callers send them. InputError at rows of `location`."""
    if not len(rows):
        raise InputError([Fault(location, "expected one row or more, found none", "give rows, or leave it out")])
    mean = MeanRow(model.signature)
    size = max(1, _PIECE_VALUES // model.signature.width)
    for start in range(0, len(rows), size):
        try:
            mean.add(model.encode(rows[start : start + size], location))
        except InputError:
            model.encode(rows[: start + size], location)  # counts the rows from the first one
            raise
    return Answers(mean.row.astype(model.network.dtype))
