"""Build the snapshot of what the store has now.

The default and the aliased versions of every model are loaded and checked. If one fails, the version before it keeps
serving and `Snapshot.problems` has an entry until it is fixed. The same holds for a store that cannot be read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from model_store.errors import Fault, ModelStoreError, StoreError
from service.registry.loaded_version import LoadedVersion
from service.registry.loader import ArtifactSource, Loader, verify_hint
from service.registry.snapshot import ModelEntry, Snapshot
from service.registry.version_cache import VersionCache


class SyncedStore(ArtifactSource, Protocol):
    """What a sync needs from a store."""

    def state(self) -> Mapping[str, Mapping[str, Any]]: ...


def sync_with_store(store: SyncedStore, loader: Loader, cache: VersionCache, old: Snapshot) -> Snapshot:
    """Return the snapshot to serve now, equal to `old` if nothing changed. `cache`: other versions in memory."""
    try:
        state = store.state()
        if not state and old.entries:
            raise StoreError("it has become empty; is its volume still mounted?")
    except (ModelStoreError, OSError) as e:
        effect = "models loaded before keep serving" if old.entries else "requests return 503 until it can be read"
        fault = Fault("store", f"cannot be read: {e}", effect)
        return Snapshot(old.entries, (fault, *(problem for problem in old.problems if problem.location != "store")))
    builder = _SnapshotBuilder(loader, cache)
    entries = {
        name: builder.build_entry(name, state[name], old.entries.get(name))
        for name in sorted(state)
        if state[name]["versions"]
    }
    loader.clear_failures((name, number) for name in state for number in state[name]["versions"])
    return Snapshot(entries, tuple(builder.problems))


class _SnapshotBuilder:
    def __init__(self, loader: Loader, cache: VersionCache) -> None:
        self._loader, self._version_cache = loader, cache
        self.problems: list[Fault] = []

    def build_entry(self, name: str, stored: Mapping[str, Any], old: ModelEntry | None) -> ModelEntry:
        versions, aliases = tuple(stored["versions"]), dict(stored["aliases"])
        before = old.loaded_by_alias if old else {}
        loaded: dict[str, LoadedVersion] = {}
        expected = {"default": versions[-1], **aliases}
        for alias, reason in stored["unreadable"].items():
            again = f"set it again: models alias {name} {alias} VERSION --force"
            self.problems.append(Fault(f"{name}/{alias}", reason, again))
            expected.pop(alias, None)
            if alias in before:
                loaded[alias] = before[alias]
        for key, number in expected.items():
            served = self._reuse_or_load(name, number, (*loaded.values(), *before.values()))
            if served is None:
                served = before.get(key)
            if served is None and key == "default" and "default" not in aliases:
                # After a start there is no earlier version to keep: serve the newest that works, as before the restart.
                older = (self._reuse_or_load(name, n, loaded.values()) for n in versions[-2::-1])
                served = next((found for found in older if found), None)
            if served is not None:
                loaded[key] = served
        return ModelEntry(name, versions, aliases, loaded)

    def _reuse_or_load(self, name: str, number: int, kept: Iterable[LoadedVersion]) -> LoadedVersion | None:
        for served in kept:
            if served.number == number:
                return served
        found = self._version_cache.get((name, number)) or self._loader.load(name, number)
        location = f"{name}/{number}"
        if found is None and all(problem.location != location for problem in self.problems):
            problem = self._loader.failure_reason(name, number)
            self.problems.append(Fault(location, problem, verify_hint(name, number)))
        return found
