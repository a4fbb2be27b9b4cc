"""The aside: a thread that answers the requests that have to wait for a load, one at a time, while the loop serves on.

A version that nobody has asked for lately is fetched, verified and checked before it answers, which takes seconds for a
large model. Who asks for one waits; who asks for what is in memory does not. The thread answers such a request from its
beginning, as any WSGI server's would, and hands the bytes back to the loop, which alone touches connections.
"""

from __future__ import annotations

import copy
import logging
import math
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue

from service.server.connection import Connection
from service.server.request_reader import BufferedRequest

log = logging.getLogger("service.server.blocking_executor")

LOAD_SECONDS = 30.0  # that a request waits at most
MAX_REQUESTS = 256
MAX_BYTES = 32 * 1024 * 1024  # of their bodies, and of what has come after them


class BlockingExecutor:
    def __init__(self, answer: Callable[[Connection, BufferedRequest], bool], wake: Callable[[], None]) -> None:
        """`answer` writes to what a connection sends, and says whether nothing may follow; `wake` tells the loop."""
        self._answer, self._wake = answer, wake
        self._waiting: dict[Connection, BufferedRequest] = {}  # changed by the loop alone
        self._asked: SimpleQueue[tuple[Connection, BufferedRequest]] = SimpleQueue()
        self._answered: SimpleQueue[tuple[Connection, BufferedRequest, bytes, bool]] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self.end = math.inf  # when nobody may wait any more

    def put(self, connection: Connection, arrived: BufferedRequest) -> str:
        """Takes a request; or says why not."""
        together = [(connection, arrived), *self._waiting.items()]
        held = sum(len(each.data) + of.incoming.held for of, each in together)
        if len(self._waiting) >= MAX_REQUESTS or held > MAX_BYTES:
            return "too many wait for what is not"
        if self._thread is None or not self._thread.is_alive():  # one that crashed has said so, and is replaced
            self._thread = threading.Thread(target=self._run, name="aside", daemon=True)
            try:
                self._thread.start()
            except RuntimeError as e:  # the system allows no more of them
                log.error("nothing can be loaded aside: %s", e)
                return "nothing can be loaded now"
        self._waiting[connection] = arrived
        self._asked.put((connection, arrived))
        return ""

    def drop(self, connection: Connection) -> None:
        """The connection waits no longer, if it did. Its request takes no memory until the thread passes it over."""
        arrived = self._waiting.pop(connection, None)
        if arrived is not None:
            arrived.data = b""

    def overdue(self, now: float) -> Iterator[tuple[Connection, BufferedRequest]]:
        """Those that have waited for too long, and wait no longer."""
        for connection, arrived in list(self._waiting.items()):
            if now > min(connection.since + LOAD_SECONDS, self.end):
                self.drop(connection)
                arrived.given_up = True
                yield connection, arrived

    def answers(self) -> Iterator[tuple[Connection, bytes, bool]]:
        """What has been answered since, and whether nothing may follow it."""
        while not self._answered.empty():
            connection, arrived, answer, last = self._answered.get()
            if self._waiting.get(connection) is arrived:
                self.drop(connection)
                yield connection, answer, last

    def _run(self) -> None:
        while True:
            connection, arrived = self._asked.get()
            if self._waiting.get(connection) is arrived:
                own = copy.copy(connection)
                own.outgoing = bytearray()
                last = self._answer(own, arrived)
                self._answered.put((connection, arrived, bytes(own.outgoing), last))
                self._wake()
