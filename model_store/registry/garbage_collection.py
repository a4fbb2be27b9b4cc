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

from model_store.storage.base import WORD, StorageBackend

_OF_VERSION = re.compile(rf"({WORD})/(?:([1-9][0-9]{{0,17}})\.|signatures/([1-9][0-9]{{0,17}})/){WORD}")


@dataclass(frozen=True)
class Leftover:
    """An object to collect: what it is of, its size in bytes, and since when it is garbage."""

    key: str
    what: str
    size: int
    since: datetime


def leftovers(
    objects: StorageBackend, aliased: Callable[[str], set[int] | None], *, now: datetime, grace: timedelta
) -> list[Leftover]:
    """All that may be collected `now`. What was left less than `grace` ago may not; nor what a clock ahead dated so.

    `aliased` tells the versions of a model that aliases point to, None when it cannot.
    """
    found = []
    for key, what, dated in [*_drafts(objects), *_of_versions(objects, aliased)]:
        try:
            since, size = objects.about(dated).since, objects.about(key).size
        except FileNotFoundError:
            continue  # its owner was quicker
        if abs(now - since) >= grace:
            found.append(Leftover(key, what, size, since))
    return sorted(found, key=lambda leftover: leftover.key)


def _drafts(objects: StorageBackend) -> Iterator[tuple[str, str, str]]:
    for key in objects.abandoned():
        yield key, "a draft that nobody writes any more", key


def _of_versions(objects: StorageBackend, aliased: Callable[[str], set[int] | None]) -> Iterator[tuple[str, str, str]]:
    """Of each version that is not there, whatever is not its tombstone; and the key whose date tells since when."""
    found: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for key in objects.keys("*/*", "*/signatures/*/*"):
        if match := _OF_VERSION.fullmatch(key):
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
