"""gunicorn around the application, configured by our settings alone: no configuration file, no GUNICORN_CMD_ARGS.

The application is loaded before the workers are forked, so that they share the memory of the models. Everything that
needs a thread starts after the fork: a thread does not survive one.
"""

from __future__ import annotations

import errno
import gc
import logging
import signal
import socket
import threading
import time
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from flask import Flask
from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]

from model_store.utils.malloc import set_malloc_thresholds
from service.config import Settings
from service.http.cross_origin import CrossOrigin
from service.http.request_head import with_mapped_addresses
from service.server.fast_path import FastPath
from service.server.gunicorn_compat import HookedArbiter, early_signals, keep_early_signals
from service.telemetry.logging import ServerLogger
from service.telemetry.mmap_counters import MmapCounters, memory_directory
from service.telemetry.request_record import RequestRecorder

if TYPE_CHECKING:
    from service.registry.registry import ModelRegistry

log = logging.getLogger("service")

_PORT_TRIES = 16  # for a port that is free on all addresses of a host
_NO_SUCH_ADDRESS = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
_JOIN_SECONDS = 1.0  # for which a new worker loads its versions before it accepts connections
WORKER_CLASSES = {
    "event": "service.server.event_worker.EventWorker",
    "gthread": "service.server.gunicorn_compat.ThreadWorker",
}


class GrpcListener(NamedTuple):
    """Addresses on which every worker listens for gRPC; `sockets` reserve them as long as the process runs."""

    sockets: Sequence[socket.socket]
    has_repository: bool

    @property
    def addresses(self) -> list[str]:
        """The addresses as gRPC expects them: 127.0.0.1:8001, [::1]:8001."""
        names = [listener.getsockname()[:2] for listener in self.sockets]
        return [f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}" for ip, port in names]


def gunicorn_options(
    app: Flask, settings: Settings, listeners: Sequence[int], grpc_listeners: Sequence[GrpcListener] = ()
) -> dict[str, Any]:
    """Return gunicorn's options; `listeners` are descriptors of bound sockets, which gunicorn then owns."""
    return {
        "bind": [f"fd://{listener}" for listener in listeners],
        "workers": settings.worker_count,
        "worker_class": WORKER_CLASSES[settings.worker_type],
        "threads": settings.threads,
        "preload_app": True,
        "timeout": settings.timeout_seconds,
        "graceful_timeout": settings.drain_seconds,
        "keepalive": settings.keepalive_seconds,
        "limit_request_line": 4094,
        "limit_request_fields": 64,
        "limit_request_field_size": 8190,
        "forwarded_allow_ips": with_mapped_addresses(settings.forwarded_allow_ips),
        "forwarder_headers": "",  # no proxy may set SCRIPT_NAME or PATH_INFO
        "http_parser": "python",  # one parser everywhere, whether or not an optional one is installed
        "control_socket_disable": True,
        "worker_tmp_dir": memory_directory(),
        "logger_class": ServerLogger,
        "loglevel": "info" if settings.log_level == "debug" else "warning",  # gunicorn logs routine as info
        "accesslog": None,  # the application writes one, with request ids
        "proc_name": "forward-pass",
        "post_fork": keep_early_signals,
        "post_worker_init": partial(_post_worker_init, app, settings, grpc_listeners=grpc_listeners),
        "worker_exit": partial(_worker_exit, settings),
        "child_exit": partial(_child_exit, app),
        "on_reload": lambda _: _registry(app).request_sync(),
    }


class GunicornApplication(BaseApplication):  # type: ignore[misc]
    """gunicorn's application. `run` ends with SystemExit."""

    def __init__(
        self,
        app: Flask,
        settings: Settings,
        listeners: Sequence[int],
        when_ready: Any,
        grpc_listeners: Sequence[GrpcListener] = (),
    ) -> None:
        self._app = app
        self.max_body_bytes, self.health_route = settings.max_body_bytes, settings.health_route
        self.max_input_bytes = settings.input_limit
        self._options = {**gunicorn_options(app, settings, listeners, grpc_listeners), "when_ready": when_ready}
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        return self._app

    def run(self) -> None:
        configure_malloc_trim()
        # Workers share this memory until one writes to it, as garbage collection does to every object: so freeze it.
        # Collecting generation 1 is enough: old objects contain no garbage, and looking for it takes 8 ms.
        gc.collect(1)
        gc.freeze()
        DrainingArbiter(self, self._app).run()

    def fast_path(self) -> FastPath:
        """Make the fast path of the calling worker, whose thread must not wait for loads from now on."""
        self._app.extensions["registry"].event_loop_thread = threading.get_ident()
        made: FastPath = self._app.extensions["fast_path"]()
        return made

    @property
    def recorder(self) -> RequestRecorder:
        """Records requests that the worker handles without Flask."""
        recorder: RequestRecorder = self._app.extensions["recorder"]
        return recorder

    @property
    def cross_origin(self) -> CrossOrigin:
        """The headers of the worker's own error responses for pages of other origins."""
        cross_origin: CrossOrigin = self._app.extensions["cross_origin"]
        return cross_origin


class DrainingArbiter(HookedArbiter):
    """gunicorn's master process; also replaces workers that keep all others from a new version."""

    def __init__(self, application: BaseApplication, app: Flask) -> None:
        self._flask_app = app
        self._terminated: AbstractSet[int] = frozenset()
        super().__init__(application)

    def on_stop(self) -> None:
        log.info("stopping: open requests have %d s to complete", self.cfg.graceful_timeout)

    def on_tick(self) -> None:
        registry, timeout = _registry(self._flask_app), self.cfg.timeout
        registry.release_replaced()
        # A worker that starts after the key file vanished must not know keys that were revoked before.
        self._flask_app.extensions["keys"].reload_if_changed()
        _counters(self._flask_app).merge_dead_processes()
        overdue = set(registry.overdue_workers(timeout))
        for pid in overdue - self._terminated:
            log.error("replacing worker %d: the other workers have waited %d s for it to load a version", pid, timeout)
            self.send_signal(pid, signal.SIGTERM)
        self._terminated = overdue
        for pid in registry.overdue_workers(timeout + self.cfg.graceful_timeout):
            self.send_signal(pid, signal.SIGKILL)


def _registry(app: Flask) -> ModelRegistry:
    registry: ModelRegistry = app.extensions["registry"]
    return registry


def _counters(app: Flask) -> MmapCounters:
    counters: MmapCounters = app.extensions["recorder"].metrics.counters
    return counters


def _post_worker_init(
    app: Flask, settings: Settings, worker: Any, *, grpc_listeners: Sequence[GrpcListener] = ()
) -> None:
    """Prepare a new worker before its first request."""
    if not {signal.SIGTERM, signal.SIGQUIT}.isdisjoint(early_signals(worker)):
        worker.alive = False
    # A terminal sends Ctrl-C to every process; only the master handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if settings.otlp_endpoint:
        from service.telemetry.tracing import RequestTracer  # noqa: PLC0415 - the extra otel, and half a second to import

        app.extensions["recorder"].tracer = RequestTracer.to_endpoint(settings.otlp_endpoint)
    registry = _registry(app)
    registry.start_joining()
    registry.start_sync(settings.poll_seconds)
    if settings.pages:
        app.extensions["traffic_monitor"].start()
    # Until the versions are loaded, other workers respond. Without any, this one does: health checks, and 503 with the
    # reason. A restart takes some milliseconds if the copies are in the cache, so wait for that.
    soon = time.monotonic() + _JOIN_SECONDS
    while worker.alive and not registry.has_joined and (time.monotonic() < soon or registry.has_other_workers):
        worker.notify()
        time.sleep(0.01)
    if grpc_listeners:
        _start_grpc(app, grpc_listeners, worker)


def _start_grpc(app: Flask, listeners: Sequence[GrpcListener], worker: Any) -> None:
    """Start the worker's gRPC server in a thread; HTTP is served without it if that fails."""
    try:
        served = [(each.has_repository, each.addresses) for each in listeners]
        worker.grpc_server = app.extensions["grpc_server"](served, lambda: worker.alive)
        worker.grpc_server.start()
        # A client that has seen /readyz may call over gRPC next, which takes some 0.3 s to import.
        worker.grpc_server.listening.wait(_JOIN_SECONDS)
    except Exception:
        log.exception("the gRPC server could not be started; HTTP is served without it")


def _worker_exit(settings: Settings, _: Any, worker: Any) -> None:
    """Let the gRPC calls in progress finish before the process of a worker ends."""
    server = getattr(worker, "grpc_server", None)
    if server is not None:
        server.stop(settings.drain_seconds)


def _child_exit(app: Flask, _: Any, worker: Any) -> None:
    """Release, in the master, what a worker that has ended held: its vote on versions, its requests in progress."""
    _registry(app).leave(worker.pid)
    _counters(app).merge_dead_processes(worker.pid)


def configure_malloc_trim() -> None:
    """Make glibc return freed blocks of 1 MiB and more to the kernel, in this process and its forks.

    By default it expects the next block to be as large, and keeps them: after large bodies of every kind, a worker took
    52 MiB above idle, against 23. The trim threshold is what glibc derives from the mmap threshold. Other C libraries
    keep nothing.
    """
    set_malloc_thresholds(1 << 20, 1 << 21)


def bind_listeners(host: str, port: int, *, reuse_port: bool = False) -> list[socket.socket]:
    """Return a bound socket for each address of `host`, IPv4 first, all with the same port.

    OSError at once if an address is in use, instead of after gunicorn's five tries. An address that this machine does
    not have is left out if there is another one: `localhost` may be ::1 too where IPv6 is off. `reuse_port`: each
    worker will bind a socket of its own to the port, which the returned ones reserve.
    """
    addresses = _addresses(host, port)
    if reuse_port:
        for probe in _bind_addresses(addresses):  # fails if another service uses the port, also with SO_REUSEPORT
            probe.close()
        return _bind_addresses(addresses, reuse_port=True)
    for _ in range(_PORT_TRIES if port == 0 else 0):
        with suppress(OSError):  # the port that is free on the first address may be in use on another
            return _bind_addresses(addresses)
    return _bind_addresses(addresses)


def _addresses(host: str, port: int) -> list[tuple[int, tuple[Any, ...]]]:
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)
    return sorted({(family, address) for family, _, _, _, address in found}, key=lambda each: each[0])


def _bind_addresses(
    addresses: Sequence[tuple[int, tuple[Any, ...]]], *, reuse_port: bool = False
) -> list[socket.socket]:
    bound: list[socket.socket] = []
    absent: list[OSError] = []
    try:
        for family, (ip, port, *rest) in addresses:
            try:
                known_port = bound[0].getsockname()[1] if bound else port
                bound.append(_bind_socket(family, (ip, known_port, *rest), reuse_port=reuse_port))
            except OSError as e:
                if e.errno not in _NO_SUCH_ADDRESS:
                    raise
                absent.append(e)
        if not bound:
            raise absent[0]
    except OSError:
        for listener in bound:
            listener.close()
        raise
    return bound


def _bind_socket(family: int, address: tuple[Any, ...], *, reuse_port: bool) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener
