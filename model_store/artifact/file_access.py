"""The bytes of an artifact's file: read when they are asked for, copied into memory, or mapped.

Only a map can end the process: if the file is truncated, the next access to a lost page raises SIGBUS. So files that
others can write to, as those of a store, are read or copied. What the bytes mean is in npz.py, hashes included.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from model_store.errors import ArtifactError
from model_store.utils.file_lock import lock_shared

_COPY_BYTES = 1 << 24  # read at once


class FileBytes(Protocol):
    """The bytes of a file: in memory, mapped, or read when they are asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> bytes: ...


class ArtifactFile:
    """An open file of a given size. Its bytes are read, so that a process that truncates it causes an error only."""

    def __init__(self, path: str, descriptor: int, size: int) -> None:
        self._path, self._descriptor, self._size = path, descriptor, size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice, /) -> bytes:
        start, stop, _ = part.indices(self._size)
        return os.pread(self._descriptor, max(0, stop - start), start)

    def copy(self) -> mmap.mmap:
        """Return the bytes in memory that belongs to no file, aligned as in a map of the file."""
        copied = mmap.mmap(-1, self._size)
        with memoryview(copied) as target:
            start = 0
            while start < self._size:
                if not (count := os.preadv(self._descriptor, [target[start : start + _COPY_BYTES]], start)):
                    problem = "the file changes while it is read"
                    raise ArtifactError(f"expected {self._size} bytes, found {start}: {problem}")
                start += count
        return copied

    def map(self) -> mmap.mmap:
        """Return a map of the file, and mark it as in use until the map is closed."""
        lock_shared(self._descriptor, self._path)
        return mmap.mmap(self._descriptor, self._size, access=mmap.ACCESS_READ)


@contextmanager
def open_artifact(path: str | os.PathLike[str], min_bytes: int, max_bytes: int) -> Iterator[ArtifactFile]:
    """Open a regular file of `min_bytes` to `max_bytes`. ArtifactError or OSError for anything else."""
    # O_NONBLOCK: opening a pipe would otherwise block until it has a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ArtifactError("expected a file, found something else")
        if not min_bytes <= status.st_size <= max_bytes:
            raise ArtifactError(f"expected an artifact, found a file of {status.st_size} bytes")
        yield ArtifactFile(os.fspath(path), descriptor, status.st_size)
    finally:
        os.close(descriptor)
