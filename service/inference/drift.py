"""Drift of the inputs: how far each column of recent requests differs from the training data.

The population stability index (PSI) of two distributions over the same bins is `Σ (q - p) ln(q / p)`, with p the
fraction of training rows in a bin and q that of recent rows. 0 means no difference, above 0.1 a shift, above 0.25 a
large one.

Chance alone raises it: for n recent and m training rows of the same distribution, `PSI / (1/n + 1/m)` has about the
chi-squared distribution with k = bins - 1 degrees of freedom (Yurdakul and Naranjo 2020, "Statistical properties of the
population stability index"). So the mean `k (1/n + 1/m)` is subtracted, and the limit that chance exceeds with a
probability of `FALSE_ALARM` is reported too. Drift is an index above the limit.

The bins come from statistics in the artifact: one up to each decile of a numeric column and one above its maximum; one
per category; for arrays, deciles of the mean. A column without such statistics is not monitored.

Rows are counted as encoded for the network. Each worker samples up to `MAX_SAMPLE_ROWS` rows a second, at most
`MAX_SAMPLE_BYTES`, and forgets old rows as new ones come, so that its window is about the last `WINDOW_ROWS`. A scrape
sums the windows of all workers. Only the default and aliased versions have one, which /metrics shows; otherwise
clients could fill the memory by asking for one old version after the other.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from itertools import accumulate
from weakref import ReferenceType, WeakKeyDictionary, ref

import numpy as np
from prometheus_client.core import GaugeMetricFamily, Metric

from model_store.artifact.model import Model
from model_store.nn import Array
from service.registry.loaded_version import LoadedVersion
from service.telemetry.mmap_counters import MmapCounters
from service.telemetry.request_record import clock

MAX_SAMPLE_ROWS = 256  # per second
MAX_SAMPLE_BYTES = 4 << 20  # of rows that wait to be counted: fewer rows of large images
WINDOW_ROWS = 10_000
MIN_ROWS = 200  # for an index
FALSE_ALARM = 1e-9  # of one look at one column: below 1 % a day for 50 columns whose windows are new every 40 s
MAX_COLUMNS = 100


@dataclass(frozen=True)
class ColumnBins:
    """The bins of one column: its range among the network's inputs, and the training rows in each bin."""

    name: str
    start: int
    stop: int
    expected: Array
    edges: Array | None  # upper edges of numbers, scaled as the network's inputs
    feature_bins: Array | None  # the bin of each category

    def count(self, inputs: Array) -> Array:
        """Return how many of the rows (n, features) fall into each bin."""
        rows = inputs[:, self.start : self.stop]
        if self.feature_bins is not None:
            if rows.shape[1] < len(self.feature_bins):  # codes of categories
                return np.bincount(self.feature_bins[rows[:, 0].astype(np.int64)], minlength=len(self.expected))
            return np.bincount(self.feature_bins, rows.sum(axis=0), len(self.expected))
        values = rows[:, 0] if rows.shape[1] == 1 else rows.mean(axis=1, dtype=np.float64)
        return np.bincount(np.searchsorted(self.edges, values), minlength=len(self.expected))  # type: ignore[arg-type]


class DriftWindow:
    """The recent rows of one version, counted in bins, in this process. `keys` name the bins in `internal_gauges`."""

    def __init__(self, counters: MmapCounters, served: LoadedVersion) -> None:
        self.columns = list(column_bins(served.model))
        version = _short_key(served)
        self.keys = [
            [f"{version}:{column}:{i}" for i in range(len(bins.expected))] for column, bins in enumerate(self.columns)
        ]
        self._cells = cells = [counters.internal_gauge(key) for keys in self.keys for key in keys]
        self._recent_counts = np.zeros(len(cells))
        self._recent_rows = 0.0
        self._sample: list[Array] = []
        self._row_bytes = served.model.signature.width * served.model.network.dtype.itemsize
        self._sample_rows_left, self._next_flush = self._max_sample_rows(), 0.0
        self._lock = threading.Lock()

    def add(self, inputs: Array) -> None:
        """Sample the rows, and count the sample if that is due."""
        if self._sample_rows_left > 0 and self.columns:
            rows = np.array(inputs[: self._sample_rows_left])
            self._sample_rows_left -= len(rows)
            self._sample.append(rows)
        if self._sample and clock() >= self._next_flush:
            self.flush()

    def flush(self) -> None:
        """Count the sample in the bins. The next flush is after 1 s, or 100 times as long as this one took."""
        with self._lock:
            started = clock()
            sample, self._sample = self._sample, []
            if not sample:
                return
            inputs = np.concatenate(sample)
            counts = np.concatenate([bins.count(inputs) for bins in self.columns])
            remaining = min(self._recent_rows, max(0.0, WINDOW_ROWS - len(inputs)))  # of the rows counted before
            self._recent_counts = self._recent_counts * (remaining / max(1.0, self._recent_rows)) + counts
            self._recent_rows = remaining + len(inputs)
            for cell, value in zip(self._cells, self._recent_counts.tolist(), strict=True):
                cell.set(value)
            self._sample_rows_left = self._max_sample_rows()
            self._next_flush = started + max(1.0, 100 * (clock() - started))

    def _max_sample_rows(self) -> int:
        return max(1, min(MAX_SAMPLE_ROWS, MAX_SAMPLE_BYTES // self._row_bytes))


def _short_key(served: LoadedVersion) -> str:
    """Return 16 hexadecimal digits that stand for a version in every worker, however long its names are."""
    return blake2b(f"{served.name}/{served.number}/{served.digest}".encode(), digest_size=8).hexdigest()


class DriftMonitor:
    """The windows of the versions for which `is_monitored` is true, summed over all workers by the counters."""

    def __init__(self, counters: MmapCounters, is_monitored: Callable[[LoadedVersion], bool]) -> None:
        self._counters, self._is_monitored = counters, is_monitored
        self._windows: WeakKeyDictionary[LoadedVersion, DriftWindow] = WeakKeyDictionary()
        self._keys: list[tuple[ReferenceType[LoadedVersion], set[str]]] = []  # of windows whose cells exist
        self._lock = threading.Lock()  # several threads add and read windows

    def add(self, served: LoadedVersion, inputs: Array) -> None:
        """Add encoded rows (n, features) if the version is monitored, or has a window still."""
        window = self._windows.get(served)
        if window is not None:
            window.add(inputs)
        elif self._is_monitored(served):
            self.window(served).add(inputs)

    def window(self, served: LoadedVersion) -> DriftWindow:
        window = self._windows.get(served)
        if window is None:
            with self._lock:
                window = self._windows.get(served)
                if window is None:
                    self._release()
                    window = self._windows[served] = DriftWindow(self._counters, served)
                    self._keys.append((ref(served), {key for keys in window.keys for key in keys}))
        return window

    def _release(self) -> None:
        """Free the windows of versions that are no longer monitored, and their cells."""
        kept, released = [], set[str]()
        for version, keys in self._keys:
            served = version()
            if served is not None and self._is_monitored(served):
                kept.append((version, keys))
            else:
                released |= keys
                if served is not None:
                    self._windows.pop(served, None)
        self._keys = kept
        released.difference_update(*(keys for _, keys in kept))
        if released:
            self._counters.drop_internal_gauges(released)

    def flush(self) -> None:
        """Count the rows that this process has sampled, before a scrape."""
        with self._lock:
            self._release()
            windows = list(self._windows.values())
        for window in windows:
            window.flush()

    def indices(
        self, served: Iterable[LoadedVersion], recent: Mapping[str, float]
    ) -> Iterator[tuple[LoadedVersion, str, float, float]]:
        """Yield version, column, index and limit of each column with enough rows. `recent`: as for `metrics`."""
        for each in served:
            window = self.window(each)
            for bins, keys in zip(window.columns, window.keys, strict=True):
                found = np.array([recent.get(key, 0.0) for key in keys])
                if found.sum() >= MIN_ROWS:
                    yield each, bins.name, *drift_index(bins.expected, found)

    def metrics(self, served: Iterable[LoadedVersion], recent: Mapping[str, float]) -> Iterator[Metric]:
        """Yield the indices of versions. `recent` has the counts of all workers by the keys of the windows."""
        labels = ["model", "version"]
        indices = GaugeMetricFamily(
            "forward_pass_input_drift",
            "Population stability index of recent rows against training rows, without what chance adds on average.",
            labels=[*labels, "column"],
        )
        limits = GaugeMetricFamily(
            "forward_pass_input_drift_limit",
            "Highest index that chance explains; an index above it is drift.",
            labels=[*labels, "column"],
        )
        rows = GaugeMetricFamily(
            "forward_pass_input_drift_rows", "Number of recent rows that the index is computed from.", labels=labels
        )
        ordered = sorted(served, key=lambda each: (each.name, each.number))
        for each, column, index, limit in self.indices(ordered, recent):
            version = each.name, str(each.number), column
            indices.add_metric(version, index)
            limits.add_metric(version, limit)
        for each in ordered:
            found = [sum(recent.get(key, 0.0) for key in keys) for keys in self.window(each).keys]
            if found:
                rows.add_metric((each.name, str(each.number)), round(max(found)))
        yield indices
        yield limits
        yield rows


def population_stability_index(expected: Array, found: Array) -> float:
    """Return the index of two counts over the same bins. Half a row is added to each, so that no bin is empty."""
    p, q = ((counts + 0.5) / (counts + 0.5).sum() for counts in (expected, found))
    return float(((q - p) * np.log(q / p)).sum())


def drift_index(expected: Array, found: Array) -> tuple[float, float]:
    """Return the index without the mean that chance has, at least 0, and the limit that chance rarely exceeds."""
    freedom, noise = len(expected) - 1, 1 / expected.sum() + 1 / found.sum()
    index = population_stability_index(expected, found) - freedom * noise
    return float(max(0.0, index)), float((false_alarm_quantile(freedom) - freedom) * noise)


def chi_squared_tail(x: float, freedom: int) -> float:
    """Return the probability that chi-squared exceeds `x`, by its finite sum (Abramowitz and Stegun, 26.4.4 and .5)."""
    half, odd = x / 2, freedom % 2
    total = math.erfc(math.sqrt(half)) if odd else 0.0
    term = math.exp(-half) * (math.sqrt(half / math.pi) * 2 if odd else 1.0)
    for i in range(freedom // 2):
        total += term
        term *= half / (i + 1 + odd / 2)
    return total


@cache
def false_alarm_quantile(freedom: int) -> float:
    """Return what chi-squared exceeds with the probability `FALSE_ALARM`, by bisection."""
    low, high = 0.0, 100.0 + 10 * freedom
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if chi_squared_tail(middle, freedom) > FALSE_ALARM else (low, middle)
    return low


def column_bins(model: Model) -> Iterator[ColumnBins]:
    """Yield the bins of the columns that have valid statistics; artifacts are untrusted."""
    inputs, dtype = model.signature.inputs, model.network.dtype
    stops = accumulate(column.width for column in inputs)
    for column, stop in list(zip(inputs, stops, strict=True))[:MAX_COLUMNS]:
        start = stop - column.width
        found = column.bins(dtype)
        if found is not None:
            is_first = found.feature_bins is None and not column.is_whole_row  # of a number's features
            yield ColumnBins(column.name, start, start + 1 if is_first else stop, *found)
