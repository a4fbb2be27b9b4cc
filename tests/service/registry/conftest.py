"""A master and its workers in one process, which do what a test says, with a clock that the test sets."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from model_store.registry.store import Store
from service.registry import switch_barrier as module
from service.registry.registry import ModelRegistry
from service.registry.switch_barrier import SwitchBarrier
from service.telemetry.metrics import Metrics
from service.validation.row_limits import RowLimits

SECOND = 10**9
LIMITS = RowLimits(
    max_instances=100, max_output_values=2**20, max_operations=2**35, max_text_characters=2**20, max_cells=2**20
)


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Service:
    """A master, and workers forked from it."""

    def __init__(self, store: Store, cache: Path, clock: Clock) -> None:
        self.store, self.cache, self.clock = store, cache, clock
        self.barrier = SwitchBarrier(shared=True, clock=lambda: int(clock.seconds * SECOND))
        self.metrics = Metrics()
        self.pid = 100
        self.master = self._registry(self.barrier)
        self.master.refresh()
        self.workers: list[ModelRegistry] = []

    def _registry(self, barrier: SwitchBarrier) -> ModelRegistry:
        return ModelRegistry(
            self.store,
            self.cache,
            self.metrics,
            row_limits=LIMITS,
            max_extra_versions=2,
            barrier=barrier,
            clock=self.clock,
        )

    def forked(self) -> ModelRegistry:
        worker = self._registry(copy.copy(self.barrier))
        worker._generations.snapshots = dict(self.master._generations.snapshots)
        return worker

    def start(self) -> ModelRegistry:
        """Start a worker."""
        self.pid += 1
        worker = self.forked()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module.os, "getpid", lambda pid=self.pid: pid)
            assert worker.join()
        self.workers.append(worker)
        return worker

    def served_versions(self, name: str = "price", ref: str | None = None) -> list[int]:
        return [worker.find(name, ref).number for worker in self.workers]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def service(store: Store, tmp_path: Path, clock: Clock) -> Service:
    """Two workers."""
    service = Service(store, tmp_path / "cache", clock)
    service.start()
    service.start()
    return service
