"""Admission control counts correctly whatever clients do: partial requests, pipelines, disconnects, unread output."""

from __future__ import annotations

import contextlib
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from model_store.registry.store import Store
from service.app import create_app
from service.config import Settings
from service.server import admission, blocking_executor, connection, event_loop, event_worker, request_reader
from service.server.gunicorn_app import GunicornApplication
from tests.service.conftest import price, with_golden
from tests.service.server.event_worker.harness import LAST_CHUNK, Loop, in_small_chunks, post

GOOD, BAD = b'{"instances": [[3, 80]]}', b'{"instances": [[3, "x"]]}'
PREDICT = "/models/price/predict"
REQUESTS = [
    post(PREDICT, GOOD),
    post(PREDICT, BAD),
    post(PREDICT, GOOD + b" " * 900),
    post(PREDICT, GOOD)[:-5],
    post(PREDICT, GOOD, b"Expect: 100-continue"),
    post(PREDICT, GOOD, b"Connection: close"),
    *[post(f"/models/price/versions/{number}/predict", GOOD) for number in (1, 2, 3, 9)],
    post("/healthz"),
    b"GET /openapi.json HTTP/1.1\r\nHost: h\r\n\r\n",
    b"HEAD /healthz HTTP/1.1\r\nHost: h\r\n\r\n",
    b"nonsense\r\n\r\n",
    in_small_chunks(PREDICT, 20) + LAST_CHUNK,
    in_small_chunks(PREDICT, 5) + b"no chunk\r\n",
]


class Clock:
    """The loop's clock, which a test can advance."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0
        seen = SimpleNamespace(monotonic=self.now, sleep=time.sleep)
        for module in (event_loop, event_worker, admission, connection):
            monkeypatch.setattr(module, "time", seen)

    def now(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture
def loop(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    """The real application with versions to load, in a loop with low limits."""
    for module, name, value in (
        (admission, "MAX_STALLED_OUTPUT_BYTES", 6000),
        (admission, "MAX_OUTPUT_BYTES", 20_000),
        (admission, "MAX_CONNECTIONS", 30),
        (event_loop, "READ_BYTES", 300), (event_loop, "LARGE_READ_BYTES", 900),
        (request_reader, "CHUNKS_PER_READ", 3),
        (blocking_executor, "MAX_PENDING_REQUESTS", 5),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    for seed in range(3):
        store.publish("price", with_golden(price(seed), [[3, 80]]))
    cache = str(tmp_path / "cache")
    settings = Settings(store=str(store.root), cache_dir=cache, poll_seconds=0, max_extra_versions=1)
    app = create_app(settings)
    application = GunicornApplication(app, settings, [], lambda _: None)
    application.max_input_bytes = 6000
    it = Loop(application, app)
    it.listener.setsockopt(
        socket.SOL_SOCKET, socket.SO_SNDBUF, 4096
    )  # so that the kernel buffers no large response completely
    yield it
    it.close()


def do_something(rng: random.Random, loop: Loop) -> None:
    """Let one client connect, send, read or leave; ignore errors."""
    choice = rng.random()
    if choice < 0.12 or not loop.clients:
        loop.clients.append(socket.socket())
        loop.clients[-1].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        loop.clients[-1].connect(loop.listener.getsockname())
        loop.clients[-1].setblocking(False)
    sock = rng.choice(loop.clients)
    with contextlib.suppress(OSError):
        if choice < 0.6:
            sent = b"".join(rng.choices(REQUESTS, k=rng.choice([1, 1, 2, 5])))
            sock.send(sent[: rng.randint(0, len(sent))] if rng.random() < 0.3 else sent)
        elif choice < 0.85:
            sock.recv(rng.choice([100, 1 << 20]))
        elif choice < 0.9:
            sock.shutdown(socket.SHUT_WR)
        elif choice < 0.95:
            loop.clients.remove(sock)
            sock.close()


def check(loop: Loop) -> None:
    of = loop.worker
    for each in of.event_loop.connections:
        waits = each.pending_request is not None
        places = [
            each in of.executor._pending,
            *(
                other is each
                for queue in (of.event_loop.queue, of.event_loop.large_queue, of.event_loop.priority_queue)
                for other in queue
            ),
        ]
        assert sum(places) == waits
        assert sum(
            other is each
            for queue in (of.event_loop.readable_connections, of.event_loop.chunked_connections)
            for other in queue
        ) == bool(each.readable_since)
        elsewhere = each in of.executor._pending  # which has its own limit
        assert each.input_bytes == (
            0 if elsewhere else each.reader.buffered_bytes + (len(each.pending_request.content) if waits else 0)
        )
        assert each.output_bytes == len(each.send_buffer) + sum(map(len, each.send_pieces))
        assert each.send_buffer or not each.send_pieces
    assert of.event_loop.admission.input_bytes == sum(each.input_bytes for each in of.event_loop.connections)
    assert of.event_loop.admission.output_bytes == sum(each.output_bytes for each in of.event_loop.connections)
    assert len(of.event_loop.connections) <= admission.MAX_CONNECTIONS


@pytest.mark.parametrize("seed", range(3))
def test_counted_bytes_and_requests_in_progress_add_up_whatever_clients_do(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng, clock = random.Random(seed), Clock(monkeypatch)
    for _ in range(1000):
        do_something(rng, loop)
        if rng.random() < 0.05:
            clock.ahead += rng.choice([0.1, 0.3, 1.2, 3, 31])
            loop.worker.expire_connections(clock.now())
        loop.worker.run_once(0)
        check(loop)
    for sock in loop.clients:
        sock.close()
    for _ in range(3):
        loop.turn(50)
        clock.ahead += 100
        loop.worker.expire_connections(clock.now())
    assert not loop.worker.event_loop.connections
    assert loop.worker.event_loop.admission.input_bytes == loop.worker.event_loop.admission.output_bytes == 0
    end = time.monotonic() + 20
    while "forward_pass_requests_in_progress 0.0" not in loop.app.recorder.metrics.counters.exposition():
        assert time.monotonic() < end  # the executor may still handle an abandoned request
        loop.turn(10)
