"""The blocking executor: requests that wait for a load get their response after it, and delay no other."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from service.config import Settings
from service.registry.errors import WouldBlock
from service.server import admission, event_loop
from service.server import blocking_executor as module
from tests.service.server.event_worker.harness import App, Environ, Loop, error_of, post
from tests.service.server.event_worker.loading_harness import Gate, end, waited


class Loading(App):
    """An application that blocks on /load and /crash, and must not do so in the loop."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate()

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
        if (path := environ["PATH_INFO"]) in {"/load", "/v2/load", "/crash"}:
            if threading.get_ident() == self.gate.loop:
                raise WouldBlock
            self.gate(environ.get("HTTP_X_NAME", path))
            if path == "/crash":
                raise RuntimeError("boom")
        return super().__call__(environ, start_response)


@pytest.fixture
def loop() -> Iterator[Loop]:
    it = Loop(Loading())
    yield it
    end(it, it.app.gate)


def test_a_request_gets_its_response_after_the_load_and_others_meanwhile(loop: Loop) -> None:
    waiting = loop.client(post("/load", b"loaded"))
    assert loop.app.gate.reached.wait(20)
    for path in ("/plain", "/other"):
        assert loop.take(loop.client(post(path, b"at once"))).endswith(b"at once")
    assert loop.app.handled_paths == ["/other"]
    loop.app.gate.open.set()
    found = waited(loop, waiting)
    assert found.startswith(b"HTTP/1.1 200")
    assert found.endswith(b"loaded")
    assert loop.worker.event_loop.admission.input_bytes == 0


def test_pipelined_requests_are_answered_in_order_around_a_load(loop: Loop) -> None:
    sock = loop.client(post("/load", b"first") + post("/other", b"second") + post("/load", b"third"))
    loop.app.gate.open.set()
    found = b""
    while b"third" not in found:
        found += waited(loop, sock)
    assert found.index(b"first") < found.index(b"second") < found.index(b"third")


def test_a_client_that_leaves_before_the_load_ends_disturbs_no_other(loop: Loop) -> None:
    first, second = loop.client(post("/load", b"1")), loop.client(post("/load", b"2"))
    first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    first.close()
    loop.app.gate.open.set()
    assert waited(loop, second).endswith(b"2")
    loop.turn(20)
    assert len(loop.worker.event_loop.connections) == 1


def test_a_connection_closed_while_it_waits_is_not_handled(loop: Loop) -> None:
    loop.client(post("/load", b"1", b"X-Name: first"))
    assert loop.app.gate.reached.wait(20)
    loop.client(post("/load", b"2", b"X-Name: closed"))
    last = loop.client(post("/load", b"3", b"X-Name: last"))
    loop.worker.event_loop.close(
        next(c for c in loop.worker.event_loop.connections if c.pending_request and c.pending_request.content == b"2")
    )
    loop.app.gate.open.set()
    assert waited(loop, last).endswith(b"3")
    assert loop.app.gate.passed == ["first", "last"]


@pytest.mark.parametrize("path", ["/load", "/v2/load"])
def test_a_load_that_takes_too_long_is_503_and_its_response_is_discarded(loop: Loop, path: str) -> None:
    sock = loop.client(post(path, b"old"))
    assert loop.app.gate.reached.wait(20)
    (connection,) = loop.worker.event_loop.connections
    loop.worker.expire_connections(connection.arrived_at + module.LOAD_TIMEOUT_SECONDS - 1)
    assert connection.pending_request is not None
    connection.arrived_at -= module.LOAD_TIMEOUT_SECONDS
    loop.worker.expire_connections(time.monotonic())
    found = loop.take(sock)
    assert found.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 5\r\n" in found
    error = json.loads(found.partition(b"\r\n\r\n")[2])["error"]
    assert "still being loaded; try again" in (error if path == "/v2/load" else error["message"])
    assert loop.app.error_counts == {"loading": 1}
    sock.sendall(post("/load", b"new"))
    loop.turn()
    loop.app.gate.open.set()
    assert waited(loop, sock).endswith(b"new")


def test_waiting_requests_are_bounded_and_do_not_count_toward_the_input_limit(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop.worker.event_loop.admission.max_input_bytes = 1000
    monkeypatch.setattr(module, "MAX_PENDING_REQUESTS", 2)
    loop.worker.executor.max_pending_bytes = 1000
    waiting = [loop.client(post("/load", b"x" * 600))]
    assert error_of(loop.take(loop.client(post("/load", b"x" * 600)))) == (503, "loading")
    waiting.append(loop.client(post("/load", b"x" * 300)))
    assert error_of(loop.take(loop.client(post("/load")))) == (503, "loading")
    assert loop.take(loop.client(post("/other", b"x" * 900))).endswith(b"x" * 900)
    loop.app.gate.open.set()
    assert all(waited(loop, sock).startswith(b"HTTP/1.1 200") for sock in waiting)
    assert loop.worker.event_loop.admission.input_bytes == 0


def test_a_request_with_the_largest_body_waits_for_a_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever `SERVE_MAX_BODY_BYTES` was, 32 MiB were the limit: a larger body got 503 however often it was sent."""
    monkeypatch.setattr(admission, "MAX_QUEUE_SECONDS", 60)  # a busy machine takes longer to read so much
    app = Loading()
    app.max_body_bytes = 33 * 2**20
    app.max_input_bytes = Settings(max_body_bytes=app.max_body_bytes).input_limit
    loop = Loop(app)
    app.gate.open.set()
    try:
        sock = loop.client()
        sock.settimeout(60)
        sender = threading.Thread(target=sock.sendall, args=[post("/load", bytes(app.max_body_bytes))])
        sender.start()
        while sender.is_alive():
            loop.turn()
        assert waited(loop, sock).startswith(b"HTTP/1.1 200")
    finally:
        end(loop, app.gate)


def test_input_after_a_waiting_request_counts_too(loop: Loop) -> None:
    loop.worker.executor.max_pending_bytes = 1000
    after = post("/other", b"x" * 600)
    first = loop.client(post("/load", b"loaded") + after)
    assert error_of(loop.take(loop.client(post("/load") + after[:-1]))) == (503, "loading")
    loop.app.gate.open.set()
    assert b"loaded" in waited(loop, first)
    assert loop.app.handled_paths.count("/other") == 1


def test_a_crash_in_the_executor_is_500_and_the_next_request_is_handled(loop: Loop) -> None:
    crash, good = loop.client(post("/crash")), loop.client(post("/load", b"fine"))
    loop.app.gate.open.set()
    assert error_of(waited(loop, crash)) == (500, "internal_error")
    assert waited(loop, good).endswith(b"fine")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_crashes_is_replaced(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    crashed = threading.Event()

    def crash(*_: object, **__: object) -> bool:
        if threading.get_ident() == loop.app.gate.loop:
            raise WouldBlock
        crashed.set()
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(loop.worker.wsgi_bridge, "handle", crash)
        loop.client(post("/load"))
        assert crashed.wait(20)
        loop.worker.executor._thread.join(20)
    loop.app.gate.open.set()
    assert waited(loop, loop.client(post("/load", b"fine"))).endswith(b"fine")


def test_without_a_thread_to_load_in_the_request_is_503_and_can_be_sent_again(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        sock = loop.client(post("/load"))
        found = loop.take(sock)
    assert error_of(found) == (503, "loading")
    assert b"is not in memory, and no thread can be started to load it; try again" in found
    assert "can't start new thread" in caplog.text
    loop.app.gate.open.set()
    sock.sendall(post("/load", b"loaded"))
    assert waited(loop, sock).endswith(b"loaded")
    assert loop.worker.event_loop.admission.input_bytes == 0


def test_an_abandoned_request_takes_no_memory(loop: Loop) -> None:
    """While one load hangs, abandoned requests could fill the memory."""
    loop.client(post("/load", b"hangs"))
    assert loop.app.gate.reached.wait(20)
    loop.client(post("/load", b"x" * 900))
    (connection,) = [
        c for c in loop.worker.event_loop.connections if c.pending_request and c.pending_request.content == b"x" * 900
    ]
    arrived = connection.pending_request
    connection.arrived_at -= module.LOAD_TIMEOUT_SECONDS
    loop.worker.expire_connections(time.monotonic())
    assert connection.pending_request is None
    assert arrived.content == b""


def test_input_after_a_request_is_freed_once_its_client_is_gone(loop: Loop) -> None:
    loop.client(post("/load", b"hangs"))
    assert loop.app.gate.reached.wait(20)
    loop.client(post("/load", b"x") + post("/other", b"x" * 900))
    (connection,) = [c for c in loop.worker.event_loop.connections if c.reader.buffer]
    loop.worker.event_loop.close(connection)
    assert connection.reader.buffered_bytes == 0


def test_draining_waits_for_a_load(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_loop, "LINGER_SECONDS", 0.1)
    sock = loop.client(post("/load", b"loaded"))
    assert loop.app.gate.reached.wait(20)
    threading.Timer(0.3, loop.app.gate.open.set).start()
    loop.worker.drain()
    found = sock.recv(10_000)
    assert found.startswith(b"HTTP/1.1 200")
    assert found.endswith(b"loaded")


def test_draining_responds_503_if_a_load_does_not_end_in_time(loop: Loop) -> None:
    loop.worker.cfg.set("graceful_timeout", 1)
    sock = loop.client(post("/load"))
    loop.worker.drain()
    assert error_of(sock.recv(10_000)) == (503, "loading")
    assert not loop.worker.event_loop.connections
