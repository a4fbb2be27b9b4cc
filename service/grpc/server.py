"""The gRPC server of one worker: a thread with an event loop of its own, started after the fork.

gRPC's library does not survive a fork, so nothing imports it before. Every worker listens on the same port
(SO_REUSEPORT), and the kernel spreads new connections over them; the master reserves the port without listening on it.
A fault in this thread is logged and the server started again; the worker's connections over HTTP go on.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from service.config import Settings
from service.grpc.calls import GrpcService
from service.server.admission import MAX_CONNECTIONS

log = logging.getLogger("service.grpc")

MAX_STREAMS = 100  # of a connection at the same time
MAX_STREAMS_IN_ALL = 4000  # health checks among them
_KEEPALIVE_MS = 30_000  # after which a silent client is asked whether it is still there
_KEEPALIVE_TIMEOUT_MS = 10_000
_MAX_AGE_MS = 120_000  # of a connection: its client then opens another one, perhaps to another worker
_AGE_GRACE_MS = 30_000  # for its calls to end: without this a client that does not read its responses holds them
_HANDSHAKE_MS = 10_000  # from a connection to the first frame of HTTP/2
_MAX_METADATA_BYTES = 8192
_TICK_SECONDS = 0.1
_RESTART_SECONDS, _MAX_RESTART_SECONDS = 1.0, 60.0


def max_connections(listeners: int) -> int:
    """Return the connections that each listener accepts: they share a quarter of the process's descriptors.

    HTTP has the others: 1,100 silent connections to gRPC, with 1,024 descriptors, left none to accept one over HTTP.
    """
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(1, min(MAX_CONNECTIONS, descriptors // 4 // listeners))


def _ports(addresses: Sequence[str]) -> set[int]:
    return {int(address.rpartition(":")[2]) for address in addresses}


class GrpcServer:
    """Serves in a thread until `is_alive` returns False, then answers the calls in progress."""

    def __init__(
        self,
        listeners: Sequence[tuple[GrpcService, Sequence[str]]],
        settings: Settings,
        is_alive: Callable[[], bool],
    ) -> None:
        """`listeners`: services, and the addresses of each, such as 127.0.0.1:8001 or [::1]:8001."""
        self._listeners, self._settings, self._is_alive = listeners, settings, is_alive
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="grpc", daemon=True)
        self.listening = threading.Event()

    def start(self) -> None:
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Stop, and wait for calls in progress for up to `seconds`."""
        self._stopped = True
        self._thread.join(seconds)

    def _run(self) -> None:
        pause = _RESTART_SECONDS
        while not self._is_stopping:
            try:
                asyncio.run(self._serve())
            except Exception:
                log.exception("the gRPC server failed; it starts again in %.0f s", pause)
                until = time.monotonic() + pause
                while time.monotonic() < until and not self._is_stopping:
                    time.sleep(_TICK_SECONDS)
                pause = min(2 * pause, _MAX_RESTART_SECONDS)

    @property
    def _is_stopping(self) -> bool:
        return self._stopped or not self._is_alive()

    async def _serve(self) -> None:
        servers = []
        try:
            for service, addresses in self._listeners:
                server = grpc.aio.server(options=self._options(), maximum_concurrent_rpcs=MAX_STREAMS_IN_ALL)
                servers.append(server)
                server.add_generic_rpc_handlers(tuple(service.handlers()))
                for address in addresses:
                    server.add_insecure_port(address)
                await server.start()
            self.listening.set()
            while not self._is_stopping:
                await asyncio.sleep(_TICK_SECONDS)
                for service, addresses in self._listeners:
                    service.close_excess(_ports(addresses), max_connections(len(self._listeners)))
        finally:
            for service, _ in self._listeners:
                service.draining = self._is_stopping
            # A second is left for the process to end: after that its master kills it.
            grace = max(0.0, self._settings.drain_seconds - 1.0) if self._is_stopping else 0.0
            await asyncio.gather(*(server.stop(grace) for server in servers))

    def _options(self) -> list[tuple[str, Any]]:
        idle_ms = 1000 * max(1, self._settings.keepalive_seconds)
        return [
            ("grpc.so_reuseport", 1),
            ("grpc.max_receive_message_length", self._settings.max_body_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.compression_enabled_algorithms_bitset", 1),  # none: 8 kB could become 8 MB, before any key is read
            ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
            ("grpc.absolute_max_metadata_size", 2 * _MAX_METADATA_BYTES),
            ("grpc.max_concurrent_streams", MAX_STREAMS),
            # It counts streams that have ended until they are freed here, and so refuses calls within that limit.
            ("grpc.http.overload_protection", 0),
            ("grpc.server.max_pending_requests", MAX_STREAMS_IN_ALL),
            ("grpc.server.max_pending_requests_hard_limit", 2 * MAX_STREAMS_IN_ALL),
            ("grpc.max_allowed_incoming_connections", max_connections(len(self._listeners))),
            ("grpc.max_connection_idle_ms", idle_ms),
            ("grpc.max_connection_age_ms", _MAX_AGE_MS),
            ("grpc.max_connection_age_grace_ms", _AGE_GRACE_MS),
            ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
            ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
            ("grpc.http2.bdp_probe", 0),  # else gRPC buffers megabytes of each connection before they are read
        ]
