"""The server: gunicorn, told by our settings and nothing else - no configuration file, no GUNICORN_CMD_ARGS.

The application is loaded before the workers are forked, so that they share the memory of the models. Everything that
needs a thread starts after the fork: a thread does not survive one.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from flask import Flask
from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]
from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]

from service.config import Settings
from service.server.fast_path import FastPath
from service.telemetry.logging import ServerLogger
from service.telemetry.mmap_counters import MmapCounters, memory_directory
from service.telemetry.request_record import RequestRecorder

if TYPE_CHECKING:
    from service.registry.registry import ModelRegistry

log = logging.getLogger("service")

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
WORKER_CLASSES = {"event": "service.server.event_worker.EventWorker", "gthread": "gthread"}


def gunicorn_options(settings: Settings, listeners: Sequence[int]) -> dict[str, Any]:
    """gunicorn's options; `listeners` are descriptors of bound sockets, which become gunicorn's own."""
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
        "forwarded_allow_ips": settings.forwarded_allow_ips,
        "forwarder_headers": "",  # nobody says SCRIPT_NAME or PATH_INFO to us, a proxy neither
        "http_parser": "python",  # one parser everywhere, whether or not an optional one is installed
        "control_socket_disable": True,
        "worker_tmp_dir": memory_directory(),
        "logger_class": ServerLogger,
        "loglevel": "info" if settings.log_level == "debug" else "warning",  # its routine is not news
        "accesslog": None,  # the application writes one, with the ids of requests
        "proc_name": "forward-pass",
        "post_fork": _post_fork,
        "post_worker_init": partial(_post_worker_init, settings),
        "child_exit": _child_exit,
        "on_reload": lambda server: _registry(server).request_sync(),
    }


class GunicornApplication(BaseApplication):  # type: ignore[misc]
    """gunicorn around an application. `run` returns by SystemExit."""

    def __init__(self, app: Flask, settings: Settings, listeners: Sequence[int], when_ready: Any) -> None:
        self._app = app
        self.max_body_bytes, self.health_route = settings.max_body_bytes, settings.health_route
        self._options = {**gunicorn_options(settings, listeners), "when_ready": when_ready}
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        return self._app

    def run(self) -> None:
        return_freed_memory()
        # The workers share what is here now until somebody writes to it, as a collection of garbage does to all of it.
        # Of what is old there is no garbage, and to find that out takes 8 ms.
        gc.collect(1)
        gc.freeze()
        DrainingArbiter(self).run()

    def fast_path(self) -> FastPath:
        """A way past the application for plain predictions, of one worker's own; whose loop waits for no load."""
        self._app.extensions["registry"].event_loop_thread = threading.get_ident()
        made: FastPath = self._app.extensions["fast_path"]()
        return made

    @property
    def recorder(self) -> RequestRecorder:
        """For requests that the worker answers by itself."""
        recorder: RequestRecorder = self._app.extensions["recorder"]
        return recorder


class DrainingArbiter(Arbiter):  # type: ignore[misc]
    """Ctrl-C lets requests under way end, as SIGTERM does; a second one does not wait."""

    _terminated: AbstractSet[int] = frozenset()

    def handle_term(self) -> None:
        log.info("stopping: requests under way have %d s to end", self.cfg.graceful_timeout)
        super().handle_term()

    handle_int = handle_term

    def murder_workers(self) -> None:
        """Also replaces workers that answer, but keep all others from a new version."""
        super().murder_workers()
        registry = _registry(self)
        registry.release_replaced()
        _counters(self).merge_dead_processes()
        overdue = set(registry.overdue_workers(self.timeout))
        for pid in overdue - self._terminated:
            log.error("worker %d is replaced: the others have waited %d s for it to load a version", pid, self.timeout)
            self.kill_worker(pid, signal.SIGTERM)
        self._terminated = overdue
        for pid in registry.overdue_workers(self.timeout + self.cfg.graceful_timeout):
            self.kill_worker(pid, signal.SIGKILL)


def _registry(process: Any) -> ModelRegistry:
    """That of the application, in the master or in a worker."""
    registry: ModelRegistry = process.app.wsgi().extensions["registry"]
    return registry


def _counters(server: Any) -> MmapCounters:
    counters: MmapCounters = server.app.wsgi().extensions["recorder"].metrics.counters
    return counters


def _post_fork(server: Any, worker: Any) -> None:
    """In a new worker, at once."""
    worker.early_signals = server.SIG_QUEUE  # where its master's handlers put what comes before it has its own


def _post_worker_init(settings: Settings, worker: Any) -> None:
    """In a new worker, before its first request."""
    while not worker.early_signals.empty():
        if worker.early_signals.get() in {signal.SIGTERM, signal.SIGQUIT}:
            worker.alive = False
    # A terminal sends Ctrl-C to every process; the master alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if settings.otlp_endpoint:
        from service.telemetry.tracing import RequestTracer  # noqa: PLC0415 - the extra otel, and half a second to import

        worker.app.callable.extensions["recorder"].tracer = RequestTracer.to_endpoint(settings.otlp_endpoint)
    registry = _registry(worker)
    with _heartbeat(worker):
        while worker.alive and not registry.join():
            time.sleep(0.1)
    registry.start_sync(settings.poll_seconds)


@contextmanager
def _heartbeat(worker: Any) -> Iterator[None]:
    """The worker shows life meanwhile: fetching a large model may take longer than SERVE_TIMEOUT_SECONDS."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(1.0):
            worker.notify()

    worker.notify()  # before which gunicorn would never find that it hangs
    thread = threading.Thread(target=beat, name="beat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _child_exit(server: Any, worker: Any) -> None:
    """In the master, for a worker that is gone: nobody waits for it, its requests are no longer in progress."""
    _registry(server).leave(worker.pid)
    _counters(server).merge_dead_processes(worker.pid)


def return_freed_memory() -> None:
    """Has glibc give blocks of 1 MiB and more back to the kernel as they are freed, in this process and its forks.

    Left alone it expects the next block to be as large and keeps them: a worker was 52 MiB above idle after large
    bodies of every kind, against 23. The other threshold is what glibc derives from this one. Other C libraries keep
    nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 1 << 20)
        mallopt(_M_TRIM_THRESHOLD, 1 << 21)


def bind_listener(host: str, port: int) -> socket.socket:
    """A bound socket; OSError at once where the address is taken, instead of after gunicorn's five tries."""
    family, kind, protocol, _, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener
