"""The metrics: what Prometheus reads at /metrics, right across the workers.

What happens is counted (counts.py). What is loaded right now is not counted but looked up when asked, so versions that
are gone leave no series behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from service.telemetry.mmap_counters import MmapCounters

_REQUEST_SECONDS_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_STAGE_SECONDS_BUCKETS = (
    0.00001,
    0.000025,
    0.00005,
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.025,
    0.1,
    0.5,
    2.5,
)
_ROWS_BUCKETS = tuple(2.0**k for k in range(15))
_VERSION_LABELS = ("model", "version")


InternalGauges = Mapping[str, float]  # what all workers know of recent rows, see `Drift`
GaugeCollector = Callable[[InternalGauges], Iterable[Metric]]


class Metrics:
    """Counts of one application; several may live in one process, as in tests."""

    def __init__(self, parent: str = "") -> None:
        """`parent`: the directory that counts are kept below, if not in memory."""
        self.counters = counters = MmapCounters(parent=parent)
        self._collectors: list[GaugeCollector] = []
        self.requests = counters.counter(
            "forward_pass_requests",
            "Requests answered, by route; model and version where one was asked.",
            ("route", *_VERSION_LABELS, "status"),
        )
        self.request_seconds = counters.histogram(
            "forward_pass_request_seconds",
            "Time from a request's arrival to its answer.",
            ("route", *_VERSION_LABELS),
            _REQUEST_SECONDS_BUCKETS,
        )
        self.stage_seconds = counters.histogram(
            "forward_pass_stage_seconds",
            "Time of a prediction in each stage: queue, parse, compute, serialise.",
            ("stage", *_VERSION_LABELS),
            _STAGE_SECONDS_BUCKETS,
        )
        self.rows = counters.counter("forward_pass_rows", "Rows predicted.", _VERSION_LABELS)
        self.batch_rows = counters.histogram(
            "forward_pass_batch_rows", "Rows of a forward pass.", _VERSION_LABELS, _ROWS_BUCKETS
        )
        self.errors = counters.counter(
            "forward_pass_errors",
            "Answers that were errors, by code; model and version where one was asked.",
            ("code", *_VERSION_LABELS),
        )
        self.errors.labels("overloaded", "", "")  # is 0 from now on: Prometheus sees no increase from nothing to 1
        self.model_loads = counters.counter("forward_pass_model_loads", "Versions loaded into a process.", ("model",))
        self.model_load_failures = counters.counter(
            "forward_pass_model_load_failures", "Versions that could not be loaded.", ("model",)
        )
        self.model_reloads = counters.counter(
            "forward_pass_model_reloads", "Switches of a model's default to another version.", ("model",)
        )
        self.in_progress = counters.gauge("forward_pass_requests_in_progress", "Requests under way.").labels()

    def register_collector(self, lookup: GaugeCollector) -> None:
        """Adds metrics that are read off when somebody asks."""
        self._collectors.append(lookup)

    def exposition(self) -> bytes:
        """Everything, in Prometheus's text format."""
        recent = self.counters.internal_gauges()
        found = [metric for lookup in self._collectors for metric in lookup(recent)]
        return self.counters.exposition().encode() + generate_latest(_Collected(found))


class _Collected:
    """What `generate_latest` asks of a registry."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> list[Metric]:
        return self._metrics


def model_gauges(served: Iterable[tuple[str, int, str]], problems: int) -> Iterator[Metric]:
    """Which version of each model answers by default, and how much is amiss."""
    info = GaugeMetricFamily(
        "forward_pass_model_info", "The version that answers by default.", labels=["model", "version", "digest"]
    )
    for name, number, digest in served:
        info.add_metric([name, str(number), digest], 1)
    yield info
    yield GaugeMetricFamily("forward_pass_problems", "Faults that /readyz tells of.", value=problems)
