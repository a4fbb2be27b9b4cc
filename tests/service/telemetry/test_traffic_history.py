"""The traffic of the last hour: what is counted, how long it is kept, and that all processes read the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.telemetry.metrics import Metrics
from service.telemetry.traffic_history import (
    MAX_MINUTES,
    MAX_VERSIONS,
    SAMPLE_SECONDS,
    TrafficSampler,
    add_samples,
    quantile,
    read_history,
)

START = 1_800_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def metrics(tmp_path: Path) -> Metrics:
    return Metrics(str(tmp_path))


def sampler(metrics: Metrics, tmp_path: Path, clock: Clock) -> TrafficSampler:
    made = TrafficSampler(metrics.counters, tmp_path / "traffic", clock)
    assert made.is_owner()
    return made


def test_requests_of_a_minute_are_counted_by_version(metrics: Metrics, tmp_path: Path, clock: Clock) -> None:
    it = sampler(metrics, tmp_path, clock)
    for _ in range(3):
        metrics.requests.labels("/predict", "price", "2", "200").inc()
        metrics.request_seconds.labels("/predict", "price", "2").observe(0.004)
    metrics.requests.labels("/healthz", "", "", "200").inc()
    metrics.errors.labels("overloaded", "price", "2").inc()
    it.sample()
    clock.now += SAMPLE_SECONDS
    metrics.requests.labels("/predict", "price", "2", "422").inc()
    it.sample()
    history = read_history(tmp_path / "traffic")
    [(minute, sample)] = history.minutes
    assert minute == START // 60 * 60
    assert list(sample) == [("price", "2")]
    assert sample["price", "2"].counts == {"requests:200": 3, "errors:overloaded": 1, "requests:422": 1}
    assert sum(sample["price", "2"].histograms["total"]) == 3
    assert [(end, list(found)) for end, _, found in history.recent][-1] == (clock.now, [("price", "2")])


def test_a_sample_is_taken_once_in_its_interval(metrics: Metrics, tmp_path: Path, clock: Clock) -> None:
    it = sampler(metrics, tmp_path, clock)
    for _ in range(10):
        it.sample()
        clock.now += SAMPLE_SECONDS / 10
    assert len(read_history(tmp_path / "traffic").recent) == 1


def test_one_process_samples_and_another_continues_when_it_ends(metrics: Metrics, tmp_path: Path, clock: Clock) -> None:
    first = sampler(metrics, tmp_path, clock)
    metrics.rows.labels("price", "1").inc(5)
    first.sample()
    second = TrafficSampler(metrics.counters, tmp_path / "traffic", clock)
    assert not second.is_owner()
    first.close()
    clock.now += SAMPLE_SECONDS
    assert second.is_owner()
    clock.now += SAMPLE_SECONDS
    metrics.rows.labels("price", "1").inc(2)
    second.sample()
    rows = add_samples(sample for _, sample in read_history(tmp_path / "traffic").minutes)
    assert rows["price", "1"].counts == {"rows": 7}


def test_an_hour_of_many_versions_is_kept_in_bounded_memory(metrics: Metrics, tmp_path: Path, clock: Clock) -> None:
    it = sampler(metrics, tmp_path, clock)
    for _ in range(MAX_MINUTES + 5):
        for number in range(3 * MAX_VERSIONS):
            metrics.requests.labels("/predict", "price", str(number), "200").inc(1 + number)
        it.sample()
        clock.now += 60
    history = read_history(tmp_path / "traffic")
    assert len(history.minutes) == MAX_MINUTES
    for _, sample in history.minutes:
        assert len(sample) == MAX_VERSIONS + 1
        assert sample["price", str(3 * MAX_VERSIONS - 1)].total("requests:") == 3 * MAX_VERSIONS
        assert sum(traffic.total("requests:") for traffic in sample.values()) == sum(range(1, 3 * MAX_VERSIONS + 1))


@pytest.mark.parametrize(
    ("buckets", "share", "found"),
    [
        ([0, 0, 0], 0.5, None),
        ([4, 0, 0], 0.5, 0.5),
        ([0, 4, 0], 0.5, 2.0),
        ([2, 2, 0], 0.75, 2.0),
        ([0, 0, 4], 0.5, 3.0),
        ([1, 2, 1], 0.5, 2.0),
    ],
)
def test_quantiles_are_linear_within_a_bucket(buckets: list[float], share: float, found: float | None) -> None:
    assert quantile(buckets, (1.0, 3.0), share) == found
