"""Locks by number that processes share, and that end with the process that holds them.

A sweep needs three kinds: one that serializes the choice of the next trial, one that is shared by all processes that
search, and one for each trial that runs. A lock that can be taken belongs to no living process, so that the trial of a
process that was killed is found at once, without heartbeats and without comparing clocks.
"""

from __future__ import annotations

import fcntl
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import psycopg

from training.sweep.errors import StudyError

CLAIM, SEARCH, FIRST_TRIAL = 0, 1, 2  # the lock of trial n is FIRST_TRIAL + n
_POLL_SECONDS = 0.02


class Locks(Protocol):
    """Locks by number. Taking one never waits."""

    def take(self, number: int, *, shared: bool = False) -> bool:
        """Take a lock; return False if another process has it. A shared one excludes only those that are not."""

    def release(self, number: int, *, shared: bool = False) -> None:
        """Release a lock that was taken with the same `shared`."""

    def close(self) -> None:
        """Release all locks."""


class FileLocks:
    """Locks of bytes of a file (fcntl), also among machines that mount it by NFS.

    A process may have one object for a file: closing any descriptor of it would release the locks of all.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("a+b")

    def take(self, number: int, *, shared: bool = False) -> bool:
        try:
            fcntl.lockf(self._file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB, 1, number)
        except (BlockingIOError, PermissionError):  # EAGAIN or EACCES, as POSIX allows
            return False
        return True

    def release(self, number: int, *, shared: bool = False) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, number)

    def close(self) -> None:
        self._file.close()


class PostgresLocks:
    """Advisory locks of a PostgreSQL session, which the server releases when the connection ends.

    The server asks a machine that is silent for 30 s whether it still lives, and ends the session if not. A pooler in
    front of the server must keep the session of a connection (PgBouncer: pool_mode = session).
    """

    def __init__(self, address: str, study: str) -> None:
        self._space = zlib.crc32(study.encode()) - 2**31  # studies of a database have different locks
        self._connection = psycopg.connect(
            address, autocommit=True, application_name="train sweep", keepalives_idle=30, keepalives_interval=10
        )
        for setting in ("tcp_keepalives_idle = 30", "tcp_keepalives_interval = 10", "tcp_keepalives_count = 3"):
            self._connection.execute(f"SET {setting}")

    def take(self, number: int, *, shared: bool = False) -> bool:
        function = "pg_try_advisory_lock_shared" if shared else "pg_try_advisory_lock"
        return self._call(function, number)

    def release(self, number: int, *, shared: bool = False) -> None:
        self._call("pg_advisory_unlock_shared" if shared else "pg_advisory_unlock", number)

    def close(self) -> None:
        self._connection.close()

    def _call(self, function: str, number: int) -> bool:
        try:
            row = self._connection.execute(f"SELECT {function}(%s, %s)", (self._space, number)).fetchone()
        except psycopg.Error as error:
            problem = "the connection to the study's database is lost; start the command again to continue"
            raise StudyError(f"{problem}: {str(error).strip()}") from error
        return row is not None and bool(row[0])


@contextmanager
def hold(locks: Locks, number: int, warn: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Hold a lock, and wait for it. Warn once if another process has it for more than 10 s."""
    started, warned = time.monotonic(), False
    while not locks.take(number):
        if not warned and time.monotonic() - started > 10:
            warned = True
            warn("waiting for another process of the study, which chooses its next trial")
        time.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        locks.release(number)
