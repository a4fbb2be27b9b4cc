"""Files that appear complete or not at all."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def atomic_write(path: Path, mode: str = "xb", **options: Any) -> Iterator[IO[Any]]:
    """Open a temporary file as `Path.open` does; at exit sync it and move it to `path`, or delete it after an error."""
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
    """Remove temporary files that killed writers of `path` left. No writer may be active."""
    for unfinished in path.parent.glob(f".tmp-{glob.escape(path.name)}-*"):
        unfinished.unlink(missing_ok=True)


def fsync_directory(directory: Path) -> None:
    """Write the entries of a directory to disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
