"""The index of a store: versions and alias revisions of each model, from its keys alone; no object is read."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass, field

from model_store.errors import StoreError
from model_store.storage.base import FIXES, StorageBackend, translate_os_errors
from model_store.utils.values import NAME_PATTERN, is_name

LATEST = "latest"

_VERSION_KEY = re.compile(rf"({NAME_PATTERN})/([1-9][0-9]{{0,17}})\.(npz|removed|json)")
_REVISION_KEY = re.compile(rf"({NAME_PATTERN})/aliases/({NAME_PATTERN})/([1-9][0-9]{{0,17}})\.json")
_READ_FIXES = {**FIXES, errno.ENOENT: "train a model first, or choose another store"}


@dataclass(frozen=True)
class ModelIndex:
    """One model: its used version numbers and whether each exists; those with a record; the revisions of each alias."""

    exists_by_number: dict[int, bool] = field(default_factory=dict)
    recorded: set[int] = field(default_factory=set)
    revisions: dict[str, list[int]] = field(default_factory=dict)

    @property
    def versions(self) -> list[int]:
        """The versions that exist, ascending."""
        return sorted(number for number, exists in self.exists_by_number.items() if exists)

    @property
    def latest_revisions(self) -> dict[str, int]:
        """Every alias and the number of its latest revision."""
        return {alias: max(self.revisions[alias]) for alias in sorted(self.revisions)}


def read_model_index(storage: StorageBackend, name: str, pattern: str) -> ModelIndex:
    """Return the index of one model, from its keys that match `pattern`."""
    return read_all_indexes(storage, f"{name}/{pattern}").get(name, ModelIndex())


def read_all_indexes(
    storage: StorageBackend, *patterns: str, unreadable: dict[str, OSError] | None = None
) -> dict[str, ModelIndex]:
    """Group matching keys by model into versions and alias revisions; ignore unknown keys.

    With `unreadable`, the error of a model whose keys cannot be listed is put there, and all others are read.
    """
    found: dict[str, ModelIndex] = {}
    with translate_os_errors(storage.location, "read the model store", _READ_FIXES):
        keys = storage.keys(*patterns, unreadable=unreadable)
    for key in keys:
        match = _VERSION_KEY.fullmatch(key)
        if match and match[3] == "json":
            found.setdefault(match[1], ModelIndex()).recorded.add(int(match[2]))
        elif match:
            exists, number = found.setdefault(match[1], ModelIndex()).exists_by_number, int(match[2])
            exists[number] = match[3] == "npz" and exists.get(number, True)
        elif match := _REVISION_KEY.fullmatch(key):
            found.setdefault(match[1], ModelIndex()).revisions.setdefault(match[2], []).append(int(match[3]))
    return found


def check_name(kind: str, name: str) -> None:
    """Raise StoreError unless `name` is a valid name of a model or an alias."""
    if not is_name(name):
        raise StoreError(f"{kind} {name!r}: expected a letter or digit, then up to 99 more of them or '.', '_', '-'")
    if kind == "alias" and (name == LATEST or name.isdigit()):
        raise StoreError(f"alias {name!r}: expected a word, since numbers and 'latest' mean versions already")
