"""The figures: the counts of all processes, added up and written in Prometheus's text format.

prometheus_client reads the same files, but parses every key of every file anew, 2.7 ms for each version of a model that
has ever answered; the worker's loop stands still meanwhile. Here a key is parsed once, when it is first seen, and a
scrape reads nothing but numbers.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from prometheus_client.mmap_dict import MmapedDict

from model_store.nn import Array

_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


@dataclass
class _FileState:
    """What is known of a file: where its numbers lie, and which ones they are."""

    inode: int
    used: int = 8
    locations: list[int] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)


@dataclass
class _Histogram:
    """A histogram: its buckets by their upper bounds, and the sum."""

    labels: str
    buckets: list[tuple[float, str, int]] = field(default_factory=list)
    total: int = -1


@dataclass
class _Family:
    """A metric, with the lines that tell it up to their numbers."""

    heading: str
    name: str
    lines: list[tuple[str, int]] = field(default_factory=list)
    spreads: dict[str, _Histogram] = field(default_factory=dict)


class ExpositionWriter:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[Path, _FileState] = {}
        self._series: dict[str, int] = {}  # by their keys
        self._families: dict[str, _Family] = {}
        self._version_series: dict[tuple[str, str], list[tuple[str, int]]] = {}  # what is of a version and nothing else

    def render(self) -> str:
        totals = self._totals()
        return "".join(line for name in sorted(self._families) for line in _lines(self._families[name], totals))

    def by_version(self) -> dict[tuple[str, str], dict[str, float]]:
        """By model and version what is split by nothing else but stages (`..._count:parse`), or by what is added up."""
        totals = self._totals()
        found: dict[tuple[str, str], dict[str, float]] = {}
        for version, numbers in self._version_series.items():
            counted = found[version] = {}
            for name, number in numbers:
                counted[name] = counted.get(name, 0.0) + totals[number]
        return found

    def _totals(self) -> list[float]:
        read: list[tuple[_FileState, Array]] = []
        found = sorted(self._directory.glob("*.db"))
        for path in found:
            data = path.read_bytes()
            known = self._files.get(path)
            if known is None or known.inode != path.stat().st_ino:
                known = self._files[path] = _FileState(path.stat().st_ino)
            (used,) = struct.unpack_from("=i", data)
            if used > known.used:
                self._read_new_keys(path, known)
            read.append((known, np.frombuffer(data, np.float64, used // 8)))
        for path in self._files.keys() - set(found):
            del self._files[path]
        totals = np.zeros(len(self._series))
        for known, values in read:
            locations = [
                location for location in known.locations if location < len(values)
            ]  # a newer cell has its turn next time
            totals[known.numbers[: len(locations)]] += values[locations]
        return totals.tolist()

    def _read_new_keys(self, path: Path, known: _FileState) -> None:
        """The cells that a file has got since it was last read."""
        kind = path.name.partition("_")[0]
        for key, _, _, location in MmapedDict.read_all_values_from_file(path):  # type: ignore[no-untyped-call]
            if location >= known.used:
                number = self._series.get(key)
                if number is None:
                    number = self._series[key] = len(self._series)
                    self._add_series(kind, key, number)
                known.locations.append(location // 8)
                known.numbers.append(number)
                known.used = location + 16

    def _add_series(self, kind: str, key: str, number: int) -> None:
        metric, name, labels, about = json.loads(key)
        told = self._families.get(metric)
        if told is None:
            head = f"{metric}_total" if kind == "counter" else metric
            text = about.replace("\\", r"\\").replace("\n", r"\n")
            told = self._families[metric] = _Family(f"# HELP {head} {text}\n# TYPE {head} {kind}\n", metric)
        if {"model", "version"} <= labels.keys() <= {"model", "version", "stage", "le", "code", "route"}:
            sample = f"{metric}_count" if "le" in labels else name
            sample += f":{labels['stage']}" if "stage" in labels else ""
            self._version_series.setdefault((labels["model"], labels["version"]), []).append((sample, number))
        line = f"{name}{_label_text(labels)} "
        bound = labels.pop("le", None)
        if kind != "histogram":
            told.lines.append((line, number))
            return
        spread = told.spreads.setdefault(_label_text(labels), _Histogram(_label_text(labels)))
        if bound is None:
            spread.total = number
        else:
            spread.buckets.append((float(bound), line, number))
            spread.buckets.sort()


def _label_text(labels: Mapping[str, str]) -> str:
    written = ",".join(f'{label}="{value.translate(_ESCAPES)}"' for label, value in sorted(labels.items()))
    return f"{{{written}}}" if written else ""


def _lines(metric: _Family, totals: list[float]) -> Iterator[str]:
    yield metric.heading
    for line, number in metric.lines:
        yield f"{line}{totals[number]!r}\n"
    for spread in metric.spreads.values():
        below = 0.0
        for _, line, number in spread.buckets:
            below += totals[number]
            yield f"{line}{below!r}\n"
        yield f"{metric.name}_count{spread.labels} {below!r}\n"
        if spread.total >= 0:
            yield f"{metric.name}_sum{spread.labels} {totals[spread.total]!r}\n"
