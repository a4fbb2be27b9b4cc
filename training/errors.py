"""Errors of a training job other than those of the training itself: faults of the job file and of the data."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Sequence

from model_store.errors import Fault
from model_store.utils.printable import printable

MAX_SHOWN_FAULTS = 20  # of data; further faults are only counted

# What zipfile, gzip, struct and NumPy raise for a damaged file, or for what it claims.
DAMAGED_FILE_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    RuntimeError,  # NotImplementedError and RecursionError too
    OverflowError,
    MemoryError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


class TrainingError(Exception):
    """The base class of this package's errors."""


class FaultListError(TrainingError):
    """An error that lists all faults of its source: their locations, what was expected and found, and a fix.

    `total` counts the faults that are not listed too.
    """

    def __init__(self, source: str, faults: Sequence[Fault], total: int | None = None) -> None:
        self.source = source
        self.faults = list(faults)
        self.total = len(self.faults) if total is None else total
        super().__init__(str(self))

    def __str__(self) -> str:
        if self.total == 1:
            return f"{self.source}: {_line(self.faults[0])}"
        lines = [f"{self.source}: {self.total} faults"]
        lines += [f"  {_line(fault)}" for fault in self.faults]
        if self.total > len(self.faults):
            lines.append(f"  and {self.total - len(self.faults)} more")
        return "\n".join(lines)


class JobError(FaultListError):
    """A job file that is invalid or does not fit its data."""


class DataError(FaultListError):
    """Data that cannot be read or trained on. Lists the first `MAX_SHOWN_FAULTS` faults."""

    def __init__(self, source: str, faults: Sequence[Fault], total: int | None = None) -> None:
        super().__init__(source, faults[:MAX_SHOWN_FAULTS], len(faults) if total is None else total)


def _line(fault: Fault) -> str:
    return printable(str(fault).removeprefix(": "))
