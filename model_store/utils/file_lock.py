"""Locks that say that a file is in use: held by open descriptors, and released by the kernel if their process dies.

A mapped file holds its lock too: `mmap` keeps a duplicate of the descriptor, and a lock belongs to all duplicates. On a
file system without locks every file counts as in use.
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path


def lock_shared(descriptor: int) -> None:
    """Mark an open file as in use until all duplicates of its descriptor are closed. OSError if it was removed."""
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    if not os.fstat(descriptor).st_nlink:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def open_shared(path: Path) -> int:
    """Open a file and mark it as in use until the returned descriptor is closed."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        lock_shared(descriptor)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def remove_unless_in_use(path: Path) -> bool:
    """Remove a file that no process has marked as in use. Return False if one has."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        path.unlink(missing_ok=True)
        return True
    finally:
        os.close(descriptor)
