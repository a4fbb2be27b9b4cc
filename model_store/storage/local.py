"""The local backend: objects are files of a directory.

A hidden temporary file is written and synced, `link(2)` gives it its name or fails if the name is taken, and the
directory is synced. Nothing is ever overwritten, so a crash leaves either the new object or none.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from model_store.artifact import npz
from model_store.storage.base import MAX_SMALL_OBJECT_BYTES, ObjectInfo, check_object_size
from model_store.utils.atomic_write import fsync_directory
from model_store.utils.regular_file import open_regular
from model_store.utils.values import is_name

_FIRST_SECOND, _LAST_SECOND = (datetime(year, 1, 2, tzinfo=UTC).timestamp() for year in (1, 9999))
_CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class LocalStorage:
    """Objects that are files. Each name of a key is a directory, the last one a file."""

    fork_safe = True

    def __init__(self, root: Path) -> None:
        self.root = root
        self.location = str(root)

    def keys(self, *patterns: str, unreadable: dict[str, OSError] | None = None) -> list[str]:
        found: list[str] = []
        for pattern in patterns:
            first, *rest = pattern.split("/")
            if not rest:
                found += self._matching_keys("", [first])
                continue
            for name in self._folders("", unreadable) if first == "*" else [first]:
                try:
                    found += list(self._matching_keys(f"{name}/", rest))
                except OSError as e:
                    if unreadable is None:
                        raise
                    unreadable[name] = e
        return found

    def get(self, key: str) -> bytes:
        with open_regular(self.root / key) as file:
            data = file.read(MAX_SMALL_OBJECT_BYTES + 1)
        return check_object_size(data, len(data))

    def read_manifest(self, key: str) -> tuple[dict[str, Any], str]:
        return npz.read_manifest_and_digest(self.root / key)

    def local_path(self, key: str, *, refresh: bool = False) -> Path:
        return self.root / key

    @contextmanager
    def stage(self, key: str) -> Iterator[LocalStagedObject]:
        """Create a hidden file in the directory of its key, read-only once it is committed."""
        directory = (self.root / key).parent
        _make_directory(directory)
        with self._temporary_file(directory) as (path, file):
            yield LocalStagedObject(self.root, path, file)

    def delete(self, key: str) -> None:
        path = self.root / key
        path.unlink(missing_ok=True)
        fsync_directory(path.parent)

    def check_writable(self, key: str) -> None:
        directory = (self.root / key).parent
        while not directory.exists():
            directory = directory.parent
        with self._temporary_file(directory) as (path, _):
            link = path.with_name(f"{path.name}-link")
            os.link(path, link)
            link.unlink()

    def object_info(self, key: str) -> ObjectInfo:
        status = (self.root / key).stat()
        # A file system may have dates that Python has not: 10000-01-01 and later, or before the year 1.
        seconds = min(max(status.st_mtime, _FIRST_SECOND), _LAST_SECOND)
        return ObjectInfo(status.st_size, datetime.fromtimestamp(seconds, UTC))

    def abandoned_keys(self) -> list[str]:
        return [str(path.relative_to(self.root)) for path in sorted(self.root.rglob(".tmp-*")) if not _is_locked(path)]

    @staticmethod
    @contextmanager
    def _temporary_file(directory: Path) -> Iterator[tuple[Path, BinaryIO]]:
        """Create a hidden file that is locked until its process closes it or dies."""
        path = directory / f".tmp-{os.urandom(8).hex()}"
        try:
            with os.fdopen(os.open(path, _CREATE_FLAGS, 0o444), "wb") as file:
                with suppress(OSError):  # a file system without locks: garbage collection relies on the grace alone
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield path, file
        finally:
            path.unlink(missing_ok=True)

    def _matching_keys(self, folder: str, pattern: list[str]) -> Iterator[str]:
        first, rest = pattern[0], pattern[1:]
        names = [first] if first != "*" else self._folders(folder) if rest else self._files(folder)
        for name in names:
            if rest:
                yield from self._matching_keys(f"{folder}{name}/", rest)
            elif first == "*" or (self.root / folder / name).is_file():
                yield folder + name

    def _files(self, folder: str) -> list[str]:
        """Return the valid names in a directory that are not directories, also links that lead nowhere."""
        return [entry.name for entry in self._entries(folder, lambda entry: not _is_directory(entry))]

    def _folders(self, folder: str, unreadable: dict[str, OSError] | None = None) -> list[str]:
        """Return the valid names of directories in a directory. A link that leads nowhere is an error."""
        found = []
        for entry in self._entries(folder, _may_be_directory):
            try:
                # A link to a directory whose volume is not mounted must not look as if its model had been removed.
                if stat.S_ISDIR(entry.stat().st_mode) if entry.is_symlink() else entry.is_dir():
                    found.append(entry.name)
            except OSError as e:
                if unreadable is None:
                    raise
                unreadable[entry.name] = e
        return found

    def _entries(self, folder: str, keep: Callable[[os.DirEntry[str]], bool]) -> list[os.DirEntry[str]]:
        """Return the entries of a directory to `keep` with valid names, sorted; none if it does not exist."""
        try:
            with os.scandir(self.root / folder) as entries:
                kept = (entry for entry in entries if keep(entry) and is_name(entry.name))
                return sorted(kept, key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            if not folder or (self.root / folder).is_symlink():
                raise
            return []


class LocalStagedObject:
    """A temporary file that `commit` links to its key."""

    def __init__(self, root: Path, path: Path, file: BinaryIO) -> None:
        self.path, self.file = path, file
        self._root = root

    def commit(self, key: str) -> bool:
        self.file.flush()
        os.fsync(self.file.fileno())
        target = self._root / key
        try:
            os.link(self.path, target)
        except FileExistsError:
            return False
        fsync_directory(target.parent)
        return True


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links
        return False


def _may_be_directory(entry: os.DirEntry[str]) -> bool:
    """Return False for what is no directory for certain: a store may have thousands of foreign files."""
    try:
        return entry.is_symlink() or entry.is_dir()
    except OSError:
        return True


def _is_locked(path: Path) -> bool:
    """Return True if a live process holds the lock of a temporary file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not block
    except FileNotFoundError:
        return True  # its process has just finished
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _make_directory(directory: Path) -> None:
    """Create a directory and its parents, durably."""
    if not directory.is_dir():
        _make_directory(directory.parent)
        directory.mkdir(exist_ok=True)
        fsync_directory(directory.parent)
