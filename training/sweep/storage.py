"""Where a study is kept: a journal file, or PostgreSQL."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import optuna
import psycopg
from optuna.exceptions import OptunaError, StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._storage import JournalOperation

from model_store.utils.regular_file import open_regular
from model_store.utils.values import describe_value
from training.sweep.errors import StudyError
from training.sweep.locks import CLAIM, FileLocks, Locks, PostgresLocks, hold

_JOURNAL = 2**62  # the lock of the journal file, beyond those of trials
_MAX_LEVELS = 100  # of the values of an operation
_OTHER_FILE = "restore the file, or name another one with --storage"


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
        open_regular(self._journal).close()
        with self._journal.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            if not size:
                return
            start = max(0, size - (1 << 20))
            file.seek(start)
            tail = file.read()
            if not tail.endswith(b"\n"):
                file.truncate(start + tail.rfind(b"\n") + 1)


class _JournalFile(JournalFileBackend):
    """The operations of a journal file, which must be a regular file: a pipe has no end, nor has a device."""

    def __init__(self, path: Path, lock: JournalLock) -> None:
        self._journal = path
        super().__init__(str(path), lock_obj=lock)  # type: ignore[arg-type]  # same methods

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:  # type: ignore[override]  # generates them
        try:
            open_regular(self._journal).close()
            for number, operation in enumerate(super().read_logs(log_number_from), log_number_from + 1):
                _check_operation(operation, f"{self._journal}, line {number}")
                yield operation
        except (OSError, ValueError, RecursionError) as error:
            raise _journal_error(str(self._journal), error) from error


class _Journal(JournalStorage):
    """Optuna's storage in a journal. StudyError for operations that it cannot apply; it raises errors of any type."""

    def __init__(self, file: _JournalFile) -> None:
        self._file = file
        super().__init__(file)

    def _sync_with_backend(self) -> None:
        try:
            super()._sync_with_backend()
        except (OptunaError, StudyError):  # of an operation of this process, and of the file
            raise
        except Exception as error:
            raise _journal_error(str(self._file._journal), error) from error


def _check_operation(operation: Any, location: str) -> None:
    """Raise StudyError unless a line of a journal is an operation of a study."""
    found = None if isinstance(operation, dict) else describe_value(operation)
    if found is None and operation.get("op_code") not in list(JournalOperation):
        found = f"the unknown operation {describe_value(operation.get('op_code'))}"
    if found is None and _is_deeper(operation, _MAX_LEVELS):
        found = f"more than {_MAX_LEVELS} levels"
    if found is not None:
        raise StudyError(f"{location}: expected an operation of a study, found {found}; {_OTHER_FILE}")


def _is_deeper(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels == 0 or any(_is_deeper(one, levels - 1) for one in inner if isinstance(one, (dict, list)))


def _journal_error(location: str, error: Exception) -> StudyError:
    found = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return StudyError(f"{location}: expected the journal of a study, found {found}; {_OTHER_FILE}")


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
    try:
        return _Journal(_JournalFile(path, JournalLock(locks, path))), locks
    except BaseException:
        locks.close()
        raise
