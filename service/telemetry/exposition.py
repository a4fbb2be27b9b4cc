"""The counts of all processes, added up and written in Prometheus's text format.

prometheus_client parses every key of every file at every scrape; here a key is parsed once, when it first appears, and
a scrape reads only numbers. (Figures: see `mmap_counters`.)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from model_store.nn import Array
from service.telemetry.cell_file import HEADER_BYTES, read_keys, used_bytes

_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_VERSION_LABELS = {"model", "version"}


@dataclass
class _FileState:
    """What is known of a file: the index of each of its cells, and the number of the series that the cell counts."""

    inode: int
    used: int = HEADER_BYTES
    cells: list[int] = field(default_factory=list)
    series: list[int] = field(default_factory=list)


@dataclass
class _Histogram:
    """One histogram: (upper bound, line, series) of each bucket in ascending order, and the series of the sum."""

    labels: str
    buckets: list[tuple[float, str, int]] = field(default_factory=list)
    sum: int = -1


@dataclass
class _Family:
    """One metric: its heading and its lines, each up to the number."""

    heading: str
    name: str
    lines: list[tuple[str, int]] = field(default_factory=list)
    histograms: dict[str, _Histogram] = field(default_factory=dict)


class ExpositionWriter:
    """Reads the files of a directory and remembers what their keys mean. A series has the same number in every file."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[Path, _FileState] = {}
        self._series: dict[str, int] = {}  # number by key
        self._families: dict[str, _Family] = {}
        self._version_series: dict[tuple[str, str], list[tuple[str, int]]] = {}

    def render(self) -> str:
        totals = self._totals()
        return "".join(line for name in sorted(self._families) for line in _lines(self._families[name], totals))

    def series_totals(self) -> tuple[list[str], list[float]]:
        """Return the key and the sum of each series; new ones are at the end."""
        totals = self._totals()
        return list(self._series), totals

    def totals_by_model_version(self) -> dict[tuple[str, str], dict[str, float]]:
        """Return sums by (model, version) and name; each stage has a name of its own (`..._count:parse`)."""
        totals = self._totals()
        sums: dict[tuple[str, str], dict[str, float]] = {}
        for version, series in self._version_series.items():
            by_name = sums[version] = {}
            for name, number in series:
                by_name[name] = by_name.get(name, 0.0) + totals[number]
        return sums

    def _totals(self) -> list[float]:
        """Return the sum of each series over all files."""
        read: list[tuple[_FileState, Array]] = []
        paths = sorted(self._directory.glob("*.db"))
        for path in paths:
            data = path.read_bytes()
            state = self._files.get(path)
            if state is None or state.inode != path.stat().st_ino:
                state = self._files[path] = _FileState(path.stat().st_ino)
            if used_bytes(data) > state.used:
                self._read_new_keys(path.name.partition("_")[0], data, state)
            read.append((state, np.frombuffer(data, np.float64, state.used // 8)))
        for path in self._files.keys() - set(paths):
            del self._files[path]
        totals = np.zeros(len(self._series))
        for state, values in read:
            totals[state.series] += values[state.cells]
        return totals.tolist()

    def _read_new_keys(self, kind: str, data: bytes, state: _FileState) -> None:
        for key, index in read_keys(data, state.used):
            number = self._series.get(key)
            if number is None:
                number = self._series[key] = len(self._series)
                self._add_series(kind, key, number)
            state.cells.append(index)
            state.series.append(number)
        state.used = used_bytes(data)

    def _add_series(self, kind: str, key: str, number: int) -> None:
        metric, name, labels, description = json.loads(key)
        family = self._families.get(metric)
        if family is None:
            head = f"{metric}_total" if kind == "counter" else metric
            text = description.replace("\\", r"\\").replace("\n", r"\n")
            family = self._families[metric] = _Family(f"# HELP {head} {text}\n# TYPE {head} {kind}\n", metric)
        if _VERSION_LABELS <= labels.keys() <= _VERSION_LABELS | {"stage", "le", "code", "route"}:
            total = f"{metric}_count" if "le" in labels else name
            total += f":{labels['stage']}" if "stage" in labels else ""
            self._version_series.setdefault((labels["model"], labels["version"]), []).append((total, number))
        line = f"{name}{_label_text(labels)} "
        bound = labels.pop("le", None)
        if kind != "histogram":
            family.lines.append((line, number))
            return
        text = _label_text(labels)
        histogram = family.histograms.setdefault(text, _Histogram(text))
        if bound is None:
            histogram.sum = number
        else:
            histogram.buckets.append((float(bound), line, number))
            histogram.buckets.sort()


def _label_text(labels: Mapping[str, str]) -> str:
    pairs = ",".join(f'{label}="{value.translate(_ESCAPES)}"' for label, value in sorted(labels.items()))
    return f"{{{pairs}}}" if pairs else ""


def _lines(family: _Family, totals: list[float]) -> Iterator[str]:
    yield family.heading
    for line, number in family.lines:
        yield f"{line}{totals[number]!r}\n"
    for histogram in family.histograms.values():
        count = 0.0
        for _, line, number in histogram.buckets:
            count += totals[number]
            yield f"{line}{count!r}\n"
        yield f"{family.name}_count{histogram.labels} {count!r}\n"
        if histogram.sum >= 0:
            yield f"{family.name}_sum{histogram.labels} {totals[histogram.sum]!r}\n"
