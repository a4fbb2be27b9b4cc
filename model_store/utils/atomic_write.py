"""Files that appear whole or not at all."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def atomic_write(path: Path, mode: str = "xb", **options: Any) -> Iterator[IO[Any]]:
    """A new file, opened as `Path.open` does, that takes the place of `path` once it is written and on disk."""
    temporary = path.with_name(f".tmp-{path.name}-{os.urandom(8).hex()}")
    try:
        with temporary.open(mode, **options) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporary_files(path: Path) -> None:
    """Removes what writers of `path` left that were killed before they were done. None may be at it now."""
    for unfinished in path.parent.glob(f".tmp-{glob.escape(path.name)}-*"):
        unfinished.unlink(missing_ok=True)


def fsync_directory(directory: Path) -> None:
    """Sees to it that what the names in a directory mean is on disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
