"""Well-behaved clients that account for every request they send."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tests.stress.cases import PRICE, sized

REQUEST = sized("/models/price/predict", PRICE)
TIMEOUT_SECONDS = 10


class DroppedError(Exception):
    """A request was sent, and no complete response came."""


class Client:
    """A client with one connection, which it opens again when it ends."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._sock: socket.socket | None = None
        self._buffer = b""
        self.address: object = None  # the port of its end of the connection

    def connect(self) -> None:
        if self._sock is None:
            self._buffer = b""
            self._sock = socket.create_connection(("127.0.0.1", self._port), timeout=TIMEOUT_SECONDS)
            self.address = self._sock.getsockname()[1]

    def send(self, request: bytes = REQUEST) -> tuple[int, bytes]:
        """Return status and body; DroppedError if the response is incomplete, OSError if no server listens."""
        self.connect()
        assert self._sock is not None
        try:
            self._sock.sendall(request)
            head, _, self._buffer = self._read(lambda got: b"\r\n\r\n" in got).partition(b"\r\n\r\n")
            size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            got = self._read(lambda got: len(got) >= size)
        except (OSError, EOFError) as e:
            self.close()
            raise DroppedError(f"{type(e).__name__}: {e}") from e
        body, self._buffer = got[:size], got[size:]
        if b"\r\nconnection: close" in head.lower():
            self.close()
        return int(head[9:12]), body

    def _read(self, enough: object) -> bytes:
        assert callable(enough)
        assert self._sock is not None
        while not enough(self._buffer):
            piece = self._sock.recv(1 << 16)
            if not piece:
                raise EOFError("the connection was closed")
            self._buffer += piece
        return self._buffer

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None


@dataclass
class ClientStats:
    """The requests of one or several clients, by result."""

    statuses: Counter[int] = field(default_factory=Counter)
    dropped: list[tuple[object, str]] = field(default_factory=list)  # the client's port, and how
    seconds: list[float] = field(default_factory=list)  # from each request to its response
    refused: int = 0  # connections, because no server listened
    shed: int = 0  # with 503 for overload; not in `statuses`
    first_errors: list[str] = field(default_factory=list)  # responses other than 200

    @property
    def sent(self) -> int:
        return self.statuses.total() + len(self.dropped) + self.shed

    @property
    def served(self) -> int:
        return self.statuses[200]

    def percentile(self, share: float) -> float:
        """Return the latency percentile in milliseconds; infinite if no request was served."""
        ordered = sorted(self.seconds)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("inf")


class Clients:
    """Clients that send one request after another; every second client uses a new connection each time."""

    def __init__(self, port: int, count: int = 4, *, request: bytes = REQUEST, pause: float = 0.0) -> None:
        self._port, self._request, self._pause = port, request, pause
        self._done = threading.Event()
        self._stats = [ClientStats() for _ in range(count)]
        self._threads = [
            threading.Thread(target=self._call, args=(stats, number % 2 == 1), daemon=True)
            for number, stats in enumerate(self._stats)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    @property
    def stats(self) -> ClientStats:
        whole = ClientStats()
        for one in self._stats:
            whole.statuses.update(one.statuses)
            whole.dropped += one.dropped
            whole.seconds += one.seconds
            whole.refused += one.refused
            whole.shed += one.shed
            whole.first_errors += one.first_errors
        return whole

    @property
    def sent(self) -> int:
        return sum(stats.sent for stats in self._stats)

    def _call(self, stats: ClientStats, reconnect: bool) -> None:
        client = Client(self._port)
        while not self._done.wait(self._pause):
            try:
                client.connect()
            except OSError:
                stats.refused += 1
                time.sleep(0.01)
                continue
            began = time.monotonic()
            try:
                status, body = client.send(self._request)
            except DroppedError as e:
                stats.dropped.append((client.address, str(e)))
                continue
            stats.seconds.append(time.monotonic() - began)
            if status == 503 and b'"overloaded"' in body:
                stats.shed += 1
                continue
            stats.statuses[status] += 1
            if status != 200 and len(stats.first_errors) < 3:
                stats.first_errors.append(f"{status} after {1000 * stats.seconds[-1]:.0f} ms: {body[:300]!r}")
            if reconnect:
                client.close()
        client.close()
