"""The proof that a place may hold a store: whoever puts an object where one is must be told so, however close the race.

Some servers accept conditional writes and ignore the condition, some look first and write afterwards, some file systems
have no links, and some listings lag behind. On each of them the store would lose what it had promised to keep.
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
    """StoreError unless races have one winner, whose object stays, is listed at once, and is gone when deleted."""
    word = f"init-{os.urandom(8).hex()}"
    with translate_os_errors(storage.location, "put and delete objects"), ThreadPoolExecutor(WRITERS) as pool:
        for number in range(ROUNDS):
            key = f"{word}-{number}"
            try:
                _check_race(storage, key, pool)
            finally:
                storage.delete(key)
        if left := [key for key in storage.keys("*") if key.startswith(word)]:
            raise _nonconforming(storage, "what is deleted to be gone at once", f"{len(left)} objects still listed")


def _check_race(storage: StorageBackend, key: str, pool: ThreadPoolExecutor) -> None:
    start = threading.Barrier(WRITERS)

    def write(data: bytes) -> bool:
        start.wait()
        return put_object(storage, key, data)

    writers = [f"writer {number}".encode() for number in range(WRITERS)]
    won = [writer for writer, kept in zip(writers, pool.map(write, writers), strict=True) if kept]
    if len(won) != 1:
        raise _nonconforming(storage, f"one of {WRITERS} who write at once to win", f"{len(won) or 'none'}")
    if put_object(storage, key, b"a late writer"):
        raise _nonconforming(storage, "a late writer to be refused", "its object taken")
    if (kept := storage.get(key)) != won[0]:
        raise _nonconforming(storage, f"the object of the winner, {won[0]!r}", f"{kept[:60]!r}")
    if key not in storage.keys("*"):
        raise _nonconforming(storage, "what is put to be listed at once", "it missing")


def _nonconforming(storage: StorageBackend, expected: str, found: str) -> StoreError:
    fix = "versions would be lost here: choose a place that honours conditional writes"
    return StoreError(f"{storage.location}: expected {expected}, found {found}; {fix}")
