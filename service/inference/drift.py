"""Drift: how far the rows that are asked about have moved from those of training, column by column.

The population stability index of two distributions over the same bins is `Σ (q - p) ln(q / p)`, with p the share of
training's rows in a bin and q that of recent ones. 0 is no difference; beyond 0.1 a column has moved, beyond 0.25 far.

Bins come from the statistics in the artifact: up to each decile for numbers, with one more beyond the highest value of
training; each category; the means of arrays. A model without such statistics, or a column of it, is not watched.

Rows are looked at as the network meets them. Each worker takes up to `SAMPLE` rows a second, of `MOST_BYTES` in all,
and forgets old ones as new ones come, so that it knows about the last `MEMORY`; a scrape adds up what all workers know.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from prometheus_client.core import GaugeMetricFamily, Metric

from model_store.artifact.model import Model
from model_store.nn import Array
from model_store.schema.columns import ArrayColumn, CategoryColumn, NumberColumn
from model_store.schema.signature import InputColumn
from service.registry.loaded_version import LoadedVersion
from service.telemetry.mmap_counters import MmapCounters
from service.telemetry.request_record import clock

MAX_SAMPLE_ROWS = 256  # rows a second
MAX_SAMPLE_BYTES = 4 << 20  # of rows that are kept until they are looked at: large images are sampled less
WINDOW_ROWS = 10_000  # rows
MIN_ROWS = 200  # rows; fewer say nothing: of n equal rows, chance alone makes an index of about (bins - 1) / n
MAX_COLUMNS = 100
MAX_CATEGORIES = 20  # the most frequent ones; the others share a bin


@dataclass(frozen=True)
class ColumnBins:
    """Those of one column: where it lies among the network's inputs, and training's rows in each bin."""

    name: str
    start: int
    stop: int
    expected: Array
    edges: Array | None  # of numbers, scaled as the network meets them
    category_bins: Array | None  # of categories: the bin of each

    def count(self, inputs: Array) -> Array:
        """How many of the rows (n, features) fall into each bin."""
        rows = inputs[:, self.start : self.stop]
        if self.category_bins is not None:
            return np.bincount(self.category_bins, rows.sum(axis=0), len(self.expected))
        values = rows[:, 0] if rows.shape[1] == 1 else rows.mean(axis=1, dtype=np.float64)
        return np.bincount(np.searchsorted(self.edges, values), minlength=len(self.expected))  # type: ignore[arg-type]


class DriftWindow:
    """The recent rows of one version, in bins. The cells are this process's share of what all workers know."""

    def __init__(self, counts: MmapCounters, served: LoadedVersion) -> None:
        self.columns = list(column_bins(served.model))
        of = served.name, served.number
        self.keys = [[json.dumps([*of, bins.name, i]) for i in range(len(bins.expected))] for bins in self.columns]
        self._cells = cells = [counts.internal_gauge(key) for keys in self.keys for key in keys]
        self._recent_counts = np.zeros(len(cells))
        self._recent_rows = 0.0
        self._sample: list[Array] = []
        self._row_bytes = served.model.signature.width * served.model.network.dtype.itemsize
        self._sample_rows_left, self._next_flush = self._max_sample_rows(), 0.0
        self._lock = threading.Lock()

    def add(self, inputs: Array) -> None:
        if self._sample_rows_left > 0 and self.columns:
            kept = np.array(inputs[: self._sample_rows_left])
            self._sample_rows_left -= len(kept)
            self._sample.append(kept)
        if self._sample and clock() >= self._next_flush:
            self.flush()

    def flush(self) -> None:
        """Puts what was kept into the bins, and rests: a second, and a hundred times as long as it took."""
        with self._lock:
            begun = clock()
            kept, self._sample = self._sample, []
            if not kept:
                return
            inputs = np.concatenate(kept)
            found = np.concatenate([bins.count(inputs) for bins in self.columns])
            kept_on = min(self._recent_rows, max(0.0, WINDOW_ROWS - len(inputs)))  # of the rows known so far
            self._recent_counts = self._recent_counts * (kept_on / max(1.0, self._recent_rows)) + found
            self._recent_rows = kept_on + len(inputs)
            for cell, value in zip(self._cells, self._recent_counts.tolist(), strict=True):
                cell.set(value)
            self._sample_rows_left, self._next_flush = (
                self._max_sample_rows(),
                begun + max(1.0, 100 * (clock() - begun)),
            )

    def _max_sample_rows(self) -> int:
        return max(1, min(MAX_SAMPLE_ROWS, MAX_SAMPLE_BYTES // self._row_bytes))


class DriftMonitor:
    """The windows over all versions that answer; each bin of a column is a number that the workers share in."""

    def __init__(self, counts: MmapCounters) -> None:
        self._counts = counts
        self._windows: WeakKeyDictionary[LoadedVersion, DriftWindow] = WeakKeyDictionary()
        self._lock = threading.Lock()  # whoever goes through them, and whoever adds one: it may be the thread aside

    def add(self, served: LoadedVersion, inputs: Array) -> None:
        """Rows as the network meets them, (n, features)."""
        self.window(served).add(inputs)

    def window(self, served: LoadedVersion) -> DriftWindow:
        window = self._windows.get(served)
        if window is None:
            with self._lock:
                window = self._windows.get(served) or DriftWindow(self._counts, served)
                self._windows[served] = window
        return window

    def flush(self) -> None:
        """Puts the rows that this process has kept into their bins, for whoever adds them up."""
        with self._lock:
            windows = list(self._windows.values())
        for window in windows:
            window.flush()

    def metrics(self, served: Iterable[LoadedVersion], recent: Mapping[str, float]) -> Iterator[Metric]:
        """The indices of versions; `recent` is what all workers know, by the keys of the windows."""
        labels = ["model", "version"]
        indices = GaugeMetricFamily(
            "forward_pass_input_drift",
            "Population stability index of recent rows against those of training.",
            labels=[*labels, "column"],
        )
        rows = GaugeMetricFamily("forward_pass_input_drift_rows", "Recent rows that the index is of.", labels=labels)
        for each in sorted(served, key=lambda each: (each.name, each.number)):
            window, of = self.window(each), (each.name, str(each.number))
            total = 0.0
            for bins, keys in zip(window.columns, window.keys, strict=True):
                found = np.array([recent.get(key, 0.0) for key in keys])
                total = max(total, float(found.sum()))
                if found.sum() >= MIN_ROWS:
                    indices.add_metric([*of, bins.name], population_stability_index(bins.expected, found))
            if window.columns:
                rows.add_metric(of, round(total))
        yield indices
        yield rows


def population_stability_index(expected: Array, found: Array) -> float:
    """Of counts in the same bins. Half a row more in each keeps an empty one from making it infinite."""
    p, q = ((counts + 0.5) / (counts + 0.5).sum() for counts in (expected, found))
    return float(((q - p) * np.log(q / p)).sum())


def column_bins(model: Model) -> Iterator[ColumnBins]:
    """The columns that can be watched; statistics are read warily, since an artifact may say anything."""
    inputs, dtype = model.signature.inputs, model.network.dtype
    stops = accumulate(column.width for column in inputs)
    for column, stop in list(zip(inputs, stops, strict=True))[:MAX_COLUMNS]:
        start = stop - column.width
        found = _category_bins(column) if isinstance(column, CategoryColumn) else _number_bins(column, dtype)
        if found is not None:
            yield ColumnBins(column.name, start, stop, *found)


def _number_bins(column: InputColumn, dtype: Any) -> tuple[Array, Array, None] | None:
    statistics: Any = column.statistics.get("means") if isinstance(column, ArrayColumn) else column.statistics
    if not isinstance(statistics, Mapping) or not isinstance(column, NumberColumn | ArrayColumn):
        return None
    edges = np.array(sorted(set(_finite_numbers(statistics.get("deciles")))), np.float64)  # np.unique imports numpy.ma
    counts = _finite_numbers(statistics.get("counts"))
    if not len(edges) == len(counts) > 0 or min(counts) < 0 or not sum(counts):
        return None
    expected = np.array([*counts, 0], np.float64)
    if isinstance(column, NumberColumn) and column.fill is not None:  # which the network meets where a value is missing
        expected[np.searchsorted(edges, column.fill)] += _missing_count(statistics)
    with np.errstate(over="ignore"):
        return expected, ((edges - column.offset) / column.scale).astype(dtype), None


def _category_bins(column: CategoryColumn) -> tuple[Array, None, Array] | None:
    frequencies = column.statistics.get("frequencies")
    if not isinstance(frequencies, Mapping):
        return None
    counts = _finite_numbers([frequencies.get(category, 0) for category in column.categories])
    if not counts or min(counts) < 0 or not sum(counts):
        return None
    if column.fill in column.categories:
        counts[column.categories.index(column.fill)] += _missing_count(column.statistics)
    counts += [0] * (column.width - len(counts))  # of the unknown, which share a feature
    frequent = np.argsort([-count for count in counts], kind="stable")[:MAX_CATEGORIES]
    category_bins = np.full(len(counts), len(frequent))
    category_bins[frequent] = np.arange(len(frequent))
    return np.bincount(category_bins, counts, int(category_bins.max()) + 1), None, category_bins


def _missing_count(statistics: Mapping[str, Any]) -> float:
    return max(0, *_finite_numbers([statistics.get("missing")]), 0)


def _finite_numbers(found: Any) -> list[float]:
    """A list of finite numbers; an empty one for anything else."""
    if not isinstance(found, list) or not all(type(value) in (int, float) and abs(value) < 1e300 for value in found):
        return []
    return found
