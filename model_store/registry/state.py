"""The state of a model for followers of a store: versions, aliases and records. No artifact is opened."""

from __future__ import annotations

from typing import Any

from model_store.errors import StoreError
from model_store.registry.alias_log import AliasLog
from model_store.registry.index import ModelIndex
from model_store.registry.publication import Publication, read_publication
from model_store.storage.base import StorageBackend


def model_state(storage: StorageBackend, alias_log: AliasLog, name: str, index: ModelIndex) -> dict[str, Any]:
    """Return the versions and aliases of a model, and the publication records of its newest and aliased versions.

    An alias whose revision cannot be read is under "unreadable", and such a record under "damaged", each with the
    reason; all others are unaffected. "error" is empty.
    """
    aliases: dict[str, int] = {}
    unreadable: dict[str, str] = {}
    for alias, number in index.latest_revisions.items():
        try:
            aliases[alias] = alias_log.read(name, alias, number).version
        except StoreError as e:
            unreadable[alias] = str(e)
    publications: dict[int, Publication] = {}
    damaged: dict[int, str] = {}
    for number in sorted(index.recorded & {*index.versions[-1:], *aliases.values()}):
        try:
            found = read_publication(storage, name, number)
        except StoreError as e:
            damaged[number] = str(e)
        else:
            publications |= {} if found is None else {number: found}
    aliased = {"aliases": aliases, "unreadable": unreadable}
    return {"versions": tuple(index.versions), **aliased, "publications": publications, "damaged": damaged, "error": ""}


def unreadable_state(reason: str) -> dict[str, Any]:
    """Return the state of a model whose folder cannot be read: nothing but the reason, under "error"."""
    nothing: dict[str, Any] = {key: {} for key in ("aliases", "unreadable", "publications", "damaged")}
    return {"versions": (), **nothing, "error": reason}
