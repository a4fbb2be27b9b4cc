"""Run the forward pass, for every protocol: encoded rows in, the network's outputs out."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from model_store.artifact.explanation import Asked, Explanations, explain
from model_store.nn import Array
from model_store.schema.signature import Signature
from service.inference.drift import DriftMonitor
from service.registry.loaded_version import LoadedVersion
from service.telemetry.cell_file import HistogramCells
from service.telemetry.metrics import Metrics
from service.telemetry.request_record import RequestRecord, clock


class InferenceRunner:
    """Runs networks, and notes in a request's record which version ran and when."""

    def __init__(self, metrics: Metrics, drift: DriftMonitor) -> None:
        self._metrics, self._drift = metrics, drift
        self._batch_rows: WeakKeyDictionary[LoadedVersion, HistogramCells] = WeakKeyDictionary()

    def __call__(self, record: RequestRecord, served: LoadedVersion, inputs: Array) -> Array:
        """Return the raw outputs (n, outputs) for the encoded rows (n, features) of one request."""
        record.served, record.rows = served, len(inputs)
        record.parsed_at = clock()
        outputs, record.compute_started_at, record.compute_ended_at = self.run(served, inputs)
        self.record_pass(served, inputs, record.compute_ended_at - record.compute_started_at)
        return outputs

    @staticmethod
    def explain(
        record: RequestRecord,
        served: LoadedVersion,
        inputs: Array,
        outputs: Array,
        asked: Asked,
        location: str = "instances",
        *,
        signature: Signature | None = None,
    ) -> Explanations:
        """Return the explanations of encoded rows with these raw outputs. The record's computing includes them.

        signature: of labels that another threshold than the model's decides. InputError at a row of `location` that has
        no explanation.
        """
        found = explain(served.model, inputs, outputs, asked, location, signature=signature)
        record.compute_ended_at = clock()
        return found

    @staticmethod
    def run(served: LoadedVersion, inputs: Array) -> tuple[Array, float, float]:
        """Return the outputs for the rows of one or more requests, and when the pass started and ended."""
        started = clock()
        outputs = served.forward(inputs)
        return outputs, started, clock()

    def record_pass(self, served: LoadedVersion, inputs: Array, seconds: float) -> None:
        """Record a forward pass over the rows of one or more requests that took `seconds`."""
        served.batching.record_pass(len(inputs), seconds)
        cells = self._batch_rows.get(served)
        if cells is None:
            labels = self._metrics.version_labels(served.name, served.number)
            self._batch_rows[served] = cells = self._metrics.batch_rows.labels(*labels)
        cells.observe(len(inputs))
        self._drift.add(served, inputs)
