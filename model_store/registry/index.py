"""The shelf: what the keys of a store say of one model, without a look into any object."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from model_store.storage.base import StorageBackend, translate_os_errors
from model_store.utils.values import NAME_PATTERN

_VERSION_KEY = re.compile(rf"({NAME_PATTERN})/([1-9][0-9]{{0,17}})\.(npz|removed)")
_REVISION_KEY = re.compile(rf"({NAME_PATTERN})/aliases/({NAME_PATTERN})/([1-9][0-9]{{0,17}})\.json")


@dataclass(frozen=True)
class ModelIndex:
    """One model, by its keys: every number that was used and whether its version is there; the moves of each alias."""

    exists_by_number: dict[int, bool] = field(default_factory=dict)
    revisions: dict[str, list[int]] = field(default_factory=dict)

    @property
    def versions(self) -> list[int]:
        return sorted(number for number, there in self.exists_by_number.items() if there)

    @property
    def latest_revisions(self) -> dict[str, int]:
        """Every alias and its highest generation."""
        return {alias: max(self.revisions[alias]) for alias in sorted(self.revisions)}


def model_index(storage: StorageBackend, name: str, pattern: str) -> ModelIndex:
    """What the keys below a model's name say that fit."""
    return model_indexes(storage, f"{name}/{pattern}").get(name, ModelIndex())


def model_indexes(storage: StorageBackend, *patterns: str) -> dict[str, ModelIndex]:
    """What the keys that fit say of each model. Those that mean something else are passed over."""
    found: dict[str, ModelIndex] = {}
    with translate_os_errors(storage.location, "read the model store"):
        keys = storage.keys(*patterns)
    for key in keys:
        if match := _VERSION_KEY.fullmatch(key):
            numbers, number = found.setdefault(match[1], ModelIndex()).exists_by_number, int(match[2])
            numbers[number] = match[3] == "npz" and numbers.get(number, True)
        elif match := _REVISION_KEY.fullmatch(key):
            found.setdefault(match[1], ModelIndex()).revisions.setdefault(match[2], []).append(int(match[3]))
    return found
