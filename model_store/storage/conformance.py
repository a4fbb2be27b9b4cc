"""The conformance check of a storage backend: of concurrent writers of one key, exactly one must succeed.

Some servers accept conditional writes and ignore the condition, or check first and write later; some file systems have
no hard links; some listings lag behind. On each of them the store would lose published versions.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

from model_store.errors import StoreError
from model_store.storage.base import StorageBackend, put_object, translate_os_errors

WRITERS = 8
ROUNDS = 25


def check_conformance(storage: StorageBackend) -> None:
    """Raise StoreError unless each race has one winner whose object stays, is listed at once and can be deleted."""
    prefix = f"init-{os.urandom(8).hex()}"
    with translate_os_errors(storage.location, "put and delete objects"), ThreadPoolExecutor(WRITERS) as pool:
        for number in range(ROUNDS):
            key = f"{prefix}-{number}"
            try:
                _check_race(storage, key, pool)
            finally:
                storage.delete(key)
        if left := [key for key in storage.keys("*") if key.startswith(prefix)]:
            raise _nonconforming(storage, "deleted objects to disappear at once", f"{len(left)} still listed")


def _check_race(storage: StorageBackend, key: str, pool: ThreadPoolExecutor) -> None:
    start = threading.Barrier(WRITERS)

    def write(data: bytes) -> bool:
        start.wait()
        return put_object(storage, key, data)

    writers = [f"writer {number}".encode() for number in range(WRITERS)]
    winners = [writer for writer, won in zip(writers, pool.map(write, writers), strict=True) if won]
    if len(winners) != 1:
        raise _nonconforming(storage, f"1 of {WRITERS} concurrent writers to succeed", f"{len(winners)}")
    if put_object(storage, key, b"a late writer"):
        raise _nonconforming(storage, "a later write to fail", "it succeeded")
    if (found := storage.get(key)) != winners[0]:
        raise _nonconforming(storage, f"the object of the winner, {winners[0]!r}", f"{found[:60]!r}")
    if key not in storage.keys("*"):
        raise _nonconforming(storage, "a new object to be listed at once", "it missing")


def _nonconforming(storage: StorageBackend, expected: str, found: str) -> StoreError:
    fix = "versions would be lost here: choose a backend that honours conditional writes"
    return StoreError(f"{storage.location}: expected {expected}, found {found}; {fix}")
