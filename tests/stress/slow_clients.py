"""Slow clients: 64 attackers who hold connections, and cost the others nothing.

A quarter say nothing, a quarter send a head and a quarter a body, a byte at a time; the others ask again and again,
and never read an answer. Those who are cut off come back. Meanwhile callers who mean well are served.
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

from tests.stress.callers import Account, Callers
from tests.stress.cases import PRICE, sized
from tests.stress.trial import Control, Outcome, Watched, serving

ATTACKERS = 64
MOST_MILLISECONDS = 50
GREEDY = 5  # of them hold next to all that a worker takes
HELD = (32 << 20) // GREEDY - (64 << 10)  # bytes of a body that does not end

_WHOLE = sized("/models/price/predict", PRICE)
_HEAD, _BODY = _WHOLE[: -len(PRICE)], PRICE
_UNREAD = _WHOLE * 20_000  # whose answers are more than the kernel keeps for anybody
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

    def go_on(self) -> None:
        """A byte more; as much as is taken, of those who do not read."""
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
def attacked(port: int, count: int = ATTACKERS) -> Iterator[None]:
    attackers = [Attacker(port, number % 4) for number in range(count)]
    done = threading.Event()

    def go_on() -> None:
        while not done.wait(0.1):
            for attacker in attackers:
                attacker.go_on()

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        time.sleep(0.5)
        yield
    finally:
        done.set()
        thread.join()
        for attacker in attackers:
            attacker.close()


def trial(*, short: bool = False) -> Outcome:
    """A minute, in which those who are slow are cut off and come back; 3 s in the short form."""
    outcome = Outcome("slow and silent clients")
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), SERVE_WORKERS="1") as server:
        with Watched(server) as watched, attacked(server.port), Callers(server.port, pause=0.002) as callers:
            time.sleep(3 if short else 60)
        account = callers.account
        deaths = watched.deaths
    outcome.count(account)
    outcome.figures["median"] = f"{account.percentile(0.5):.2f} ms"
    outcome.bound("p99", account.percentile(0.99), MOST_MILLISECONDS, "ms")
    outcome.bound("memory above idle", watched.growth, 100, "MiB")
    if deaths:
        outcome.lose(f"{deaths} workers died", deaths)
    large = greedy()
    outcome.tried += large.sent
    if not large.served:
        outcome.lose(f"large bodies, while others held memory: {large.turned_away} turned away", large.sent)
    return outcome


def greedy(without: str = "") -> Account:
    """Ten large bodies, asked about while attackers hold as much memory as a worker gives all."""
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), without=without, SERVE_WORKERS="1") as server:
        attackers = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(GREEDY)]
        for attacker in attackers:
            attacker.sendall(sized("/models/price/predict", b" " * (HELD - 1))[:-1])
        time.sleep(1.5)
        with Callers(server.port, count=1, request=LARGE, pause=0.1) as callers:
            while callers.sent < 10:
                time.sleep(0.05)
        for attacker in attackers:
            attacker.close()
        return callers.account


def controls() -> Iterator[Control]:
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder), SERVE_WORKERS="1", SERVE_WORKER="gthread", SERVE_DRAIN_SECONDS="1") as server,
        attacked(server.port),
    ):
        with socket.create_connection(("127.0.0.1", server.port), timeout=3) as good:
            good.sendall(_WHOLE)
            try:
                answer = good.recv(100)
            except TimeoutError:
                answer = b""
        yield Control("without the event worker (SERVE_WORKER=gthread)", not answer, f"in 3 s came {answer[:15]!r}")
    account = greedy(without="making room")
    yield Control(
        "without making room for others",
        not account.served,
        f"{account.turned_away} of {account.sent} large bodies turned away",
    )
