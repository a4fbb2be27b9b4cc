"""The fingerprint of data files: the SHA-256 of the bytes that a model is trained on."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from model_store.errors import Fault
from training.data.readers import open_file
from training.errors import DataError

_MAX_TIMESTAMP_SECONDS = 3.0  # between two changes that a file system gives the same time: 2 for FAT, 0.004 for ext4


@dataclass(frozen=True)
class Fingerprint:
    """The SHA-256 of files that are about to be read, one file after the other, and their number of line ends.

    `check_unchanged` after the reading proves that these bytes were read.
    """

    paths: tuple[Path, ...]
    sha256: str
    line_ends: int
    states: tuple[tuple[int, ...], ...]  # of the files before they were read
    changed_recently: bool

    @classmethod
    def of(cls, *paths: Path) -> Fingerprint:
        """Read the files. DataError if one cannot be read."""
        digest, line_ends, states = hashlib.sha256(), 0, []
        for path in paths:
            with open_file(path) as file:
                states.append(_file_state(file.fileno()))
                while block := file.read(1 << 20):
                    digest.update(block)
                    line_ends += block.count(b"\n")
        age = time.time() - max(state[-1] for state in states) / 1e9
        return cls(paths, digest.hexdigest(), line_ends, tuple(states), age < _MAX_TIMESTAMP_SECONDS)

    def check_unchanged(self) -> None:
        """Raise DataError if a file has other bytes by now.

        They are read again if a file has another inode, size or time, or if it changed shortly before it was read: a
        file system may give two changes the same time.
        """
        try:
            unchanged = not self.changed_recently and tuple(map(_file_state, self.paths)) == self.states
            unchanged = unchanged or Fingerprint.of(*self.paths).sha256 == self.sha256
        except (OSError, DataError):
            unchanged = False
        if not unchanged:
            name = " and ".join(path.name for path in self.paths)
            fix = "train again when nothing writes to it, or on a copy"
            raise DataError(name, [Fault("", "the file changed while it was read", fix)])


def _file_state(file: int | Path) -> tuple[int, ...]:
    """Return what differs after a change of a file: device and inode, size, and times of the last changes in ns."""
    found = os.stat(file)  # noqa: PTH116  # of a descriptor, too
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
