"""The generations of this process: the snapshot that all workers serve, and the proposed one once it is loaded.

A change of the store is proposed as the next generation. Every worker loads it and marks it ready; once all have, they
switch to it at the same instant (`switch_barrier`).
"""

from __future__ import annotations

import gc
import logging
import re
import threading

from model_store.errors import Fault
from service.registry.loaded_version import LoadedVersion
from service.registry.loader import Loader, verify_hint
from service.registry.snapshot import Snapshot
from service.registry.switch_barrier import SwitchBarrier
from service.registry.version_cache import VersionCache
from service.telemetry.metrics import Metrics

log = logging.getLogger("service.registry.registry")

_VERSION_LOCATION = re.compile(r"/\d+$")


class Generations:
    def __init__(self, loader: Loader, version_cache: VersionCache, barrier: SwitchBarrier, metrics: Metrics) -> None:
        self._loader, self._version_cache, self._barrier, self._metrics = loader, version_cache, barrier, metrics
        self.snapshots = {0: Snapshot()}  # by generation: the active one, and the proposed one once loaded
        self.incomplete: Snapshot | None = None  # in a worker that has not joined: what it could load
        self._attempted = 0  # the generation whose load was tried last
        self._lock = threading.Lock()  # held to change the snapshots; never during a sync

    @property
    def active(self) -> Snapshot:
        """The snapshot of the active generation, in a worker that has not joined yet what it could load."""
        return self.snapshots.get(self._barrier.active) or self._active_after_switch()

    def _active_after_switch(self) -> Snapshot:
        """Retry: the generation changed between reading its number and its snapshot."""
        for _ in range(1000):
            if (found := self.snapshots.get(self._barrier.active)) is not None:
                return found
            if self.incomplete is not None:
                return self.incomplete
        raise RuntimeError("this process has no snapshot of the active generation")

    def pinned_versions(self) -> list[LoadedVersion]:
        """Return every default and aliased version of the generations in memory."""
        return [served for snapshot in list(self.snapshots.values()) for served in snapshot.pinned_versions]

    def propose(self, after: int, new: Snapshot) -> bool:
        """Propose `new` as the generation after `after`. Return False if another worker was faster."""
        with self._lock:
            if self._barrier.active != after or not self._barrier.has_no_pending_proposal:
                return False  # another worker was faster, and may have read a newer state
            self.snapshots[after + 1] = new
            try:
                accepted = self._barrier.propose(after, new.to_plan())
            except OSError as e:
                log.error("cannot propose the new versions to the other workers: %s", e)
                accepted = False
            if not accepted:
                del self.snapshots[after + 1]
            return accepted

    def start_joining(self) -> None:
        """In a new worker: serve 503 with the reason until `join` returns True."""
        fault = Fault("models", "are being loaded", "try again in a moment")
        self.incomplete = Snapshot(problems=(fault,))
        if not self._barrier.active:
            self.snapshots[0] = self.incomplete
        elif plan := self._barrier.plan(self._barrier.active):
            made = Snapshot.from_plan(plan, lambda *_: None)
            self.incomplete = Snapshot(made.entries, (*made.problems, fault))

    def join(self) -> bool:
        """In a new worker: load the active generation and take part in switches. Return True if it could."""
        with self._lock:
            joined = self._load(active := self._barrier.active) and self._barrier.join(active)
        if joined:
            self.incomplete = None
        return joined

    def apply_proposal(self) -> None:
        """Load the proposed generation and mark it ready; drop the generations before the active one."""
        barrier = self._barrier
        with self._lock:
            if not barrier.has_no_pending_proposal:
                proposed = barrier.proposed
                if self._load(proposed) and barrier.mark_ready(proposed):
                    _report_switch(
                        self.snapshots.get(proposed - 1, Snapshot()), self.snapshots[proposed], self._metrics
                    )
            active = barrier.active
            if active in self.snapshots and (replaced := [number for number in self.snapshots if number < active]):
                for number in replaced:
                    del self.snapshots[number]
                self._evict_stale_versions(self.snapshots[active])

    def release_replaced(self) -> None:
        """In the master: drop the snapshots if the active generation is another one."""
        if self.snapshots and self._barrier.active not in self.snapshots:
            self.snapshots.clear()
            gc.collect()  # reference cycles: the master allocates too little to collect them

    def _load(self, generation: int) -> bool:
        """Load a generation if it is not in memory. Return True if it is in memory then."""
        if generation in self.snapshots:
            return True
        plan = self._barrier.plan(generation)
        if plan is None:
            return False
        is_new, self._attempted = self._attempted != generation, generation
        in_memory = {(s.name, s.digest): s for s in self.pinned_versions()}
        in_memory |= {(s.name, s.digest): s for s in self._version_cache.versions()}
        in_memory |= {(s.name, s.digest): s for s in (self.incomplete or Snapshot()).pinned_versions}
        missing: dict[str, Fault] = {}

        def load(name: str, number: int, digest: str) -> LoadedVersion | None:
            served = in_memory.get((name, digest))
            if served is None or served.number != number:
                if is_new:
                    self._loader.forget_failure(name, number)  # the proposing worker has loaded it
                served = self._loader.load(name, number, digest)
            if served is not None:
                in_memory[name, digest] = served
            else:
                problem = self._loader.failure_reason(name, number)
                missing[name] = Fault(f"{name}/{number}", problem, verify_hint(name, number))
            return served

        made = Snapshot.from_plan(plan, load)
        if not missing:
            self.snapshots[generation] = made
        elif self.incomplete is not None:
            kept = [fault for fault in self.incomplete.problems if fault.location == "store"]
            self.incomplete = Snapshot(made.entries, (*missing.values(), *kept, *made.problems))
        return not missing

    def _evict_stale_versions(self, snapshot: Snapshot) -> None:
        """Evict cached versions that left the store or became a default or aliased version."""
        pinned = {(served.name, served.number) for served in snapshot.pinned_versions}
        stored = {(entry.name, number) for entry in snapshot.entries.values() for number in entry.versions}
        self._version_cache.evict_except(stored - pinned)


def _report_switch(old: Snapshot, new: Snapshot, metrics: Metrics) -> None:
    """Log and count a switch. Only the worker that was ready last does it."""
    for problem in new.problems:
        # The loader has logged problems of versions.
        if problem not in old.problems and not _VERSION_LOCATION.search(problem.location):
            log.warning("%s", problem)
    for name, entry in new.entries.items():
        before = old.entries.get(name)
        now, then = entry.default, before.default if before else None
        changed = now is not None and then is not None and then.number != now.number
        if changed:
            metrics.model_reloads.labels(metrics.model_label(name)).inc()
        if now is not None and (changed or before is None or before.why_default != entry.why_default):
            instead = f" instead of {then.number}" if changed and then else ""
            log.info("%s: now serving version %d%s (%s)", name, now.number, instead, entry.why_default)
