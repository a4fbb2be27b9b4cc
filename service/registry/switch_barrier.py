"""The agreement: which generation of models every worker answers from.

A generation is all that the service serves at one moment. The worker that sees something new in the store loads it
and proposes the next generation; every other worker loads it too and says that it is ready; when the last one is, one
word of shared memory changes, and from that instant every request is answered from the new generation, whichever
worker it meets. Until then all of them answer from the one before.

There is one proposal at a time, and it counts only if nothing else was proposed since its proposer began to look: what
somebody saw long ago never replaces what was seen since. A worker is waited for from `join` until the master has seen
it end and calls `leave`, and no longer than `overdue` allows.

The words are mapped before the workers are forked. Reading one takes no lock; changing one takes a lock that the
kernel releases when its holder dies. The master takes none, since it must not wait for a worker that hangs.
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

MAX_PROCESSES = 4096  # 1024 workers, twice while SIGHUP replaces them, and as many again by SIGTTIN
_ACTIVE, _PROPOSED, _PROPOSED_AT, _SYNCED_AT, _SYNC_PID, _SIZES = range(6)  # _SIZES are two: of an even, of an odd plan
_FIRST_SLOT = 8
_PID, _READY, _JOINED_AT, _SLOT_WORDS = range(
    4
)  # of a slot: who, for which generation it is ready, when it joined; its size
_SECOND = 10**9
_STALE_AFTER = 5 * _SECOND


class SwitchBarrier:
    """`shared`: by this process and those that it will fork. If not, it is an agreement of this process with itself."""

    def __init__(self, *, shared: bool = False, clock: Callable[[], int] = time.monotonic_ns) -> None:
        room = 8 * (_FIRST_SLOT + (_SLOT_WORDS * MAX_PROCESSES if shared else 0))
        self.shared = shared
        self._words = memoryview(mmap.mmap(-1, room) if shared else bytearray(room)).cast("Q")
        self._files = [_anonymous_file() for _ in range(2)] if shared else []
        self._lock = threading.Lock()
        self._clock = clock
        self._my_slot: int | None = None

    @property
    def active(self) -> int:
        """The number of the generation that answers; 0 before the first."""
        return self._words[_ACTIVE]

    @property
    def proposed(self) -> int:
        """The number of the generation that is to answer next; the active one where none is."""
        return self._words[_PROPOSED]

    @property
    def settled(self) -> bool:
        return self._words[_ACTIVE] == self._words[_PROPOSED]

    def propose(self, after: int, plan: bytes) -> bool:
        """Makes `plan` the generation that follows `after`; False where that is active and settled no longer."""
        words = self._words
        with self._locked():
            if not words[_ACTIVE] == words[_PROPOSED] == after:
                return False
            self._write_plan(after + 1, plan)
            words[_PROPOSED_AT] = self._clock()
            words[_PROPOSED] = after + 1
        return True

    def plan(self, generation: int) -> bytes | None:
        """What was proposed under that number; None where it neither answers nor is to."""
        with self._locked():
            if not self._files or generation not in {self.active, self.proposed}:
                return None
            odd = generation % 2
            return os.pread(self._files[odd], self._words[_SIZES + odd], 0)

    def mark_ready(self, generation: int) -> bool:
        """Says that this process can answer from a generation; whether that makes it the active one."""
        words = self._words
        with self._locked():
            if self._my_slot is not None:
                words[self._my_slot + _READY] = generation
            if words[_ACTIVE] == generation or words[_PROPOSED] != generation or self._not_ready(generation):
                return False
            words[_ACTIVE] = generation
        return True

    def join(self, generation: int) -> bool:
        """From now on this process is waited for; False where the generation it is ready for is active no longer."""
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

    def leave(self, pid: int) -> None:
        """In the master: a process is gone, and waited for no longer."""
        for i, found in enumerate(self._pids()):
            if found == pid:
                self._words[_FIRST_SLOT + _SLOT_WORDS * i + _PID] = 0

    def overdue_workers(self, seconds: float) -> list[int]:
        """In the master: the processes that the others have waited for, longer than that."""
        proposed, since = self.proposed, self._words[_PROPOSED_AT]  # in this order: see `propose`
        latest = self._clock() - int(seconds * _SECOND)
        if self.settled or since >= latest:
            return []
        joined = dict(zip(self._pids(), self._slot_column(_JOINED_AT), strict=True))
        behind = [pid for pid in self._not_ready(proposed) if joined.get(pid, latest) < latest]
        return behind if proposed == self.proposed else []

    def claim_sync(self, seconds: float) -> bool:
        """Whether this process should look at the store now, for all: every so many seconds, or when asked to.

        The same one looks as long as it lives and does so in time; it knows best what it could not load.
        """
        me, words = os.getpid(), self._words
        if words[_SYNCED_AT] and (not seconds or self._clock() - words[_SYNCED_AT] < seconds * _SECOND):
            return False
        with self._locked():
            passed = self._clock() - words[_SYNCED_AT]
            stranger = words[_SYNC_PID] != me and words[_SYNC_PID] in self._pids()
            least = 3 * seconds * _SECOND + _STALE_AFTER if stranger else seconds * _SECOND
            if words[_SYNCED_AT] and passed < least:
                return False
            words[_SYNC_PID], words[_SYNCED_AT] = me, self._clock()
        return True

    def request_sync(self) -> None:
        """Whoever asks `claim_look` next is told to look."""
        self._words[_SYNCED_AT] = 0

    def _not_ready(self, generation: int) -> list[int]:
        """The processes that are not ready for a generation."""
        readied = zip(self._pids(), self._slot_column(_READY), strict=True)
        return [pid for pid, ready in readied if pid and ready < generation]

    def _pids(self) -> list[int]:
        return self._slot_column(_PID)

    def _slot_column(self, word: int) -> list[int]:
        """One word of all slots."""
        return self._words[_FIRST_SLOT + word :: _SLOT_WORDS].tolist()

    def _write_plan(self, generation: int, plan: bytes) -> None:
        """In the place of the plan before the active one, which a worker that starts may still have to read."""
        if self._files:
            odd = generation % 2
            written = 0
            while written < len(plan):
                written += os.pwrite(self._files[odd], plan[written:], written)
            self._words[_SIZES + odd] = len(plan)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One at a time, among the threads of this process and among all processes."""
        with self._lock:
            if not self._files:
                yield
                return
            fcntl.lockf(self._files[0], fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.lockf(self._files[0], fcntl.LOCK_UN)


def _anonymous_file() -> int:
    """The descriptor of a file that goes with the last process that has it: in memory, where the system offers that."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("forward-pass")
    descriptor, path = tempfile.mkstemp(prefix="forward-pass-")
    Path(path).unlink()
    return descriptor
