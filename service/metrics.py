"""The metrics: what Prometheus reads at /metrics, right across the workers.

With PROMETHEUS_MULTIPROC_DIR set before prometheus_client is imported (`serve` does), every worker counts in files of
its own there and whichever answers /metrics adds them up. Without it the one process counts in memory. What is loaded
right now is not counted but looked up when asked, so versions that are gone leave no series behind.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Summary,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

disable_created_metrics()  # type: ignore[no-untyped-call]  # when a series began: noise, and several workers do not report it anyway

Lookup = Callable[[], Iterable[Metric]]


class Metrics:
    """Counts of one application; several may live in one process, as in tests."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._lookups: list[Lookup] = []
        registry = self._registry
        self.requests = Counter(
            "forward_pass_requests",
            "Requests answered, by route; model and version where one answered.",
            ["route", "model", "version", "status"],
            registry=registry,
        )
        self.seconds = Histogram(
            "forward_pass_request_seconds",
            "Time from the request's headers to its answer.",
            ["route", "model"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.inference = Summary(
            "forward_pass_inference_seconds",
            "Time in the network, for each request that it answered.",
            ["model", "version"],
            registry=registry,
        )
        self.rows = Counter("forward_pass_rows", "Rows predicted.", ["model", "version"], registry=registry)
        self.errors = Counter("forward_pass_errors", "Answers that were errors, by code.", ["code"], registry=registry)
        self.loads = Counter(
            "forward_pass_model_loads", "Versions loaded into a process.", ["model"], registry=registry
        )
        self.load_failures = Counter(
            "forward_pass_model_load_failures", "Versions that could not be loaded.", ["model"], registry=registry
        )
        self.reloads = Counter(
            "forward_pass_model_reloads",
            "Switches of a model's default to another version.",
            ["model"],
            registry=registry,
        )
        self.in_progress = Gauge(
            "forward_pass_requests_in_progress", "Requests under way.", registry=registry, multiprocess_mode="livesum"
        )

    def look_up(self, lookup: Lookup) -> None:
        """Adds metrics that are read off when somebody asks."""
        self._lookups.append(lookup)

    def of_version(self, model: str, version: int) -> dict[str, float]:
        """What all workers have counted for one version, by the names of the samples."""
        wanted = {"model": model, "version": str(version)}
        families = self._counted().collect()
        return {s.name: s.value for family in families for s in family.samples if s.labels == wanted}

    def exposition(self) -> bytes:
        """Everything, in Prometheus's text format."""
        gathering = self._counted()
        for lookup in self._lookups:
            gathering.register(_Relay(lookup))
        return generate_latest(gathering)

    def _counted(self) -> CollectorRegistry:
        gathering = CollectorRegistry()
        if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            MultiProcessCollector(gathering)  # type: ignore[no-untyped-call]
        else:
            gathering.register(_Relay(self._registry.collect))
        return gathering


class _Relay(Collector):
    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup

    def collect(self) -> Iterable[Metric]:
        return self._lookup()

    def describe(self) -> Iterable[Metric]:
        return ()


def models_metrics(served: Iterable[tuple[str, int, str]], problems: int) -> Iterator[Metric]:
    """Which version of each model answers by default, and how much is amiss."""
    info = GaugeMetricFamily(
        "forward_pass_model_info", "The version that answers by default.", labels=["model", "version", "digest"]
    )
    for name, number, digest in served:
        info.add_metric([name, str(number), digest], 1)
    yield info
    yield GaugeMetricFamily("forward_pass_problems", "Faults that /readyz tells of.", value=problems)
