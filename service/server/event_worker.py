"""The worker: one loop that reads, answers and writes for all connections of a process.

A request reaches the application only once all of it is here (incoming.py), so a client that is slow, silent or gone
costs a little memory and nobody's time. Everything runs in this thread: a forward pass is short, and handing it to
another thread would take longer than many of them. Plain predictions that wait at the same moment are answered
together (express.py), everything else by Flask, a request at a time.

Whoever waits is bounded: a request that has waited for `MAX_QUEUE_SECONDS` is shed with 503 and Retry-After, one that
does not arrive within `READ_SECONDS` is cut off, and where there are too many or they hold too much, some make room for
the others (room.py). Health checks pass the queue, one at a time. What has to wait for a version to be loaded does so
aside (aside.py).

gunicorn forks and watches the workers (`worker_class` is its extension point), and its parser reads the heads.
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
from service.server.connection import READ_SECONDS, Connection
from service.server.error_responses import error_response, status_of
from service.server.fast_path import ParsedPredict
from service.server.request_reader import BufferedRequest, HeadCache, HeadTooLargeError, RequestReader
from service.server.wsgi_bridge import WsgiBridge
from service.telemetry.request_record import UNLOGGED_ROUTES

MAX_QUEUE_SECONDS = 0.25
LINGER_SECONDS = 2.0  # for a client to see an answer that came before it had sent everything
PIECE_BYTES = 64 * 1024  # that are read of whatever comes, at once
TURN_BYTES = 512 * 1024  # that are read a turn of what is larger: what has not been read takes none of our memory
ACCEPTS = 4  # new connections a turn of a busy worker
BURST_SECONDS = 0.0002  # between connections that come together
TAKEN = 64  # requests read a turn, before the connections are looked at again
PRIORITY_PATHS = UNLOGGED_ROUTES


class EventWorker(Worker):  # type: ignore[misc]
    def run(self) -> None:
        self.open()
        beat = 0.0
        while self.alive and self.ppid == os.getppid():
            self.turn(1.0)
            now = time.monotonic()
            if now >= beat:
                beat = now + 1.0
                self.notify()
                self.expire(now)
        self.drain()

    def open(self) -> None:
        self.selector = selectors.DefaultSelector()  # not before the fork: its descriptor would be shared
        self.admission = AdmissionController()
        self.connections = self.admission.connections
        self.readable: deque[Connection] = deque()  # in these two, or in neither, as `Connection.readable` says
        self.in_chunks: deque[Connection] = deque()
        self.queue: deque[Connection] = deque()
        self.vital: deque[Connection] = deque()
        self.accepted = 0.0
        self.keepalive = self.cfg.keepalive  # which gunicorn looks up for half a microsecond
        self.gateway = WsgiBridge(self.wsgi, self.cfg, self.app.recorder, self.log)
        self.executor = BlockingExecutor(self._written, self._wake)
        self.heads = HeadCache(self.cfg)
        self.fast_path = self.app.fast_path()
        for listener in self.sockets:
            listener.setblocking(False)
            self.selector.register(listener, selectors.EVENT_READ)
        self.selector.register(self.PIPE[0], selectors.EVENT_READ)

    def drain(self) -> None:
        """Answers what has arrived and what is arriving, and takes nothing new."""
        self.alive = False
        for listener in self.sockets:
            self._accept(listener, MAX_CONNECTIONS)  # whoever is connected, and may have asked: closing resets them
            self.selector.unregister(listener)
            listener.close()
        end = time.monotonic() + self.cfg.graceful_timeout
        self.executor.end = end - 1.0  # to say so: at the end the master kills
        idle_end = min(end, time.monotonic() + LINGER_SECONDS)
        while self.connections and (now := time.monotonic()) < end:
            for connection in list(self.connections):
                incoming = connection.incoming
                if not incoming.head and not incoming.buffer and not connection.outgoing:
                    connection.deadline = min(connection.deadline, idle_end)
            self.expire(now)
            self.notify()
            self.turn(0.05)
        for connection in list(self.connections):
            self._close(connection)

    def turn(self, timeout: float) -> None:
        """What has happened to the connections, then some of the requests that wait."""
        busy = self.queue or self.vital or self.readable or self.in_chunks
        happened = self.selector.select(0 if busy else timeout)
        now = time.monotonic()
        for key, mask in happened:
            connection = key.data
            if connection is not None:
                if mask & selectors.EVENT_WRITE and connection in self.connections:
                    self._write(connection)
                unread = mask & selectors.EVENT_READ and not connection.readable and connection in self.connections
                if unread and self._read(connection, now, PIECE_BYTES) == PIECE_BYTES and not connection.readable:
                    connection.readable = now
                    self.readable.append(connection)
            elif key.fd == self.PIPE[0]:
                with contextlib.suppress(BlockingIOError):
                    os.read(self.PIPE[0], 4096)
                self._take_back()
            else:
                self._welcome(key.fileobj, now)
        if self.readable:
            self._receive()
        if self.in_chunks:  # some of one a turn
            connection = self.in_chunks.popleft()
            connection.readable = 0.0
            if connection in self.connections:
                self._advance(connection, time.monotonic())  # not since it came: else it would never be late
        if self.vital:  # one a turn: a flood of either would keep everybody else waiting
            connection = self.vital.popleft()
            if connection.waiting is not None and connection in self.connections:
                self._answer(connection, connection.waiting)
        if self.queue:
            self._serve()
        if self.admission.holds_too_many_answers:
            for connection in self.admission.slow_to_take():
                self._close(connection)

    def _welcome(self, listener: Any, now: float) -> None:
        """Whoever is idle and quick would take all connections of a burst, and then be busy while others are idle."""
        shared = self.cfg.workers > 1 and not self.queue
        if shared and now - self.accepted < BURST_SECONDS:
            time.sleep(1e-6)  # that another worker may be woken, which takes longer
        self._accept(listener, 1 if shared else ACCEPTS)
        self.accepted = now

    def _accept(self, listener: Any, most: int = ACCEPTS) -> None:
        for _ in range(most):
            try:
                sock, peer = listener.accept()
            except OSError as e:  # another worker was faster, the client is gone, or the system is short of what passes
                if e.errno == errno.EMFILE:
                    self._spare(e)
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.admission.is_full:
                self._close_overdue(1)
            incoming = RequestReader(self.heads, peer, self.app.max_body_bytes)
            connection = Connection(sock, peer, listener.getsockname(), incoming)
            self.connections.add(connection)
            self._register(connection, selectors.EVENT_READ)

    def _spare(self, error: OSError) -> None:
        """This process may have no descriptor more."""
        if self.admission.shrink():
            self.log.warning(
                "room for %d connections, not %d: %s", self.admission.most, MAX_CONNECTIONS, error.strerror
            )
        self._close_overdue(len(self.connections) - self.admission.most)

    def _close_overdue(self, count: int) -> None:
        for connection in self.admission.overdue(count):
            self._close(connection)

    def _receive(self) -> None:
        """Reads on in large requests, one after another to its end."""
        read = 0
        while self.readable and read < TURN_BYTES:
            connection = self.readable.popleft()
            since, connection.readable = connection.readable, 0.0
            if connection in self.connections:
                came = self._read(connection, since, TURN_BYTES)
                read += came
                if came == TURN_BYTES and not connection.readable:
                    connection.readable = since
                    self.readable.appendleft(connection)

    def _read(self, connection: Connection, since: float, most: int) -> int:
        """How many bytes have come; `since`: when the first of them could be read."""
        if connection.waiting is not None or connection.outgoing:
            # It sends on before it has its answer: what comes can wait in its socket.
            self._register(connection, connection.events & ~selectors.EVENT_READ)
            return 0
        try:
            data = connection.sock.recv(most)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            self._close(connection)
            return 0
        if connection.draining:
            if not data:
                self._close(connection)
            return 0  # nobody waits for that: it is no large request
        incoming = connection.incoming
        if not incoming.buffer and incoming.head is None:
            if not data:
                self._close(connection)
                return 0
            connection.deadline = since + READ_SECONDS
        incoming.feed(data)
        self._advance(connection, since)
        return len(data)

    def _advance(self, connection: Connection, since: float) -> None:
        """Queues the connection's next request, if all of it is here."""
        incoming = connection.incoming
        try:
            arrived = incoming.next()
        except (HeadTooLargeError, http_errors.ParseException) as e:
            self.log.warning("refused a request from %s: %s", connection.client, e)
            self._refuse(connection, status_of(e), "bad_request", f"the request is not well-formed HTTP: {e}")
            return
        if arrived is not None:
            connection.waiting, connection.since = arrived, since
        self.admission.count(connection)
        if self.admission.holds_too_much and connection.held and not self._make_room(connection):
            # What it has sent after this request goes with it: the next one would be shed within this one's call.
            self._shed(connection, close=arrived is None or bool(incoming.buffer) or arrived.closes)
        elif arrived is not None:
            vital = self._is_vital(arrived.head.path)
            (self.vital if vital else self.queue).append(connection)
        elif incoming.more:
            if not connection.readable:  # else it has its turn to come
                connection.readable = since
                self.in_chunks.append(connection)
        elif incoming.ended:
            self._close(connection)
        elif incoming.wants_continue():
            connection.outgoing += b"HTTP/1.1 100 Continue\r\n\r\n"
            self._write(connection)

    def _make_room(self, newest: Connection) -> bool:
        """Sheds those whose input has been coming for too long; whether that was enough."""
        for connection in self.admission.slow_to_send(newest):
            self._shed(connection)
        return not self.admission.holds_too_much

    def _serve(self) -> None:
        """Plain requests of those that wait, together, and then the first that is not plain."""
        groups: dict[Any, list[tuple[Connection, ParsedPredict]]] = {}
        rows: dict[Any, int] = {}
        other: tuple[Connection, BufferedRequest] | None = None
        for _ in range(min(len(self.queue), TAKEN)):
            connection = self.queue.popleft()
            arrived = connection.waiting
            if arrived is None or connection not in self.connections:
                continue
            if time.monotonic() - connection.since > MAX_QUEUE_SECONDS:
                self._shed(connection, close=arrived.closes)
                continue
            self.nr += 1
            self.alive = self.alive and self.nr < self.max_requests
            plain = self.alive and not arrived.last
            asked = self._taken(connection, arrived) if plain else None
            if asked is None:
                other = connection, arrived
                break
            served = asked.served
            groups.setdefault(served, []).append((connection, asked))
            rows[served] = rows.get(served, 0) + len(asked.inputs)
            if rows[served] >= served.batching.worth_joining:
                self._answer_together(groups.pop(served))
                del rows[served]
        for group in groups.values():
            self._answer_together(group)
        if other is not None:
            self._answer(*other)

    def _taken(self, connection: Connection, arrived: BufferedRequest) -> ParsedPredict | None:
        asked: ParsedPredict | None = None
        try:
            asked = self.fast_path.take(arrived.head, arrived.data, connection.client, connection.since)
        except Exception:
            self.log.exception("%s failed on its short way; the application answers it", arrived.head.path)
        return asked

    def _answer_together(self, group: list[tuple[Connection, ParsedPredict]]) -> None:
        together = [asked for _, asked in group]
        answers: list[bytes | None] = [None] * len(group)
        try:
            answers = self.fast_path.answer(together)
        except Exception:
            self.log.exception("%d requests failed together; the application answers them", len(group))
        for (connection, _), answer in zip(group, answers, strict=True):
            if answer is None and connection.waiting is not None:
                self._answer(connection, connection.waiting)
            elif answer is not None:
                connection.outgoing += answer
                self._answered(connection, close=False)
        try:
            self.fast_path.note(together)  # they have their answers by now: nobody waits for what is counted
        except Exception:
            self.log.exception("%d requests were answered, and not counted", len(group))

    def _answer(self, connection: Connection, arrived: BufferedRequest) -> None:
        """By the application, here or aside."""
        try:
            last = self._written(connection, arrived)
        except WouldBlock:
            self._put_aside(connection, arrived)
        else:
            self._answered(connection, close=last)

    def _put_aside(self, connection: Connection, arrived: BufferedRequest) -> None:
        self.app.recorder.forget()
        if refused := self.executor.put(connection, arrived):
            self._give_up(connection, arrived, f"is not in memory, and {refused}")
        else:
            self.admission.let_go(connection)  # aside has a bound of its own: others have all of theirs

    def _take_back(self) -> None:
        """What has been answered aside goes to those who still wait."""
        for connection, answer, last in self.executor.answers():
            connection.outgoing += answer
            self._answered(connection, close=last)

    def _give_up(self, connection: Connection, arrived: BufferedRequest, why: str) -> None:
        message, close = f"what was asked for {why}; ask again in a moment", arrived.closes or not self.alive
        self._refuse(connection, "503 Service Unavailable", "loading", message, close=close, more="Retry-After: 5\r\n")

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full, it wakes as well
            os.write(self.PIPE[1], b".")

    def _written(self, connection: Connection, arrived: BufferedRequest) -> bool:
        return self.gateway.answer(connection, arrived, last=arrived.last or not self.alive)

    def _is_vital(self, path: str) -> bool:
        """Health checks: whoever is not told in time that the service lives may end it, at the worst of moments."""
        return path in PRIORITY_PATHS or path == self.app.health_route

    def _shed(self, connection: Connection, *, close: bool = True) -> None:
        message = "more requests than can be answered in time; try again in a moment"
        self._refuse(
            connection, "503 Service Unavailable", "overloaded", message, close=close, more="Retry-After: 1\r\n"
        )

    def _refuse(
        self, connection: Connection, status: str, code: str, message: str, *, close: bool = True, more: str = ""
    ) -> None:
        """An answer of the worker's own."""
        connection.outgoing += error_response(
            self.app.recorder, connection, status, code, message, close=close, more=more
        )
        self._answered(connection, close=close)

    def _answered(self, connection: Connection, *, close: bool) -> None:
        connection.waiting = None
        connection.closing = close
        if close:
            connection.incoming.forget()
        connection.moved = time.monotonic()
        connection.deadline = connection.moved + READ_SECONDS
        self._write(connection)

    def _write(self, connection: Connection) -> None:
        if connection.outgoing:
            try:
                sent = connection.sock.send(connection.outgoing)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError:
                self._close(connection)
                return
            del connection.outgoing[:sent]
            self.admission.count(connection)
            if connection.outgoing:
                if sent:
                    connection.moved = time.monotonic()
                self._register(connection, selectors.EVENT_WRITE)
                return
        if connection.closing:
            self._finish(connection)
            return
        if connection.waiting is not None:
            return
        incoming = connection.incoming
        if incoming.head is None:  # of the next request something may have come before it had this answer
            idle = self.keepalive if self.alive else LINGER_SECONDS
            connection.deadline = time.monotonic() + (READ_SECONDS if incoming.buffer else idle)
        self._register(connection, selectors.EVENT_READ)
        if incoming.buffer or incoming.ended:
            self._advance(connection, time.monotonic())

    def _finish(self, connection: Connection) -> None:
        """Says that this was all, and gives the client a moment to read it: closing at once would throw it away."""
        if connection.incoming.ended or connection.draining:
            self._close(connection)
            return
        connection.draining = True
        connection.deadline = time.monotonic() + LINGER_SECONDS
        try:
            connection.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(connection)
            return
        self._register(connection, selectors.EVENT_READ)

    def expire(self, now: float) -> None:
        for connection, arrived in self.executor.overdue(now):
            self._give_up(connection, arrived, "is still being loaded")
        # What could be read in time, and has not been, is no fault of the client's.
        for connection in [c for c in self.connections if c.deadline < (c.readable or now) and c.waiting is None]:
            arriving = connection.incoming.head is not None or connection.incoming.buffer
            if arriving and not connection.outgoing and not connection.draining and not connection.closing:
                seconds = int(READ_SECONDS)
                message = f"the request did not arrive within {seconds} seconds"
                self._refuse(connection, "408 Request Timeout", "request_timeout", message)
            else:
                self._close(connection)

    def _register(self, connection: Connection, events: int) -> None:
        if events == connection.events:
            return
        if not connection.events:
            self.selector.register(connection.sock, events, connection)
        elif not events:
            self.selector.unregister(connection.sock)
        else:
            self.selector.modify(connection.sock, events, connection)
        connection.events = events

    def _close(self, connection: Connection) -> None:
        self._register(connection, 0)
        self.admission.leave(connection)
        self.executor.drop(connection)
        connection.incoming.forget()  # the thread aside may come to know of it much later
        connection.sock.close()
