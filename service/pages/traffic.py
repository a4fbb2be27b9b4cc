"""The page `/traffic`: rates, times by stage, errors, batch sizes, drift, recent requests and the reload log."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from model_store.errors import Fault, InputError
from model_store.utils.printable import printable
from service.inference.drift import DriftMonitor
from service.pages.traffic_monitor import TrafficMonitor
from service.registry.snapshot import Snapshot
from service.telemetry.request_record import STAGES
from service.telemetry.traffic_history import BUCKETS, History, Sample, Traffic, add_samples, quantile

WINDOWS = (5, 15, 60)  # minutes
_NOW_SECONDS = 30.0
_SHARES = (0.5, 0.95, 0.99)
_RECENT_FIELDS = (
    *("time", "method", "target", "status", "seconds", "model", "version", "rows", "error", "request_id", "key"),
)


def describe(
    monitor: TrafficMonitor,
    drift: DriftMonitor,
    snapshot: Snapshot,
    gauges: Mapping[str, float],
    now: float,
    *,
    minutes: int,
    model: str,
) -> dict[str, Any]:
    """Return all that the page shows. `model`: "" for all, a name, or name/version; seconds are exact to a bucket."""
    history = monitor.history()
    begin = now // 60 * 60 - 60 * (minutes - 1)
    chosen = [(minute, _choose(sample, model)) for minute, sample in history.minutes if minute >= begin]
    total = add_samples(sample for _, sample in chosen)
    since = min((minute for minute, _ in chosen), default=begin)
    seconds = max(1.0, now - since)
    everything = add_samples(sample for minute, sample in history.minutes if minute >= begin)
    return {
        "time": now,
        "minutes": minutes,
        "since": since,
        "model": model,
        "models": sorted(_names(everything, snapshot)),
        "now": current(history, now, model),
        "versions": [_version(version, traffic, seconds) for version, traffic in sorted(total.items()) if version[0]],
        "stages": _stages(_sum(total)),
        "errors": _errors(total),
        "batches": _batches(_sum(total)),
        "series": _series(dict(chosen), begin, minutes, now),
        "drift": [each for each in drift_columns(drift, snapshot, gauges) if _matches(each, model)],
        "recent": [
            each
            for each in (dict(zip(_RECENT_FIELDS, request, strict=True)) for request in monitor.recent())
            if _matches(each, model)
        ],
        "reloads": [each for each in monitor.reloads() if not model or _name(each) == model.partition("/")[0]],
    }


def recent_sample(history: History, now: float) -> tuple[float, Sample]:
    """Return the traffic of about the last 30 s, and how many seconds of them were sampled."""
    recent = [each for each in history.recent if now - _NOW_SECONDS <= each[0] <= now + 1]
    return sum(span for _, span, _ in recent), add_samples(sample for _, _, sample in recent)


def current(history: History, now: float, model: str = "") -> dict[str, float]:
    """Return requests and errors a second of about the last 30 s, 0 if nothing was sampled then."""
    seconds, sample = recent_sample(history, now)
    traffic = _sum(_choose(sample, model))
    total = quantile(traffic.histograms.get("total", []), BUCKETS["total"], 0.95)
    return {
        "requests_per_second": traffic.total("requests:") / seconds if seconds else 0.0,
        "rows_per_second": traffic.total("rows") / seconds if seconds else 0.0,
        "errors_per_second": _failed(traffic) / seconds if seconds else 0.0,
        "p95_seconds": total or 0.0,
    }


def by_model(sample: Sample) -> dict[str, Traffic]:
    """Return the traffic of each model, of all of its versions together."""
    found: dict[str, Traffic] = {}
    for (model, _), traffic in sample.items():
        found.setdefault(model, Traffic()).add(traffic)
    return found


def drift_columns(drift: DriftMonitor, snapshot: Snapshot, gauges: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return the drift of each column of the versions that are monitored, the highest index for its limit first."""
    found = [
        {"model": served.name, "version": str(served.number), "column": column, "index": index, "limit": limit}
        for served, column, index, limit in drift.indices(set(snapshot.pinned_versions), gauges)
    ]
    return sorted(found, key=lambda each: -each["index"] / each["limit"])


def failed_share(traffic: Traffic) -> float:
    """Return the share of requests with a status of 400 or more."""
    requests = traffic.total("requests:")
    return _failed(traffic) / requests if requests else 0.0


def _failed(traffic: Traffic) -> float:
    return sum(value for name, value in traffic.counts.items() if name.startswith("requests:") and name[9:] >= "400")


def _name(reload: Mapping[str, Any]) -> str:
    return str(reload["subject"]).partition("/")[0]


def _choose(sample: Sample, model: str) -> Sample:
    name, _, number = model.partition("/")
    if not name:
        return sample
    return {key: traffic for key, traffic in sample.items() if key[0] == name and number in {"", key[1]}}


def _matches(each: Mapping[str, Any], model: str) -> bool:
    name, _, number = model.partition("/")
    return not name or (each["model"] == name and number in {"", each["version"]})


def _names(sample: Sample, snapshot: Snapshot) -> set[str]:
    seen = {"/".join(version) for version in sample if version[0]}
    return seen | {name.partition("/")[0] for name in seen} | {served.name for served in snapshot.default_versions}


def _sum(sample: Sample) -> Traffic:
    total = Traffic()
    for traffic in sample.values():
        total.add(traffic)
    return total


def _version(version: tuple[str, str], traffic: Traffic, seconds: float) -> dict[str, Any]:
    requests, times = traffic.total("requests:"), traffic.histograms.get("total", [])
    return {
        "model": version[0],
        "version": version[1],
        "requests": requests,
        "requests_per_second": requests / seconds,
        "rows": traffic.total("rows"),
        "failed": _failed(traffic),
        "failed_share": failed_share(traffic),
        **{f"p{100 * share:.0f}_seconds": quantile(times, BUCKETS["total"], share) for share in _SHARES},
    }


def _stages(traffic: Traffic) -> list[dict[str, Any]]:
    return [
        {
            "stage": stage,
            **{
                f"p{100 * share:.0f}_seconds": quantile(traffic.histograms.get(stage, []), BUCKETS[stage], share)
                for share in _SHARES
            },
        }
        for stage in (*STAGES, "total")
    ]


def _errors(sample: Sample) -> list[dict[str, Any]]:
    """Return how often each kind of error occurred, the most frequent first, with the versions that it concerned."""
    found: dict[str, dict[str, Any]] = {}
    for (model, version), traffic in sample.items():
        for name, count in traffic.counts.items():
            if name.startswith("errors:"):
                error = found.setdefault(name[7:], {"code": name[7:], "count": 0.0, "versions": []})
                error["count"] += count
                error["versions"] += [f"{model}/{version}"] if model else []
    return sorted(found.values(), key=lambda error: -error["count"])


def _batches(traffic: Traffic) -> list[dict[str, Any]]:
    """Return how many forward passes had a number of rows, by ranges `from` to `to`; `to` of the last one is None."""
    bounds, counts = BUCKETS["batch"], traffic.histograms.get("batch", [])
    if not any(counts):
        return []
    ranges = [(1, 1), *((int(low) + 1, int(high)) for low, high in pairwise(bounds)), (int(bounds[-1]) + 1, None)]
    used = [i for i, count in enumerate(counts) if count]
    return [
        {"from": low, "to": high, "passes": count}
        for (low, high), count in list(zip(ranges, counts, strict=True))[: used[-1] + 1]
    ]


def _series(by_minute: Mapping[float, Sample], begin: float, minutes: int, now: float) -> list[dict[str, Any]]:
    points = []
    for i in range(minutes):
        minute = begin + 60 * i
        traffic = _sum(by_minute.get(minute, {}))
        seconds = max(1.0, min(60.0, now - minute))
        times = traffic.histograms.get("total", [])
        points.append(
            {
                "time": minute,
                "requests_per_second": traffic.total("requests:") / seconds,
                "failed_per_second": _failed(traffic) / seconds,
                **{f"p{100 * share:.0f}_seconds": quantile(times, BUCKETS["total"], share) for share in _SHARES},
            }
        )
    return points


def requested_window(text: str | None) -> int:
    """Return the minutes that a query asks for, else the longest window. InputError if it is none of `WINDOWS`."""
    known = {str(minutes): minutes for minutes in WINDOWS}
    if text is not None and text not in known:
        problem = f"expected one of {', '.join(known)}, found {printable(text[:20])!r}"
        raise InputError([Fault("minutes", problem, f"send ?minutes={WINDOWS[-1]}, or leave it out")])
    return WINDOWS[-1] if text is None else known[text]
