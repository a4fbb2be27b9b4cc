"""Callers: clients that mean well, and account for every request that they send."""

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
    """A request was sent, and no whole answer came."""


class Caller:
    """One connection that is kept, and made anew where it ends."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._sock: socket.socket | None = None
        self._buffer = b""
        self.address: object = None  # of its end of the connection

    def connect(self) -> None:
        if self._sock is None:
            self._buffer = b""
            self._sock = socket.create_connection(("127.0.0.1", self._port), timeout=TIMEOUT_SECONDS)
            self.address = self._sock.getsockname()[1]

    def ask(self, request: bytes = REQUEST) -> tuple[int, bytes]:
        """Status and body; DroppedError where they do not come whole, OSError where there is nobody to ask."""
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
class Account:
    """What became of the requests of all callers together."""

    statuses: Counter[int] = field(default_factory=Counter)
    dropped: list[tuple[object, str]] = field(default_factory=list)  # the caller's port, and how
    seconds: list[float] = field(default_factory=list)  # that each answer took
    away: int = 0  # nobody listened
    turned_away: int = 0  # 503 for want of time, to be asked again: counted beside all others
    told: list[str] = field(default_factory=list)  # by the first answers that were no 200

    @property
    def sent(self) -> int:
        return self.statuses.total() + len(self.dropped) + self.turned_away

    @property
    def served(self) -> int:
        return self.statuses[200]

    def percentile(self, share: float) -> float:
        """Milliseconds within which that share was answered; infinite where nobody was."""
        ordered = sorted(self.seconds)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("inf")


class Callers:
    """Several callers who ask without a pause, every second of them over a new connection each time."""

    def __init__(self, port: int, count: int = 4, *, request: bytes = REQUEST, pause: float = 0.0) -> None:
        self._port, self._request, self._pause = port, request, pause
        self._done = threading.Event()
        self._accounts = [Account() for _ in range(count)]
        self._threads = [
            threading.Thread(target=self._call, args=(account, number % 2 == 1), daemon=True)
            for number, account in enumerate(self._accounts)
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
    def account(self) -> Account:
        whole = Account()
        for one in self._accounts:
            whole.statuses.update(one.statuses)
            whole.dropped += one.dropped
            whole.seconds += one.seconds
            whole.away += one.away
            whole.turned_away += one.turned_away
            whole.told += one.told
        return whole

    @property
    def sent(self) -> int:
        return sum(account.sent for account in self._accounts)

    def _call(self, account: Account, anew: bool) -> None:
        caller = Caller(self._port)
        while not self._done.wait(self._pause):
            try:
                caller.connect()
            except OSError:
                account.away += 1
                time.sleep(0.01)
                continue
            began = time.monotonic()
            try:
                status, body = caller.ask(self._request)
            except DroppedError as e:
                account.dropped.append((caller.address, str(e)))
                continue
            account.seconds.append(time.monotonic() - began)
            if status == 503 and b'"overloaded"' in body:
                account.turned_away += 1
                continue
            account.statuses[status] += 1
            if status != 200 and len(account.told) < 3:
                account.told.append(f"{status} after {1000 * account.seconds[-1]:.0f} ms: {body[:300]!r}")
            if anew:
                caller.close()
        caller.close()
