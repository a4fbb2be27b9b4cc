"""Everything that is served at one moment, and the plan from which another process builds the same snapshot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import orjson

from model_store.errors import Fault
from model_store.registry.alias_log import DEFAULT_ALIAS
from model_store.registry.publication import Publication
from model_store.utils.printable import valid_unicode
from service.registry.loaded_version import LoadedVersion


@dataclass(frozen=True)
class ModelEntry:
    """A model: its versions and aliases in the store, and the loaded version of each alias.

    `default` is the loaded version for requests without a version, None if none can be served; `why_default` says why
    it is this one. `publications` has the records of these versions, also one that was written after its version was
    loaded.
    """

    name: str
    versions: tuple[int, ...]
    aliases: Mapping[str, int]
    loaded_by_alias: Mapping[str, LoadedVersion]
    default: LoadedVersion | None
    why_default: str
    publications: Mapping[int, Publication] = field(default_factory=dict)

    def publication(self, served: LoadedVersion) -> Publication | None:
        """Return who published a version of this model and when, None if it could not be read."""
        return self.publications.get(served.number, served.publication)

    @property
    def pinned_versions(self) -> list[LoadedVersion]:
        """The default version and those with an alias; a version may appear several times."""
        return [*([self.default] if self.default else []), *self.loaded_by_alias.values()]


@dataclass(frozen=True)
class Snapshot:
    """Everything that is served at one moment.

    The text of its problems is valid Unicode: what a path or a file has else is escaped.
    """

    entries: Mapping[str, ModelEntry] = field(default_factory=dict)
    problems: tuple[Fault, ...] = ()

    def __post_init__(self) -> None:
        faults = (Fault(*map(valid_unicode, (p.location, p.problem, p.fix))) for p in self.problems)
        object.__setattr__(self, "problems", tuple(faults))

    @property
    def default_versions(self) -> list[LoadedVersion]:
        """The default version of every model that has one."""
        return [entry.default for entry in self.entries.values() if entry.default is not None]

    @property
    def pinned_versions(self) -> list[LoadedVersion]:
        """Every default and aliased version; one with several aliases appears several times."""
        return [served for entry in self.entries.values() for served in entry.pinned_versions]

    @cached_property
    def pinned_by_request(self) -> Mapping[tuple[str | None, int | str | None], LoadedVersion]:
        """The default and aliased versions by the model and the alias that a request names, None for neither."""
        found: dict[tuple[str | None, int | str | None], LoadedVersion] = {}
        for entry in self.entries.values():
            for name in (entry.name, None) if len(self.entries) == 1 else (entry.name,):
                if entry.default is not None:
                    found[name, None] = entry.default
                loaded = dict(entry.loaded_by_alias)  # it may have an alias that cannot be read at the moment
                if DEFAULT_ALIAS not in entry.aliases:
                    loaded.pop(DEFAULT_ALIAS, None)
                found |= {(name, alias): served for alias, served in loaded.items()}
        return found

    def is_pinned(self, served: LoadedVersion) -> bool:
        """Return True if this is the default version of its model or has an alias."""
        entry = self.entries.get(served.name)
        if entry is None:
            return False
        return served is entry.default or any(each is served for each in entry.loaded_by_alias.values())

    def to_plan(self) -> bytes:
        """Serialize the snapshot, with each version as number and digest."""
        entries = [
            [
                e.name,
                e.versions,
                e.aliases,
                {alias: _plan(served) for alias, served in e.loaded_by_alias.items()},
                e.default and _plan(e.default),
                e.why_default,
                [[number, publication.as_dict()] for number, publication in e.publications.items()],
            ]
            for e in self.entries.values()
        ]
        return orjson.dumps([entries, [[p.location, p.problem, p.fix] for p in self.problems]])

    @classmethod
    def from_plan(cls, plan: bytes, load: Callable[[str, int, str], LoadedVersion | None]) -> Snapshot:
        """Build the snapshot with versions from `load`. It lacks those for which `load` returns None."""
        entries, problems = orjson.loads(plan)
        made: dict[str, ModelEntry] = {}
        for name, versions, aliases, planned, planned_default, why, records in entries:
            found = {alias: load(name, number, digest) for alias, (number, digest) in planned.items()}
            there = {alias: served for alias, served in found.items() if served is not None}
            default = planned_default and load(name, *planned_default)
            publications = {number: Publication.from_dict(record) for number, record in records}
            made[name] = ModelEntry(name, tuple(versions), aliases, there, default, why, publications)
        return cls(made, tuple(Fault(*problem) for problem in problems))


def _plan(served: LoadedVersion) -> list[int | str]:
    return [served.number, served.digest]


def plan_digests(plan: bytes) -> set[str]:
    """Return the digests of all versions of a plan."""
    entries, _ = orjson.loads(plan)
    return {digest for entry in entries for _, digest in (*entry[3].values(), *([entry[4]] if entry[4] else []))}
