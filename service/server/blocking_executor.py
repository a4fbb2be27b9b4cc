"""The blocking executor: a thread that handles requests which wait for a version to load, one at a time.

A version that no request has used lately is fetched, verified and checked before it serves, which takes seconds for a
large model. Only requests for that version wait for it. The thread handles such a request from the beginning, as any
WSGI server's would, and returns the response to the event loop, which alone touches connections.
"""

from __future__ import annotations

import copy
import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Iterator
from queue import SimpleQueue

from service.server.connection import Connection
from service.server.request_reader import BufferedRequest

log = logging.getLogger("service.server.blocking_executor")

LOAD_TIMEOUT_SECONDS = 30.0  # that a request waits at most
MAX_PENDING_REQUESTS = 256


class BlockingExecutor:
    def __init__(
        self,
        handle: Callable[[Connection, BufferedRequest], bool],
        wake_loop: Callable[[], None],
        *,
        max_pending_bytes: int,
    ) -> None:
        """`handle` appends to what a connection sends and returns True if the connection must then close.

        `max_pending_bytes` bounds the bodies of the waiting requests and the input that arrived after them. It must
        exceed the largest body: otherwise such a request would get 503 however often it is sent.
        """
        self._handle, self._wake_loop, self.max_pending_bytes = handle, wake_loop, max_pending_bytes
        self._pending: dict[Connection, BufferedRequest] = {}  # changed by the event loop's thread only
        self._queue: SimpleQueue[tuple[Connection, BufferedRequest]] = SimpleQueue()
        self._results: SimpleQueue[tuple[Connection, BufferedRequest, Connection, bool]] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self.deadline = math.inf  # after which no request may wait

    def submit(self, connection: Connection, request: BufferedRequest) -> str:
        """Accept a request; otherwise return the reason."""
        waiting = [(connection, request), *self._pending.items()]
        size = sum(len(each.content) + of.reader.buffered_bytes for of, each in waiting)
        if len(self._pending) >= MAX_PENDING_REQUESTS or size > self.max_pending_bytes:
            return "too many requests wait for versions to load"
        if self._thread is None or not self._thread.is_alive():  # one that crashed is in the log, and is replaced
            self._thread = threading.Thread(target=self._run, name="blocking-executor", daemon=True)
            try:
                self._thread.start()
            except RuntimeError as e:  # the system allows no further thread
                log.error("cannot load versions: %s", e)
                return "no thread can be started to load it"
        self._pending[connection] = request
        self._queue.put((connection, request))
        return ""

    def cancel(self, connection: Connection) -> None:
        """Forget the connection's request, if it has one. Its body is freed before the thread skips it."""
        request = self._pending.pop(connection, None)
        if request is not None:
            request.content = b""

    def expired(self, now: float) -> Iterator[tuple[Connection, BufferedRequest]]:
        """Cancel and yield the requests that have waited for too long."""
        for connection, request in list(self._pending.items()):
            if now > min(connection.arrived_at + LOAD_TIMEOUT_SECONDS, self.deadline):
                self.cancel(connection)
                request.abandoned = True
                yield connection, request

    def has_completed(self) -> bool:
        """True if `completed` may yield a response."""
        return not self._results.empty()

    def completed(self) -> Iterator[tuple[Connection, bytearray, bool]]:
        """Yield the responses that are ready, and whether their connections must then close.

        The pieces of a large one are those of the connection already.
        """
        while not self._results.empty():
            connection, request, answered, close = self._results.get()
            if self._pending.get(connection) is request:
                self.cancel(connection)
                connection.send_pieces = answered.send_pieces
                yield connection, answered.send_buffer, close

    def _run(self) -> None:
        while True:
            connection, request = self._queue.get()
            if self._pending.get(connection) is request:
                copied = copy.copy(connection)
                copied.send_buffer, copied.send_pieces = bytearray(), deque()
                close = self._handle(copied, request)
                self._results.put((connection, request, copied, close))
                del copied  # its response may be large
                self._wake_loop()
