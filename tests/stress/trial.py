"""A trial's outcome, and the services that trials are made on."""

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
from tests.stress.callers import Account

MOST_TURNED_AWAY = 0.1  # percent


@dataclass
class Outcome:
    """`tried` and `lost` count what a trial is about; `figures` are told beside them; `missed` are bounds not kept."""

    name: str
    tried: int = 0
    lost: int = 0
    figures: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)  # what was lost, the first few
    missed: list[str] = field(default_factory=list)

    FEW = 20

    def lose(self, what: str, count: int = 1) -> None:
        self.lost += count
        if len(self.faults) < self.FEW:
            self.faults.append(what)

    def count(self, account: Account, where: str = "") -> None:
        """Takes in what became of callers who mean well. Who was turned away is not lost, but few may be."""
        self.tried += account.sent
        if lost := account.sent - account.served - account.turned_away:
            self.lose(f"{where}{dict(account.statuses)} {account.told}, dropped {account.dropped[:3]}", lost)
        if account.turned_away:
            self.bound(f"{where}turned away", 100 * account.turned_away / account.sent, MOST_TURNED_AWAY, "%")

    def bound(self, what: str, found: float, most: float, unit: str) -> None:
        """A figure that is to stay under a bound: told, and missed where it does not."""
        self.figures[what] = f"{found:.3g} {unit} of {most:g}"
        if not found <= most:
            self.missed.append(f"{what}: expected at most {most:g} {unit}, found {found:.3g} {unit}")


def models(folder: Path) -> Store:
    """A store of a table, an image and numbers."""
    store = open_store(folder / "models")
    for name, model in {"penguins": penguins(), "image": image(), "price": price()}.items():
        store.publish(name, model)
    return store


@dataclass(frozen=True)
class Control:
    """The same harm with a defence taken out. `hurt`: it was seen to; `seen`: how."""

    what: str
    hurt: bool
    seen: str


@contextmanager
def serving(folder: Path, store: Store | None = None, *, without: str = "", **environ: str) -> Iterator[Server]:
    """Two workers, which write no line a request; `without` one of the defences of without.py."""
    program = ("-m", "tests.stress.without", without) if without else ("-m", "service")
    server = Server(store or models(folder), folder, program, **{"SERVE_LOG_LEVEL": "warning", **environ})
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def megabytes(pid: int) -> float:
    """MiB of PSS of a process and those that it forked."""
    total = 0.0
    for one in (pid, *children(pid)):
        try:
            rollup = Path(f"/proc/{one}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):  # ended meanwhile
            continue
        if found := re.search(r"^Pss: +(\d+)", rollup, re.MULTILINE):
            total += int(found[1]) / 1024
    return total


class Watched:
    """What becomes of a server meanwhile: the most memory it takes, and whether its workers are the same at the end."""

    def __init__(self, server: Server) -> None:
        self._pid = server.process.pid
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.idle = self.peak = megabytes(self._pid)
        self.kept = 0.0  # above idle, at the end
        self._workers = children(self._pid)

    def _watch(self) -> None:
        while not self._done.wait(0.25):
            self.peak = max(self.peak, megabytes(self._pid))

    @property
    def growth(self) -> float:
        return self.peak - self.idle

    @property
    def deaths(self) -> int:
        return len(set(self._workers) - set(children(self._pid)))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        self.kept = megabytes(self._pid) - self.idle
