"""What requests make the service load: versions that are not in memory, and newer ones that a client has seen.

A version that is neither a default nor has an alias is loaded at its first request. A request that expects a newer
version than this replica serves, as the client has seen one on another replica, makes it sync with the store before
the next regular sync. Both have a budget of processor time. A client that asks for one version after the
other, more than the cache holds, has each loaded anew: 0.1 to 0.5 s of processor time for a model of thousands of
columns, for a request of 100 bytes.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.registry.errors import WouldBlock, budget_error, load_error
from service.registry.loaded_version import LoadedVersion
from service.registry.loader import Loader
from service.registry.periodic import SyncInterval
from service.registry.switch_barrier import SwitchBarrier
from service.registry.version_cache import VersionCache

LOAD_SHARE = 0.1  # of a processor, in each worker
LOAD_BURST_SECONDS = 3.0  # of processor time, after a pause: dozens of versions of most models
EARLY_SYNC_SECONDS = 0.1  # between the last sync of any worker and one for a request
EARLY_SYNC_PAUSE = 10  # between two syncs for requests, in times of what the first took
_SWITCH_SECONDS = 1.0  # since a proposal, that requests wait for the other workers to load it


class LoadBudget:
    """A token bucket of processor time: filled by `LOAD_SHARE` of a processor, up to `LOAD_BURST_SECONDS`.

    A load may start while something is left, and may take more than that: the next ones then wait for longer.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._left, self._counted_at = LOAD_BURST_SECONDS, clock()

    def retry_after(self) -> int:
        """Return the seconds until a load may start, 0 if one may start now."""
        left = self._refilled()
        return 0 if left > 0 else max(1, math.ceil(-left / LOAD_SHARE))

    @contextmanager
    def spend(self) -> Iterator[None]:
        """Count the processor time that this thread takes."""
        started = time.thread_time()
        try:
            yield
        finally:
            with self._lock:
                self._left = self._refilled() - (time.thread_time() - started)
                self._counted_at = self._clock()

    def _refilled(self) -> float:
        return min(LOAD_BURST_SECONDS, self._left + LOAD_SHARE * (self._clock() - self._counted_at))


class OnDemandVersions:
    """The versions that requests have asked for: the most recently used ones are in memory. Any thread may use it."""

    def __init__(
        self, loader: Loader, cache: VersionCache, budget: LoadBudget, delete_unused_copies: Callable[[], None]
    ) -> None:
        self._loader, self._cache, self._budget = loader, cache, budget
        self._delete_unused_copies = delete_unused_copies
        self._lock = threading.Lock()  # one load at a time, so that concurrent requests load a version once

    def find(self, name: str, number: int, *, load: bool, may_wait: bool) -> LoadedVersion:
        """Return a version, loaded if it is not in memory.

        Raises WouldBlock if it is not in memory and `load` or `may_wait` is False, and UnavailableError if it cannot be
        loaded, or not now because requests have spent the budget.
        """
        key = (name, number)
        if (cached := self._cache.get(key)) is not None:
            return cached
        if self._loader.in_backoff(*key):
            raise load_error(*key, self._loader.failure_reason(*key))
        if not load:
            raise WouldBlock(number)
        self._check_budget(*key)
        if not may_wait:
            raise WouldBlock(number)
        with self._lock:
            if (cached := self._cache.get(key)) is not None:
                return cached
            self._check_budget(*key)
            with self._budget.spend():
                found = self._loader.load(*key)
                if found is None:
                    raise load_error(*key, self._loader.failure_reason(*key))
                self._cache.put(key, found)
                self._delete_unused_copies()
        return found

    def _check_budget(self, name: str, number: int) -> None:
        if (seconds := self._budget.retry_after()) > 0:
            raise budget_error(name, number, seconds)


class EarlySync:
    """Syncs for requests that expect a newer version than this worker serves.

    A client could otherwise force one sync after the other, so a sync needs all of: `EARLY_SYNC_SECONDS` since the last
    sync of any worker began, the interval of costly syncs (`SyncInterval`), something left in the budget, and a pause
    after the last one for a request. A sync with a slow bucket takes hardly any processor time, but the requests that
    wait for versions to load wait for it too, so the pause is `EARLY_SYNC_PAUSE` times as long as that sync took, at
    most the seconds between regular syncs. All requests that wait for a sync thus share one.
    """

    def __init__(
        self,
        refresh: Callable[[], object],
        barrier: SwitchBarrier,
        budget: LoadBudget,
        interval: SyncInterval,
        clock: Callable[[], float],
    ) -> None:
        self._refresh, self._barrier, self._budget, self._interval = refresh, barrier, budget, interval
        self._clock, self._next_at = clock, -math.inf
        self._lock = threading.Lock()  # held during a sync for a request
        self.poll_seconds = 0.0  # between regular syncs; 0: the store is not read without a signal

    @property
    def may_help(self) -> bool:
        """Whether `run` would sync now, or wait for a sync or a switch that is in progress."""
        if self._lock.locked() or self._barrier.is_switching(_SWITCH_SECONDS):
            return True
        return self._is_due and self._barrier.synced_before(self._seconds())

    @property
    def retry_after(self) -> int:
        """The seconds after which a client should try again."""
        seconds = max(1, self._interval.min_seconds(), self._next_at - self._clock())
        return max(math.ceil(seconds), self._budget.retry_after())

    def run(self) -> None:
        """Sync once if that is allowed now. Wait for the switch to what was found, for `_SWITCH_SECONDS` at most."""
        with self._lock:
            if self._is_due and self._barrier.claim_early_sync(self._seconds()):
                self._sync()
        while self._barrier.is_switching(_SWITCH_SECONDS):
            time.sleep(0.01)

    def _sync(self) -> None:
        started = self._clock()
        try:
            with self._budget.spend():
                self._refresh()
        finally:
            ended = self._clock()
            pause = min(EARLY_SYNC_PAUSE * (ended - started), self.poll_seconds)
            self._next_at = ended + max(EARLY_SYNC_SECONDS, pause)

    @property
    def _is_due(self) -> bool:
        return self.poll_seconds > 0 and self._budget.retry_after() == 0 and self._clock() >= self._next_at

    def _seconds(self) -> float:
        return max(EARLY_SYNC_SECONDS, self._interval.min_seconds())
