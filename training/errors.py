"""What can go wrong in a training job, apart from the training itself: the job file, or the data it names."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Sequence

from model_store.errors import Fault

SHOWN = 20  # faults of data; the rest are counted

# What zipfile, gzip, struct and NumPy raise for a damaged file, or for what it claims.
DAMAGED = (
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
    """The base of this package's errors."""


class FaultyError(TrainingError):
    """Something with faults, told all at once: where each is, what was expected and found, and how to mend it."""

    def __init__(self, subject: str, faults: Sequence[Fault], total: int | None = None) -> None:
        self.subject = subject
        self.faults = list(faults)
        self.total = len(self.faults) if total is None else total
        super().__init__(str(self))

    def __str__(self) -> str:
        if self.total == 1:
            return f"{self.subject}: {_line(self.faults[0])}"
        lines = [f"{self.subject}: {self.total} faults"]
        lines += [f"  {_line(fault)}" for fault in self.faults]
        if self.total > len(self.faults):
            lines.append(f"  and {self.total - len(self.faults)} more")
        return "\n".join(lines)


class JobError(FaultyError):
    """A job that cannot be run as it is written."""


class DataError(FaultyError):
    """Data that cannot be read, or from which the job's model cannot be trained. Keeps the first faults of many."""

    def __init__(self, subject: str, faults: Sequence[Fault], total: int | None = None) -> None:
        super().__init__(subject, faults[:SHOWN], len(faults) if total is None else total)


def _line(fault: Fault) -> str:
    return str(fault).removeprefix(": ")
