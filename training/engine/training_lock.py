"""The lock of a checkpoint: one training at a time saves into it."""

from __future__ import annotations

import fcntl
import os
import weakref
from contextlib import suppress
from pathlib import Path


class InUseError(Exception):
    """Another process has the lock; the message is its number."""


class TrainingLock:
    """A lock on a checkpoint, which ends with `release`, this object or the process.

    It is a file beside the checkpoint, because every save replaces that one. OSError if the directory allows no locks.
    """

    def __init__(self, path: Path) -> None:
        lock = path.with_name(f".lock-{path.name}")
        while True:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(descriptor), lock.stat()):
                    break
                os.close(descriptor)
            except FileNotFoundError:  # the process that had the lock has ended and removed the file: try again
                os.close(descriptor)
            except BlockingIOError as error:
                holder = os.read(descriptor, 20).decode(errors="replace")
                os.close(descriptor)
                raise InUseError(holder or "of an unknown number") from error
            except OSError:
                os.close(descriptor)
                raise
        with suppress(OSError):  # a full disk; the number is for messages only
            os.truncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())
        self.release = weakref.finalize(self, _release, lock, descriptor, os.getpid())


_locks: weakref.WeakValueDictionary[str, TrainingLock] = weakref.WeakValueDictionary()


def lock_training(path: Path) -> TrainingLock | None:
    """Lock a checkpoint. A process shares its lock, so that a notebook may open a checkpoint again.

    Return None if the directory allows no locks, as one that is read-only. InUseError if another process has the lock.
    """
    real = os.path.realpath(path)
    lock = _locks.get(real)
    if lock is None or not lock.release.alive:
        try:
            lock = _locks[real] = TrainingLock(Path(real))
        except OSError:
            return None
    return lock


def _release(lock: Path, descriptor: int, owner: int) -> None:
    """Remove and unlock the file; a process that was forked only closes its copy of the descriptor."""
    if os.getpid() == owner:
        lock.unlink(missing_ok=True)
    os.close(descriptor)
