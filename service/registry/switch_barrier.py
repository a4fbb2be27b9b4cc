"""A barrier in shared memory: all workers switch to a new generation of models at the same instant.

A generation is everything that the service serves at one moment. A worker that finds a change in the store loads it and
proposes the next generation. Every other worker loads it too and marks itself ready. When the last one is ready, one
word of shared memory changes, and from then on every worker serves the new generation; until then all serve the old.

There is one proposal at a time. Proposing is a compare-and-set: a proposal based on an older generation is rejected.
The barrier waits for a worker from `join` until the master sees it end and calls `leave`; the master replaces a worker
that `overdue_workers` returns.

The words are mapped before the workers are forked. Reading one takes no lock. Changing one takes a lock that the kernel
releases if its holder dies. The master takes no lock, as it must not wait for a worker that hangs.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_PROCESSES = 4096  # 1024 workers, twice that while SIGHUP replaces them, and as many again by SIGTTIN
_ACTIVE, _PROPOSED, _PROPOSED_AT, _SYNCED_AT, _SYNC_PID, _SIZES = range(6)  # two sizes: of the even and the odd plan
_SYNCING_PID = 7  # the process that has claimed a sync and has not ended it
_FIRST_SLOT = 8
_PID, _READY, _JOINED_AT, _SLOT_WORDS = range(
    4
)  # of a slot: who, for which generation it is ready, when it joined; its size
_SECOND = 10**9
_STALE_AFTER = 5 * _SECOND


class SwitchBarrier:
    """Shared by this process and its forks if `shared`, else for this process alone."""

    def __init__(self, *, shared: bool = False, clock: Callable[[], int] = time.monotonic_ns) -> None:
        size = 8 * (_FIRST_SLOT + (_SLOT_WORDS * MAX_PROCESSES if shared else 0))
        self.shared = shared
        self._words = memoryview(mmap.mmap(-1, size) if shared else bytearray(size)).cast("Q")
        self._files = [_anonymous_file() for _ in range(2)] if shared else []
        self._lock = threading.Lock()
        self._clock = clock
        self._my_slot: int | None = None

    @property
    def active(self) -> int:
        """The number of the generation that is served; 0 before the first."""
        return self._words[_ACTIVE]

    @property
    def proposed(self) -> int:
        """The number of the proposed generation, or of the active one if there is no proposal."""
        return self._words[_PROPOSED]

    @property
    def has_no_pending_proposal(self) -> bool:
        """True if there is no pending proposal."""
        return self._words[_ACTIVE] == self._words[_PROPOSED]

    def is_switching(self, seconds: float) -> bool:
        """Return True if a proposal is pending that is younger than `seconds`."""
        return not self.has_no_pending_proposal and self._clock() - self._words[_PROPOSED_AT] < seconds * _SECOND

    def propose(self, after: int, plan: bytes) -> bool:
        """Propose `plan` as the generation after `after`. False if `after` is not active or a proposal is pending."""
        words = self._words
        with self._locked():
            if not words[_ACTIVE] == words[_PROPOSED] == after:
                return False
            self._write_plan(after + 1, plan)
            words[_PROPOSED_AT] = self._clock()
            words[_PROPOSED] = after + 1
        return True

    def end_unattended_switch(self) -> None:
        """Make a pending proposal active if no process has joined it: its proposer has died."""
        with self._locked():
            if not any(self._pids()):
                self._words[_ACTIVE] = self._words[_PROPOSED]

    def plan(self, generation: int, *, wait: bool = True) -> bytes | None:
        """Return the plan of the active or the proposed generation; None for any other.

        Without `wait`, also None while another process or thread holds the lock.
        """
        with self._locked(wait=wait) as locked:
            if not locked or not self._files or generation not in {self.active, self.proposed}:
                return None
            odd = generation % 2
            return os.pread(self._files[odd], self._words[_SIZES + odd], 0)

    def mark_ready(self, generation: int) -> bool:
        """Mark this process ready for a generation. Return True if that makes the generation active."""
        words = self._words
        with self._locked():
            if self._my_slot is not None:
                words[self._my_slot + _READY] = generation
            if words[_ACTIVE] == generation or words[_PROPOSED] != generation or self._not_ready(generation):
                return False
            words[_ACTIVE] = generation
        return True

    def join(self, generation: int) -> bool:
        """Make switches wait for this process, which has loaded `generation`. False if that is not the active one."""
        words = self._words
        with self._locked():
            if words[_ACTIVE] != generation:
                return False
            if not self.shared:
                return True
            free = next((i for i, pid in enumerate(self._pids()) if not pid), None)
            if free is None:
                raise RuntimeError(f"expected at most {MAX_PROCESSES} workers, found one more")
            self._my_slot = _FIRST_SLOT + _SLOT_WORDS * free
            words[self._my_slot + _READY] = generation
            words[self._my_slot + _JOINED_AT] = self._clock()
            words[self._my_slot + _PID] = os.getpid()
        return True

    @property
    def has_joined(self) -> bool:
        """True if this process has joined, or shares the barrier with no other process."""
        return not self.shared or self._my_slot is not None

    @property
    def has_others(self) -> bool:
        """True if another process has joined."""
        return not {0, os.getpid()}.issuperset(self._pids())

    def leave(self, pid: int) -> None:
        """In the master: a process ended; stop waiting for it. If it was syncing, another one does it again."""
        if self._words[_SYNCING_PID] == pid:
            self._words[_SYNCING_PID] = 0
            self.request_sync()
        for i, found in enumerate(self._pids()):
            if found == pid:
                self._words[_FIRST_SLOT + _SLOT_WORDS * i + _PID] = 0

    def overdue_workers(self, seconds: float) -> list[int]:
        """In the master: return the processes that the others have waited for longer than `seconds`."""
        proposed, since = self.proposed, self._words[_PROPOSED_AT]  # in this order: see `propose`
        latest = self._clock() - int(seconds * _SECOND)
        if self.has_no_pending_proposal or since >= latest:
            return []
        joined = dict(zip(self._pids(), self._slot_column(_JOINED_AT), strict=True))
        behind = [pid for pid in self._not_ready(proposed) if joined.get(pid, latest) < latest]
        return behind if proposed == self.proposed else []

    def claim_sync(self, seconds: float) -> bool:
        """Return True if this process should sync with the store now, for all: every `seconds`, or on request.

        The same process syncs while it lives and is on time, as it knows which versions it could not load.
        """
        me, words = os.getpid(), self._words
        if words[_SYNCED_AT] and (not seconds or self._clock() - words[_SYNCED_AT] < seconds * _SECOND):
            return False
        with self._locked():
            passed = self._clock() - words[_SYNCED_AT]
            other_alive = words[_SYNC_PID] != me and words[_SYNC_PID] in self._pids()
            interval = 3 * seconds * _SECOND + _STALE_AFTER if other_alive else seconds * _SECOND
            if words[_SYNCED_AT] and passed < interval:
                return False
            words[_SYNC_PID], words[_SYNCED_AT], words[_SYNCING_PID] = me, self._clock(), me
        return True

    def synced_before(self, seconds: float) -> bool:
        """Return True if the last sync of any process began at least `seconds` ago."""
        return self._clock() - self._words[_SYNCED_AT] >= seconds * _SECOND

    def claim_early_sync(self, seconds: float) -> bool:
        """Return True if this process may sync now, before the next `claim_sync`: `seconds` after the last sync.

        The process that syncs regularly remains the same.
        """
        with self._locked():
            if not self.synced_before(seconds):
                return False
            self._words[_SYNCED_AT] = self._clock()
        return True

    def end_sync(self) -> None:
        """Record that the sync is done which this process has claimed."""
        if self._words[_SYNCING_PID] == os.getpid():
            self._words[_SYNCING_PID] = 0

    def request_sync(self) -> None:
        """Make the next `claim_sync` of any process return True."""
        self._words[_SYNCED_AT] = 0

    def _not_ready(self, generation: int) -> list[int]:
        """Return the processes that are not ready for a generation."""
        readied = zip(self._pids(), self._slot_column(_READY), strict=True)
        return [pid for pid, ready in readied if pid and ready < generation]

    def _pids(self) -> list[int]:
        return self._slot_column(_PID)

    def _slot_column(self, word: int) -> list[int]:
        """Return one word of every slot."""
        return self._words[_FIRST_SLOT + word :: _SLOT_WORDS].tolist()

    def _write_plan(self, generation: int, plan: bytes) -> None:
        """Overwrite the plan before the active one; a worker that starts may still have to read the active one."""
        if self._files:
            odd = generation % 2
            written = 0
            while written < len(plan):
                written += os.pwrite(self._files[odd], plan[written:], written)
            self._words[_SIZES + odd] = len(plan)

    @contextmanager
    def _locked(self, *, wait: bool = True) -> Iterator[bool]:
        """Exclude the other threads of this process and all other processes. Yield False if that would have to wait."""
        if not self._lock.acquire(blocking=wait):
            yield False
            return
        try:
            if self._files:
                fcntl.lockf(self._files[0], fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            self._lock.release()
            yield False
            return
        try:
            yield True
        finally:
            if self._files:
                fcntl.lockf(self._files[0], fcntl.LOCK_UN)
            self._lock.release()


def _anonymous_file() -> int:
    """Return the descriptor of a nameless file, in memory where the system offers that."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("forward-pass")
    descriptor, path = tempfile.mkstemp(prefix="forward-pass-")
    Path(path).unlink()
    return descriptor
