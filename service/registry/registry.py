"""The catalog: the models in memory, following the store.

What is served is one immutable `Snapshot`, replaced as a whole, so a request sees one state from its first line to its
last. `refresh()` looks at the store once (look.py), and what is new there becomes the next generation, which answers in
all workers from the same instant (agreement.py). Versions that are neither a default nor have an alias are loaded when
somebody asks for them, and forgotten again when more are asked for.
"""

from __future__ import annotations

import gc
import logging
import os
import random
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path

from model_store.errors import Fault, InputError, StoreError
from model_store.storage.artifact_cache import remove_unused_copies
from model_store.utils.values import list_names
from service.registry.errors import (
    UnavailableError,
    UnknownModelError,
    WouldBlock,
    load_error,
    no_version_error,
    unloaded_error,
)
from service.registry.loaded_version import LoadedVersion
from service.registry.loader import Loader
from service.registry.signature_policy import SignatureCheck
from service.registry.snapshot import ModelEntry, Snapshot
from service.registry.store_sync import SyncedStore, sync_with_store
from service.registry.switch_barrier import SwitchBarrier
from service.registry.unloaded_models import UnloadedModels
from service.telemetry.metrics import Metrics

log = logging.getLogger("service.registry.registry")

_VERSION_LOCATION = re.compile(r"/\d+$")
_PROPOSAL_POLL_SECONDS = 0.1  # between two looks at what the other workers propose
_LOAD_ATTEMPTS = 100  # while they load it too


class ModelRegistry:
    def __init__(
        self,
        store: SyncedStore,
        cache_dir: Path,
        metrics: Metrics,
        *,
        max_instances: int,
        max_extra_versions: int,
        unloaded_models: UnloadedModels | None = None,
        check_signature: SignatureCheck | None = None,
        barrier: SwitchBarrier | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Follows with all who share the `barrier`; without one, by itself."""
        self.unloaded_models: UnloadedModels | frozenset[str] = (
            frozenset() if unloaded_models is None else unloaded_models
        )
        self._store, self._cache_dir, self._metrics = store, cache_dir, metrics
        self._loader = Loader(
            store, cache_dir, metrics, max_instances=max_instances, check_signature=check_signature, clock=clock
        )
        self._barrier = barrier or SwitchBarrier()
        self._snapshots = {0: Snapshot()}  # by generation: the active one, and the one proposed once it is loaded
        self._attempted_generation = 0  # the generation that was loaded, or should have been
        self._sync_lock = threading.Lock()  # one look at the store at a time; it may take long
        self._switch_lock = threading.Lock()  # whoever changes what is held; never while looking
        self._trim_pending = False
        self._max_extra = max_extra_versions
        self._extra: OrderedDict[tuple[str, int], LoadedVersion] = OrderedDict()
        self._extra_lock = threading.Lock()
        self._extra_loading = threading.Lock()  # one at a time, so that a burst does not load a version twice
        self.event_loop_thread: int | None = None  # the thread that serves everybody, and so waits for no load
        self._following_pid: int | None = None  # the process whose thread follows the store

    @property
    def snapshot(self) -> Snapshot:
        """What is served at this moment, by every worker."""
        return self._snapshots.get(self._barrier.active) or self._snapshot_after_switch()

    def _snapshot_after_switch(self) -> Snapshot:
        """The generation changed between the look at its number and the one at what is held."""
        for _ in range(1000):
            if (found := self._snapshots.get(self._barrier.active)) is not None:
                return found
        raise RuntimeError("this process takes no part in what the workers agree on")

    def find(
        self,
        name: str | None,
        ref: int | str | None = None,
        snapshot: Snapshot | None = None,
        *,
        load: bool = True,
    ) -> LoadedVersion:
        """The version that answers to a model's name (None: the only one) and a number or an alias (None: default).

        `snapshot`: for whoever reads more of it. WouldBlock, in the loop or without leave to `load`, where it is not in
        memory.
        """
        snapshot = snapshot or self.snapshot
        entry = self._entry(snapshot, name)
        if entry.name in self.unloaded_models:
            raise unloaded_error(entry.name)
        if ref is None or (served := entry.targets.get(str(ref))) is None:
            served = entry.default if ref is None or ref == "default" else self._find_version(entry, ref, load)
        if served is None:
            raise no_version_error(entry.name, snapshot.problems)
        return served

    def version_number(self, name: str, ref: int | str | None = None) -> int:
        """That of the version which answers, or would once somebody asks for it: nothing is loaded to know."""
        try:
            return self.find(name, ref, load=False).number
        except WouldBlock as e:
            return e.number

    def refresh(self) -> bool:
        """Looks at the store once; whether there is something new to serve, as soon as all workers are ready."""
        with self._sync_lock:
            self.apply_proposal()
            after = self._barrier.active
            if not self._barrier.settled or (old := self._snapshots.get(after)) is None:
                return False
            self._trim()
            new = sync_with_store(self._store, self._loader, self._extra, old)
            if new == old or not self._propose(after, new):
                return False
            self.apply_proposal()
            self._trim()
            return True

    def _propose(self, after: int, new: Snapshot) -> bool:
        with self._switch_lock:
            if self._barrier.active != after or not self._barrier.settled:
                return False  # another worker was faster, and may have seen something newer
            self._snapshots[after + 1] = new
            try:
                accepted = self._barrier.propose(after, new.to_plan())
            except OSError as e:
                log.error("what is new cannot be told to the other workers: %s", e)
                accepted = False
            if not accepted:
                del self._snapshots[after + 1]
            self._trim_pending = accepted
            return accepted

    def join(self) -> bool:
        """In a new worker, until it is true: from then on the others wait for it, and it answers as they do."""
        if not self._barrier.active:
            self.refresh()
        with self._switch_lock:
            return self._load_generation(active := self._barrier.active) and self._barrier.join(active)

    def leave(self, pid: int) -> None:
        """In the master: a worker has ended."""
        self._barrier.leave(pid)

    def overdue_workers(self, seconds: float) -> list[int]:
        """In the master: the workers that keep all others from switching, longer than that."""
        return self._barrier.overdue_workers(seconds)

    def request_sync(self) -> None:
        """Lets one of the workers look at the store without delay."""
        self._barrier.request_sync()

    def release_replaced(self) -> None:
        """In the master: lets go of what the workers have replaced. Whoever is forked from now on loads what is new."""
        if self._snapshots and self._barrier.active not in self._snapshots:
            self._snapshots.clear()
            gc.collect()  # for a process that allocates next to nothing, what refers to itself would stay

    def unload(self, name: str) -> None:
        """Takes a model out of service, in every worker at once, until `load`."""
        self._unloaded_models().add(self._entry(self.snapshot, name).name)

    def load(self, name: str) -> None:
        """Puts a model into service, as the store has it now; UnavailableError where it cannot be loaded."""
        if self._in_loop():
            raise WouldBlock
        for _ in range(_LOAD_ATTEMPTS):
            if self._barrier.settled and not self.refresh():
                break
            time.sleep(0.02)
        entry = self._entry(self.snapshot, name)
        self._unloaded_models().discard(name)
        if entry.default is None:
            raise no_version_error(name, self.snapshot.problems)

    def _unloaded_models(self) -> UnloadedModels:
        assert isinstance(self.unloaded_models, UnloadedModels)  # noqa: S101 - who may withdraw has made a place for it
        return self.unloaded_models

    def start_sync(self, poll_seconds: float) -> None:
        """Keeps following, in threads of this process; a second call in the same process does nothing.

        One looks at the store, and may have to wait for it; one does what the other workers wait for.
        """
        if self._following_pid == os.getpid():
            return
        self._following_pid = os.getpid()
        shared = self._barrier.shared
        tick = min(poll_seconds or _PROPOSAL_POLL_SECONDS, _PROPOSAL_POLL_SECONDS) if shared else poll_seconds
        if shared:
            threading.Thread(
                target=_run_periodically, args=(tick, self.apply_proposal), name="apply-proposals", daemon=True
            ).start()
        if tick:
            sync_with_store = partial(self._sync_if_due, poll_seconds)
            threading.Thread(
                target=_run_periodically, args=(tick, sync_with_store), name="sync-store", daemon=True
            ).start()

    def _sync_if_due(self, seconds: float) -> None:
        barrier = self._barrier
        if not barrier.shared or (barrier.settled and barrier.claim_sync(seconds)):  # else it would see nothing
            self.refresh()

    def apply_proposal(self) -> None:
        """Loads what another worker proposes and says so; lets go of what is active no longer."""
        barrier = self._barrier
        with self._switch_lock:
            if (
                not barrier.settled
                and self._load_generation(proposed := barrier.proposed)
                and barrier.mark_ready(proposed)
            ):
                self._report_switch(self._snapshots.get(proposed - 1, Snapshot()), self._snapshots[proposed])
            active = barrier.active
            if active in self._snapshots and (passed := [number for number in self._snapshots if number < active]):
                for number in passed:
                    del self._snapshots[number]
                self._drop_stale_extra_versions(self._snapshots[active])

    def _load_generation(self, generation: int) -> bool:
        """Whether a generation is in memory, now if it was not before."""
        if generation in self._snapshots:
            return True
        plan = self._barrier.plan(generation)
        if plan is None:
            return False
        if self._attempted_generation != generation:
            self._attempted_generation = generation
            self._loader.clear_failures()  # what failed here did not where it was proposed
        at_hand = {(s.name, s.digest): s for snapshot in self._snapshots.values() for s in snapshot.targets}
        with self._extra_lock:
            at_hand |= {(s.name, s.digest): s for s in self._extra.values()}

        def load(name: str, number: int, digest: str) -> LoadedVersion | None:
            served = at_hand.get((name, digest))
            if served is None or served.number != number:
                served = self._loader.load(name, number, digest)
            if served is not None:
                at_hand[name, digest] = served
            return served

        made = Snapshot.from_plan(plan, load)
        if made is not None:
            self._snapshots[generation] = made
        return made is not None

    def _entry(self, snapshot: Snapshot, name: str | None) -> ModelEntry:
        entries = snapshot.entries
        if name is not None and name in entries:
            return entries[name]
        if not entries:
            train = "train one: train examples/penguins.toml"
            raise UnavailableError(
                "no_model", f"there is no model to answer; {train}", Fault("store", "is empty", train)
            )
        known = list(entries)
        if name is None:
            if len(known) == 1:
                return entries[known[0]]
            expected = f"expected the name of one of {len(known)} models, found none"
            raise InputError([Fault("model", expected, f"send one of {list_names(known)}")])
        raise UnknownModelError("model", name, known)

    def _in_loop(self) -> bool:
        return threading.get_ident() == self.event_loop_thread

    def _find_version(self, entry: ModelEntry, ref: int | str, load: bool) -> LoadedVersion:
        """A version by its number, or the newest by `latest`."""
        number = entry.versions[-1] if ref == "latest" else int(ref) if _is_number(ref) else None
        if number not in entry.versions or number is None:
            raise UnknownModelError("version", ref, [*map(str, entry.versions), *entry.aliases, "latest"])
        for served in entry.targets.values():
            if served.number == number:
                return served
        key = (entry.name, number)
        with self._extra_lock:
            if key in self._extra:
                self._extra.move_to_end(key)
                return self._extra[key]
        if self._loader.in_backoff(*key):
            raise load_error(*key, self._loader.failure_reason(*key))
        if not load or self._in_loop():
            raise WouldBlock(number)
        with self._extra_loading:
            found = self._extra.get(key) or self._loader.load(*key)
            if found is None:
                raise load_error(*key, self._loader.failure_reason(*key))
            with self._extra_lock:
                self._extra[key] = found
                while len(self._extra) > self._max_extra:
                    self._extra.popitem(last=False)
            self._trim_cache()
        return found

    def _trim(self) -> None:
        """Once what this process proposed has become active, drops the copies of what was so before."""
        if self._trim_pending and self._barrier.settled:
            self._trim_pending = False
            self._trim_cache()

    def _trim_cache(self) -> None:
        """Drops the cached copies that this process has no use for. Others keep what they have mapped."""
        held = {served.digest for snapshot in list(self._snapshots.values()) for served in snapshot.targets}
        with self._extra_lock:
            held |= {served.digest for served in self._extra.values()}
        try:
            remove_unused_copies(self._cache_dir, held)
        except StoreError as e:
            log.warning("%s", e)

    def _drop_stale_extra_versions(self, snapshot: Snapshot) -> None:
        """Drops versions that somebody once asked for, and that are gone from the store or among the targets now."""
        held = {(served.name, served.number) for served in snapshot.targets}
        stored = {(entry.name, number) for entry in snapshot.entries.values() for number in entry.versions}
        with self._extra_lock:
            for key in [key for key in self._extra if key in held or key not in stored]:
                del self._extra[key]

    def _report_switch(self, old: Snapshot, new: Snapshot) -> None:
        """In the worker that was ready last: the log and the figures of a switch, once for all."""
        for problem in new.problems:
            if problem not in old.problems and not _VERSION_LOCATION.search(
                problem.location
            ):  # of which the loader has told
                log.warning("%s", problem)
        for name, entry in new.entries.items():
            before = old.entries[name].default if name in old.entries else None
            if before is not None and entry.default is not None and entry.default.number != before.number:
                self._metrics.model_reloads.labels(name).inc()
                log.info("%s: version %d answers, no longer %d", name, entry.default.number, before.number)


def _run_periodically(seconds: float, do: Callable[[], object]) -> None:
    while True:
        time.sleep(seconds * random.uniform(0.8, 1.2))  # noqa: S311 - workers should not all begin at once
        try:
            do()
        except Exception:
            log.exception("following the store failed; it is tried again")


def _is_number(ref: int | str) -> bool:
    return isinstance(ref, int) or (ref.isascii() and ref.isdigit() and len(ref) < 10)
