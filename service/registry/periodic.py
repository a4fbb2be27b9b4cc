"""Threads that repeat a task for as long as the process lives."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable

log = logging.getLogger("service.registry.registry")


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
