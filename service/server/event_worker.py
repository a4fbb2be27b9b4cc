"""The event worker: one gunicorn worker process, with one loop for all of its connections.

`EventLoop` reads requests and sends responses; the worker decides which code responds. Everything runs in one thread: a
forward pass is short, and passing it to another thread would take longer than many of them. Plain predictions that wait
at the same moment share a forward pass (fast_path.py). Flask handles all other requests, one at a time. A request that
has to wait for a version to load does so in another thread (blocking_executor.py).

Large requests wait in a queue of their own, and get at most half of the time while small ones wait: a body of 8 MiB
takes up to 0.2 s, a small request under a millisecond. A request that has been queued for too long gets 503 and
Retry-After (admission.py). Health checks skip the queue, one per turn: an orchestrator that gets no response in time
may end the service when it is needed most. Scrapes of the metrics do so while no health check waits.

gunicorn forks and supervises the workers (`worker_class` is its extension point), and its parser reads the heads.
"""

from __future__ import annotations

import os
import time
from collections import deque
from typing import Any

from service.registry.errors import WouldBlock
from service.server.blocking_executor import BlockingExecutor
from service.server.connection import Connection
from service.server.error_responses import TRY_AGAIN, ErrorResponder
from service.server.event_loop import EventLoop
from service.server.fast_path import ParsedPredict
from service.server.gunicorn_compat import Worker
from service.server.request_reader import BufferedRequest
from service.server.wsgi_bridge import WsgiBridge

MAX_REQUESTS_PER_TURN = 64  # before the connections are polled again
MAX_TURN_SECONDS = 0.02  # after which no further request is begun: health checks and new connections wait meanwhile


class EventWorker(Worker):  # type: ignore[misc]
    def run(self) -> None:
        self.set_up()
        self.event_loop.wake_on_signals()
        next_heartbeat = 0.0
        while self.alive and self.ppid == os.getppid():
            self.run_once(1.0)
            now = time.monotonic()
            if now >= next_heartbeat:
                next_heartbeat = now + 1.0
                self.notify()
                self.expire_connections(now)
        self.drain()

    def set_up(self) -> None:
        """Open what must not be shared with the master, after the fork."""
        respond_with_error = ErrorResponder(self.app.recorder, self.app.cross_origin)
        self.event_loop = EventLoop(
            self.sockets,
            self.cfg,
            respond_with_error,
            self.log,
            max_body_bytes=self.app.max_body_bytes,
            max_input_bytes=self.app.max_input_bytes,
            health_route=self.app.health_route,
            on_close=self._cancel_offloaded,
        )
        self._large_request_seconds = 0.0  # that small requests have not had yet
        self.wsgi_bridge = WsgiBridge(self.wsgi, self.cfg, respond_with_error, self.log)
        self.executor = BlockingExecutor(
            self._call_application, self.event_loop.wake, max_pending_bytes=self.app.max_input_bytes
        )
        self.fast_path = self.app.fast_path()

    def drain(self) -> None:
        """Respond to requests that have arrived or are arriving, and accept no new ones."""
        self.alive = False
        loop = self.event_loop
        loop.stop_accepting()
        end = time.monotonic() + self.cfg.graceful_timeout
        self.executor.deadline = end - 1.0  # leaves time for error responses: at the end the master kills
        while loop.connections and (now := time.monotonic()) < end:
            self.expire_connections(now)
            self.notify()
            self.run_once(0.05)
        for connection in list(loop.connections):
            loop.close(connection)

    def run_once(self, timeout: float) -> None:
        """Poll the connections, then respond to some of the queued requests."""
        loop = self.event_loop
        loop.poll(timeout)
        if self.executor.has_completed():
            self._collect_offloaded()
        if urgent := loop.priority_queue or loop.scrape_queue:  # one per turn: a flood would keep all others waiting
            connection = urgent.popleft()
            if connection.pending_request is not None and connection in loop.connections:
                self._handle_contained(connection, connection.pending_request)
        self._process_queues()
        if loop.admission.output_over_limit:
            loop.close_slow_readers()

    def expire_connections(self, now: float) -> None:
        """Respond to, or close, what has waited for too long."""
        for connection, request in self.executor.expired(now):
            self._send_loading_error(connection, request, "is still being loaded")
        self.event_loop.expire_connections(now)

    def _process_queues(self) -> None:
        """Respond to small requests, then to a large one unless small ones still wait and have had less time."""
        loop = self.event_loop
        began = time.monotonic()
        self._process_queue(loop.queue, MAX_REQUESTS_PER_TURN)
        ended = time.monotonic()
        self._large_request_seconds -= ended - began
        while loop.large_queue and loop.admission.queued_too_long(loop.large_queue[0], time.monotonic()):
            self._process_queue(loop.large_queue, 1)
        if loop.large_queue and (not loop.queue or self._large_request_seconds <= 0):
            self._process_queue(loop.large_queue, 1)
            self._large_request_seconds = time.monotonic() - ended

    def _process_queue(self, queue: deque[Connection], max_requests: int) -> None:
        """Respond to queued requests of the fast path, together, and then to the first that Flask has to handle."""
        loop = self.event_loop
        groups: dict[Any, list[tuple[Connection, ParsedPredict]]] = {}
        rows: dict[Any, int] = {}
        other: tuple[Connection, BufferedRequest] | None = None
        now = time.monotonic()
        end = now + MAX_TURN_SECONDS
        for _ in range(min(len(queue), max_requests)):
            if now > end:
                break
            connection = queue.popleft()
            request = connection.pending_request
            if request is None or connection not in loop.connections:
                continue
            loop.admission.release_input_bytes(connection)  # it is no longer waiting, so it cannot be shed
            if loop.admission.queued_too_long(connection, now):
                loop.send_overloaded(connection, close=request.closes_connection)
                continue
            parsed = self._try_fast_path(connection, request) if self.alive and not request.framing_lost else None
            if parsed is None:
                other = connection, request
                break
            served = parsed.served
            groups.setdefault(served, []).append((connection, parsed))
            rows[served] = rows.get(served, 0) + len(parsed.inputs)
            if rows[served] >= served.batching.target_batch_rows:
                self._respond_batch(groups.pop(served))
                del rows[served]
            now = time.monotonic()
        for group in groups.values():
            self._respond_batch(group)
        if other is not None:
            self._handle_contained(*other)

    def _try_fast_path(self, connection: Connection, request: BufferedRequest) -> ParsedPredict | None:
        parsed: ParsedPredict | None = None
        try:
            parsed = self.fast_path.try_parse(
                request.head, request.content, connection.client_ip, connection.arrived_at
            )
        except Exception:
            self.log.exception("a request failed on the fast path; the application handles it")
        return parsed

    def _respond_batch(self, group: list[tuple[Connection, ParsedPredict]]) -> None:
        batch = [parsed for _, parsed in group]
        responses: list[bytes | None] = [None] * len(group)
        try:
            responses = self.fast_path.respond(batch)
        except Exception:
            self.log.exception("a batch of %d requests failed; the application handles them", len(group))
        for (connection, _), response in zip(group, responses):  # noqa: B905 - `strict` takes 1,700 instructions
            if response is None and connection.pending_request is not None:
                self._handle_contained(connection, connection.pending_request)
            elif response is not None:
                send = self.event_loop.send_response
                self.event_loop.contain_errors(connection, send, connection, response)
        try:
            self.fast_path.record_metrics(batch)  # after the responses are sent, so that no client waits for it
        except Exception:
            self.log.exception("the metrics of %d requests could not be recorded", len(group))

    def _handle_contained(self, connection: Connection, request: BufferedRequest) -> None:
        self.event_loop.contain_errors(connection, self._handle_request, connection, request)

    def _handle_request(self, connection: Connection, request: BufferedRequest) -> None:
        """Run a request through the application, here or in the executor."""
        try:
            close = self._call_application(connection, request)
        except WouldBlock:
            self._offload(connection, request)
        else:
            self.event_loop.send_response(connection, b"", close=close)

    def _call_application(self, connection: Connection, request: BufferedRequest) -> bool:
        return self.wsgi_bridge.handle(connection, request, close=request.framing_lost or not self.alive)

    def _offload(self, connection: Connection, request: BufferedRequest) -> None:
        self.app.recorder.discard()
        if problem := self.executor.submit(connection, request):
            self._send_loading_error(connection, request, f"is not in memory, and {problem}")

    def _cancel_offloaded(self, connection: Connection) -> None:
        self.executor.cancel(connection)

    def _collect_offloaded(self) -> None:
        """Send the responses that the executor has completed."""
        for connection, response, close in self.executor.completed():
            self.event_loop.send_response(connection, response, close=close)

    def _send_loading_error(self, connection: Connection, request: BufferedRequest, why: str) -> None:
        status, close = "503 Service Unavailable", request.closes_connection or not self.alive
        headers = (("Retry-After", "5"),)
        self.event_loop.send_error(
            connection, status, "loading", f"the version {why}", TRY_AGAIN, close=close, headers=headers
        )
