"""Garbage collection: find objects that interrupted processes left in a store, and that nothing can reach.

A process that dies leaves the staged file of an object, or files of a version whose removal had begun. They are
invisible and only use disk space. They are garbage once they are older than a grace period; a staged file only if, in
addition, no process holds its lock. So a publish is safe however slow it is, and whatever the clock does.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from model_store.storage.base import StorageBackend
from model_store.utils.values import NAME_PATTERN

_VERSION_KEY = re.compile(
    rf"({NAME_PATTERN})/(?:([1-9][0-9]{{0,17}})\.|signatures/([1-9][0-9]{{0,17}})/){NAME_PATTERN}"
)


@dataclass(frozen=True)
class GarbageObject:
    """An object to delete: why, its size in bytes, and since when it is garbage."""

    key: str
    reason: str
    size: int
    since: datetime


def find_garbage(
    storage: StorageBackend,
    aliased_versions: Callable[[str], set[int] | None],
    *,
    now: datetime,
    grace: timedelta,
) -> list[GarbageObject]:
    """Return the objects that may be deleted at `now`: garbage for at least `grace`, in either direction of the clock.

    `aliased_versions` returns the versions of a model that aliases point to, None if it cannot tell.
    """
    found = []
    for key, reason, dated_key in [*_abandoned_objects(storage), *_version_garbage(storage, aliased_versions)]:
        try:
            since, size = storage.object_info(dated_key).modified, storage.object_info(key).size
        except FileNotFoundError:
            continue  # its owner has deleted it
        if abs(now - since) >= grace:
            found.append(GarbageObject(key, reason, size, since))
    return sorted(found, key=lambda garbage: garbage.key)


def _abandoned_objects(storage: StorageBackend) -> Iterator[tuple[str, str, str]]:
    for key in storage.abandoned_keys():
        yield key, "unfinished upload", key


def _version_garbage(
    storage: StorageBackend, aliased_versions: Callable[[str], set[int] | None]
) -> Iterator[tuple[str, str, str]]:
    """Yield (key, reason, key whose date counts) of objects of versions that do not exist, except their tombstones."""
    found: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for key in storage.keys("*/*", "*/signatures/*/*"):
        if match := _VERSION_KEY.fullmatch(key):
            found[match[1], match[2] or match[3]].add(key)
    for (name, number), keys in found.items():
        artifact, tombstone = f"{name}/{number}.npz", f"{name}/{number}.removed"
        if tombstone not in keys:
            if artifact not in keys:
                yield from ((key, "file of a version that does not exist", key) for key in keys)
            continue
        rest = keys - {tombstone}
        aliased = aliased_versions(name) if rest else None
        if aliased is not None and int(number) not in aliased:
            yield from ((key, "file of a removed version", tombstone) for key in rest)
        elif aliased is not None and artifact in keys:
            # The removal crashed while an alias was being set: delete the tombstone, which restores the version.
            yield tombstone, "tombstone of an aliased version", tombstone
