"""The forward pass: the one way, whichever protocol asked, from encoded rows to the network's outputs."""

from __future__ import annotations

from model_store.nn import Array
from service.inference.drift import DriftMonitor
from service.registry.loaded_version import LoadedVersion
from service.telemetry.metrics import Metrics
from service.telemetry.request_record import RequestRecord, clock


class InferenceRunner:
    """Runs networks, and notes in the observation of a request what answered it and when."""

    def __init__(self, metrics: Metrics, drift: DriftMonitor) -> None:
        self._batch_rows, self._drift = metrics.batch_rows, drift

    def __call__(self, record: RequestRecord, served: LoadedVersion, inputs: Array) -> Array:
        """Raw outputs (n, outputs) to encoded rows (n, features) of one request."""
        record.served, record.rows = served, len(inputs)
        record.parsed_at = clock()
        outputs, record.compute_started_at, record.compute_ended_at = self.run(served, inputs)
        self.record_pass(served, inputs, record.compute_ended_at - record.compute_started_at)
        return outputs

    @staticmethod
    def run(served: LoadedVersion, inputs: Array) -> tuple[Array, float, float]:
        """The outputs to rows of one request or of several, and when that began and ended; to be noted."""
        began = clock()
        outputs = served.model.network(inputs)
        return outputs, began, clock()

    def record_pass(self, served: LoadedVersion, inputs: Array, seconds: float) -> None:
        """A forward pass over the rows of one request or of several has taken so long."""
        served.batching.record_pass(len(inputs), seconds)
        self._batch_rows.labels(served.name, str(served.number)).observe(len(inputs))
        self._drift.add(served, inputs)
