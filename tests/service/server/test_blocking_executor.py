"""What has to wait for a load waits aside: whoever asks for it gets the answer, and nobody else waits."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from model_store.registry.store import Store
from service.app import create_app
from service.config import Settings
from service.registry.errors import WouldBlock
from service.registry.registry import ModelRegistry
from service.server import admission, event_loop
from service.server import blocking_executor as module
from service.server.gunicorn_app import GunicornApplication
from tests.service.conftest import break_version, price, with_golden
from tests.service.server.test_event_worker import App, Environ, Loop, error_of, post

GOOD = b'{"instances": [[3, 80]]}'


class Gate:
    """A load that ends when a test says so, in any thread but the test's, which turns the loop."""

    def __init__(self) -> None:
        self.loop = threading.get_ident()
        self.open, self.reached = threading.Event(), threading.Event()
        self.passed: list[Any] = []

    def __call__(self, what: Any) -> None:
        self.reached.set()
        assert threading.get_ident() != self.loop
        assert self.open.wait(20)
        self.passed.append(what)


class Loading(App):
    """An application that has to load something for /load and /crash, which its loop must not wait for."""

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


def end(loop: Loop, gate: Gate) -> None:
    """Whoever still loads has nobody to tell."""
    loop.worker.executor._wake_loop = lambda: None
    gate.open.set()
    loop.close()


def waited(loop: Loop, sock: socket.socket) -> bytes:
    """What comes for a client that waits aside."""
    sock.setblocking(False)
    for _ in range(5000):
        loop.turn(1)
        try:
            return sock.recv(1 << 20)
        except BlockingIOError:
            pass
    raise AssertionError("nothing has come")


def test_a_request_that_waits_for_a_load_is_answered_after_it_and_others_meanwhile(loop: Loop) -> None:
    waiting = loop.client(post("/load", b"loaded"))
    assert loop.app.gate.reached.wait(20)
    for path in ("/plain", "/other"):
        assert loop.take(loop.client(post(path, b"at once"))).endswith(b"at once")
    assert loop.app.asked == ["/other"]
    loop.app.gate.open.set()
    found = waited(loop, waiting)
    assert found.startswith(b"HTTP/1.1 200")
    assert found.endswith(b"loaded")
    assert loop.worker.event_loop.admission.input_bytes == 0


def test_what_follows_on_the_connection_is_answered_in_its_order(loop: Loop) -> None:
    sock = loop.client(post("/load", b"first") + post("/other", b"second") + post("/load", b"third"))
    loop.app.gate.open.set()
    found = b""
    while b"third" not in found:
        found += waited(loop, sock)
    assert found.index(b"first") < found.index(b"second") < found.index(b"third")


def test_who_is_gone_before_the_load_ends_disturbs_nobody(loop: Loop) -> None:
    first, second = loop.client(post("/load", b"1")), loop.client(post("/load", b"2"))
    first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    first.close()
    loop.app.gate.open.set()
    assert waited(loop, second).endswith(b"2")
    loop.turn(20)
    assert len(loop.worker.event_loop.connections) == 1


def test_who_was_closed_while_it_waited_is_not_answered_for(loop: Loop) -> None:
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
def test_a_load_that_takes_too_long_is_told_and_its_answer_goes_to_nobody(loop: Loop, path: str) -> None:
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
    assert loop.app.refusals == {"loading": 1}
    sock.sendall(post("/load", b"new"))
    loop.turn()
    loop.app.gate.open.set()
    assert waited(loop, sock).endswith(b"new")


def test_those_who_wait_are_bounded_and_take_no_room_of_others(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_INPUT_BYTES", 1000)
    monkeypatch.setattr(module, "MAX_PENDING_REQUESTS", 2)
    monkeypatch.setattr(module, "MAX_PENDING_BYTES", 1000)
    waiting = [loop.client(post("/load", b"x" * 600))]
    assert error_of(loop.take(loop.client(post("/load", b"x" * 600)))) == (503, "loading")
    waiting.append(loop.client(post("/load", b"x" * 300)))
    assert error_of(loop.take(loop.client(post("/load")))) == (503, "loading")
    assert loop.take(loop.client(post("/other", b"x" * 900))).endswith(b"x" * 900)
    loop.app.gate.open.set()
    assert all(waited(loop, sock).startswith(b"HTTP/1.1 200") for sock in waiting)
    assert loop.worker.event_loop.admission.input_bytes == 0


def test_what_has_come_after_a_request_that_waits_counts_as_well(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PENDING_BYTES", 1000)
    after = post("/other", b"x" * 600)
    first = loop.client(post("/load", b"loaded") + after)
    assert error_of(loop.take(loop.client(post("/load") + after[:-1]))) == (503, "loading")
    loop.app.gate.open.set()
    assert b"loaded" in waited(loop, first)
    assert loop.app.asked.count("/other") == 1


def test_a_crash_aside_is_a_500_and_the_next_one_is_answered(loop: Loop) -> None:
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


def test_where_the_system_has_no_thread_to_load_in_whoever_asks_is_told_and_may_ask_again(
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


def test_a_request_whose_client_waits_no_longer_takes_no_memory(loop: Loop) -> None:
    """While one load hangs, others could fill it, 30 seconds after 30 seconds."""
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


def test_what_came_after_a_request_takes_no_memory_once_its_client_is_gone(loop: Loop) -> None:
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


def test_draining_tells_whose_load_does_not_end_in_time(loop: Loop) -> None:
    loop.worker.cfg.set("graceful_timeout", 1)
    sock = loop.client(post("/load"))
    loop.worker.drain()
    assert error_of(sock.recv(10_000)) == (503, "loading")
    assert not loop.worker.event_loop.connections


class Service:
    """The real application in a loop. Loads end when a test opens the gate."""

    def __init__(self, store: Store, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = Settings(store=str(store.root), cache_dir=str(cache), poll_seconds=0, admin=True)
        app = create_app(settings)
        self.registry: ModelRegistry = app.extensions["registry"]
        self.gate, self.now = Gate(), 0.0
        loader = self.registry._loader
        read = loader._read

        def slow(name: str, number: int, vouched: str | None) -> Any:
            self.gate((name, number))
            return read(name, number, vouched)

        monkeypatch.setattr(loader, "_read", slow)
        monkeypatch.setattr(loader, "_clock", lambda: self.now)
        self.loop = Loop(GunicornApplication(app, settings, [], lambda _: None), app)

    def ask(self, path: str, body: bytes = GOOD, method: str = "POST") -> socket.socket:
        head = f"{method} {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n"
        return self.loop.client(head.encode() + body)

    def answer(self, sock: socket.socket) -> tuple[int, Any]:
        head, _, body = waited(self.loop, sock).partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(body)

    def says(self, path: str, body: bytes = GOOD, method: str = "POST") -> tuple[int, Any]:
        return self.answer(self.ask(path, body, method))


@pytest.fixture
def service(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """Version 4 of `price` answers, the versions before it are in the store."""
    for seed in (1, 2, 3):
        store.publish("price", with_golden(price(seed), [[3, 80]]))
    it = Service(store, tmp_path / "cache", monkeypatch)
    yield it
    end(it.loop, it.gate)


TENSORS = json.dumps({"inputs": [{"name": "instances", "shape": [1, 2], "datatype": "FP64", "data": [3, 80]}]}).encode()


@pytest.mark.parametrize(
    ("path", "body", "method"),
    [
        ("/models/price/versions/2/predict", GOOD, "POST"),
        ("/models/price/versions/2/predict?receipt=true", GOOD, "POST"),
        ("/predict", b'{"model": "price", "version": 2, "instances": [[3, 80]]}', "POST"),
        ("/predict", b'{"model": "price", "version": "2", "instances": [{"rooms": 3, "area": 80}]}', "POST"),
        ("/invocations", b'{"model": "price", "version": 2, "instances": [[3, 80]]}', "POST"),
        ("/v1/models/price/versions/2:predict", GOOD, "POST"),
        ("/v1/models/price/versions/2/metadata", b"", "GET"),
        ("/v2/models/price/versions/2/infer", TENSORS, "POST"),
        ("/v2/models/price/versions/2", b"", "GET"),
        ("/v2/models/price/versions/2/config", b"", "GET"),
        ("/models/price/versions/2", b"", "GET"),
        ("/models/price/versions/2/example", b"", "GET"),
    ],
)
def test_a_version_that_loads_keeps_nobody_else_waiting(service: Service, path: str, body: bytes, method: str) -> None:
    asker = service.ask(path, body, method)
    assert service.gate.reached.wait(20)
    assert service.says("/models/price/predict")[1]["version"] == 4
    assert service.says("/v1/models/price:predict")[0] == 200
    service.gate.open.set()
    status, answer = service.answer(asker)
    assert (status, service.gate.passed) == (200, [("price", 2)])
    assert (status, answer) == service.says(path, body, method)  # which is in memory now
    assert service.gate.passed == [("price", 2)]


def test_requests_that_wait_for_a_version_are_counted_and_timed_once(service: Service) -> None:
    asker = service.ask("/models/price/versions/2/predict")
    service.gate.open.set()
    service.answer(asker)
    figures = service.loop.app.recorder.metrics.counters.exposition()
    of = 'model="price",route="/models/<name>/versions/<version>/predict",status="200",version="2"'
    assert f"forward_pass_requests_total{{{of}}} 1.0" in figures
    assert "forward_pass_requests_in_progress 0.0" in figures


def test_a_request_that_is_given_up_is_counted_as_that_alone(service: Service) -> None:
    asker = service.ask("/models/price/versions/2/predict")
    assert service.gate.reached.wait(20)
    (connection,) = service.loop.worker.event_loop.connections
    connection.arrived_at -= module.LOAD_TIMEOUT_SECONDS
    service.loop.worker.expire_connections(time.monotonic())
    assert service.answer(asker)[0] == 503
    service.gate.open.set()
    assert service.says("/models/price/versions/3/predict")[0] == 200  # after it, since the thread is one
    figures = service.loop.app.recorder.metrics.counters.exposition()
    told = re.findall(r'^forward_pass_requests_total.*status="(\d+)",version="(\d?)"} (.*)$', figures, re.MULTILINE)
    assert told == [("503", "", "1.0"), ("200", "3", "1.0")]
    assert "forward_pass_requests_in_progress 0.0" in figures


@pytest.mark.parametrize(
    "path", ["/v2/models/price/versions/2/ready", "/v1/models/price/versions/2", "/v1/models/price/labels/2"]
)
def test_health_of_a_version_neither_loads_nor_waits(service: Service, path: str) -> None:
    status, answer = service.says(path, b"", "GET")
    assert (status, answer["ready"]) == (200, True)
    assert not service.gate.reached.is_set()
    assert service.says(path.replace("2", "9"), b"", "GET")[0] == 404


def test_what_was_counted_of_a_version_is_told_without_loading_it(service: Service) -> None:
    status, answer = service.says("/v2/models/price/versions/2/stats", b"", "GET")
    assert (status, answer["model_stats"][0]["version"]) == (200, "2")
    assert not service.gate.reached.is_set()


def test_a_version_that_cannot_be_loaded_is_told_as_ever_and_rests(service: Service, store: Store) -> None:
    break_version(store, "price", 2)
    service.gate.open.set()
    path = "/models/price/versions/2/predict"
    answers = [service.says(path) for _ in range(3)]
    assert [status for status, _ in answers] == [503, 503, 503]
    assert {answer["error"]["code"] for _, answer in answers} == {"model_unavailable"}
    assert {answer["error"]["message"] for _, answer in answers} == {"price/2 cannot be loaded"}
    assert answers[0][1]["error"]["faults"] == answers[2][1]["error"]["faults"]
    assert service.gate.passed == [("price", 2)]
    assert service.says("/v2/models/price/versions/2/ready", b"", "GET")[0] == 503
    service.gate.open.clear()
    service.ask("/models/price/versions/3/predict")
    assert service.says(path)[0] == 503  # at once, whatever else is being loaded
    service.gate.open.set()
    service.now += 3.0
    assert service.says(path)[0] == 503
    assert service.gate.passed == [("price", 2), ("price", 3), ("price", 2)]


def test_who_is_refused_loads_nothing(service: Service) -> None:
    """A wrong method or type at the address of a version: the error's example is of what is in memory."""
    status, answer = service.says("/models/price/versions/2/predict", b"", "GET")
    assert (status, answer["error"]["code"]) == (405, "method_not_allowed")
    assert "/models/price/predict" in answer["error"]["example"]["curl"]
    assert not service.gate.reached.is_set()


def test_loading_a_model_into_service_keeps_nobody_waiting(service: Service, store: Store) -> None:
    store.publish("other", with_golden(price(5), [[3, 80]]))
    operator = service.ask("/v2/repository/models/other/load", b"{}")
    assert service.gate.reached.wait(20)
    assert service.says("/models/price/predict")[0] == 200
    service.gate.open.set()
    assert service.answer(operator) == (200, {})
    assert service.says("/models/other/predict")[0] == 200
