"""The event worker: one gunicorn worker process whose loop reads, computes and writes for all of its connections.

A request reaches the application only once it is complete (request_reader.py), so a client that is slow, silent or gone
costs a little memory and no time. Everything runs in this thread: a forward pass is short, and passing it to another
thread would take longer than many of them. Plain predictions that wait at the same moment share a forward pass
(fast_path.py); Flask handles all other requests, one at a time.

Waiting is bounded. A request that has been queued for `MAX_QUEUE_SECONDS` is shed with 503 and Retry-After; one that
does not arrive within `READ_TIMEOUT_SECONDS` gets 408; over a limit of connections or memory, `AdmissionController`
selects which connections to close (admission.py). Health checks skip the queue, one per turn. A request that has to
wait for a version to load does so in another thread (blocking_executor.py).

gunicorn forks and supervises the workers (`worker_class` is its extension point), and its parser reads the heads.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import time
from collections import deque
from typing import Any

from gunicorn.http import errors as http_errors  # type: ignore[import-untyped]
from gunicorn.workers.base import Worker  # type: ignore[import-untyped]

from service.registry.errors import WouldBlock
from service.server.admission import MAX_CONNECTIONS, AdmissionController
from service.server.blocking_executor import BlockingExecutor
from service.server.connection import READ_TIMEOUT_SECONDS, Connection
from service.server.error_responses import error_response, parse_error_status
from service.server.fast_path import ParsedPredict
from service.server.request_reader import BufferedRequest, HeadCache, HeadTooLargeError, RequestReader
from service.server.wsgi_bridge import WsgiBridge
from service.telemetry.request_record import UNLOGGED_ROUTES

MAX_QUEUE_SECONDS = 0.25
LINGER_SECONDS = 2.0  # for a client to see an answer that came before it had sent everything
READ_BYTES = 64 * 1024  # that are read of whatever comes, at once
LARGE_READ_BYTES = 512 * 1024  # that are read a turn of what is larger: what has not been read takes none of our memory
MAX_ACCEPTS_PER_TURN = 4  # new connections a turn of a busy worker
ACCEPT_BURST_SECONDS = 0.0002  # between connections that come together
MAX_REQUESTS_PER_TURN = 64  # requests read a turn, before the connections are looked at again
PRIORITY_PATHS = UNLOGGED_ROUTES


class EventWorker(Worker):  # type: ignore[misc]
    def run(self) -> None:
        self.set_up()
        beat = 0.0
        while self.alive and self.ppid == os.getppid():
            self.run_once(1.0)
            now = time.monotonic()
            if now >= beat:
                beat = now + 1.0
                self.notify()
                self.expire_connections(now)
        self.drain()

    def set_up(self) -> None:
        self.selector = selectors.DefaultSelector()  # not before the fork: its descriptor would be shared
        self.admission = AdmissionController()
        self.connections = self.admission.connections
        # While `Connection.readable_since` is set, a connection is in exactly one of these two.
        self.readable_connections: deque[Connection] = deque()
        self.chunked_connections: deque[Connection] = deque()
        self.queue: deque[Connection] = deque()
        self.priority_queue: deque[Connection] = deque()
        self.last_accept_at = 0.0
        self.keepalive_seconds = self.cfg.keepalive  # which gunicorn looks up for half a microsecond
        self.wsgi_bridge = WsgiBridge(self.wsgi, self.cfg, self.app.recorder, self.log)
        self.executor = BlockingExecutor(self._call_application, self._wake_loop)
        self.head_cache = HeadCache(self.cfg)
        self.fast_path = self.app.fast_path()
        for listener in self.sockets:
            listener.setblocking(False)
            self.selector.register(listener, selectors.EVENT_READ)
        self.selector.register(self.PIPE[0], selectors.EVENT_READ)

    def drain(self) -> None:
        """Answers what has request and what is arriving, and takes nothing new."""
        self.alive = False
        for listener in self.sockets:
            self._accept_connections(
                listener, MAX_CONNECTIONS
            )  # whoever is connected, and may have parsed: closing resets them
            self.selector.unregister(listener)
            listener.close()
        end = time.monotonic() + self.cfg.graceful_timeout
        self.executor.deadline = end - 1.0  # to say so: at the end the master kills
        idle_end = min(end, time.monotonic() + LINGER_SECONDS)
        while self.connections and (now := time.monotonic()) < end:
            for connection in list(self.connections):
                reader = connection.reader
                if not reader.head and not reader.buffer and not connection.send_buffer:
                    connection.deadline = min(connection.deadline, idle_end)
            self.expire_connections(now)
            self.notify()
            self.run_once(0.05)
        for connection in list(self.connections):
            self._close(connection)

    def run_once(self, timeout: float) -> None:
        """What has happened to the connections, then some of the requests that wait."""
        busy = self.queue or self.priority_queue or self.readable_connections or self.chunked_connections
        happened = self.selector.select(0 if busy else timeout)
        now = time.monotonic()
        for key, mask in happened:
            connection = key.data
            if connection is not None:
                if mask & selectors.EVENT_WRITE and connection in self.connections:
                    self._send(connection)
                unread = (
                    mask & selectors.EVENT_READ and not connection.readable_since and connection in self.connections
                )
                if (
                    unread
                    and self._read_connection(connection, now, READ_BYTES) == READ_BYTES
                    and not connection.readable_since
                ):
                    connection.readable_since = now
                    self.readable_connections.append(connection)
            elif key.fd == self.PIPE[0]:
                with contextlib.suppress(BlockingIOError):
                    os.read(self.PIPE[0], 4096)
                self._collect_offloaded()
            else:
                self._on_listener_readable(key.fileobj, now)
        if self.readable_connections:
            self._read_large_bodies()
        if self.chunked_connections:  # some of one a turn
            connection = self.chunked_connections.popleft()
            connection.readable_since = 0.0
            if connection in self.connections:
                self._parse_next_request(connection, time.monotonic())  # not since it came: else it would never be late
        if self.priority_queue:  # one a turn: a flood of either would keep everybody else waiting
            connection = self.priority_queue.popleft()
            if connection.pending_request is not None and connection in self.connections:
                self._handle_request(connection, connection.pending_request)
        if self.queue:
            self._process_queue()
        if self.admission.output_over_limit:
            for connection in self.admission.slow_readers():
                self._close(connection)

    def _on_listener_readable(self, listener: Any, now: float) -> None:
        """Whoever is idle and quick would take all connections of a burst, and then be busy while others are idle."""
        shared = self.cfg.workers > 1 and not self.queue
        if shared and now - self.last_accept_at < ACCEPT_BURST_SECONDS:
            time.sleep(1e-6)  # that another worker may be woken, which takes longer
        self._accept_connections(listener, 1 if shared else MAX_ACCEPTS_PER_TURN)
        self.last_accept_at = now

    def _accept_connections(self, listener: Any, most: int = MAX_ACCEPTS_PER_TURN) -> None:
        for _ in range(most):
            try:
                sock, peer = listener.accept()
            except OSError as e:  # another worker was faster, the client is gone, or the system is short of what passes
                if e.errno == errno.EMFILE:
                    self._on_fd_exhaustion(e)
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.admission.is_full:
                self._evict_connections(1)
            reader = RequestReader(self.head_cache, peer, self.app.max_body_bytes)
            connection = Connection(sock, peer, listener.getsockname(), reader)
            self.connections.add(connection)
            self._register(connection, selectors.EVENT_READ)

    def _on_fd_exhaustion(self, error: OSError) -> None:
        """This process may have no descriptor more."""
        if self.admission.lower_connection_limit():
            self.log.warning(
                "room for %d connections, not %d: %s", self.admission.connection_limit, MAX_CONNECTIONS, error.strerror
            )
        self._evict_connections(len(self.connections) - self.admission.connection_limit)

    def _evict_connections(self, count: int) -> None:
        for connection in self.admission.eviction_candidates(count):
            self._close(connection)

    def _read_large_bodies(self) -> None:
        """Reads on in large requests, one after another to its end."""
        read = 0
        while self.readable_connections and read < LARGE_READ_BYTES:
            connection = self.readable_connections.popleft()
            since, connection.readable_since = connection.readable_since, 0.0
            if connection in self.connections:
                came = self._read_connection(connection, since, LARGE_READ_BYTES)
                read += came
                if came == LARGE_READ_BYTES and not connection.readable_since:
                    connection.readable_since = since
                    self.readable_connections.appendleft(connection)

    def _read_connection(self, connection: Connection, since: float, most: int) -> int:
        """How many bytes have come; `since`: when the first of them could be read."""
        if connection.pending_request is not None or connection.send_buffer:
            # It sends on before it has its answer: what comes can wait in its socket.
            self._register(connection, connection.selector_events & ~selectors.EVENT_READ)
            return 0
        try:
            data = connection.sock.recv(most)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            self._close(connection)
            return 0
        if connection.lingering:
            if not data:
                self._close(connection)
            return 0  # nobody waits for that: it is no large request
        reader = connection.reader
        if not reader.buffer and reader.head is None:
            if not data:
                self._close(connection)
                return 0
            connection.deadline = since + READ_TIMEOUT_SECONDS
        reader.feed(data)
        self._parse_next_request(connection, since)
        return len(data)

    def _parse_next_request(self, connection: Connection, since: float) -> None:
        """Queues the connection's next request, if all of it is here."""
        reader = connection.reader
        try:
            request = reader.next_request()
        except (HeadTooLargeError, http_errors.ParseException) as e:
            self.log.warning("refused a request from %s: %s", connection.client_ip, e)
            self._respond_error(
                connection, parse_error_status(e), "bad_request", f"the request is not well-formed HTTP: {e}"
            )
            return
        if request is not None:
            connection.pending_request, connection.received_at = request, since
        self.admission.update(connection)
        if self.admission.input_over_limit and connection.input_bytes and not self._shed_slow_uploads(connection):
            # What it has sent after this request goes with it: the next one would be shed within this one's call.
            self._shed_request(connection, close=request is None or bool(reader.buffer) or request.closes_connection)
        elif request is not None:
            is_priority = self._is_priority_path(request.head.path)
            (self.priority_queue if is_priority else self.queue).append(connection)
        elif reader.has_more:
            if not connection.readable_since:  # else it has its turn to come
                connection.readable_since = since
                self.chunked_connections.append(connection)
        elif reader.at_end:
            self._close(connection)
        elif reader.take_continue_expectation():
            connection.send_buffer += b"HTTP/1.1 100 Continue\r\n\r\n"
            self._send(connection)

    def _shed_slow_uploads(self, newest: Connection) -> bool:
        """Sheds those whose input has been coming for too long; whether that was enough."""
        for connection in self.admission.slow_uploads(newest):
            self._shed_request(connection)
        return not self.admission.input_over_limit

    def _process_queue(self) -> None:
        """Plain requests of those that wait, together, and then the first that is not plain."""
        groups: dict[Any, list[tuple[Connection, ParsedPredict]]] = {}
        rows: dict[Any, int] = {}
        other: tuple[Connection, BufferedRequest] | None = None
        for _ in range(min(len(self.queue), MAX_REQUESTS_PER_TURN)):
            connection = self.queue.popleft()
            request = connection.pending_request
            if request is None or connection not in self.connections:
                continue
            if time.monotonic() - connection.received_at > MAX_QUEUE_SECONDS:
                self._shed_request(connection, close=request.closes_connection)
                continue
            self.nr += 1
            self.alive = self.alive and self.nr < self.max_requests
            plain = self.alive and not request.framing_lost
            parsed = self._try_fast_path(connection, request) if plain else None
            if parsed is None:
                other = connection, request
                break
            served = parsed.served
            groups.setdefault(served, []).append((connection, parsed))
            rows[served] = rows.get(served, 0) + len(parsed.inputs)
            if rows[served] >= served.batching.target_batch_rows:
                self._respond_batch(groups.pop(served))
                del rows[served]
        for group in groups.values():
            self._respond_batch(group)
        if other is not None:
            self._handle_request(*other)

    def _try_fast_path(self, connection: Connection, request: BufferedRequest) -> ParsedPredict | None:
        parsed: ParsedPredict | None = None
        try:
            parsed = self.fast_path.try_parse(
                request.head, request.content, connection.client_ip, connection.received_at
            )
        except Exception:
            self.log.exception("%s failed on its short way; the application answers it", request.head.path)
        return parsed

    def _respond_batch(self, group: list[tuple[Connection, ParsedPredict]]) -> None:
        together = [parsed for _, parsed in group]
        answers: list[bytes | None] = [None] * len(group)
        try:
            answers = self.fast_path.respond(together)
        except Exception:
            self.log.exception("%d requests failed together; the application answers them", len(group))
        for (connection, _), answer in zip(group, answers, strict=True):
            if answer is None and connection.pending_request is not None:
                self._handle_request(connection, connection.pending_request)
            elif answer is not None:
                connection.send_buffer += answer
                self._finish_request(connection, close=False)
        try:
            self.fast_path.record_metrics(together)  # they have their answers by now: nobody waits for what is counted
        except Exception:
            self.log.exception("%d requests were answered, and not counted", len(group))

    def _handle_request(self, connection: Connection, request: BufferedRequest) -> None:
        """By the application, here or aside."""
        try:
            close = self._call_application(connection, request)
        except WouldBlock:
            self._offload(connection, request)
        else:
            self._finish_request(connection, close=close)

    def _offload(self, connection: Connection, request: BufferedRequest) -> None:
        self.app.recorder.discard()
        if refused := self.executor.submit(connection, request):
            self._abandon_request(connection, request, f"is not in memory, and {refused}")
        else:
            self.admission.release_input_bytes(connection)  # aside has a bound of its own: others have all of theirs

    def _collect_offloaded(self) -> None:
        """What has been answered aside goes to those who still wait."""
        for connection, answer, close in self.executor.completed():
            connection.send_buffer += answer
            self._finish_request(connection, close=close)

    def _abandon_request(self, connection: Connection, request: BufferedRequest, why: str) -> None:
        message, close = (
            f"what was parsed for {why}; ask again in a moment",
            request.closes_connection or not self.alive,
        )
        self._respond_error(
            connection, "503 Service Unavailable", "loading", message, close=close, extra_headers="Retry-After: 5\r\n"
        )

    def _wake_loop(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full, it wakes as well
            os.write(self.PIPE[1], b".")

    def _call_application(self, connection: Connection, request: BufferedRequest) -> bool:
        return self.wsgi_bridge.handle(connection, request, close=request.framing_lost or not self.alive)

    def _is_priority_path(self, path: str) -> bool:
        """Health checks: whoever is not told in time that the service lives may end it, at the worst of moments."""
        return path in PRIORITY_PATHS or path == self.app.health_route

    def _shed_request(self, connection: Connection, *, close: bool = True) -> None:
        message = "more requests than can be answered in time; try again in a moment"
        self._respond_error(
            connection,
            "503 Service Unavailable",
            "overloaded",
            message,
            close=close,
            extra_headers="Retry-After: 1\r\n",
        )

    def _respond_error(
        self,
        connection: Connection,
        status: str,
        code: str,
        message: str,
        *,
        close: bool = True,
        extra_headers: str = "",
    ) -> None:
        """An answer of the worker's own."""
        connection.send_buffer += error_response(
            self.app.recorder, connection, status, code, message, close=close, extra_headers=extra_headers
        )
        self._finish_request(connection, close=close)

    def _finish_request(self, connection: Connection, *, close: bool) -> None:
        connection.pending_request = None
        connection.close_after_send = close
        if close:
            connection.reader.discard()
        connection.last_sent_at = time.monotonic()
        connection.deadline = connection.last_sent_at + READ_TIMEOUT_SECONDS
        self._send(connection)

    def _send(self, connection: Connection) -> None:
        if connection.send_buffer:
            try:
                sent = connection.sock.send(connection.send_buffer)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError:
                self._close(connection)
                return
            del connection.send_buffer[:sent]
            self.admission.update(connection)
            if connection.send_buffer:
                if sent:
                    connection.last_sent_at = time.monotonic()
                self._register(connection, selectors.EVENT_WRITE)
                return
        if connection.close_after_send:
            self._linger(connection)
            return
        if connection.pending_request is not None:
            return
        reader = connection.reader
        if reader.head is None:  # of the next request something may have come before it had this answer
            idle = self.keepalive_seconds if self.alive else LINGER_SECONDS
            connection.deadline = time.monotonic() + (READ_TIMEOUT_SECONDS if reader.buffer else idle)
        self._register(connection, selectors.EVENT_READ)
        if reader.buffer or reader.at_end:
            self._parse_next_request(connection, time.monotonic())

    def _linger(self, connection: Connection) -> None:
        """Says that this was all, and gives the client a moment to read it: closing at once would throw it away."""
        if connection.reader.at_end or connection.lingering:
            self._close(connection)
            return
        connection.lingering = True
        connection.deadline = time.monotonic() + LINGER_SECONDS
        try:
            connection.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(connection)
            return
        self._register(connection, selectors.EVENT_READ)

    def expire_connections(self, now: float) -> None:
        for connection, request in self.executor.expired(now):
            self._abandon_request(connection, request, "is still being loaded")
        # What could be read in time, and has not been, is no fault of the client's.
        for connection in [
            c for c in self.connections if c.deadline < (c.readable_since or now) and c.pending_request is None
        ]:
            arriving = connection.reader.head is not None or connection.reader.buffer
            if arriving and not connection.send_buffer and not connection.lingering and not connection.close_after_send:
                seconds = int(READ_TIMEOUT_SECONDS)
                message = f"the request did not arrive within {seconds} seconds"
                self._respond_error(connection, "408 Request Timeout", "request_timeout", message)
            else:
                self._close(connection)

    def _register(self, connection: Connection, events: int) -> None:
        if events == connection.selector_events:
            return
        if not connection.selector_events:
            self.selector.register(connection.sock, events, connection)
        elif not events:
            self.selector.unregister(connection.sock)
        else:
            self.selector.modify(connection.sock, events, connection)
        connection.selector_events = events

    def _close(self, connection: Connection) -> None:
        self._register(connection, 0)
        self.admission.remove(connection)
        self.executor.cancel(connection)
        connection.reader.discard()  # the thread aside may come to know of it much later
        connection.sock.close()
