"""Garbage: what the dead left in a store, and what nobody can reach any more.

Who dies at work leaves the draft of an object, or files of a version whose removal had begun. Nobody sees them, and
they do no harm but to the disk. They are collected when a grace has passed; a draft, only when besides nobody holds
it. So a publish is safe, however slow it is and wherever the clock jumps to.
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
    """An object to collect: what it is of, its size in bytes, and since when it is garbage."""

    key: str
    what: str
    size: int
    since: datetime


def find_garbage(
    storage: StorageBackend, aliased: Callable[[str], set[int] | None], *, now: datetime, grace: timedelta
) -> list[GarbageObject]:
    """All that may be collected `now`. What was left less than `grace` ago may not; nor what a clock ahead dated so.

    `aliased` tells the versions of a model that aliases point to, None when it cannot.
    """
    found = []
    for key, what, dated in [*_abandoned_uploads(storage), *_version_garbage(storage, aliased)]:
        try:
            since, size = storage.object_info(dated).modified, storage.object_info(key).size
        except FileNotFoundError:
            continue  # its owner was quicker
        if abs(now - since) >= grace:
            found.append(GarbageObject(key, what, size, since))
    return sorted(found, key=lambda garbage: garbage.key)


def _abandoned_uploads(storage: StorageBackend) -> Iterator[tuple[str, str, str]]:
    for key in storage.abandoned_keys():
        yield key, "a draft that nobody writes any more", key


def _version_garbage(
    storage: StorageBackend, aliased: Callable[[str], set[int] | None]
) -> Iterator[tuple[str, str, str]]:
    """Of each version that is not there, whatever is not its tombstone; and the key whose date tells since when."""
    found: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for key in storage.keys("*/*", "*/signatures/*/*"):
        if match := _VERSION_KEY.fullmatch(key):
            found[match[1], match[2] or match[3]].add(key)
    for (name, number), keys in found.items():
        artifact, tombstone = f"{name}/{number}.npz", f"{name}/{number}.removed"
        if tombstone not in keys:
            if artifact not in keys:
                yield from ((key, "of a version that is not there", key) for key in keys)
            continue
        rest = keys - {tombstone}
        held = aliased(name) if rest else None
        if held is not None and int(number) not in held:
            yield from ((key, "of a removed version", tombstone) for key in rest)
        elif held is not None and artifact in keys:
            # Its remover died before it saw that an alias had come: the version stays.
            yield tombstone, "of a removal that an alias forbids", tombstone
