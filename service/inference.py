"""The forward pass: the one way, whichever protocol asked, from encoded rows to the network's outputs."""

from __future__ import annotations

import time
from typing import Any

from flask import g

from model_store.columns import Faults, shown
from model_store.nn import Array
from service.catalog import Served
from service.metrics import Metrics


class Inference:
    """Runs networks, and counts what they answer. What a request was answered by stands in `g`, for its log line."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def __call__(self, served: Served, inputs: Array) -> Array:
        """Raw outputs (n, outputs) to encoded rows (n, features)."""
        g.served, g.rows = served, len(inputs)
        started = time.perf_counter()
        outputs = served.model.network(inputs)
        labels = served.name, str(served.number)
        self._metrics.inference.labels(*labels).observe(time.perf_counter() - started)
        self._metrics.rows.labels(*labels).inc(len(inputs))
        return outputs


def encoded(served: Served, rows: Any, place: str, most: int) -> Array:
    """Untrusted rows as the network's input; InputError with everything that does not fit."""
    faults = Faults()
    if not isinstance(rows, list):
        faults.add(place, f"wanted a list, found {shown(rows)}", "put the row into a list: [row]")
    elif not 1 <= len(rows) <= most:
        faults.add(place, f"wanted 1 to {most} rows, found {len(rows)}", "send them in several requests")
    faults.check()
    return served.model.signature.encode(rows, place, served.model.network.dtype)
