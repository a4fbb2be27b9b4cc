"""Where a study is kept: a journal file, or PostgreSQL."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import optuna
import psycopg
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from training.sweep.errors import StudyError
from training.sweep.locks import CLAIM, FileLocks, Locks, PostgresLocks, hold

_JOURNAL = 2**62  # the lock of the journal file, beyond those of trials


class JournalLock:
    """The lock of a journal file, which Optuna takes to append to it; it ends with the process that holds it.

    Optuna's own lock is a file, which a process that is killed leaves behind for 30 s. Before anything is appended, the
    part of a line that a crash of the machine has left at the end is removed.
    """

    def __init__(self, locks: FileLocks, journal: Path) -> None:
        self._locks, self._journal = locks, journal
        self._held = hold(locks, _JOURNAL)

    def acquire(self) -> bool:
        self._held = hold(self._locks, _JOURNAL)
        self._held.__enter__()
        self._remove_torn_line()
        return True

    def release(self) -> None:
        self._held.__exit__(None, None, None)

    def _remove_torn_line(self) -> None:
        with self._journal.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            if not size:
                return
            start = max(0, size - (1 << 20))
            file.seek(start)
            tail = file.read()
            if not tail.endswith(b"\n"):
                file.truncate(start + tail.rfind(b"\n") + 1)


def is_database(address: str) -> bool:
    return re.match(r"[a-z+0-9]+://", address) is not None


def open_storage(address: str, study: str) -> tuple[BaseStorage, Locks]:
    """Open the storage of a study and its locks. StudyError if that is impossible.

    address: the path of a journal file, or `postgresql://user@host/database`.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if not is_database(address):
        return _open_journal(Path(address))
    if re.match(r"postgres(ql)?://", address) is None:
        expected = "the path of a journal file, or postgresql://user@host/database"
        raise StudyError(f"{shown_address(address)}: expected {expected}")
    try:
        with closing(PostgresLocks(address, "")) as of_all_studies, hold(of_all_studies, CLAIM):
            storage = _open_tables(address)  # two processes must not create them at once
        return storage, PostgresLocks(address, study)
    except (psycopg.Error, StorageInternalError) as error:
        problem = str(error.__cause__ or error).strip().splitlines()[0]
        raise StudyError(f"{shown_address(address)}: cannot be opened: {problem}") from error


@contextmanager
def storage_errors(address: str) -> Iterator[None]:
    """Raise what Optuna and PostgreSQL raise for a storage that fails during a search as StudyError."""
    try:
        yield
    except (psycopg.Error, StorageInternalError) as error:
        problem = str(error.__cause__ or error).strip().splitlines()[0]
        fix = "start the command again to continue"
        raise StudyError(f"{shown_address(address)}: the study cannot be reached: {problem}; {fix}") from error


def shown_address(address: str) -> str:
    """Return an address without its password."""
    if not is_database(address):
        return address
    parts = urlsplit(address)
    user, at, host = parts.netloc.rpartition("@")
    user = user.partition(":")[0]
    return f"{parts.scheme}://{user}{at}{host}{parts.path}"


def _open_tables(address: str) -> RDBStorage:
    """Open Optuna's tables, and create them if they are missing."""
    url = re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", address)
    return RDBStorage(url, engine_kwargs={"pool_pre_ping": True, "pool_size": 2})


def _open_journal(path: Path) -> tuple[BaseStorage, Locks]:
    path.parent.mkdir(parents=True, exist_ok=True)
    locks = FileLocks(path.with_name(f".lock-{path.name}"))
    backend = JournalFileBackend(str(path), lock_obj=JournalLock(locks, path))  # type: ignore[arg-type]  # same methods
    try:
        return JournalStorage(backend), locks
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        locks.close()
        raise StudyError(f"{path}: expected the journal of a study, found {error}; name another file") from error
