"""The metrics that Prometheus reads at /metrics, summed over all workers.

Events are counted (`mmap_counters`). What is loaded now is collected at each scrape instead, so versions that are gone
leave no series behind.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime

from prometheus_client import generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.telemetry.mmap_counters import MmapCounters

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"  # of `Metrics.exposition`
REQUEST_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
STAGE_BUCKETS = (0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.025, 0.1, 0.5, 2.5)
ROWS_BUCKETS = tuple(2.0**k for k in range(15))
_VERSION_LABELS = ("model", "version")
MAX_LABELLED_VERSIONS = 200  # each has a hundred series: 40 KB of shared memory in every process
OTHER = "other"
_COSTLY_SCRAPE_SECONDS = 0.05  # of processor time: a scrape of a thousand models takes 0.09 s
_SCRAPE_SHARE = 0.1  # of a processor, in each worker, for scrapes that are costly

InternalGauges = Mapping[str, float]  # summed over the workers; see `service.inference.drift`
GaugeCollector = Callable[[InternalGauges], Iterable[Metric]]


class Metrics:
    """The metrics of one application. A process may have several, as in tests."""

    def __init__(self, parent: str = "") -> None:
        """Keep the counts in a new directory below `parent` (default: in memory)."""
        self.counters = counters = MmapCounters(parent=parent)
        self._collectors: list[GaugeCollector] = []
        self._last_exposition, self._reuse_until = b"", 0.0  # of `time.monotonic`
        self._labelled_models: set[str] = set()
        self._version_labels: dict[tuple[str, int], tuple[str, str]] = {}
        self.requests = counters.counter(
            "forward_pass_requests",
            "Requests answered, by route, status, model and version (empty if no model was used).",
            ("route", *_VERSION_LABELS, "status"),
        )
        self.key_requests = counters.counter(
            "forward_pass_key_requests", "Requests by the name of their API key, and status.", ("key", "status")
        )
        self.request_seconds = counters.histogram(
            "forward_pass_request_seconds",
            "Seconds from a request's arrival to its response.",
            ("route", *_VERSION_LABELS),
            REQUEST_BUCKETS,
        )
        self.stage_seconds = counters.histogram(
            "forward_pass_stage_seconds",
            "Seconds of a prediction in each stage: queue, parse, compute, serialise.",
            ("stage", *_VERSION_LABELS),
            STAGE_BUCKETS,
        )
        self.rows = counters.counter("forward_pass_rows", "Rows predicted.", _VERSION_LABELS)
        self.batch_rows = counters.histogram(
            "forward_pass_batch_rows", "Rows per forward pass.", _VERSION_LABELS, ROWS_BUCKETS
        )
        self.errors = counters.counter(
            "forward_pass_errors",
            "Error responses, by code, model and version (empty if no model was used).",
            ("code", *_VERSION_LABELS),
        )
        self.errors.labels(
            "overloaded", "", ""
        )  # create it with 0: Prometheus sees no increase in a counter that starts at 1
        self.model_loads = counters.counter(
            "forward_pass_model_loads", "Versions loaded, summed over all processes.", ("model",)
        )
        self.model_load_failures = counters.counter(
            "forward_pass_model_load_failures", "Failed attempts to load a version.", ("model",)
        )
        self.model_reloads = counters.counter(
            "forward_pass_model_reloads", "Switches of a model's default version.", ("model",)
        )
        self.in_progress = counters.gauge("forward_pass_requests_in_progress", "Requests in progress.").labels()

    def version_labels(self, name: str, number: int) -> tuple[str, str]:
        """Return the labels `model` and `version` of a version.

        The series of a label stay, so after `MAX_LABELLED_VERSIONS` all further versions share the labels "other".
        """
        labels = self._version_labels.get((name, number))
        if labels is None:
            full = len(self._version_labels) >= MAX_LABELLED_VERSIONS
            labels = (OTHER, OTHER) if full else (name, str(number))
            if not full:
                self._version_labels[name, number] = labels
        return labels

    def model_label(self, name: str) -> str:
        """Return the label `model` for series of a model: "other" after `MAX_LABELLED_VERSIONS` models."""
        if len(self._labelled_models) < MAX_LABELLED_VERSIONS:
            self._labelled_models.add(name)
        return name if name in self._labelled_models else OTHER

    def register_collector(self, collector: GaugeCollector) -> None:
        """Add a function that returns gauges at each scrape."""
        self._collectors.append(collector)

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus's text format.

        If that was costly, the same text is returned again for so long that scrapes take `_SCRAPE_SHARE` of a
        processor: about a second, while Prometheus scrapes every 15 s.
        """
        if time.monotonic() < self._reuse_until:
            return self._last_exposition
        started = time.thread_time()
        recent = self.counters.internal_gauges()
        found = [metric for collector in self._collectors for metric in collector(recent)]
        text = self.counters.exposition().encode() + generate_latest(_Collected(found))
        if (seconds := time.thread_time() - started) > _COSTLY_SCRAPE_SECONDS:
            self._last_exposition, self._reuse_until = text, time.monotonic() + seconds / _SCRAPE_SHARE
        return text


class _Collected(Collector):
    """Hands metrics to `generate_latest`."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> list[Metric]:
        return self._metrics


def key_gauges(expiry_by_name: Mapping[str, datetime]) -> Iterator[Metric]:
    """Yield when API keys expire, so that an alert can come before."""
    expiry = GaugeMetricFamily(
        "forward_pass_key_expiry_timestamp_seconds",
        "Unix time when the last valid API key of a name expires.",
        labels=["key"],
    )
    for name, expires in expiry_by_name.items():
        expiry.add_metric([name], expires.timestamp())
    if expiry_by_name:
        yield expiry


def model_gauges(served: Iterable[tuple[str, int, str]], problems: int) -> Iterator[Metric]:
    """Yield the default version of each model, and the number of problems."""
    info = GaugeMetricFamily(
        "forward_pass_model_info", "1 for the default version of each model.", labels=["model", "version", "digest"]
    )
    for name, number, digest in served:
        info.add_metric([name, str(number), digest], 1)
    yield info
    yield GaugeMetricFamily("forward_pass_problems", "Number of problems that /readyz reports.", value=problems)
