"""Data sources: files of any size that are read as typed columns in batches.

Tables are in table_reader.py, arrays in array_reader.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from training.data.fingerprint import Fingerprint

TYPE_INFERENCE_ROWS = 10_000  # the first rows, which decide kinds and task
BATCH_ROWS, BATCH_BYTES = 65_536, 1 << 20  # of a batch, at most; pyarrow reads up to 32 pieces of a CSV file ahead


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
    `formats` is how the texts of columns are written, without columns of plain values.
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

    def batches(self) -> Iterator[Batch]:
        raise NotImplementedError

    def target_kinds(self) -> dict[str, str]:
        return dict.fromkeys(self.target_names, "category" if self.task == "classification" else "number")
