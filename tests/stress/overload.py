"""Overload: three times a worker's capacity; it serves what it can in time and sheds the rest at once.

The load is open: requests are sent on a schedule, whether or not earlier ones have their responses, and latency counts
from the scheduled moment. The worker has one core, the schedule another.
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
from tests.stress.cases import PENGUIN, head, sized
from tests.stress.clients import Clients, ClientStats
from tests.stress.trial import Control, TrialResult, child_pids, running_service

CAPACITY_FACTOR = 3
MAX_P99_MS = 500
CONNECTIONS = 900
ROWS = 600  # at 200 rows, three times the capacity needs more connections than a worker accepts
REQUEST = sized("/models/penguins/predict", orjson.dumps({"instances": orjson.loads(PENGUIN)["instances"] * ROWS}))
HEALTH = head("/healthz", method=b"GET")


class Load:
    """An open load over kept connections. A request without a free connection waits, and its wait counts."""

    def __init__(self, port: int, rate: float, seconds: float, rng: random.Random) -> None:
        self._port = port
        self._times = deque[float]()
        moment = 0.0
        while moment < seconds:
            moment += rng.expovariate(rate)
            self._times.append(moment)
        self.sent = len(self._times)
        self.stats = ClientStats()
        self.without_retry = 0  # 503 responses without Retry-After
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
        self.stats.dropped += [(None, "no response in time")] * (len(self._asked) + len(self._times))
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
        self.stats.statuses[status] += 1
        self.without_retry += status == 503 and b"\r\nretry-after: " not in start.lower()
        if status == 200:
            self.stats.seconds.append(time.monotonic() - when)
        del self._asked[sock]
        self._free.append(sock)

    def _lost(self, sock: socket.socket) -> None:
        """Replace a connection that has ended; if it had a request, that is lost."""
        if self._asked.pop(sock, None) is not None:
            self.stats.dropped.append((None, "the connection was closed"))
        else:
            self._free.remove(sock)
        self._selector.unregister(sock)
        sock.close()
        self._free.append(self._connection())


def trial(*, short: bool = False) -> TrialResult:
    """Run it for 30 s; 5 in the short form."""
    result = TrialResult(f"overload, {CAPACITY_FACTOR} times capacity")
    load, health, capacity = run_overload(5 if short else 30)
    stats = load.stats
    result.tried = load.sent
    odd = {status: n for status, n in stats.statuses.items() if status not in {200, 503}}
    if odd or stats.dropped:
        result.record_loss(
            f"other responses: {odd}, dropped: {len(stats.dropped)}", sum(odd.values()) + len(stats.dropped)
        )
    if load.without_retry:
        result.record_loss(f"{load.without_retry} 503 responses without Retry-After", load.without_retry)
    if health.sent > health.served or not health.sent:
        result.record_loss(
            f"health: {dict(health.statuses)}, dropped: {len(health.dropped)}", health.sent - health.served
        )
    result.tried += health.sent
    result.measurements["capacity and load"] = f"{capacity:,.0f} and {CAPACITY_FACTOR * capacity:,.0f} requests/s"
    result.measurements["served and shed"] = f"{stats.statuses[200]:,} and {stats.statuses[503]:,}"
    result.measurements["median of served requests"] = f"{stats.percentile(0.5):.0f} ms"
    result.check_bound("p99 of served requests", stats.percentile(0.99), MAX_P99_MS, "ms")
    result.measurements["health checks"] = f"p99 {health.percentile(0.99):.0f} ms of {health.sent:,}"
    return result


def run_overload(seconds: float, without: str = "") -> tuple[Load, ClientStats, float]:
    """Return the load, the stats of health checks during it, and the measured capacity in requests/s."""
    cores = sorted(os.sched_getaffinity(0))
    with (
        tempfile.TemporaryDirectory() as folder,
        running_service(Path(folder), without=without, SERVE_WORKERS="1", SERVE_DRAIN_SECONDS="5") as server,
    ):
        (worker,) = child_pids(server.process.pid)
        os.sched_setaffinity(worker, cores[:1])
        os.sched_setaffinity(0, cores[-1:])
        try:
            capacity = measure_capacity(server)
            load = Load(server.port, CAPACITY_FACTOR * capacity, seconds, random.Random(0))
            with Clients(server.port, count=2, request=HEALTH, pause=0.05) as health:
                load.run()
        finally:
            os.sched_setaffinity(0, cores)
        return load, health.stats, capacity


def measure_capacity(server: Server, seconds: float = 2.0) -> float:
    with Clients(server.port, count=8, request=REQUEST) as clients:
        time.sleep(0.5)
        before, began = clients.sent, time.monotonic()
        time.sleep(seconds)
        return (clients.sent - before) / (time.monotonic() - began)


def controls() -> Iterator[Control]:
    load, _, _ = run_overload(5, without="queue time limit")
    late, turned = load.stats.percentile(0.99), load.stats.statuses[503]
    yield Control("without a queue time limit", not turned, f"{turned} shed, p99 of served requests {late:,.0f} ms")
    _, health, _ = run_overload(5, without="health check priority")
    turned = health.sent - health.served
    yield Control("without priority of health checks", turned > 0, f"{turned} of {health.sent} not served")
