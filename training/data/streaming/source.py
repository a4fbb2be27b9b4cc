"""Sources: files of any size as typed columns, a piece at a time, and what is known of them before.

Tables are in batches.py, arrays in array_files.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

HEAD = 10_000  # rows that decide kinds and task
ROWS, BYTES = 65_536, 1 << 20  # of a batch; pyarrow reads up to 32 pieces of a CSV file ahead


@dataclass(frozen=True)
class Texts:
    """A batch of a column of categories: for each row the index of its text in `values`, None where one is missing."""

    codes: NDArray[Any]
    values: list[Any]


Batch = dict[str, "NDArray[Any] | Texts"]


@dataclass
class Source:
    """A file that is read in batches: numbers as float64 with NaN for missing, `Texts`, or arrays (n, ...).

    `rows` is how many there are at most. `whole` says that labels are to be kept as they are, numbers or texts.
    """

    name: str
    sha256: str
    rows: int
    kinds: dict[str, str]
    targets: tuple[str, ...]
    task: str
    notes: list[str] = field(default_factory=list)
    whole: bool = False

    def batches(self) -> Iterator[Batch]:
        raise NotImplementedError

    def target_kinds(self) -> dict[str, str]:
        return dict.fromkeys(self.targets, "category" if self.task == "classification" else "number")
