"""Build the snapshot of what the store has now.

The default and the aliased versions of every model are loaded and checked. If one fails, the version before it keeps
serving and `Snapshot.problems` has an entry until it is fixed. The same holds for a store, or the folder of one model,
that cannot be read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from model_store.errors import Fault, ModelStoreError, StoreError
from model_store.registry.alias_log import DEFAULT_ALIAS, FOLLOWS_ALIAS, FOLLOWS_NEWEST
from model_store.utils.printable import printable
from service.registry.loaded_version import LoadedVersion
from service.registry.loader import ArtifactSource, Loader, verify_hint
from service.registry.snapshot import ModelEntry, Snapshot
from service.registry.version_cache import VersionCache

_MAX_ERROR_CHARACTERS = 300
_MAX_OLDER_VERSIONS = 100  # tried if the newest fails: a folder may have thousands of broken files
_MAX_OLDER_LOADS = 8  # of these in one sync: they must not delay other models


class SyncedStore(ArtifactSource, Protocol):
    """What a sync needs from a store."""

    def state(self) -> Mapping[str, Mapping[str, Any]]: ...


def sync_with_store(
    read_state: Callable[[], Mapping[str, Mapping[str, Any]]],
    loader: Loader,
    cache: VersionCache,
    old: Snapshot,
    follow: str = DEFAULT_ALIAS,
) -> Snapshot:
    """Return the snapshot to serve now, equal to `old` if nothing changed. `cache`: other versions in memory.

    `read_state` returns the state of the store, as `Store.state` does.

    `follow`: "default" serves the version of the alias "default" to requests without a version, or the newest one while
    that alias was never set. "newest" always serves the newest one.
    """
    try:
        state = read_state()
        if not state and old.entries:
            raise StoreError("it has become empty; is its volume still mounted?")
    except (ModelStoreError, OSError) as e:
        return _unchanged(old, f"cannot be read: {e}", "requests return 503 until it can be read")
    builder = _SnapshotBuilder(loader, cache, follow)
    entries = {
        name: entry
        for name in sorted(state)
        if (entry := builder.build_entry(name, state[name], old.entries.get(name)))
    }
    loader.clear_failures((name, number) for name in state for number in state[name]["versions"])
    return Snapshot(entries, tuple(builder.problems))


def failed_sync(old: Snapshot, error: Exception) -> Snapshot:
    """Return what to serve after a sync that failed unexpectedly: what was served before, with the problem."""
    problem = f"cannot be followed: {printable(f'{type(error).__name__}: {error}', max_length=_MAX_ERROR_CHARACTERS)}"
    return _unchanged(old, problem, "requests return 503 until it can be followed")


def _unchanged(old: Snapshot, problem: str, effect: str) -> Snapshot:
    fault = Fault("store", problem, "models loaded before keep serving" if old.entries else effect)
    kept = (problem for problem in old.problems if problem.location not in {"store", "models"})
    return Snapshot(old.entries, (fault, *kept))


class _SnapshotBuilder:
    def __init__(self, loader: Loader, cache: VersionCache, follow: str) -> None:
        self._loader, self._version_cache, self._follow = loader, cache, follow
        self.problems: list[Fault] = []
        self._problem_locations: set[str] = set()

    def build_entry(self, name: str, stored: Mapping[str, Any], old: ModelEntry | None) -> ModelEntry | None:
        """Return what is served of a model, None if it has no version or could never be read."""
        if stored["error"]:
            effect = "its versions loaded before keep serving" if old else "requests return 503 until it can be read"
            self.problems.append(Fault(f"{name}/", f"cannot be read: {stored['error']}", effect))
            return old
        if not stored["versions"]:
            return None
        versions, aliases = tuple(stored["versions"]), dict(stored["aliases"])
        before = old.loaded_by_alias if old else {}
        known = {served.number: served for served in old.pinned_versions} if old else {}
        is_default_set = DEFAULT_ALIAS in aliases or DEFAULT_ALIAS in stored["unreadable"]
        follows_newest = self._follow == "newest" or not is_default_set
        newest = self._reuse_or_load(name, versions[-1], known) if follows_newest else None
        loaded: dict[str, LoadedVersion] = {}
        for alias, reason in stored["unreadable"].items():
            again = f"set it again: models alias {name} {alias} VERSION --force"
            self.problems.append(Fault(f"{name}/{alias}", reason, again))
            if alias in before:
                loaded[alias] = before[alias]
        for alias, number in aliases.items():
            served = self._reuse_or_load(name, number, known) or before.get(alias)
            if served is not None:
                loaded[alias] = served
        default = (newest if follows_newest else loaded.get(DEFAULT_ALIAS)) or (old.default if old else None)
        if default is None and follows_newest:
            # After a start there is no earlier version to keep: serve the newest that works, as before the restart.
            default = self._newest_working(name, versions[:-1], known)
        intended = versions[-1] if follows_newest else aliases.get(DEFAULT_ALIAS)
        why = "SERVE_FOLLOW=newest" if self._follow == "newest" else FOLLOWS_ALIAS if is_default_set else FOLLOWS_NEWEST
        if default is not None and default.number != intended:
            why += f"; version {intended} cannot be served" if intended else "; the alias cannot be read"
        for number, reason in stored["damaged"].items():
            self.problems.append(Fault(f"{name}/{number}.json", reason, "the version keeps serving"))
        pinned = [*([default] if default else []), *loaded.values()]
        # Versions that another process has verified are loaded without their records: those are in `old`.
        records = {each.number: old.publication(each) if old else each.publication for each in pinned}
        publications = {number: record for number, record in records.items() if record}
        return ModelEntry(name, versions, aliases, loaded, default, why, publications | stored["publications"])

    def _newest_working(
        self, name: str, versions: tuple[int, ...], known: dict[int, LoadedVersion]
    ) -> LoadedVersion | None:
        """Return the newest of `versions` that can be served.

        A sync loads `_MAX_OLDER_LOADS` of them at most, and the next one goes on with those before. As many are
        reported as problems.
        """
        tried, loads = versions[: -_MAX_OLDER_VERSIONS - 1 : -1], 0
        for i, number in enumerate(tried):
            is_due = number not in known and not self._loader.in_backoff(name, number)
            if is_due and loads >= _MAX_OLDER_LOADS:
                if self._loader.has_failed(name, number):
                    continue
                return None  # to be tried by the next sync
            loads += is_due
            if (found := self._reuse_or_load(name, number, known, report=i < _MAX_OLDER_LOADS)) is not None:
                return found
        if len(versions) > len(tried):
            problem = f"none of its newest {len(tried) + 1} versions can be served; older ones are not tried"
            fix = f"choose one that works: models alias {name} {DEFAULT_ALIAS} VERSION"
            self.problems.append(Fault(f"{name}/", problem, fix))
        return None

    def _reuse_or_load(
        self, name: str, number: int, known: dict[int, LoadedVersion], *, report: bool = True
    ) -> LoadedVersion | None:
        """Return a version from `known`, or load it and put it there. `report` a failure as a problem."""
        if number in known:
            return known[number]
        found = self._version_cache.get((name, number)) or self._loader.load(name, number)
        location = f"{name}/{number}"
        if found is not None:
            known[number] = found
        elif report and location not in self._problem_locations:
            self._problem_locations.add(location)
            self.problems.append(Fault(location, self._loader.failure_reason(name, number), verify_hint(name, number)))
        return found
