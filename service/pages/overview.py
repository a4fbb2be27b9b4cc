"""The page `/`: every model with its versions, headline metric, traffic, drift, and what was refused of it."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any, Protocol, TypeVar

from model_store.errors import Fault, ModelStoreError
from service.pages.headline import Headline, headline
from service.pages.traffic import by_model, failed_share, recent_sample
from service.registry.loaded_version import LoadedVersion
from service.registry.snapshot import ModelEntry, Snapshot
from service.telemetry.traffic_history import History, Traffic, add_samples

MAX_MODELS = 100  # that are described; the names of the others follow
MAX_POINTS = 30  # of a sparkline, the newest versions
_MAX_CACHED = 5000
_RETRY_SECONDS = 60.0  # after a version could not be read
_READ_SECONDS = 0.5  # of a request, for records: a bucket takes 20 ms for each, and a record of 100 kB as long
_WIDTH, _HEIGHT = 120.0, 32.0
_Value = TypeVar("_Value")


class ManifestSource(Protocol):
    """What the page needs of a store."""

    def manifest(self, name: str, number: int) -> tuple[Any, Mapping[str, Any]]: ...


class Headlines:
    """The headline metrics of versions, which never change: each manifest is read once in a process.

    One that could not be read, for example while the store is away, is asked for again a minute later.
    """

    def __init__(
        self, store: ManifestSource, may_wait: Callable[[], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`may_wait` raises if this thread must not read from the store."""
        self._store, self._may_wait, self._clock = store, may_wait, clock
        self._known: OrderedDict[tuple[str, int], Headline | None] = OrderedDict()
        self._retry_at: OrderedDict[tuple[str, int], float] = OrderedDict()  # of versions that could not be read

    def of_models(self, entries: Iterable[ModelEntry]) -> dict[tuple[str, int], Headline | None]:
        """Return those of the newest versions of models, without those that could not be read, or not in time."""
        found: dict[tuple[str, int], Headline | None] = {}
        now, deadline = self._clock(), 0.0
        for entry in entries:
            loaded = {served.number: served for served in entry.pinned_versions}
            for number in entry.versions[-MAX_POINTS:]:
                version = entry.name, number
                if version not in self._known and (number in loaded or self._retry_at.get(version, now) <= now):
                    self._may_wait()
                    deadline = deadline or self._clock() + _READ_SECONDS
                    if self._clock() < deadline:
                        self._read(version, loaded.get(number))
                if version in self._known:
                    found[version] = self._known[version]
        return found

    def _read(self, version: tuple[str, int], served: LoadedVersion | None) -> None:
        if served is not None:
            _keep(self._known, version, headline(served.model.training))
            return
        try:
            _, manifest = self._store.manifest(*version)
        except (ModelStoreError, OSError):  # the loader reports versions that should be served
            _keep(self._retry_at, version, self._clock() + _RETRY_SECONDS)
            return
        self._retry_at.pop(version, None)
        training = manifest.get("training")
        _keep(self._known, version, headline(training) if isinstance(training, Mapping) else None)


def _keep(values: OrderedDict[tuple[str, int], _Value], version: tuple[str, int], value: _Value) -> None:
    values[version] = value
    while len(values) > _MAX_CACHED:
        values.popitem(last=False)


def describe(
    snapshot: Snapshot, headlines: Headlines, unloaded: Iterable[str], traffic: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return what the page shows. `traffic`: see `model_traffic`; None if the client may not see it."""
    entries = list(snapshot.entries.values())
    shown, names = entries[:MAX_MODELS], set(unloaded)
    metrics = headlines.of_models(shown)
    return {
        "models": [
            _describe(entry, metrics, [p for p in snapshot.problems if _model_of(p) == entry.name])
            | {"unloaded": entry.name in names, "traffic": None if traffic is None else traffic.get(entry.name, {})}
            for entry in shown
        ],
        "more": [entry.name for entry in entries[MAX_MODELS:]],
        "problems": [problem for problem in snapshot.problems if _model_of(problem) not in snapshot.entries],
        "has_traffic": traffic is not None,
    }


def model_traffic(
    history: History, drift: Iterable[Mapping[str, Any]], names: Iterable[str], now: float
) -> dict[str, dict[str, Any]]:
    """Return of each model the requests a second now, the failed share of the last hour, and the columns that drift."""
    hour = by_model(add_samples(sample for _, sample in history.minutes))
    seconds, sample = recent_sample(history, now)
    recent = by_model(sample)
    drifting: dict[str, set[str]] = {}
    for each in drift:
        if each["index"] > each["limit"]:
            drifting.setdefault(each["model"], set()).add(each["column"])
    found = {}
    for name in names:
        total = hour.get(name, Traffic())
        found[name] = {
            "requests_per_second": recent[name].total("requests:") / seconds if name in recent and seconds else 0.0,
            "requests": total.total("requests:"),
            "failed_share": failed_share(total),
            "drifting": sorted(drifting.get(name, ())),
        }
    return found


def _model_of(problem: Fault) -> str:
    return problem.location.partition("/")[0]


def _describe(
    entry: ModelEntry, metrics: Mapping[tuple[str, int], Headline | None], problems: list[Fault]
) -> dict[str, Any]:
    served = entry.default
    now = metrics.get((entry.name, served.number)) if served else None
    values = [
        (number, found.value)
        for number in entry.versions[-MAX_POINTS:]
        if now and (found := metrics.get((entry.name, number))) and found.key == now.key
    ]
    return {
        "name": entry.name,
        "description": served.model.description if served else "",
        "version": served.number if served else None,
        "why": entry.why_default,
        "newest": entry.versions[-1],
        "count": len(entry.versions),
        "aliases": dict(entry.aliases),
        "headline": asdict(now) if now else None,
        "sparkline": sparkline(values, served.number if served else 0, now.title if now else ""),
        "problems": problems,
    }


def sparkline(values: list[tuple[int, float]], current: int, title: str) -> dict[str, Any] | None:
    """Return the points of a metric over versions, and that of the `current` one. None for fewer than two."""
    if len(values) < 2:
        return None
    low, high = (pick(value for _, value in values) for pick in (min, max))
    points = {
        number: (
            4 + (_WIDTH - 8) * i / (len(values) - 1),
            _HEIGHT - 4 - (_HEIGHT - 8) * ((value - low) / (high - low) if high > low else 0.5),
        )
        for i, (number, value) in enumerate(values)
    }
    return {
        "points": " ".join(f"{x:.1f},{y:.1f}" for x, y in points.values()),
        "current": points.get(current),
        "label": f"{title} of versions {values[0][0]} to {values[-1][0]}",
    }
