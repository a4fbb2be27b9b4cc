"""The shelf: what the keys of a store say of one model, without a look into any object."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from model_store.storage.base import WORD, StorageBackend, translate_os_errors

_VERSION_KEY = re.compile(rf"({WORD})/([1-9][0-9]{{0,17}})\.(npz|removed)")
_GENERATION_KEY = re.compile(rf"({WORD})/aliases/({WORD})/([1-9][0-9]{{0,17}})\.json")


@dataclass(frozen=True)
class ModelIndex:
    """One model, by its keys: every number that was used and whether its version is there; the moves of each alias."""

    numbers: dict[int, bool] = field(default_factory=dict)
    generations: dict[str, list[int]] = field(default_factory=dict)

    @property
    def versions(self) -> list[int]:
        return sorted(number for number, there in self.numbers.items() if there)

    @property
    def newest(self) -> dict[str, int]:
        """Every alias and its highest generation."""
        return {alias: max(self.generations[alias]) for alias in sorted(self.generations)}


def model_index(objects: StorageBackend, name: str, pattern: str) -> ModelIndex:
    """What the keys below a model's name say that fit."""
    return model_indexes(objects, f"{name}/{pattern}").get(name, ModelIndex())


def model_indexes(objects: StorageBackend, *patterns: str) -> dict[str, ModelIndex]:
    """What the keys that fit say of each model. Those that mean something else are passed over."""
    found: dict[str, ModelIndex] = {}
    with translate_os_errors(objects.address, "read the model store"):
        keys = objects.keys(*patterns)
    for key in keys:
        if match := _VERSION_KEY.fullmatch(key):
            numbers, number = found.setdefault(match[1], ModelIndex()).numbers, int(match[2])
            numbers[number] = match[3] == "npz" and numbers.get(number, True)
        elif match := _GENERATION_KEY.fullmatch(key):
            found.setdefault(match[1], ModelIndex()).generations.setdefault(match[2], []).append(int(match[3]))
    return found
