"""Slow clients: 64 attackers hold connections, and do not affect other clients.

A quarter send nothing, a quarter send a head and a quarter a body, a byte at a time; the others send requests and never
read a response. Attackers reconnect when they are disconnected. Meanwhile well-behaved clients are served.
"""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.stress.cases import PRICE, sized
from tests.stress.clients import Clients, ClientStats
from tests.stress.trial import Control, MemoryMonitor, TrialResult, running_service

ATTACKERS = 64
MAX_P99_MS = 50
HOLDERS = 5  # clients that together fill almost all of the input limit
HELD_BYTES = (32 << 20) // HOLDERS - (64 << 10)  # of a body that does not end

_WHOLE = sized("/models/price/predict", PRICE)
_HEAD, _BODY = _WHOLE[: -len(PRICE)], PRICE
_UNREAD = _WHOLE * 20_000  # its responses exceed the kernel's socket buffers
LARGE = sized("/models/price/predict", PRICE + b" " * (1 << 20))


class Attacker:
    """`kind` 0 is silent, 1 slow in its head, 2 slow in its body, 3 does not read."""

    def __init__(self, port: int, kind: int) -> None:
        self._port, self._kind = port, kind
        self._open()

    def _open(self) -> None:
        self._sock = socket.create_connection(("127.0.0.1", self._port), timeout=10)
        self._sock.setblocking(False)
        slowly = [b"", _HEAD[:-2] + b"X: " + b"x" * 4000, _BODY + b" " * 4000, _UNREAD][self._kind]
        if self._kind == 2:
            self._sock.sendall(_HEAD.replace(b"%d" % len(_BODY), b"%d" % (len(slowly) + 1)))
        self._left = memoryview(slowly)

    def continue_attack(self) -> None:
        """Send one byte more, or as much as the socket takes if this attacker does not read."""
        try:
            if self._kind < 3 and self._sock.recv(1000) == b"":
                raise ConnectionResetError
        except BlockingIOError:
            pass
        except OSError:
            self._sock.close()
            self._open()
        with contextlib.suppress(OSError):
            self._left = self._left[self._sock.send(self._left[: 1 if self._kind < 3 else None]) :]

    def close(self) -> None:
        self._sock.close()


@contextmanager
def attacking(port: int, count: int = ATTACKERS) -> Iterator[None]:
    attackers = [Attacker(port, number % 4) for number in range(count)]
    done = threading.Event()

    def continue_attack() -> None:
        while not done.wait(0.1):
            for attacker in attackers:
                attacker.continue_attack()

    thread = threading.Thread(target=continue_attack)
    thread.start()
    try:
        time.sleep(0.5)
        yield
    finally:
        done.set()
        thread.join()
        for attacker in attackers:
            attacker.close()


def trial(*, short: bool = False) -> TrialResult:
    """Attack for a minute, longer than the read timeout; 3 s in the short form."""
    result = TrialResult("slow and silent clients")
    with tempfile.TemporaryDirectory() as folder, running_service(Path(folder), SERVE_WORKERS="1") as server:
        with MemoryMonitor(server) as monitor, attacking(server.port), Clients(server.port, pause=0.002) as clients:
            time.sleep(3 if short else 60)
        stats = clients.stats
        dead_workers = monitor.dead_workers
    result.add_clients(stats)
    result.measurements["median"] = f"{stats.percentile(0.5):.2f} ms"
    result.check_bound("p99", stats.percentile(0.99), MAX_P99_MS, "ms")
    result.check_bound("memory above idle", monitor.growth, 100, "MiB")
    if dead_workers:
        result.record_loss(f"{dead_workers} workers died", dead_workers)
    large = run_large_bodies()
    result.tried += large.sent
    if not large.served:
        result.record_loss(f"large bodies while others held memory: {large.shed} shed", large.sent)
    return result


def run_large_bodies(without: str = "") -> ClientStats:
    """Send ten large bodies while attackers fill the input limit."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running_service(Path(folder), without=without, SERVE_WORKERS="1") as server,
    ):
        attackers = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(HOLDERS)]
        for attacker in attackers:
            attacker.sendall(sized("/models/price/predict", b" " * (HELD_BYTES - 1))[:-1])
        time.sleep(1.5)
        with Clients(server.port, count=1, request=LARGE, pause=0.1) as clients:
            while clients.sent < 10:
                time.sleep(0.05)
        for attacker in attackers:
            attacker.close()
        return clients.stats


def controls() -> Iterator[Control]:
    with (
        tempfile.TemporaryDirectory() as folder,
        running_service(Path(folder), SERVE_WORKERS="1", SERVE_WORKER="gthread", SERVE_DRAIN_SECONDS="1") as server,
        attacking(server.port),
    ):
        with socket.create_connection(("127.0.0.1", server.port), timeout=3) as good:
            good.sendall(_WHOLE)
            try:
                response = good.recv(100)
            except TimeoutError:
                response = b""
        yield Control(
            "without the event worker (SERVE_WORKER=gthread)", not response, f"received in 3 s: {response[:15]!r}"
        )
    stats = run_large_bodies(without="shedding of slow uploads")
    yield Control(
        "without shedding of slow uploads",
        not stats.served,
        f"{stats.shed} of {stats.sent} large bodies shed",
    )
