"""Log and count a switch of all workers to other versions."""

from __future__ import annotations

import logging
import re

from service.registry.snapshot import Snapshot
from service.telemetry.metrics import Metrics

log = logging.getLogger("service.registry.registry")

_VERSION_LOCATION = re.compile(r"/\d+$")


def report_switch(old: Snapshot, new: Snapshot, metrics: Metrics) -> None:
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
            metrics.model_reloads.labels(name).inc()
        if now is not None and (changed or before is None or before.why_default != entry.why_default):
            instead = f" instead of {then.number}" if changed and then else ""
            log.info("%s: now serving version %d%s (%s)", name, now.number, instead, entry.why_default)
