"""The objects under a store: bytes with a key, put whole where nobody has put any, and never changed.

A key is a few words joined by slashes, such as `penguins/3.npz`. Whatever holds objects offers the methods of
`StorageBackend`, and says by an OSError what it could not do. The store (store.py) decides what the keys mean.

Here, they are files of a directory. A hidden temporary file is written and synced, `link(2)` gives it its name or says
that somebody was first, and the directory is synced. Nothing is ever overwritten, so a crash leaves the new object or
none.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from model_store.artifact import npz
from model_store.errors import StoreError
from model_store.utils.atomic_write import sync_directory

SMALL = 1 << 20  # bytes of a move or a signature; whoever may write to the store must not choose our memory
WORD = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"

_WORD = re.compile(WORD)
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_FIXES = {
    errno.EACCES: "check who owns it and who may write there",
    errno.EPERM: "check who owns it, and that its file system has hard links",
    errno.EROFS: "it is mounted read-only: publish where it can be written",
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EEXIST: "a file stands where a directory is expected; choose another store",
    errno.ENOTDIR: "a file stands where a directory is expected; choose another store",
    errno.ENOENT: "train a model first, or choose another store",
}


class Draft(Protocol):
    """An object without a key: a private file, open for writing, until `keep` gives its content one for good."""

    path: Path
    file: BinaryIO

    def keep(self, key: str) -> bool:
        """Put the content under `key`, durable when this returns; False, and nothing put, when the key is taken."""


@dataclass(frozen=True)
class ObjectInfo:
    size: int
    since: datetime


class StorageBackend(Protocol):
    address: str
    survives_fork: bool  # whether a process that has used them may fork, and its child use them too

    def keys(self, *patterns: str) -> list[str]:
        """The keys that fit a pattern, in which `*` stands for any one word. What is put or deleted shows at once."""

    def get(self, key: str) -> bytes:
        """The bytes of a small object; an OSError where it has more than SMALL of them."""

    def manifest(self, key: str) -> tuple[dict[str, Any], str]:
        """The manifest of an artifact and its digest, without a look at its arrays."""

    def file(self, key: str, *, anew: bool = False) -> Path:
        """An artifact as a file: its own, or a verified copy. `anew` wants a copy of what is there now."""

    def draft(self, key: str) -> AbstractContextManager[Draft]:
        """A new object, to be kept under `key` or a key beside it; dropped at the end."""

    def delete(self, key: str) -> None:
        """Delete an object, durably; nothing where there is none."""

    def check_writable(self, key: str) -> None:
        """An OSError now, where `key` could not be put. Leaves nothing behind."""

    def about(self, key: str) -> ObjectInfo:
        """An object's size and date."""

    def abandoned(self) -> list[str]:
        """The keys of drafts that nobody holds any more: their processes died. They are deleted as objects are."""


def put(objects: StorageBackend, key: str, data: bytes) -> bool:
    """Put a small object; False when the key is taken."""
    with objects.draft(key) as draft:
        draft.file.write(data)
        return draft.keep(key)


def small(data: bytes, size: int) -> bytes:
    """The data of an object of that size, unless there are too many."""
    if size > SMALL:
        raise OSError(errno.EFBIG, f"expected {SMALL} bytes at most, found more")
    return data


@contextmanager
def translate_os_errors(location: str, deed: str) -> Iterator[None]:
    """An OSError as a StoreError that says what it kept us from doing, where, and what may help."""
    try:
        yield
    except OSError as e:
        fix = _FIXES.get(e.errno or 0)
        raise StoreError(f"{location}: cannot {deed}: {e.strerror or e}" + (f"; {fix}" if fix else "")) from e


class LocalStorage:
    """Objects that are files. A word of a key is the name of a directory, the last one of a file."""

    survives_fork = True

    def __init__(self, root: Path) -> None:
        self.root = root
        self.address = str(root)

    def keys(self, *patterns: str) -> list[str]:
        return [key for pattern in patterns for key in self._fitting("", pattern.split("/"))]

    def get(self, key: str) -> bytes:
        # A pipe would keep a plain open waiting for its writer.
        with os.fdopen(os.open(self.root / key, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            data = file.read(SMALL + 1)
        return small(data, len(data))

    def manifest(self, key: str) -> tuple[dict[str, Any], str]:
        path = self.root / key
        return npz.read_manifest(path), npz.digest(path)

    def file(self, key: str, *, anew: bool = False) -> Path:
        return self.root / key

    @contextmanager
    def draft(self, key: str) -> Iterator[FileDraft]:
        """A hidden file in the directory of its key. Nobody may write to it later."""
        directory = (self.root / key).parent
        _make_directory(directory)
        with self._hidden(directory) as (path, file):
            yield FileDraft(self.root, path, file)

    def delete(self, key: str) -> None:
        path = self.root / key
        path.unlink(missing_ok=True)
        sync_directory(path.parent)

    def check_writable(self, key: str) -> None:
        directory = (self.root / key).parent
        while not directory.exists():
            directory = directory.parent
        with self._hidden(directory) as (path, _):
            twin = path.with_name(f"{path.name}-link")
            os.link(path, twin)
            twin.unlink()

    def about(self, key: str) -> ObjectInfo:
        status = (self.root / key).stat()
        return ObjectInfo(status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))

    def abandoned(self) -> list[str]:
        return [str(path.relative_to(self.root)) for path in sorted(self.root.rglob(".tmp-*")) if not _held(path)]

    @staticmethod
    @contextmanager
    def _hidden(directory: Path) -> Iterator[tuple[Path, BinaryIO]]:
        """Locked for as long as its process lives and works on it."""
        path = directory / f".tmp-{os.urandom(8).hex()}"
        try:
            with os.fdopen(os.open(path, _CREATE, 0o444), "wb") as file:
                with suppress(OSError):  # a file system without locks: the grace must do
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield path, file
        finally:
            path.unlink(missing_ok=True)

    def _fitting(self, folder: str, words: list[str]) -> Iterator[str]:
        word, rest = words[0], words[1:]
        for found in self._words(folder, directories=bool(rest)) if word == "*" else [word]:
            if rest:
                yield from self._fitting(f"{folder}{found}/", rest)
            elif word == "*" or (self.root / folder / found).is_file():
                yield folder + found

    def _words(self, folder: str, *, directories: bool) -> list[str]:
        """The names of files or directories in a directory that are words; none where there is no such directory."""
        try:
            with os.scandir(self.root / folder) as entries:
                found = [entry for entry in entries if _WORD.fullmatch(entry.name)]
                return sorted(entry.name for entry in found if entry.is_dir() == directories)
        except (FileNotFoundError, NotADirectoryError):
            if not folder:
                raise
            return []


class FileDraft:
    def __init__(self, root: Path, path: Path, file: BinaryIO) -> None:
        self.path, self.file = path, file
        self._root = root

    def keep(self, key: str) -> bool:
        self.file.flush()
        os.fsync(self.file.fileno())
        target = self._root / key
        try:
            os.link(self.path, target)
        except FileExistsError:
            return False
        sync_directory(target.parent)
        return True


def _held(path: Path) -> bool:
    """Whether a process that lives has the lock of a draft."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True  # it did, until now
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _make_directory(directory: Path) -> None:
    if not directory.is_dir():
        _make_directory(directory.parent)
        directory.mkdir(exist_ok=True)
        sync_directory(directory.parent)
