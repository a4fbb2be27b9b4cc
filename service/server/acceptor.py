"""The acceptor: accepts connections from the listeners, which all workers share.

A worker without requests accepts one connection per turn, so that others get their part. Connections that wait in the
kernel's backlog are in no queue, so nothing sheds their requests: under overload a worker accepts many per turn. While
the process is short of descriptors, the limit of connections is lowered; while the whole system is short of
descriptors or memory, accepting pauses.
"""

from __future__ import annotations

import errno
import logging
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from service.server.admission import MAX_CONNECTIONS, AdmissionController
from service.server.connection import Connection
from service.server.poller import READ, Poller

MAX_ACCEPTS_PER_TURN = 4
MAX_OVERLOAD_ACCEPTS = 64  # a request in the kernel's backlog is in no queue: nothing sheds it, not even a health check
OVERLOAD_SECONDS = 0.05  # for which connections have been waiting in the backlog without a break
ACCEPT_PAUSE_SECONDS = 0.1  # when the system cannot open a connection: accepting at once again would only spin
ACCEPT_BURST_SECONDS = 0.0002  # between connections of one burst


class Acceptor:
    def __init__(
        self,
        listeners: Sequence[socket.socket],
        poller: Poller,
        admission: AdmissionController,
        cfg: Any,
        log: logging.Logger,
        *,
        add: Callable[[socket.socket, Any, Any], None],
        close: Callable[[Connection], None],
    ) -> None:
        """Watch `listeners` with `poller`.

        `add` takes the socket of a new connection, its peer and its local address; `close` closes a connection that
        is evicted for a new one. `cfg` are gunicorn's settings.
        """
        self._listeners, self._poller, self._admission, self._cfg = listeners, poller, admission, cfg
        self._log, self._add, self._close = log, add, close
        self._last_accept_at = 0.0
        self._backlog_since = 0.0  # 0.0 if no connection was waiting to be accepted at the last poll
        self._resume_at = 0.0  # while positive, the listeners are not watched
        self._stopped = False
        for listener in listeners:
            listener.setblocking(False)
            poller.watch(listener.fileno(), READ, listener)

    def poll_timeout(self, timeout: float) -> float:
        """Return how long a poll may take: shorter during a pause, which the poll must not outlast."""
        return min(timeout, ACCEPT_PAUSE_SECONDS) if self._resume_at else timeout

    def on_poll(self, connections_wait: bool, now: float) -> None:
        """Note whether connections wait in the backlog, and end a pause that is over."""
        if not connections_wait:
            self._backlog_since = 0.0
        if self._resume_at and now >= self._resume_at:
            self._resume()

    def on_readable(self, listener: Any, now: float, *, busy: bool) -> None:
        """Accept one connection, so that an idle worker does not drain the shared backlog; more if requests wait
        (`busy`), and many once connections have waited for `OVERLOAD_SECONDS`.
        """
        shared = self._cfg.workers > 1 and not busy
        if shared and now - self._last_accept_at < ACCEPT_BURST_SECONDS:
            time.sleep(1e-6)  # so that another worker wakes, which takes longer
        max_accepts = 1 if shared else MAX_ACCEPTS_PER_TURN
        self._backlog_since = self._backlog_since or now
        if now - self._backlog_since > OVERLOAD_SECONDS:
            max_accepts = MAX_OVERLOAD_ACCEPTS
        self.accept(listener, max_accepts)
        self._last_accept_at = now

    def stop(self) -> None:
        """Accept the backlog, then close the listeners; closing them first would reset those connections."""
        self._resume()
        self._stopped = True
        for listener in self._listeners:
            self.accept(listener, MAX_CONNECTIONS)
            self._poller.watch(listener.fileno(), 0, listener)
            listener.close()

    def accept(self, listener: Any, max_accepts: int = MAX_ACCEPTS_PER_TURN) -> None:
        """Accept up to `max_accepts` connections; those over the limit replace the ones that admission selects."""
        for _ in range(max_accepts):
            try:
                sock, peer = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                self._backlog_since = 0.0
                return  # another worker was faster, or the client is gone
            except OSError as e:
                if e.errno == errno.EMFILE:
                    self._on_fd_exhaustion(e)
                self._pause(e)
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._admission.is_full:
                self._evict_connections(1)
            self._add(sock, peer, listener.getsockname())

    def _pause(self, error: OSError) -> None:
        """Stop watching the listeners for a moment: the system is short of descriptors or memory."""
        if self._resume_at or self._stopped:
            return
        self._log.warning("cannot accept connections: %s; trying again", error.strerror)
        self._resume_at = time.monotonic() + ACCEPT_PAUSE_SECONDS
        for listener in self._listeners:
            self._poller.watch(listener.fileno(), 0, listener)

    def _resume(self) -> None:
        if self._resume_at:
            self._resume_at = 0.0
            for listener in self._listeners:
                self._poller.watch(listener.fileno(), READ, listener)

    def _on_fd_exhaustion(self, error: OSError) -> None:
        """Lower the limit of connections: this process can open no further descriptor."""
        if self._admission.lower_connection_limit():
            limit = self._admission.connection_limit
            self._log.warning("connection limit lowered from %d to %d: %s", MAX_CONNECTIONS, limit, error.strerror)
        self._evict_connections(len(self._admission.connections) - self._admission.connection_limit)

    def _evict_connections(self, count: int) -> None:
        for connection in self._admission.eviction_candidates(count):
            self._close(connection)
