"""Storage backends: objects that are written whole under a key that is not taken, and never changed.

A key is a few names joined by slashes, such as `penguins/3.npz`. A backend implements `StorageBackend` and raises
OSError for what it cannot do. local.py stores objects as files of a directory, bucket.py in a bucket.
registry/store.py decides what the keys mean.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from model_store.errors import StoreError

# Limit for alias revisions and signatures: writers to the store must not choose how much memory readers need.
MAX_SMALL_OBJECT_BYTES = 1 << 20

FIXES = {
    errno.EACCES: "check its owner and write permissions",
    errno.EPERM: "check its owner, and that its file system has hard links",
    errno.EROFS: "the file system is mounted read-only: publish where it is writable",
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EEXIST: "a file is where a directory is expected; choose another store",
    errno.ENOTDIR: "a file is where a directory is expected; choose another store",
    errno.ENOENT: "choose another store",
}


class StagedObject(Protocol):
    """An object without a key: a private file, open for writing, until `commit` puts its content under a key."""

    path: Path
    file: BinaryIO

    def commit(self, key: str) -> bool:
        """Put the content under `key`, durably. Return False, and put nothing, if the key is taken."""


@dataclass(frozen=True)
class ObjectInfo:
    """An object's size in bytes and its date."""

    size: int
    modified: datetime


class StorageBackend(Protocol):
    """The operations that the store needs: list, read, create if absent, delete."""

    location: str  # a path or a URL
    fork_safe: bool  # whether a process that has used the backend may fork, and its child use it too

    def keys(self, *patterns: str, unreadable: dict[str, OSError] | None = None) -> list[str]:
        """Return the keys that match a pattern, in which `*` matches any one name; puts and deletes show at once.

        With `unreadable`, an error below one of the top folders does not end the listing: it is put there, by the name
        of the folder, whose keys may then be missing or incomplete.
        """

    def get(self, key: str) -> bytes:
        """Return the content of a small object. OSError if it is larger than MAX_SMALL_OBJECT_BYTES."""

    def read_manifest(self, key: str) -> tuple[dict[str, Any], str]:
        """Return the manifest of an artifact and its digest, without reading its arrays."""

    def local_path(self, key: str, *, refresh: bool = False) -> Path:
        """Return an artifact as a file: its own, or a verified copy. `refresh` copies what is stored now."""

    def stage(self, key: str) -> AbstractContextManager[StagedObject]:
        """Create an object to be committed under `key` or a key in the same folder; discarded at exit otherwise."""

    def delete(self, key: str) -> None:
        """Delete an object, durably; do nothing if there is none."""

    def check_writable(self, key: str) -> None:
        """Raise OSError if `key` could not be put. Leave nothing behind."""

    def object_info(self, key: str) -> ObjectInfo:
        """Return an object's size and date."""

    def abandoned_keys(self) -> list[str]:
        """Return the keys of staged objects whose process is gone. `delete` deletes them like any object."""


def put_object(storage: StorageBackend, key: str, data: bytes) -> bool:
    """Put a small object. Return False if the key is taken."""
    with storage.stage(key) as staged:
        staged.file.write(data)
        return staged.commit(key)


def check_object_size(data: bytes, size: int) -> bytes:
    """Return `data`. OSError if the object's size is above MAX_SMALL_OBJECT_BYTES."""
    if size > MAX_SMALL_OBJECT_BYTES:
        raise OSError(errno.EFBIG, f"expected {MAX_SMALL_OBJECT_BYTES} bytes at most, found more")
    return data


@contextmanager
def translate_os_errors(location: str, action: str, fixes: Mapping[int, str] = FIXES) -> Iterator[None]:
    """Raise an OSError as a StoreError: location, the action that failed, the reason and a fix by errno."""
    try:
        yield
    except OSError as e:
        fix = fixes.get(e.errno or 0)
        raise StoreError(f"{location}: cannot {action}: {e.strerror or e}" + (f"; {fix}" if fix else "")) from e
