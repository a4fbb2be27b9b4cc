"""The text of /metrics."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from service.telemetry import metrics as module
from service.telemetry.metrics import Metrics


def scrapes(monkeypatch: pytest.MonkeyPatch, cost: float) -> tuple[list[float], int]:
    """Return at which of 60 seconds the metrics were collected, and how many of the scrapes differ.

    There are four scrapes a second, and collecting takes `cost` seconds of processor time.
    """
    clock: Any = type("Clock", (), {"now": 1000.0, "thread": count(step=cost)})
    monkeypatch.setattr(module.time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(module.time, "thread_time", clock.thread.__next__)
    found = Metrics()
    collected: list[float] = []
    found.register_collector(lambda _: collected.append(clock.now) or iter(()))
    texts = set()
    for quarter in range(240):
        clock.now = 1000.0 + quarter / 4
        found.key_requests.labels("k", "200").inc()
        texts.add(found.exposition())
    return collected, len(texts)


def test_costly_scrapes_take_a_share_of_a_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scrape of a thousand models took 0.09 s: twelve a second filled a worker."""
    collected, texts = scrapes(monkeypatch, cost=0.5)
    assert len(collected) == texts == 60 / 5


def test_cheap_scrapes_are_always_current(monkeypatch: pytest.MonkeyPatch) -> None:
    collected, texts = scrapes(monkeypatch, cost=0.01)
    assert len(collected) == texts == 240
