"""The event loop: reads requests from connections, sends their responses, and closes them.

Complete requests go into `queue`, large ones into `large_queue`, health checks into `priority_queue`, and scrapes of
the metrics, which take longer, into `scrape_queue`. A request reaches them only once it is complete
(request_reader.py), so a client that is slow, silent or gone costs a little memory and no time. A request that does
not arrive within `READ_TIMEOUT_SECONDS` gets 408. `AdmissionController` decides which requests get 503 and which
connections are closed over a limit of connections or memory (admission.py).
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from service.http.cross_origin import Headers
from service.server.acceptor import Acceptor
from service.server.admission import MAX_CONNECTIONS, AdmissionController
from service.server.connection import READ_TIMEOUT_SECONDS, Connection
from service.server.error_responses import HTTP_FIX, TRY_AGAIN, ErrorResponder
from service.server.gunicorn_compat import ParseError, describe_parse_error, parse_error_status
from service.server.poller import READ, WRITE, Poller
from service.server.request_reader import HeadCache, HeadTooLargeError, NotHttpError, RequestReader
from service.telemetry.request_record import UNLOGGED_ROUTES

LINGER_SECONDS = 2.0  # for a client to read a response that was sent before all of its request had arrived
READ_BYTES = 64 * 1024  # read at once of any connection
LARGE_READ_BYTES = 512 * 1024  # read per turn of large bodies: what is not read takes none of our memory
_RETRY_SOON = (("Retry-After", "1"),)
METRICS_PATH = "/metrics"
PRIORITY_PATHS = UNLOGGED_ROUTES - {METRICS_PATH}


class EventLoop:
    def __init__(
        self,
        listeners: Sequence[socket.socket],
        cfg: Any,
        respond_with_error: ErrorResponder,
        log: logging.Logger,
        *,
        max_body_bytes: int,
        max_input_bytes: int,
        health_route: str,
        on_close: Callable[[Connection], None],
    ) -> None:
        """Watch `listeners`. `cfg` are gunicorn's settings; `on_close` runs for each connection that is closed."""
        self.poller = Poller()
        self.admission = AdmissionController(max_input_bytes)
        self.connections = self.admission.connections
        self.queue: deque[Connection] = deque()
        self.large_queue: deque[Connection] = deque()
        self.priority_queue: deque[Connection] = deque()
        self.scrape_queue: deque[Connection] = deque()
        # While `Connection.readable_since` is set, a connection is in exactly one of these two.
        self.readable_connections: deque[Connection] = deque()
        self.chunked_connections: deque[Connection] = deque()
        self.draining = False
        self._respond_with_error, self._log = respond_with_error, log
        self._max_body_bytes, self._health_route, self._on_close = max_body_bytes, health_route, on_close
        self._keepalive_seconds = cfg.keepalive  # gunicorn takes half a microsecond to look it up
        self._head_cache = HeadCache(cfg)
        self._idle_end = 0.0  # of connections without a request, while draining
        self._wake_pipe = os.pipe()
        self.acceptor = Acceptor(
            listeners, self.poller, self.admission, cfg, log, add=self._add_connection, close=self.close
        )
        for end in self._wake_pipe:
            os.set_blocking(end, False)
        self.poller.watch(self._wake_pipe[0], READ, self._wake_pipe)

    def poll(self, timeout: float) -> None:
        """Handle what has happened to the connections; wait up to `timeout` seconds if there is nothing to do."""
        waiting = self.queue or self.large_queue or self.priority_queue or self.scrape_queue
        busy = waiting or self.readable_connections or self.chunked_connections
        events = self.poller.poll(0 if busy else self.acceptor.poll_timeout(timeout))
        now, connections_wait = time.monotonic(), False
        for watched, mask in events:
            if isinstance(watched, Connection):
                self.contain_errors(watched, self._on_connection_ready, watched, mask, now)
            elif watched is self._wake_pipe:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_pipe[0], 4096)
            else:
                connections_wait = True
                self.acceptor.on_readable(watched, now, busy=bool(self.queue or self.large_queue))
        self.acceptor.on_poll(connections_wait, now)
        if self.readable_connections:
            self._read_large_bodies()
        if self.chunked_connections:  # decode some chunks of one connection per turn
            connection = self.chunked_connections.popleft()
            connection.readable_since = 0.0
            if connection in self.connections:
                # Use the current time; the original timestamp would keep the read deadline from expiring.
                self.contain_errors(connection, self._parse_next_request, connection, time.monotonic())

    @property
    def has_queued_requests(self) -> bool:
        return bool(self.queue or self.large_queue or self.priority_queue or self.scrape_queue)

    def contain_errors(self, connection: Connection, action: Callable[..., Any], *arguments: Any) -> Any:
        """Call `action`; if it raises, log the error and close this connection alone. None then."""
        try:
            return action(*arguments)
        except Exception:  # noqa: BLE001 - a fault of ours must not take the connections of all others with it
            self._log.exception("closed a connection of %s after an internal error", connection.client_ip)
            if connection in self.connections:
                self.close(connection)
            return None

    def wake(self) -> None:
        """Let `poll` return, from any thread."""
        with contextlib.suppress(BlockingIOError):  # a full pipe wakes it as well
            os.write(self._wake_pipe[1], b".")

    def wake_on_signals(self) -> None:
        """Let `poll` return when a signal arrives; only in the main thread."""
        signal.set_wakeup_fd(self._wake_pipe[1], warn_on_full_buffer=False)

    def stop_accepting(self) -> None:
        """Accept the backlog and then no more."""
        self.draining = True
        self._idle_end = time.monotonic() + LINGER_SECONDS
        self.acceptor.stop()

    def send_response(self, connection: Connection, response: bytes | bytearray, *, close: bool = False) -> None:
        """Send the response to the connection's pending request, after what its send buffer holds already."""
        connection.pending_request = None
        connection.close_after_send = close
        if close:
            connection.reader.discard()
        connection.last_sent_at = now = time.monotonic()
        connection.deadline = now + READ_TIMEOUT_SECONDS
        if response and not connection.send_buffer and not connection.send_pieces:
            sent = self._send_bytes(connection, response)  # mostly all of it, which then needs no buffer
            if sent is None:
                return
            response = response[sent:]
        connection.send_buffer += response
        if connection.send_buffer:
            self._send(connection)
        else:
            if connection.input_bytes:
                self.admission.update(connection)
            self._end_response(connection, now)

    def send_error(
        self,
        connection: Connection,
        status: str,
        code: str,
        problem: str,
        fix: str,
        *,
        close: bool = True,
        headers: Headers = (),
    ) -> None:
        response = self._respond_with_error(connection, status, code, problem, fix, close=close, headers=headers)
        self.send_response(connection, response, close=close)

    def send_overloaded(self, connection: Connection, *, close: bool = True) -> None:
        """Shed the connection's request with 503 and Retry-After."""
        status, problem, headers = "503 Service Unavailable", "more requests than can be answered in time", _RETRY_SOON
        self.send_error(connection, status, "overloaded", problem, TRY_AGAIN, close=close, headers=headers)

    def expire_connections(self, now: float) -> None:
        """Close connections that are past their deadline; 408 if a request was on its way."""
        if self.admission.restore_connection_limit(now):
            self._log.warning("connection limit restored to %d", MAX_CONNECTIONS)
        if self.draining:
            for connection in self.connections:
                if connection.is_idle:
                    connection.deadline = min(connection.deadline, self._idle_end)
        # Bytes that arrived in time, and that we have not read yet, are not the client's delay.
        late = [c for c in self.connections if c.deadline < (c.readable_since or now) and c.pending_request is None]
        for connection in late:
            arriving = connection.reader.head is not None or connection.reader.buffer
            if arriving and not connection.send_buffer and not connection.lingering and not connection.close_after_send:
                problem = f"the request did not arrive within {READ_TIMEOUT_SECONDS:.0f} seconds"
                fix = "send it again, faster or in smaller parts"
                self.send_error(connection, "408 Request Timeout", "request_timeout", problem, fix)
            else:
                self.close(connection)

    def close_slow_readers(self) -> None:
        """Close connections that do not read their responses, while all responses together exceed their limit."""
        for connection in self.admission.slow_readers():
            self.close(connection)

    def close(self, connection: Connection) -> None:
        self._watch(connection, 0)
        self.admission.remove(connection)
        self._on_close(connection)
        connection.reader.discard()  # another thread may hold the connection for a while
        connection.sock.close()

    def _on_connection_ready(self, connection: Connection, mask: int, now: float) -> None:
        if mask != READ and connection in self.connections:
            self._send(connection)
        if mask != WRITE and not connection.readable_since and connection in self.connections:
            received = self._read_connection(connection, now, READ_BYTES)
            if received == READ_BYTES and not connection.readable_since:
                connection.readable_since = now
                self.readable_connections.append(connection)

    def _add_connection(self, sock: socket.socket, peer: Any, local_address: Any) -> None:
        connection = Connection(sock, peer, local_address, RequestReader(self._head_cache, peer, self._max_body_bytes))
        self.connections.add(connection)
        self._watch(connection, READ)

    def _read_large_bodies(self) -> None:
        """Read on in large requests, each to its end before the next."""
        read = 0
        while self.readable_connections and read < LARGE_READ_BYTES:
            connection = self.readable_connections.popleft()
            since, connection.readable_since = connection.readable_since, 0.0
            if connection in self.connections:
                arguments = (connection, since, LARGE_READ_BYTES)
                received = self.contain_errors(connection, self._read_connection, *arguments) or 0
                read += received
                if received == LARGE_READ_BYTES and not connection.readable_since:
                    connection.readable_since = since
                    self.readable_connections.appendleft(connection)

    def _read_connection(self, connection: Connection, since: float, max_bytes: int) -> int:
        """Read up to `max_bytes`, which could be read since `since`; return their number."""
        if connection.pending_request is not None or connection.send_buffer:
            # The client sends on before it has its response: the bytes can wait in the socket.
            self._watch(connection, connection.watched_events & ~READ)
            return 0
        try:
            data = connection.sock.recv(max_bytes)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            self.close(connection)
            return 0
        if connection.lingering:
            if not data:
                self.close(connection)
            return 0  # discarded input does not count as a large request
        reader = connection.reader
        if not reader.buffer and reader.head is None:
            if not data:
                self.close(connection)
                return 0
            connection.deadline = since + READ_TIMEOUT_SECONDS
        reader.feed(data)
        self._parse_next_request(connection, since)
        return len(data)

    def _parse_next_request(self, connection: Connection, since: float) -> None:
        """Queue the connection's next request if it is complete."""
        reader = connection.reader
        try:
            request = reader.next_request()
        except (HeadTooLargeError, NotHttpError, ParseError) as e:
            found = describe_parse_error(e) if isinstance(e, ParseError) else str(e)
            self._log.warning("rejected a request from %s: %s", connection.client_ip, found)
            status = (
                "431 Request Header Fields Too Large" if isinstance(e, HeadTooLargeError) else parse_error_status(e)
            )
            problem = f"the request is not well-formed HTTP: {found}"
            self.send_error(connection, status, "bad_request", problem, HTTP_FIX)
            return
        if request is not None:
            connection.pending_request, connection.arrived_at = request, since
        self.admission.update(connection)
        if self.admission.input_over_limit and self._shed_large_uploads(connection):
            return
        if request is not None:
            self._queue_of(connection, request.head.path).append(connection)
        elif reader.has_more:
            if not connection.readable_since:  # else it is in `readable_connections`
                connection.readable_since = since
                self.chunked_connections.append(connection)
        elif reader.at_end:
            self.close(connection)
        elif reader.take_continue_expectation():
            connection.send_buffer += b"HTTP/1.1 100 Continue\r\n\r\n"
            self._send(connection)

    def _queue_of(self, connection: Connection, path: str) -> deque[Connection]:
        if self.admission.is_large(connection):
            return self.large_queue
        if path in PRIORITY_PATHS or path == self._health_route:
            return self.priority_queue
        return self.scrape_queue if path == METRICS_PATH else self.queue

    def _shed_large_uploads(self, newest: Connection) -> bool:
        """Shed large requests while input is over its limit; True if `newest`, which is in no queue yet, is shed."""
        shed_newest = False
        for connection in self.admission.uploads_to_shed():
            waiting = connection.pending_request
            if connection is newest:
                shed_newest = True
            elif waiting is not None:
                self.large_queue.remove(connection)
            # Close if the client has sent more: that request would be shed within this call, and so on.
            close = waiting is None or bool(connection.reader.buffer) or waiting.closes_connection
            self.send_overloaded(connection, close=close)
        return shed_newest

    def _send_bytes(self, connection: Connection, data: bytes | bytearray) -> int | None:
        """Send what the socket takes; return how many bytes, None if the connection is closed."""
        try:
            return connection.sock.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            self.close(connection)
            return None

    def _send(self, connection: Connection) -> None:
        """Send on, from the buffer and the pieces."""
        if connection.send_buffer:
            sent = self._send_bytes(connection, connection.send_buffer)
            if sent is None:
                return
            del connection.send_buffer[:sent]
            if connection.send_pieces and not connection.send_buffer:
                connection.send_buffer += connection.send_pieces.popleft()
            self.admission.update(connection)
            if connection.send_buffer:
                if sent:
                    connection.last_sent_at = time.monotonic()
                self._watch(connection, WRITE)
                return
        self._end_response(connection, time.monotonic())

    def _end_response(self, connection: Connection, now: float) -> None:
        """Close the connection, or read its next request, once the response is sent."""
        if connection.close_after_send:
            self._linger(connection)
            return
        if connection.pending_request is not None:
            return
        reader = connection.reader
        if reader.head is None:  # part of the next request may have arrived before this response was sent
            idle = LINGER_SECONDS if self.draining else self._keepalive_seconds
            connection.deadline = now + (READ_TIMEOUT_SECONDS if reader.buffer else idle)
        self._watch(connection, READ)
        if reader.buffer or reader.at_end:
            self._parse_next_request(connection, now)

    def _linger(self, connection: Connection) -> None:
        """End our side, and wait for the client to close: closing at once would discard the response on its way."""
        if connection.reader.at_end or connection.lingering:
            self.close(connection)
            return
        connection.lingering = True
        connection.deadline = time.monotonic() + LINGER_SECONDS
        try:
            connection.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close(connection)
            return
        self._watch(connection, READ)

    def _watch(self, connection: Connection, events: int) -> None:
        if events == connection.watched_events:
            return
        self.poller.watch(connection.sock.fileno(), events, connection)
        connection.watched_events = events
