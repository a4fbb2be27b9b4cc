"""The traffic of the last hour by model and version, kept in one small file that all workers share.

One worker at a time, the one that holds the lock, reads the shared counters every `SAMPLE_SECONDS` and adds what they
gained to the current minute. So a request for the history has the same answer whichever worker serves it. If that
worker ends, another one continues; what was counted since the last sample is then missing here, not in /metrics.

    {"minutes": [[1767225600, [VERSION, ...]], ...], "recent": [[1767225605.1, 5.0, [VERSION, ...]], ...]}

VERSION is {"model", "version", "counts": {"requests:200": 31, "errors:overloaded": 2, "rows": 62},
"histograms": {"total": [0, 3, ...], "queue": ..., "batch": ...}}: each histogram is the count of each bucket.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from model_store.utils.atomic_write import atomic_write
from service.telemetry.metrics import OTHER, REQUEST_BUCKETS, ROWS_BUCKETS, STAGE_BUCKETS
from service.telemetry.mmap_counters import MmapCounters
from service.telemetry.request_record import STAGES

SAMPLE_SECONDS = 5.0
MAX_MINUTES, MAX_RECENT = 60, 12
MAX_VERSIONS = 20  # the busiest of a sample; all others are counted together as "other"
BUCKETS = {"total": REQUEST_BUCKETS, **dict.fromkeys(STAGES, STAGE_BUCKETS), "batch": ROWS_BUCKETS}
_Version = tuple[str, str]


@dataclass
class Traffic:
    """Counts and histograms of one version over some time."""

    counts: dict[str, float] = field(default_factory=dict)
    histograms: dict[str, list[float]] = field(default_factory=dict)

    def add(self, other: Traffic) -> None:
        for name, value in other.counts.items():
            self.counts[name] = self.counts.get(name, 0.0) + value
        for name, buckets in other.histograms.items():
            mine = self.histograms.setdefault(name, [0.0] * len(buckets))
            self.histograms[name] = [a + b for a, b in zip(mine, buckets, strict=True)]

    def total(self, prefix: str) -> float:
        return sum(value for name, value in self.counts.items() if name.startswith(prefix))


Sample = dict[_Version, Traffic]


def add_samples(samples: Iterable[Sample]) -> Sample:
    sums: Sample = {}
    for sample in samples:
        for version, traffic in sample.items():
            sums.setdefault(version, Traffic()).add(traffic)
    return sums


@dataclass
class History:
    """`minutes`: the start of each minute that had traffic, and its traffic. `recent`: (end, seconds, traffic)."""

    minutes: list[tuple[float, Sample]] = field(default_factory=list)
    recent: list[tuple[float, float, Sample]] = field(default_factory=list)


@dataclass(frozen=True)
class _Series:
    """What one counter means: a count, or a bucket of a histogram."""

    version: _Version
    name: str
    bucket: int | None = None


class TrafficSampler:
    """Samples the counters into the file of the history. Only the process that holds the lock writes."""

    def __init__(self, counters: MmapCounters, directory: Path, now: Callable[[], float] = time.time) -> None:
        self._counters, self._directory, self._now = counters, directory, now
        self._lock: int | None = None
        self._owner = 0
        self._series: list[_Series | None] = []
        self._before: list[float] = []
        self._sampled_at = 0.0

    def is_owner(self) -> bool:
        """Take the lock if no living process has it. Return True if this process has it."""
        if self._owner == os.getpid():
            return True
        self._directory.mkdir(exist_ok=True)
        lock = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        self._lock, self._owner = lock, os.getpid()
        continues = history_path(self._directory).exists()
        self._before = self._counters.series_totals()[1] if continues else []
        self._series, self._sampled_at = [], self._now() - (0.0 if continues else SAMPLE_SECONDS)
        return True

    def close(self) -> None:
        """Release the lock, as the end of the process does."""
        if self._lock is not None:
            os.close(self._lock)
        self._lock, self._owner = None, 0

    def sample(self) -> None:
        """Add what the counters gained since the last sample, if that is `SAMPLE_SECONDS` old."""
        now = self._now()
        seconds = now - self._sampled_at
        if 0 <= seconds < SAMPLE_SECONDS:
            return
        names, totals = self._counters.series_totals()
        for key in names[len(self._series) :]:
            self._series.append(_parse_key(key))
        before = [*self._before, *[0.0] * (len(totals) - len(self._before))]
        gained: Sample = {}
        for series, value, old in zip(self._series, totals, before, strict=True):
            if series is not None and value != old:
                _add(gained, series, value - old)
        history = read_history(self._directory)
        sample = _busiest(gained)
        history.recent = [*history.recent, (now, max(seconds, 0.001), sample)][-MAX_RECENT:]
        minute = now // 60 * 60
        if sample:
            last = history.minutes.pop()[1] if history.minutes and history.minutes[-1][0] == minute else {}
            history.minutes.append((minute, _busiest(add_samples([last, sample]))))
        history.minutes = [each for each in history.minutes if now - 60 * MAX_MINUTES < each[0] <= now]
        with atomic_write(history_path(self._directory)) as file:
            file.write(orjson.dumps(_to_json(history)))
        self._before, self._sampled_at = totals, now


def history_path(directory: Path) -> Path:
    return directory / "history.json"


def read_history(directory: Path) -> History:
    """Return the history that all workers share, an empty one if there is none yet."""
    try:
        found = orjson.loads(history_path(directory).read_bytes())
    except FileNotFoundError:
        return History()
    return History(
        [(minute, _from_json(versions)) for minute, versions in found["minutes"]],
        [(end, seconds, _from_json(versions)) for end, seconds, versions in found["recent"]],
    )


def quantile(buckets: list[float], bounds: tuple[float, ...], share: float) -> float | None:
    """Return a quantile of a histogram, linear within its bucket, None without values.

    A value above the last bound counts as the last bound.
    """
    total = sum(buckets)
    if not total:
        return None
    rank, below, low = share * total, 0.0, 0.0
    for count, high in zip(buckets, bounds, strict=False):
        if count and below + count >= rank:
            return low + (high - low) * (rank - below) / count
        below, low = below + count, high
    return bounds[-1]


def _parse_key(key: str) -> _Series | None:
    metric, _, labels, _ = json.loads(key)
    version = labels.get("model", ""), labels.get("version", "")
    if metric == "forward_pass_requests" and (version[0] or labels["status"] >= "400"):
        return _Series(version, f"requests:{labels['status']}")
    if metric == "forward_pass_errors":
        return _Series(version, f"errors:{labels['code']}")
    if metric == "forward_pass_rows":
        return _Series(version, "rows")
    if "le" not in labels or not version[0]:
        return None
    histogram = {"forward_pass_request_seconds": "total", "forward_pass_batch_rows": "batch"}.get(metric)
    histogram = labels.get("stage") if histogram is None else histogram
    if histogram not in BUCKETS:
        return None
    return _Series(version, histogram, bisect_left(BUCKETS[histogram], float(labels["le"])))


def _add(sample: Sample, series: _Series, value: float) -> None:
    traffic = sample.setdefault(series.version, Traffic())
    if series.bucket is None:
        traffic.counts[series.name] = traffic.counts.get(series.name, 0.0) + value
    else:
        empty = [0.0] * (len(BUCKETS[series.name]) + 1)
        traffic.histograms.setdefault(series.name, empty)[series.bucket] += value


def _busiest(sample: Sample) -> Sample:
    """Return a sample of at most `MAX_VERSIONS` versions, and the sum of all others as one."""
    rest = (OTHER, OTHER)
    versions = sample.keys() - {rest, ("", "")}  # the latter: errors of no model
    ranked = sorted(versions, key=lambda version: -sample[version].total("requests:"))
    merged = ranked[MAX_VERSIONS:]
    if not merged:
        return sample
    kept = {version: traffic for version, traffic in sample.items() if version not in merged}
    return add_samples([kept, *({rest: sample[version]} for version in merged)])


def _to_json(history: History) -> dict[str, Any]:
    return {
        "minutes": [[minute, list(_versions(sample))] for minute, sample in history.minutes],
        "recent": [[end, seconds, list(_versions(sample))] for end, seconds, sample in history.recent],
    }


def _versions(sample: Sample) -> Iterator[dict[str, Any]]:
    for (model, version), traffic in sample.items():
        yield {"model": model, "version": version, "counts": traffic.counts, "histograms": traffic.histograms}


def _from_json(versions: Iterable[Mapping[str, Any]]) -> Sample:
    return {(each["model"], each["version"]): Traffic(each["counts"], each["histograms"]) for each in versions}
