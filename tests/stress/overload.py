"""Overload: three times what a worker can answer, and it answers what it can in time and turns away the rest at once.

The load is open: requests come when a schedule says so, whether or not those before have been answered, and a
latency counts from that moment. The worker has a core of its own, the schedule another.
"""

from __future__ import annotations

import os
import random
import selectors
import socket
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import orjson

from tests.service.server.server_process import Server
from tests.stress.callers import Account, Callers
from tests.stress.cases import PENGUIN, head, sized
from tests.stress.trial import Control, Outcome, children, serving

TIMES = 3
MOST_MILLISECONDS = 500
CONNECTIONS = 900
ROWS = 600  # of 200 a worker answers so many that three times as many need more connections than it takes
REQUEST = sized("/models/penguins/predict", orjson.dumps({"instances": orjson.loads(PENGUIN)["instances"] * ROWS}))
HEALTH = head("/healthz", method=b"GET")


class Load:
    """An open load over connections that are kept; who finds none free waits for one, and the wait counts."""

    def __init__(self, port: int, rate: float, seconds: float, rng: random.Random) -> None:
        self._port = port
        self._times = deque[float]()
        moment = 0.0
        while moment < seconds:
            moment += rng.expovariate(rate)
            self._times.append(moment)
        self.sent = len(self._times)
        self.account = Account()
        self.without_retry = 0  # 503 that do not say when to come again
        self._selector = selectors.DefaultSelector()
        self._free: list[socket.socket] = []
        self._asked: dict[socket.socket, tuple[float, bytearray]] = {}
        self._left: dict[socket.socket, memoryview] = {}

    def run(self) -> None:
        self._free = [self._connection() for _ in range(CONNECTIONS)]
        start = time.monotonic()
        end = start + self._times[-1] + 10
        while (self._times or self._asked) and time.monotonic() < end:
            now = time.monotonic() - start
            while self._times and self._times[0] <= now and self._free:
                self._ask(self._free.pop(), start + self._times.popleft())
            for key, mask in self._selector.select(0.001):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                if mask & selectors.EVENT_WRITE:
                    self._send(sock)
                if mask & selectors.EVENT_READ:
                    self._read(sock)
        self.account.dropped += [(None, "no answer in time")] * (len(self._asked) + len(self._times))
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()

    def _connection(self) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self._port), timeout=10)
        sock.setblocking(False)
        self._selector.register(sock, selectors.EVENT_READ)
        return sock

    def _ask(self, sock: socket.socket, when: float) -> None:
        self._asked[sock] = when, bytearray()
        self._left[sock] = memoryview(REQUEST)
        self._send(sock)

    def _send(self, sock: socket.socket) -> None:
        left = self._left[sock]
        try:
            left = left[sock.send(left) :]
        except BlockingIOError:
            pass
        except OSError:
            self._lost(sock)
            return
        self._left[sock] = left
        self._selector.modify(sock, selectors.EVENT_READ | (selectors.EVENT_WRITE if left else 0))

    def _read(self, sock: socket.socket) -> None:
        try:
            piece = sock.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if not piece or sock not in self._asked:
            self._lost(sock)
            return
        when, got = self._asked[sock]
        got += piece
        start, found, body = got.partition(b"\r\n\r\n")
        if not found or len(body) < int(start.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]):
            return
        status = int(start[9:12])
        self.account.statuses[status] += 1
        self.without_retry += status == 503 and b"\r\nretry-after: " not in start.lower()
        if status == 200:
            self.account.seconds.append(time.monotonic() - when)
        del self._asked[sock]
        self._free.append(sock)

    def _lost(self, sock: socket.socket) -> None:
        """A connection that ended: an idle one is made anew, and with another a request is lost."""
        if self._asked.pop(sock, None) is not None:
            self.account.dropped.append((None, "the connection was closed"))
        else:
            self._free.remove(sock)
        self._selector.unregister(sock)
        sock.close()
        self._free.append(self._connection())


def trial(*, short: bool = False) -> Outcome:
    """30 s of it; 5 in the short form."""
    outcome = Outcome(f"overload, {TIMES} times capacity")
    load, health, capacity = overloaded(5 if short else 30)
    account = load.account
    outcome.tried = load.sent
    odd = {status: n for status, n in account.statuses.items() if status not in {200, 503}}
    if odd or account.dropped:
        outcome.lose(
            f"answered otherwise: {odd}, dropped: {len(account.dropped)}", sum(odd.values()) + len(account.dropped)
        )
    if load.without_retry:
        outcome.lose(f"{load.without_retry} of the 503 without Retry-After", load.without_retry)
    if health.sent > health.served or not health.sent:
        outcome.lose(f"health: {dict(health.statuses)}, dropped: {len(health.dropped)}", health.sent - health.served)
    outcome.tried += health.sent
    outcome.figures["capacity, and what was asked of it"] = f"{capacity:,.0f} and {TIMES * capacity:,.0f} requests/s"
    outcome.figures["answered, and turned away"] = f"{account.statuses[200]:,} and {account.statuses[503]:,}"
    outcome.figures["median of those answered"] = f"{account.percentile(0.5):.0f} ms"
    outcome.bound("p99 of those answered", account.percentile(0.99), MOST_MILLISECONDS, "ms")
    outcome.figures["health, of so many"] = f"p99 {health.percentile(0.99):.0f} ms of {health.sent:,}"
    return outcome


def overloaded(seconds: float, without: str = "") -> tuple[Load, Account, float]:
    """The load, health checks meanwhile, and the capacity in requests/s that it is a multiple of."""
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), without=without, SERVE_WORKERS="1") as server:
        (worker,) = children(server.process.pid)
        os.sched_setaffinity(worker, cores[:1])
        os.sched_setaffinity(0, cores[-1:])
        try:
            capacity = measured(server)
            load = Load(server.port, TIMES * capacity, seconds, random.Random(0))
            with Callers(server.port, count=2, request=HEALTH, pause=0.05) as health:
                load.run()
        finally:
            os.sched_setaffinity(0, cores)
        return load, health.account, capacity


def measured(server: Server, seconds: float = 2.0) -> float:
    with Callers(server.port, count=8, request=REQUEST) as callers:
        time.sleep(0.5)
        before, began = callers.sent, time.monotonic()
        time.sleep(seconds)
        return (callers.sent - before) / (time.monotonic() - began)


def controls() -> Iterator[Control]:
    load, _, _ = overloaded(5, without="patience")
    late, turned = load.account.percentile(0.99), load.account.statuses[503]
    yield Control("without patience", not turned, f"{turned} turned away, p99 of those answered {late:,.0f} ms")
    _, health, _ = overloaded(5, without="vital requests")
    turned = health.sent - health.served
    yield Control("without letting health checks pass the queue", turned > 0, f"{turned} of {health.sent} not answered")
