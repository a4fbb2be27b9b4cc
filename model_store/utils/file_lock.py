"""Locks that say that a file is in use: held by open descriptors, and released by the kernel if their process dies.

A mapped file holds its lock too: `mmap` keeps a duplicate of the descriptor, and a lock belongs to all duplicates. On a
file system without locks every file counts as in use.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import time
from pathlib import Path

log = logging.getLogger("model_store.utils.file_lock")

MAX_WAIT_SECONDS = 300.0  # a holder may fetch and verify a large model
_SILENT_SECONDS = 1.0
_POLL_SECONDS = 0.02


def wait_for_lock(descriptor: int, operation: int, location: str, *, wait: bool = True) -> None:
    """Take the lock `operation` (LOCK_EX or LOCK_SH) of an open file. `location` is how messages name the file.

    Log a warning if another process holds it for a second. TimeoutError, an OSError, after MAX_WAIT_SECONDS, or
    at once without `wait`.
    """
    started, warned = time.monotonic(), False
    while True:
        try:
            fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = time.monotonic() - started
        else:
            return
        if wait and waited >= _SILENT_SECONDS and not warned:
            warned = True
            log.warning(
                "waiting for the lock %s, which another process holds; up to %.0f s", location, MAX_WAIT_SECONDS
            )
        if not wait or waited >= MAX_WAIT_SECONDS:
            fix = f"see which one with: fuser {location}"
            raise TimeoutError(f"{location}: another process has held the lock for {waited:.0f} s; {fix}")
        time.sleep(_POLL_SECONDS)


def lock_shared(descriptor: int, location: str, *, wait: bool = True) -> None:
    """Mark an open file as in use until all duplicates of its descriptor are closed. OSError if it was removed."""
    try:
        wait_for_lock(descriptor, fcntl.LOCK_SH, location, wait=wait)
    except TimeoutError:
        raise
    except OSError:
        log.debug("%s: its file system has no locks", location)
    if not os.fstat(descriptor).st_nlink:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def open_shared(path: Path) -> int:
    """Open a file and mark it as in use until the returned descriptor is closed. Never wait."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        lock_shared(descriptor, str(path), wait=False)
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
