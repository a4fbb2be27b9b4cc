"""Keep the copies of the active versions in the cache while no worker has mapped them.

A worker maps its copies and thereby locks them. If all workers of a service end at once, other services of the same
user could remove the copies before the workers are replaced. So the master, which maps nothing, locks them too.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from model_store.utils.file_lock import open_shared
from service.registry.snapshot import plan_digests
from service.registry.switch_barrier import SwitchBarrier


class ActiveLocks:
    """The master's locks on the copies of the active generation; forked workers inherit them until they `release`."""

    def __init__(self, cache_dir: Path, barrier: SwitchBarrier) -> None:
        self._cache_dir, self._barrier = cache_dir, barrier
        self._generation = 0
        self._descriptors: list[int] = []

    def update(self) -> None:
        """Lock the copies of the active generation, then unlock the others. Never wait."""
        active = self._barrier.active
        if active == self._generation or not (plan := self._barrier.plan(active, wait=False)):
            return
        replaced, self._descriptors, self._generation = self._descriptors, [], active
        for digest in sorted(plan_digests(plan)):
            with suppress(OSError):  # it is gone already, or there are too many open files
                self._descriptors.append(open_shared(self._cache_dir / f"{digest}.npz"))
        for descriptor in replaced:
            os.close(descriptor)

    def release(self) -> None:
        """In a worker that has mapped the versions itself."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []
