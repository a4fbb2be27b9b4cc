"""The result of a trial, and the services that trials run on."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from model_store.registry.store import Store, open_store
from tests.service.conftest import image, penguins, price
from tests.service.server.server_process import Server
from tests.stress.clients import ClientStats

MAX_SHED_PERCENT = 0.1  # percent


@dataclass
class TrialResult:
    """Counts of what was tried and lost, measurements, and the bounds that were missed."""

    name: str
    tried: int = 0
    lost: int = 0
    measurements: dict[str, str] = field(default_factory=dict)
    losses: list[str] = field(default_factory=list)  # the first few
    missed_bounds: list[str] = field(default_factory=list)

    MAX_REPORTED_LOSSES = 20

    def record_loss(self, what: str, count: int = 1) -> None:
        self.lost += count
        if len(self.losses) < self.MAX_REPORTED_LOSSES:
            self.losses.append(what)

    def add_clients(self, stats: ClientStats, where: str = "") -> None:
        """Add the requests of well-behaved clients. Shed ones are not lost, but only a few may be shed."""
        self.tried += stats.sent
        if lost := stats.sent - stats.served - stats.shed:
            self.record_loss(f"{where}{dict(stats.statuses)} {stats.first_errors}, dropped {stats.dropped[:3]}", lost)
        if stats.shed:
            self.check_bound(f"{where}shed", 100 * stats.shed / stats.sent, MAX_SHED_PERCENT, "%")

    def check_bound(self, what: str, found: float, most: float, unit: str) -> None:
        """Record a measurement that must not exceed `most`."""
        self.measurements[what] = f"{found:.3g} {unit} of {most:g}"
        if not found <= most:
            self.missed_bounds.append(f"{what}: expected at most {most:g} {unit}, found {found:.3g} {unit}")


def publish_models(folder: Path) -> Store:
    """Publish a model of a table, one of images and one of numbers."""
    store = open_store(folder / "models")
    for name, model in {"penguins": penguins(), "image": image(), "price": price()}.items():
        store.publish(name, model)
    return store


@dataclass(frozen=True)
class Control:
    """The same attack with a defence removed. `failed`: it did damage; `observed`: which."""

    name: str
    failed: bool
    observed: str


@contextmanager
def running_service(folder: Path, store: Store | None = None, *, without: str = "", **environ: str) -> Iterator[Server]:
    """Run a service of two workers without an access log, `without` one of the defences of without.py."""
    program = ("-m", "tests.stress.without", without) if without else ("-m", "service")
    server = Server(store or publish_models(folder), folder, program, **{"SERVE_LOG_LEVEL": "warning", **environ})
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()


def child_pids(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def memory_mib(pid: int) -> float:
    """Return the PSS of a process and its children in MiB."""
    total = 0.0
    for one in (pid, *child_pids(pid)):
        try:
            rollup = Path(f"/proc/{one}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            continue
        if found := re.search(r"^Pss: +(\d+)", rollup, re.MULTILINE):
            total += int(found[1]) / 1024
    return total


class MemoryMonitor:
    """Watches a server: its peak of memory, and which workers died."""

    def __init__(self, server: Server) -> None:
        self._pid = server.process.pid
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.idle = self.peak = memory_mib(self._pid)
        self.retained = 0.0  # above idle at the end
        self._workers = child_pids(self._pid)

    def _watch(self) -> None:
        while not self._done.wait(0.25):
            self.peak = max(self.peak, memory_mib(self._pid))

    @property
    def growth(self) -> float:
        return self.peak - self.idle

    @property
    def dead_workers(self) -> int:
        return len(set(self._workers) - set(child_pids(self._pid)))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        self.retained = memory_mib(self._pid) - self.idle
