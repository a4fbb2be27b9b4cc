"""Counters in a directory of the test, and their sums by prometheus_client."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.multiprocess import MultiProcessCollector

from service.telemetry.mmap_counters import MmapCounters


def library_sums(counters: MmapCounters) -> dict[tuple[str, ...], float]:
    """The sums over all processes by prometheus_client's own collector, which reads the same files."""
    return {
        (sample.name, *map("=".join, sorted(sample.labels.items()))): sample.value
        for family in MultiProcessCollector(None, str(counters.directory)).collect()
        for sample in family.samples
    }


@pytest.fixture
def counters(tmp_path: Path) -> MmapCounters:
    return MmapCounters(tmp_path)
