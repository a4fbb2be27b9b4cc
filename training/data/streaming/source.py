"""Data sources: files of any size that are read as typed columns in batches.

Tables are in table_reader.py, arrays in array_reader.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.fingerprint import Fingerprint

TYPE_INFERENCE_ROWS = 10_000  # the first rows, which decide kinds and task
BATCH_ROWS, BATCH_BYTES = 65_536, 1 << 20  # of a batch, at most; pyarrow reads up to 32 pieces of a CSV file ahead


# Fields of a batch that are neither inputs nor targets, and their kinds. No column has such a name.
SPLIT_FIELD, WEIGHT_FIELD = "\0split", "\0weight"
EXTRA_FIELDS = {SPLIT_FIELD: "category", WEIGHT_FIELD: "number"}
# Fields of the records of an ensemble: the fold, from 0, and the number of each row.
FOLD_FIELD, NUMBER_FIELD = "\0fold", "\0number"


@dataclass(frozen=True)
class DictionaryColumn:
    """A batch of a category: for each row the index of its value in `values`, None where one is missing."""

    codes: NDArray[Any]
    values: list[Any]


Batch = dict[str, "NDArray[Any] | DictionaryColumn"]


@dataclass
class DataSource:
    """A file that is read in batches: float64 numbers with NaN for missing, `DictionaryColumn`s, or arrays (n, ...).

    `rows` is an upper bound of the number of rows. `keep_labels` leaves labels as they are, integers or strings.
    `formats` is how the texts of columns are written, without columns of plain values. `extra` holds the columns of
    `EXTRA_FIELDS` that are read besides inputs and targets. The target is a column of texts of several labels if there
    is a `label_separator`.
    """

    name: str
    fingerprint: Fingerprint
    rows: int
    kinds: dict[str, str]
    target_names: tuple[str, ...]
    task: str
    notes: list[str] = field(default_factory=list)
    keep_labels: bool = False
    formats: dict[str, Any] = field(default_factory=dict)
    decimal_commas: Sequence[str] = ()
    extra: dict[str, str] = field(default_factory=dict)
    label_separator: str | None = None

    def batches(self) -> Iterator[Batch]:
        raise NotImplementedError

    def last_notes(self) -> list[str]:
        """Return what is only known after a reading to the end."""
        return []

    def fields(self) -> dict[str, tuple[str, str]]:
        """Return the column and the kind of each field of a batch."""
        kinds = {**self.kinds, **self.target_kinds()}
        extra = {name: (column, EXTRA_FIELDS[name]) for name, column in self.extra.items()}
        return {name: (name, kind) for name, kind in kinds.items()} | extra

    def target_kinds(self) -> dict[str, str]:
        are_texts = self.task == "classification" or self.label_separator is not None
        return dict.fromkeys(self.target_names, "category" if are_texts else "number")


def as_texts(column: NDArray[Any] | DictionaryColumn) -> DictionaryColumn:
    """Return a column that is read as texts."""
    if not isinstance(column, DictionaryColumn):
        raise TypeError(f"expected a column of texts, found an array of {column.dtype}")
    return column


def has_target(batch: Batch, source: DataSource) -> NDArray[np.bool_]:
    """Return a mask of the rows of a batch whose targets are known. A row without a text of labels has none of them."""
    masks = []
    for name in source.target_names:
        column = batch[name]
        if isinstance(column, DictionaryColumn) and source.label_separator is not None:
            masks.append(np.ones(len(column.codes), bool))
        elif isinstance(column, DictionaryColumn):
            masks.append(np.array([value is not None for value in column.values])[column.codes])
        else:
            masks.append(~np.isnan(column))
    return np.asarray(np.logical_and.reduce(masks))
