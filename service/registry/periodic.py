"""Threads that repeat a task for as long as the process lives, and how often syncs with the store may take place."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable

log = logging.getLogger("service.registry.registry")

_SYNC_SHARE = 0.05  # of a processor: listing a store with 20,000 foreign folders takes 0.6 s
_MAX_SYNC_INTERVAL_SECONDS = 60.0  # however long a sync takes


def start_periodic(name: str, seconds: float, task: Callable[[], object], *, at_once: bool = False) -> None:
    """Start a thread that calls `task` about every `seconds`, and `at_once` if asked.

    An exception is logged, and the task is tried again.
    """
    threading.Thread(target=_run_periodically, args=(seconds, task, at_once), name=name, daemon=True).start()


def _run_periodically(seconds: float, task: Callable[[], object], at_once: bool) -> None:
    while True:
        if not at_once:
            time.sleep(seconds * random.uniform(0.8, 1.2))  # noqa: S311 - spreads the workers' work
        at_once = False
        try:
            task()
        except Exception:
            log.exception("sync with the store failed; will retry")


class SyncInterval:
    """How often this process may sync. The caller measures `seconds`."""

    def __init__(self) -> None:
        self.seconds = 0.0  # of processor time, for the last sync
        self._is_costly = False  # whether the log says that syncs are rare because of it

    def min_seconds(self) -> float:
        """Return the seconds between syncs that take `_SYNC_SHARE` of a processor, at most a minute."""
        needed = self.seconds / _SYNC_SHARE
        is_costly = needed > _MAX_SYNC_INTERVAL_SECONDS
        if is_costly and not self._is_costly:
            message = "a sync with the store takes %.1f s of processor time, so changes are served after up to %.0f s"
            log.warning(message, self.seconds, _MAX_SYNC_INTERVAL_SECONDS)
        self._is_costly = is_costly
        return min(needed, _MAX_SYNC_INTERVAL_SECONDS)
