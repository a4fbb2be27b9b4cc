"""A worker whose loop a test turns by hand, over real sockets, with stand-ins for application and fast path."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gunicorn.config import Config
from gunicorn.glogging import Logger
from prometheus_client.parser import text_string_to_metric_families

from service.http.cross_origin import CrossOrigin
from service.registry.batching_policy import BatchingPolicy
from service.server.event_worker import EventWorker
from service.telemetry.metrics import Metrics
from service.telemetry.request_record import RequestRecorder

Environ = dict[str, Any]


class Version:
    batching = BatchingPolicy(3)


class FakeRequest:
    """A request for /plain, as if the fast path had parsed it."""

    served = Version()

    def __init__(self, data: bytes) -> None:
        self.inputs = [data]


class FakeFastPath:
    """A fast path that echoes the body of /plain, and leaves an empty body to the application."""

    def __init__(self) -> None:
        self.batches: list[list[bytes]] = []
        self.on_record_metrics: Callable[[], Any] = lambda: None

    def try_parse(self, head: Any, data: bytes, client: str, arrived: float) -> FakeRequest | None:
        return FakeRequest(data) if head.path == "/plain" else None

    def respond(self, together: list[FakeRequest]) -> list[bytes | None]:
        self.batches.append([plain.inputs[0] for plain in together])
        return [
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(data), data) if data else None
            for data in self.batches[-1]
        ]

    def record_metrics(self, together: list[FakeRequest]) -> None:
        self.on_record_metrics()


class App:
    """gunicorn's application as the worker uses it, and a WSGI application that echoes the body."""

    max_body_bytes, max_input_bytes, health_route = 1000, 32 * 2**20, "/where/vertex/asks"

    def __init__(self) -> None:
        self.recorder = RequestRecorder(Metrics())
        self.cross_origin = CrossOrigin("https://shop.example")
        self.handled_paths: list[str] = []
        self.crash: Exception | None = None
        self.on_call: Callable[[], Any] = lambda: None
        self.plain = FakeFastPath()

    def fast_path(self) -> FakeFastPath:
        return self.plain

    @property
    def error_counts(self) -> dict[str, float]:
        """Count the worker's own error responses by error code."""
        families = text_string_to_metric_families(self.recorder.metrics.counters.exposition())
        samples = next(family.samples for family in families if family.name == "forward_pass_errors")
        return {sample.labels["code"]: sample.value for sample in samples if sample.value}

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
        self.handled_paths.append(environ["PATH_INFO"])
        self.on_call()
        if self.crash:
            raise self.crash
        body = environ["wsgi.input"].read()
        if environ["PATH_INFO"] == "/large":
            body = b"x" * 5_000_000
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]


class Loop:
    """A worker, its listening socket, and its clients."""

    def __init__(self, app: Any = None, application: Any = None) -> None:
        cfg = Config()
        cfg.set("http_parser", "python")
        cfg.set("graceful_timeout", 5)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.app = app or App()
        self.worker = EventWorker(1, os.getppid(), [self.listener], self.app, 30, cfg, Logger(cfg))
        self.worker.wsgi = application or self.app
        self.worker.set_up()
        self.clients: list[socket.socket] = []

    def client(self, *pieces: bytes) -> socket.socket:
        sock = socket.create_connection(self.listener.getsockname())
        sock.settimeout(10)
        self.clients.append(sock)
        self.turn()
        for piece in pieces:
            sock.sendall(piece)
            self.turn()
        return sock

    def turn(self, times: int = 4) -> None:
        for _ in range(times):
            self.worker.run_once(0.002)

    def take(self, sock: socket.socket, *, max_turns: int = 10_000) -> bytes:
        """Turn the loop until nothing more arrives for a client, and return what did."""
        sock.setblocking(False)
        found = b""
        for _ in range(max_turns):
            self.turn(1)
            try:
                piece = sock.recv(1 << 20)
            except BlockingIOError:
                if found and not self.worker.event_loop.has_queued_requests:
                    break
                continue
            if not piece:
                break
            found += piece
        sock.settimeout(10)
        return found

    def close(self) -> None:
        for sock in self.clients:
            sock.close()
        for connection in list(self.worker.event_loop.connections):
            connection.sock.close()
        self.worker.event_loop.poller.close()
        self.listener.close()
        read_end, write_end = self.worker.event_loop._wake_pipe
        if self.worker.executor._thread is None:
            os.close(write_end)
        else:  # its thread may be about to write to the pipe
            with Path(os.devnull).open("wb") as devnull:
                os.dup2(devnull.fileno(), write_end)
        os.close(read_end)
        self.worker.tmp.close()


def post(path: str, body: bytes = b"", *lines: bytes) -> bytes:
    return b"\r\n".join(
        [b"POST %s HTTP/1.1" % path.encode(), b"Host: h", b"Content-Length: %d" % len(body), *lines, b"", body]
    )


def error_of(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]["code"]


def queued_clients(loop: Loop, *requests: bytes) -> list[socket.socket]:
    """Connect clients whose requests all arrive before the loop turns."""
    clients = [loop.client() for _ in requests]
    for client, request in zip(clients, requests, strict=True):
        client.sendall(request)
    return clients


LAST_CHUNK = b"0\r\n\r\n"


def in_small_chunks(path: str, count: int) -> bytes:
    """A chunked request with 40 bytes of framing for each byte of its body."""
    return f"POST {path} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + count * (
        b"1;" + b"e" * 34 + b"\r\nx\r\n"
    )
