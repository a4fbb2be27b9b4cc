"""The models in memory, kept in sync with the store.

What is served is one immutable `Snapshot`, replaced as a whole, so a request sees one state from start to end.
`refresh()` reads the store once (`store_sync`); a change becomes the next generation, to which all workers switch at
the same instant (`generations`). Versions that are neither a default nor have an alias are loaded at their first
request (`on_demand`); the least recently used of them are evicted (`version_cache`).
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from model_store.errors import Fault, InputError, StoreError
from model_store.registry.alias_log import DEFAULT_ALIAS
from model_store.storage.artifact_cache import remove_unused_copies
from model_store.utils.values import list_names
from service.registry.active_locks import ActiveLocks
from service.registry.errors import (
    UnknownModelError,
    WouldBlock,
    no_model_error,
    no_version_error,
    older_version_error,
    unloaded_error,
)
from service.registry.generations import Generations
from service.registry.loaded_version import LoadedVersion
from service.registry.loader import Loader
from service.registry.on_demand import EarlySync, LoadBudget, OnDemandVersions
from service.registry.periodic import SyncInterval, start_periodic
from service.registry.shared_names import NameSet, SharedNames
from service.registry.signature_policy import SignatureCheck
from service.registry.snapshot import ModelEntry, Snapshot
from service.registry.store_sync import SyncedStore, failed_sync, sync_with_store
from service.registry.switch_barrier import SwitchBarrier
from service.registry.version_cache import VersionCache
from service.telemetry.metrics import Metrics
from service.validation.row_limits import RowLimits

log = logging.getLogger("service.registry.registry")

_MODEL_PATH = re.compile(r"/(?:v1/|v2/)?models/([A-Za-z0-9._-]+)(?:/(?:versions|labels)/([A-Za-z0-9._-]+))?")
_PROPOSAL_POLL_SECONDS = 0.1  # between two checks for a proposal of another worker
_LOAD_ATTEMPTS = 100  # 20 ms each, while the other workers load it too


class ModelRegistry:
    def __init__(
        self,
        store: SyncedStore,
        cache_dir: Path,
        metrics: Metrics,
        *,
        row_limits: RowLimits,
        max_extra_versions: int,
        follow: str = "default",
        unloaded_models: SharedNames | None = None,
        checked_digests: NameSet | None = None,
        check_signature: SignatureCheck | None = None,
        barrier: SwitchBarrier | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Switch versions together with every process that shares `barrier`; without one, alone.

        `follow`: the SERVE_FOLLOW setting, what requests without a version get. `checked_digests`: the digests whose
        golden predictions this machine has reproduced.
        """
        self.unloaded_models: SharedNames | frozenset[str] = frozenset() if unloaded_models is None else unloaded_models
        self._store, self._cache_dir, self._follow = store, cache_dir, follow
        self._loader = Loader(
            store,
            cache_dir,
            metrics,
            row_limits=row_limits,
            checked_digests=checked_digests,
            check_signature=check_signature,
            clock=clock,
        )
        self._barrier = barrier or SwitchBarrier()
        self._active_locks = ActiveLocks(cache_dir, self._barrier)
        self._sync_lock = threading.Lock()  # one sync with the store at a time; it may take long
        self._has_replaced_copies = False
        self._version_cache = VersionCache(max_extra_versions)
        self._generations = Generations(self._loader, self._version_cache, self._barrier, metrics)
        self._on_demand = OnDemandVersions(
            self._loader, self._version_cache, LoadBudget(clock), self._delete_unused_copies
        )
        self.event_loop_thread: int | None = None  # serves all connections, so it must not wait for a load
        self._syncing_pid: int | None = None  # the process whose threads sync
        self._sync_interval = SyncInterval()
        self._early_sync = EarlySync(self.refresh, self._barrier, LoadBudget(clock), self._sync_interval, clock)
        self._idle_until = 0.0  # of `time.monotonic`, without other processes
        self._unreachable = False  # whether this process could not read the store when it tried to join

    @property
    def snapshot(self) -> Snapshot:
        """What every worker serves at this moment."""
        return self._generations.active

    @property
    def is_ready(self) -> bool:
        """Whether at least one model can predict: it has a default version and is not unloaded."""
        return any(served.name not in self.unloaded_models for served in self.snapshot.default_versions)

    def find(
        self,
        name: str | None,
        ref: int | str | None = None,
        snapshot: Snapshot | None = None,
        *,
        load: bool = True,
        at_least: int = 0,
    ) -> LoadedVersion:
        """Return the version of a model (None: the only one) by number or alias (None: the default).

        Pass `snapshot` to read several things of one state. Raises WouldBlock if the version is not in memory and
        either `load` is False or this is the event loop's thread. If the default or an alias is older than version
        `at_least`, the store may be read once; UnavailableError if it is still older.
        """
        snapshot = snapshot or self._generations.active
        served = snapshot.pinned_by_request.get((name, ref))
        model = served.name if served is not None else self._find_model(snapshot, name).name
        if model in self.unloaded_models:
            raise unloaded_error(model)
        if served is None:
            served = self._find_version(snapshot, snapshot.entries[model], ref, load)
        if served.number < at_least and not (ref is not None and _is_number(ref)):
            return self._find_newer(model, ref, at_least, load)
        return served

    def _find_newer(self, name: str, ref: str | int | None, at_least: int, load: bool) -> LoadedVersion:
        if self._early_sync.may_help:
            if not load or self._on_event_loop_thread():
                raise WouldBlock
            if self.find(name, ref).number < at_least:
                self._early_sync.run()
        snapshot = self.snapshot
        served = self.find(name, ref, snapshot)
        if served.number < at_least:
            stored = snapshot.entries[name].versions
            raise older_version_error(name, served.number, at_least, stored, self._early_sync.retry_after)
        return served

    def version_at(self, path: str) -> LoadedVersion | None:
        """Return the version in memory that a URL's path names, None if it names another one.

        Without a version that is the default; without a model, the only one.
        """
        entries, named = self.snapshot.entries, _MODEL_PATH.match(path)
        name, ref = named.groups() if named else (None, None)
        if name is None and path == "/predict" and len(entries) == 1:
            name = next(iter(entries))
        entry = entries.get(name or "")
        if entry is None:
            return None
        if ref is None:
            return entry.default
        known = {str(served.number): served for served in entry.pinned_versions}
        return known.get(ref) or entry.loaded_by_alias.get(ref)

    def loaded_version(self, name: str, number: int) -> LoadedVersion | None:
        """Return a version if it is in memory."""
        entry = self.snapshot.entries.get(name)
        pinned = {served.number: served for served in entry.pinned_versions} if entry else {}
        return pinned.get(number) or self._version_cache.get((name, number))

    def find_entry(self, name: str) -> ModelEntry:
        """Return a model's versions and aliases, also of one that is unloaded or has no version that works.

        UnknownModelError if there is none; UnavailableError if the store, or this model's folder, cannot be read.
        """
        return self._find_model(self.snapshot, name)

    def version_number(self, name: str, ref: int | str | None = None) -> int:
        """Return the number of the version that `find` would return, without loading it."""
        try:
            return self.find(name, ref, load=False).number
        except WouldBlock as e:
            return e.number

    def refresh(self) -> bool:
        """Sync with the store once. Return True if a new generation is proposed, to be served once all are ready."""
        with self._sync_lock:
            self.apply_proposal()
            after = self._barrier.active
            if not self._barrier.has_no_pending_proposal or (old := self._generations.snapshots.get(after)) is None:
                return False
            self._delete_replaced_copies()
            try:
                new = self._sync(old)
                proposed = new != old and self._propose(after, new)
            except Exception as e:  # noqa: BLE001 - reported
                new = self._report_failure(old, e)
                proposed = new != old and self._propose(after, new)
            if not proposed:
                return False
            self.apply_proposal()
            self._delete_replaced_copies()
            return True

    def _sync(self, old: Snapshot) -> Snapshot:
        """Return what the store has now, and measure the time that this takes each time.

        A sync without a change is repeated, so all of its time counts, also that of versions that cannot be loaded.
        Versions are loaded once: of a sync with a change, only the listing counts.
        """
        started = time.thread_time()
        new = sync_with_store(self._read_state, self._loader, self._version_cache, old, self._follow)
        if new == old:
            self._sync_interval.seconds = time.thread_time() - started
        return new

    def _read_state(self) -> Mapping[str, Mapping[str, Any]]:
        started = time.thread_time()
        try:
            return self._store.state()
        finally:
            self._sync_interval.seconds = time.thread_time() - started

    def _report_failure(self, old: Snapshot, error: Exception) -> Snapshot:
        """Return what to serve after a sync that failed unexpectedly. Log a failure once, not at each sync."""
        new = failed_sync(old, error)
        if new != old:
            log.error("sync with the store failed; will retry", exc_info=error)
        return new

    def _propose(self, after: int, new: Snapshot) -> bool:
        accepted = self._generations.propose(after, new)
        self._has_replaced_copies |= accepted
        return accepted

    def join(self) -> bool:
        """In a new worker: load the active generation and take part in switches. Call again until it returns True.

        If this fails and no other worker serves, the worker proposes what the store has now instead: the active
        generation may have versions that no worker can load any more.
        """
        if not self._barrier.active:
            self.refresh()
        joined = self._generations.join()
        if joined:
            self._active_locks.release()
        elif not self._barrier.has_others:
            self._propose_afresh()
        return joined

    def start_joining(self) -> None:
        """In a new worker: join in the threads of `start_sync`, and return 503 with the reason until then."""
        if not self._barrier.has_joined:
            self._generations.start_joining()

    @property
    def has_joined(self) -> bool:
        """In a worker: whether it serves what all workers serve."""
        return self._barrier.has_joined

    @property
    def has_other_workers(self) -> bool:
        """In a worker: whether another one serves what all workers serve."""
        return self._barrier.has_others

    def _propose_afresh(self) -> None:
        with self._sync_lock:
            self._barrier.end_unattended_switch()
            active = self._barrier.active
            if self._unreachable:
                self._loader.clear_failures()  # they may have been the store's
            try:
                new = self._sync(Snapshot())
            except Exception as e:  # noqa: BLE001 - reported
                new = self._report_failure(Snapshot(), e)
            faults = [problem for problem in new.problems if problem.location == "store"]
            self._unreachable = bool(faults)
            if not faults:
                if self._propose(active, new):
                    self.apply_proposal()
            elif (found := self._generations.incomplete) is not None:
                others = [problem for problem in found.problems if problem.location != "store"]
                self._generations.incomplete = Snapshot(found.entries, (*faults, *others))

    def leave(self, pid: int) -> None:
        """In the master: a worker ended."""
        self._barrier.leave(pid)

    def overdue_workers(self, seconds: float) -> list[int]:
        """In the master: return the workers that have blocked a switch for more than `seconds`."""
        return self._barrier.overdue_workers(seconds)

    def request_sync(self) -> None:
        """Make one of the workers sync with the store soon."""
        self._barrier.request_sync()

    def release_replaced(self) -> None:
        """In the master: drop replaced versions, and keep the copies of the active ones for workers that start."""
        self._active_locks.update()
        self._generations.release_replaced()

    def unload(self, name: str) -> None:
        """Stop serving a model in every worker, until `load`."""
        self._unloaded_models().add(self._find_model(self.snapshot, name).name)

    def load(self, name: str) -> None:
        """Serve a model again, in the state that the store has now. UnavailableError if it cannot be loaded."""
        self.check_may_wait()
        for _ in range(_LOAD_ATTEMPTS):
            if self._barrier.has_no_pending_proposal and not self.refresh():
                break
            time.sleep(0.02)
        entry = self._find_model(self.snapshot, name)
        self._unloaded_models().discard(name)
        if entry.default is None:
            raise no_version_error(name, self.snapshot.problems)

    def _unloaded_models(self) -> SharedNames:
        assert isinstance(self.unloaded_models, SharedNames)  # noqa: S101 - only called with SERVE_ADMIN, which sets it
        return self.unloaded_models

    def start_sync(self, poll_seconds: float) -> None:
        """Start the threads that keep this process in sync; a second call in the same process does nothing.

        One syncs with the store, and may wait for it; one applies the proposals that other workers wait for.
        """
        if self._syncing_pid == os.getpid():
            return
        self._syncing_pid = os.getpid()
        self._early_sync.poll_seconds = poll_seconds
        shared = self._barrier.shared
        tick = min(poll_seconds or _PROPOSAL_POLL_SECONDS, _PROPOSAL_POLL_SECONDS) if shared else poll_seconds
        if shared:
            start_periodic("apply-proposals", tick, self._join_or_apply_proposal, at_once=True)
        if tick:
            start_periodic("sync-store", tick, partial(self._sync_if_due, poll_seconds))

    def _join_or_apply_proposal(self) -> None:
        if self._generations.incomplete is None:
            self.apply_proposal()
        else:
            self.join()

    def _sync_if_due(self, seconds: float) -> None:
        """Sync if no process has for `seconds`, or longer if that would take too much processor time."""
        barrier = self._barrier
        if self._generations.incomplete is not None:
            return
        if barrier.shared and not barrier.has_no_pending_proposal:
            return  # during a switch a sync would do nothing
        seconds = max(seconds, self._sync_interval.min_seconds()) if seconds else 0  # 0: only on request
        if not barrier.shared:
            if time.monotonic() >= self._idle_until:
                self.refresh()
                self._idle_until = time.monotonic() + self._sync_interval.min_seconds()
        elif barrier.claim_sync(seconds):
            try:
                self.refresh()
            finally:
                barrier.end_sync()

    def apply_proposal(self) -> None:
        """Load the proposed generation and mark it ready; drop the generations before the active one."""
        self._generations.apply_proposal()

    def _find_model(self, snapshot: Snapshot, name: str | None) -> ModelEntry:
        entries = snapshot.entries
        if name is not None and name in entries:
            return entries[name]
        if not entries:
            raise no_model_error(snapshot.problems)
        if name is not None and any(problem.location == f"{name}/" for problem in snapshot.problems):
            raise no_version_error(name, snapshot.problems)
        known = list(entries)
        if name is None:
            if len(known) == 1:
                return entries[known[0]]
            expected = f"expected the name of one of {len(known)} models, found none"
            raise InputError([Fault("model", expected, f"send one of {list_names(known)}")])
        raise UnknownModelError("model", name, known)

    def check_may_wait(self) -> None:
        """Raise WouldBlock on the event loop's thread, which then repeats the request in another one."""
        if self._on_event_loop_thread():
            raise WouldBlock

    def _on_event_loop_thread(self) -> bool:
        return threading.get_ident() == self.event_loop_thread

    def _find_version(self, snapshot: Snapshot, entry: ModelEntry, ref: int | str | None, load: bool) -> LoadedVersion:
        """Return a version by number, by an alias whose version is not in memory, or by `latest`; load it if needed."""
        if ref is None or (ref == DEFAULT_ALIAS and ref not in entry.aliases):
            if entry.default is None:
                raise no_version_error(entry.name, snapshot.problems)
            return entry.default
        named = entry.versions[-1] if ref == "latest" else entry.aliases.get(str(ref))
        number = int(ref) if _is_number(ref) else named
        if number not in entry.versions or number is None:
            raise UnknownModelError("version", ref, [*map(str, entry.versions), *entry.aliases, "latest"])
        for served in entry.pinned_versions:
            if served.number == number:
                return served
        may_wait = not self._on_event_loop_thread()
        return self._on_demand.find(entry.name, number, load=load, may_wait=may_wait)

    def _delete_replaced_copies(self) -> None:
        """Delete the replaced versions' cached copies once the generation that this process proposed is active."""
        if self._has_replaced_copies and self._barrier.has_no_pending_proposal:
            self._has_replaced_copies = False
            self._delete_unused_copies()

    def _delete_unused_copies(self) -> None:
        """Delete cached copies of versions that are not in memory, but for some that were evicted last.

        Processes that have one mapped keep it.
        """
        in_use = {served.digest for served in self._generations.pinned_versions()}
        in_use |= {served.digest for served in self._version_cache.versions()}
        evicted = self._version_cache.evicted_digests()
        try:
            # A copy that another worker still maps is removed by a later sync.
            self._has_replaced_copies = not remove_unused_copies(self._cache_dir, in_use, evicted)
        except StoreError as e:
            log.warning("%s", e)


def _is_number(ref: int | str) -> bool:
    return isinstance(ref, int) or (ref.isascii() and ref.isdigit() and len(ref) < 10)
