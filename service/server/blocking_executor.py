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

LOAD_TIMEOUT_SECONDS = 30.0  # that a request waits at most
MAX_PENDING_REQUESTS = 256
MAX_PENDING_BYTES = 32 * 1024 * 1024  # of their bodies, and of what has come after them


class BlockingExecutor:
    def __init__(self, handle: Callable[[Connection, BufferedRequest], bool], wake_loop: Callable[[], None]) -> None:
        """`answer` writes to what a connection sends, and says whether nothing may follow; `wake` tells the loop."""
        self._handle, self._wake_loop = handle, wake_loop
        self._pending: dict[Connection, BufferedRequest] = {}  # changed by the loop alone
        self._queue: SimpleQueue[tuple[Connection, BufferedRequest]] = SimpleQueue()
        self._results: SimpleQueue[tuple[Connection, BufferedRequest, bytes, bool]] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self.deadline = math.inf  # when nobody may wait any more

    def submit(self, connection: Connection, request: BufferedRequest) -> str:
        """Takes a request; or says why not."""
        together = [(connection, request), *self._pending.items()]
        held = sum(len(each.content) + of.reader.buffered_bytes for of, each in together)
        if len(self._pending) >= MAX_PENDING_REQUESTS or held > MAX_PENDING_BYTES:
            return "too many wait for what is not"
        if self._thread is None or not self._thread.is_alive():  # one that crashed has said so, and is replaced
            self._thread = threading.Thread(target=self._run, name="blocking-executor", daemon=True)
            try:
                self._thread.start()
            except RuntimeError as e:  # the system allows no more of them
                log.error("nothing can be loaded aside: %s", e)
                return "nothing can be loaded now"
        self._pending[connection] = request
        self._queue.put((connection, request))
        return ""

    def cancel(self, connection: Connection) -> None:
        """The connection waits no longer, if it did. Its request takes no memory until the thread passes it over."""
        request = self._pending.pop(connection, None)
        if request is not None:
            request.content = b""

    def expired(self, now: float) -> Iterator[tuple[Connection, BufferedRequest]]:
        """Those that have waited for too long, and wait no longer."""
        for connection, request in list(self._pending.items()):
            if now > min(connection.received_at + LOAD_TIMEOUT_SECONDS, self.deadline):
                self.cancel(connection)
                request.abandoned = True
                yield connection, request

    def completed(self) -> Iterator[tuple[Connection, bytes, bool]]:
        """What has been answered since, and whether nothing may follow it."""
        while not self._results.empty():
            connection, request, response, close = self._results.get()
            if self._pending.get(connection) is request:
                self.cancel(connection)
                yield connection, response, close

    def _run(self) -> None:
        while True:
            connection, request = self._queue.get()
            if self._pending.get(connection) is request:
                own = copy.copy(connection)
                own.send_buffer = bytearray()
                close = self._handle(own, request)
                self._results.put((connection, request, bytes(own.send_buffer), close))
                self._wake_loop()
