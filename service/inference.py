"""The forward pass: the one way, whichever protocol asked, from encoded rows to the network's outputs."""

from __future__ import annotations

import time

from flask import g

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
