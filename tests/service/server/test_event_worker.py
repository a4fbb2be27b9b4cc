"""The worker's loop, turned by hand over real sockets: who is served, who waits, who is sent away."""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.glogging import Logger
from prometheus_client.parser import text_string_to_metric_families

from service.http.responses import RESPONSE_HEADERS
from service.registry.batching_policy import BatchingPolicy
from service.server import admission, event_loop, request_reader
from service.server import event_worker as module
from service.server.connection import READ_TIMEOUT_SECONDS
from service.server.event_worker import EventWorker
from service.telemetry.metrics import Metrics
from service.telemetry.request_record import RequestRecorder

Environ = dict[str, Any]


class Version:
    batching = BatchingPolicy(3)


class Plain:
    """A request for /plain that stands for one of the express."""

    served = Version()

    def __init__(self, data: bytes) -> None:
        self.inputs = [data]


class StandIn:
    """An express that answers /plain with what was sent, and leaves /plain of nothing to the application."""

    def __init__(self) -> None:
        self.passes: list[list[bytes]] = []
        self.on_note: Callable[[], Any] = lambda: None

    def try_parse(self, head: Any, data: bytes, client: str, arrived: float) -> Plain | None:
        return Plain(data) if head.path == "/plain" else None

    def respond(self, together: list[Plain]) -> list[bytes | None]:
        self.passes.append([plain.inputs[0] for plain in together])
        return [
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(data), data) if data else None
            for data in self.passes[-1]
        ]

    def record_metrics(self, together: list[Plain]) -> None:
        self.on_note()


class App:
    """What gunicorn's application is to the worker, and a WSGI application that answers with what it was sent."""

    max_body_bytes, health_route = 1000, "/where/vertex/asks"

    def __init__(self) -> None:
        self.recorder = RequestRecorder(Metrics())
        self.asked: list[str] = []
        self.crash: Exception | None = None
        self.on_call: Callable[[], Any] = lambda: None
        self.plain = StandIn()

    def fast_path(self) -> StandIn:
        return self.plain

    @property
    def refusals(self) -> dict[str, float]:
        """How many requests the worker has answered by itself, by the code of the error."""
        families = text_string_to_metric_families(self.recorder.metrics.counters.exposition())
        samples = next(family.samples for family in families if family.name == "forward_pass_errors")
        return {sample.labels["code"]: sample.value for sample in samples if sample.value}

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
        self.asked.append(environ["PATH_INFO"])
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

    def take(self, sock: socket.socket, *, most: int = 10_000) -> bytes:
        """What has come for a client, when the loop has turned until nothing more does."""
        sock.setblocking(False)
        found = b""
        for _ in range(most):
            self.turn(1)
            try:
                piece = sock.recv(1 << 20)
            except BlockingIOError:
                if found and not self.worker.event_loop.queue and not self.worker.event_loop.priority_queue:
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
        self.worker.event_loop.selector.close()
        self.listener.close()
        for end in self.worker.event_loop._wake_pipe:
            os.close(end)
        self.worker.tmp.close()


@pytest.fixture
def loop() -> Iterator[Loop]:
    it = Loop()
    yield it
    it.close()


def post(path: str, body: bytes = b"", *lines: bytes) -> bytes:
    return b"\r\n".join(
        [b"POST %s HTTP/1.1" % path.encode(), b"Host: h", b"Content-Length: %d" % len(body), *lines, b"", body]
    )


def error_of(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]["code"]


def test_a_connection_is_kept_for_the_next_request(loop: Loop) -> None:
    sock = loop.client(post("/one", b"1"))
    assert loop.take(sock).endswith(b"\r\n\r\n1")
    sock.sendall(post("/two", b"22", b"Connection: close"))
    assert loop.take(sock).endswith(b"\r\n\r\n22")
    assert loop.take(sock) == b""
    sock.close()
    loop.turn()
    assert not loop.worker.event_loop.connections


def test_requests_sent_at_once_are_answered_in_their_order(loop: Loop) -> None:
    sock = loop.client(post("/a", b"first") + post("/b", b"second") + post("/c", b"third"))
    found = loop.take(sock)
    while b"third" not in found:
        found += loop.take(sock)
    assert found.index(b"first") < found.index(b"second") < found.index(b"third")
    assert loop.app.asked == ["/a", "/b", "/c"]


def test_the_application_sees_only_whole_requests(loop: Loop) -> None:
    request = post("/predict", b"0123456789")
    sock = loop.client(*(request[i : i + 1] for i in range(len(request) - 1)))
    assert loop.app.asked == []
    sock.sendall(request[-1:])
    assert loop.take(sock).endswith(b"0123456789")


def test_a_worker_that_is_idle_leaves_others_of_a_burst_to_the_other_workers(loop: Loop) -> None:
    for workers, taken in ((1, [4, 8]), (2, [9, 10])):
        loop.worker.cfg.set("workers", workers)
        burst = [socket.create_connection(loop.listener.getsockname()) for _ in range(8)]
        loop.clients += burst
        for count in taken:
            loop.turn(1)
            assert len(loop.worker.event_loop.connections) == count


def test_slow_and_silent_clients_keep_nobody_waiting(loop: Loop) -> None:
    for _ in range(30):
        loop.client()
        loop.client(b"POST / HTTP/1.1\r\nX: ")
        loop.client(post("/slow", b"x" * 500)[:-1])
    sock = loop.client(post("/good", b"good"))
    assert loop.take(sock).endswith(b"good")
    assert loop.app.asked == ["/good"]


def test_a_client_that_does_not_read_its_answer_keeps_nobody_waiting(loop: Loop) -> None:
    loop.client(post("/large"))
    assert loop.take(loop.client(post("/good", b"good"))).endswith(b"good")


def test_a_large_answer_arrives_whole(loop: Loop) -> None:
    found = loop.take(loop.client(post("/large", b"", b"Connection: close")))
    assert len(found.partition(b"\r\n\r\n")[2]) == 5_000_000


def test_a_request_that_does_not_arrive_is_cut_off_and_told(loop: Loop) -> None:
    sock = loop.client(b"POST / HTTP/1.1\r\n")
    silent = loop.client()
    loop.worker.expire_connections(time.monotonic() + READ_TIMEOUT_SECONDS + 1)
    assert error_of(loop.take(sock)) == (408, "request_timeout")
    assert silent.recv(10) == b""


def test_an_idle_connection_is_closed_after_its_time(loop: Loop) -> None:
    sock = loop.client(post("/one", b"1"))
    loop.take(sock)
    loop.worker.expire_connections(time.monotonic() + loop.worker.cfg.keepalive + 1)
    assert sock.recv(10) == b""


def test_a_request_that_has_waited_too_long_is_shed_and_the_connection_kept(loop: Loop, caplog) -> None:
    caplog.set_level("INFO", "service.access")
    sock = loop.client()
    sock.sendall(post("/late"))
    (connection,) = loop.worker.event_loop.connections
    loop.worker.run_once(0.1)
    if connection.pending_request is None:
        assert loop.app.asked == ["/late"]  # it was answered within the same turn; make the next one wait
        loop.take(sock)
    loop.app.asked.clear()
    connection.reader.feed(post("/late"))
    loop.worker.event_loop._parse_next_request(connection, time.monotonic())
    connection.arrived_at -= module.MAX_QUEUE_SECONDS + 1
    found = loop.take(sock)
    assert error_of(found) == (503, "overloaded")
    assert b"Retry-After: 1\r\n" in found
    assert loop.app.refusals == {"overloaded": 1}
    assert loop.app.asked == []
    assert "id=" not in caplog.text  # a flood of requests is none of lines
    sock.sendall(post("/again", b"again"))
    assert loop.take(sock).endswith(b"again")


def test_what_the_worker_answers_itself_is_observed_as_everything_else(loop: Loop, caplog) -> None:
    sock = loop.client()
    trace = "0af7651916cd43dd8448eb211c80319c"
    head = f"X-Request-Id: mine\r\ntraceparent: 00-{trace}-b7ad6b7169203331-01\r\n"
    with caplog.at_level("INFO", "service.access"):
        sock.sendall(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n")
        refused = loop.take(sock)
        late = loop.client()
        late.sendall(f"POST /late HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n{head}\r\n".encode())
        loop.turn()
        loop.worker.expire_connections(time.monotonic() + READ_TIMEOUT_SECONDS + 1)
        cut = loop.take(late)
    told = json.loads(refused.partition(b"\r\n\r\n")[2])["request_id"]
    assert f"X-Request-Id: {told}\r\n".encode() in refused
    assert f"traceparent: 00-{trace}-".encode() in cut
    assert b"X-Request-Id: mine\r\n" in cut
    assert loop.app.refusals == {"bad_request": 1, "request_timeout": 1}
    lines = [record.getMessage() for record in caplog.records if record.name == "service.access"]
    assert f"error=bad_request id={told}" in lines[0]
    assert lines[1].startswith("POST /late 408 ")
    assert lines[1].endswith("error=request_timeout id=mine from=127.0.0.1")


@pytest.mark.parametrize("path", ["/v1/models/m:predict", "/v2/models/m/infer"])
def test_who_is_shed_or_cut_off_is_told_in_the_shape_of_the_protocol(loop: Loop, path: str) -> None:
    late, slow = loop.client(), loop.client(post(path, b"body")[:-1])
    (connection,) = [c for c in loop.worker.event_loop.connections if c.reader.head is None]
    connection.reader.feed(post(path))
    loop.worker.event_loop._parse_next_request(connection, time.monotonic())
    connection.arrived_at -= module.MAX_QUEUE_SECONDS + 1
    shed = loop.take(late)
    loop.worker.expire_connections(time.monotonic() + READ_TIMEOUT_SECONDS + 1)
    for answer, status in ((shed, b"503"), (loop.take(slow), b"408")):
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.split()[1] == status
        assert isinstance(json.loads(body)["error"], str)
        assert b"Content-Type: application/json\r\n" in head


@pytest.mark.parametrize("path", ["/healthz", "/ping", "/v2/health/ready", "/where/vertex/asks"])
def test_health_checks_pass_the_queue_and_are_never_shed(loop: Loop, path: str) -> None:
    others = [loop.client() for _ in range(3)]
    health = loop.client()
    for sock, address in zip([*others, health], ["/a", "/b", "/c", path], strict=True):
        sock.sendall(post(address))
    for connection in list(loop.worker.event_loop.connections):
        loop.worker.event_loop._read_connection(connection, time.monotonic(), event_loop.READ_BYTES)
        connection.arrived_at -= module.MAX_QUEUE_SECONDS + 1
    loop.turn(8)
    assert loop.app.asked == [path]
    assert loop.app.refusals == {"overloaded": 3}


@pytest.mark.parametrize("path", ["/healthz", "/metrics"])
def test_a_flood_of_health_checks_keeps_nobody_waiting(loop: Loop, path: str) -> None:
    flood = [loop.client() for _ in range(4)]
    good = loop.client()
    for sock in flood:
        sock.sendall(post(path) * 50)
    for connection in list(loop.worker.event_loop.connections):
        loop.worker.event_loop._read_connection(connection, time.monotonic(), event_loop.READ_BYTES)
    good.sendall(post("/a"))
    loop.turn(20)
    assert "/a" in loop.app.asked[:10]
    loop.turn(250)
    assert loop.app.asked.count(path) == 200  # and all of them are answered, too


def test_input_that_waits_is_bounded_for_all_connections_together(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_INPUT_BYTES", 2000)
    waiting = [loop.client(post("/x", b"x" * 900)[:-1]) for _ in range(2)]
    refused = loop.client(post("/x", b"x" * 900)[:-1])
    assert error_of(loop.take(refused)) == (503, "overloaded")
    assert loop.worker.event_loop.admission.input_bytes < 2000
    waiting[0].sendall(b"x")
    assert loop.take(waiting[0]).endswith(b"x" * 900)
    monkeypatch.setattr(admission, "MAX_INPUT_BYTES", 0)
    assert loop.take(loop.client(post("/x"))).startswith(b"HTTP/1.1 200")  # it has nothing to hold


def test_whole_requests_that_wait_are_counted_too(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_INPUT_BYTES", 2000)
    clients = [loop.client() for _ in range(4)]
    for client in clients:
        client.sendall(post("/x", b"x" * 900))
    for connection in list(loop.worker.event_loop.connections):
        loop.worker.event_loop._read_connection(connection, time.monotonic(), event_loop.READ_BYTES)
    assert loop.worker.event_loop.admission.input_bytes == 1800
    found = [loop.take(client).split()[1] for client in clients]
    assert sorted(found) == [b"200", b"200", b"503", b"503"]
    assert loop.worker.event_loop.admission.input_bytes == 0


def test_heads_whose_bodies_are_on_their_way_are_counted_too(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_INPUT_BYTES", 2000)
    large = b"X: " + b"x" * 700
    waiting = loop.client(post("/x", b"x", large)[:-1])
    assert error_of(loop.take(loop.client(post("/x", b"x", large)[:-1]))) == (503, "overloaded")
    assert loop.take(loop.client(post("/x", b"", large))).startswith(b"HTTP/1.1 200")  # which waits for nothing
    waiting.sendall(b"y")
    assert loop.take(waiting).endswith(b"y")
    assert loop.worker.event_loop.admission.input_bytes == 0


def test_who_holds_memory_by_being_slow_makes_room_for_others(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_INPUT_BYTES", 2000)
    slow = [loop.client(post("/x", b"x" * 900)[:-1]) for _ in range(2)]
    for connection in loop.worker.event_loop.connections:
        connection.deadline -= admission.SLOW_CLIENT_SECONDS + 1
    good = loop.client(post("/x", b"x" * 900)[:-1])
    good.sendall(b"x")
    assert loop.take(good).endswith(b"x" * 900)
    assert [error_of(loop.take(sock)) for sock in slow[:1]] == [(503, "overloaded")]
    slow[1].sendall(b"x")  # one was enough
    assert loop.take(slow[1]).endswith(b"x" * 900)


def test_answers_that_nobody_takes_are_bounded_for_all_connections_together(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "MAX_INPUT_BYTES", 1000)
    loop.client(post("/large"))
    taking = loop.client(post("/large", b"", b"Connection: close"))
    for connection in loop.worker.event_loop.connections:
        connection.last_sent_at -= admission.SLOW_CLIENT_SECONDS + 1
    came = 0
    while came < 2_000_000:
        came += len(taking.recv(1 << 20))
    loop.turn()
    assert len(loop.worker.event_loop.connections) == 1  # the other is closed: it has taken nothing
    assert came + len(loop.take(taking)) > 5_000_000
    assert loop.worker.event_loop.admission.output_bytes == 0


def test_answers_that_are_taken_little_by_little_are_bounded_as_well(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest make room; one answer alone may be as large as it is."""
    monkeypatch.setattr(admission, "MAX_INPUT_BYTES", 1000)
    first, last = (loop.client(post("/large", b"", b"Connection: close")) for _ in range(2))
    assert len(loop.worker.event_loop.connections) == 2
    monkeypatch.setattr(admission, "MAX_OUTPUT_BYTES", 1000)
    loop.turn(1)
    (connection,) = loop.worker.event_loop.connections
    assert connection.output_bytes == loop.worker.event_loop.admission.output_bytes > 1000
    assert len(loop.take(last).partition(b"\r\n\r\n")[2]) == 5_000_000
    assert len(loop.take(first)) < 5_000_000


@pytest.mark.parametrize("location", ["method", "target", "header"])
def test_a_request_that_is_refused_cannot_steer_the_terminal_that_shows_the_log(
    loop: Loop, caplog: pytest.LogCaptureFixture, location: str
) -> None:
    loop.worker.log.error_log.propagate = True
    forged = b"\x1b[2J\x9b\r2026 INFO all is well"
    head = {"method": b"G%bT / HTTP/1.1", "target": b"GET /%b HTTP/1.1", "header": b"GET / HTTP/1.1\r\nX%b: y"}
    assert loop.take(loop.client(head[location] % forged + b"\r\nHost: h\r\n\r\n")).startswith(b"HTTP/1.1 400")
    told = caplog.messages[0]
    assert told.startswith("rejected a request")
    assert not any(character < " " or "\x7f" <= character < "\xa0" for character in told)


def test_one_connection_too_many_takes_the_place_of_the_most_overdue(
    loop: Loop,
) -> None:
    loop.worker.event_loop.admission.connection_limit = 3
    first = loop.client()
    for _ in range(2):
        loop.client()
    sock = loop.client(post("/good", b"good"))
    assert loop.take(sock).endswith(b"good")
    assert first.recv(10) == b""
    assert len(loop.worker.event_loop.connections) == 3


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: h\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 70_000, 431),
        (b"GET / HTTP/1.1\r\nHost: h\r\nExpect: miracles\r\n\r\n", 417),
        (b"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xyz\r\n\r\n", 501),
    ],
)
def test_what_is_not_http_is_refused_in_the_shape_of_all_errors(loop: Loop, text: bytes, status: int) -> None:
    sock = loop.client(text)
    assert error_of(loop.take(sock)) == (status, "bad_request")
    assert loop.take(sock, most=5) == b""
    assert loop.app.asked == []


def test_leave_to_send_the_body_is_given(loop: Loop) -> None:
    sock = loop.client(post("/x", b"body", b"Expect: 100-continue")[:-4])
    assert loop.take(sock) == b"HTTP/1.1 100 Continue\r\n\r\n"
    sock.sendall(b"body")
    found = loop.take(sock)
    assert found.startswith(b"HTTP/1.1 200 OK")
    assert found.endswith(b"body")


def test_a_crash_outside_the_application_is_a_500_and_the_worker_goes_on(loop: Loop) -> None:
    loop.app.crash = RuntimeError("boom")
    assert error_of(loop.take(loop.client(post("/x")))) == (500, "internal_error")
    loop.app.crash = None
    assert loop.take(loop.client(post("/x", b"fine"))).endswith(b"fine")


def test_a_client_that_is_gone_leaves_nothing_behind(loop: Loop) -> None:
    for text in (b"", b"POST /", post("/x", b"x" * 100)[:-1], post("/large")):
        sock = loop.client(text)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        sock.close()
    loop.turn(20)
    assert not loop.worker.event_loop.connections
    assert loop.worker.event_loop.admission.input_bytes == 0


def test_draining_answers_what_has_arrived_and_ends(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_loop, "LINGER_SECONDS", 0.1)
    loop.client()
    sock = loop.client(post("/x", b"0123456789")[:-4])
    sock.sendall(b"6789")
    loop.worker.alive = False
    loop.worker.drain()
    found = sock.recv(10_000)
    assert found.endswith(b"0123456789")
    assert b"Connection: close" in found
    assert not loop.worker.event_loop.connections


def test_who_has_connected_when_the_draining_begins_is_answered(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel resets connections that nobody has accepted when their listening socket is closed."""
    monkeypatch.setattr(event_loop, "LINGER_SECONDS", 0.1)
    clients = [
        socket.create_connection(loop.listener.getsockname(), timeout=10)
        for _ in range(event_loop.MAX_ACCEPTS_PER_TURN + 2)
    ]
    for client in clients:
        client.sendall(post("/x", b"in time"))
    loop.worker.drain()
    assert all(client.recv(10_000).endswith(b"in time") for client in clients)
    for client in clients:
        client.close()


def waiting(loop: Loop, *requests: bytes) -> list[socket.socket]:
    """Clients whose requests are all there before the loop turns again."""
    clients = [loop.client() for _ in requests]
    for client, request in zip(clients, requests, strict=True):
        client.sendall(request)
    return clients


def test_plain_requests_that_wait_share_passes_of_what_is_worth_joining(loop: Loop) -> None:
    bodies = [b"1", b"2", b"3", b"4", b"5"]
    clients = waiting(loop, *[post("/plain", body) for body in bodies])
    loop.turn(1)
    assert sorted(map(len, loop.app.plain.passes)) == [2, 3]
    assert loop.app.asked == []
    for client, body in zip(clients, bodies, strict=True):
        assert loop.take(client).endswith(b"\r\n\r\n" + body)


def test_a_plain_request_alone_waits_for_no_other(loop: Loop) -> None:
    client = loop.client(post("/plain", b"alone"))
    assert loop.app.plain.passes == [[b"alone"]]
    assert loop.take(client).endswith(b"alone")


def test_what_is_counted_is_counted_after_the_answer_is_sent(loop: Loop) -> None:
    seen: list[bytes] = []
    loop.app.plain.on_note = lambda: seen.append(loop.clients[-1].recv(1000, socket.MSG_DONTWAIT))
    loop.client(post("/plain", b"at once"))
    assert len(seen) == 1
    assert seen[0].endswith(b"at once")


def test_an_answer_that_cannot_be_counted_was_given_and_the_log_says_so(loop: Loop, caplog) -> None:
    def fail() -> None:
        raise OSError("no room for counts")

    loop.app.plain.on_note = fail
    sock = loop.client(post("/plain", b"all the same"))
    assert loop.take(sock).endswith(b"all the same")
    assert "no room for counts" in caplog.text
    assert loop.app.asked == []


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is larger than a hundred bytes counts as large."""
    monkeypatch.setattr(event_loop, "READ_BYTES", 100)
    monkeypatch.setattr(event_loop, "LARGE_READ_BYTES", 200)
    monkeypatch.setattr(request_reader, "CHUNKS_PER_READ", 2)


@pytest.mark.usefixtures("small_pieces")
def test_no_more_of_large_requests_is_read_than_a_turn_has_use_for(loop: Loop) -> None:
    """Else many of them would fill the memory with what nobody can answer yet."""
    clients = waiting(loop, *[post(f"/{i}", b"x" * 500) for i in range(3)])
    loop.turn(3)
    assert loop.app.asked == ["/0"]
    assert (
        sum(len(connection.reader.buffer) for connection in loop.worker.event_loop.connections)
        <= 2 * event_loop.LARGE_READ_BYTES
    )
    clients[0].sendall(post("/again", b"x" * 500))
    loop.turn(20)
    assert loop.app.asked == ["/0", "/1", "/2", "/again"]
    assert loop.worker.event_loop.admission.input_bytes == 0


@pytest.mark.usefixtures("small_pieces")
def test_small_requests_wait_for_no_large_one_to_be_read(loop: Loop) -> None:
    waiting(loop, *[post(f"/{i}", b"x" * 500) for i in range(3)], post("/small"))
    loop.turn(2)
    assert loop.app.asked == ["/small"]


@pytest.mark.usefixtures("small_pieces")
def test_the_time_that_a_large_request_has_waited_to_be_read_counts(loop: Loop) -> None:
    _, second = waiting(loop, post("/0", b"x" * 250), post("/1", b"x" * 250))
    loop.turn(1)
    loop.worker.event_loop.readable_connections[-1].readable_since -= module.MAX_QUEUE_SECONDS + 1
    assert error_of(loop.take(second)) == (503, "overloaded")


LAST_CHUNK = b"0\r\n\r\n"


def in_small_chunks(path: str, count: int) -> bytes:
    """A body of which each byte comes with 40 that say nothing."""
    return f"POST {path} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + count * (
        b"1;" + b"e" * 34 + b"\r\nx\r\n"
    )


def test_a_body_of_small_chunks_is_read_while_others_are_answered(loop: Loop) -> None:
    waiting(loop, in_small_chunks("/chunks", 900) + LAST_CHUNK, post("/good"))
    loop.turn(1)
    assert loop.app.asked == ["/good"]
    loop.turn(900 // request_reader.CHUNKS_PER_READ - 3)
    assert loop.app.asked == ["/good"]
    loop.turn(4)
    assert loop.app.asked == ["/good", "/chunks"]


def test_bodies_of_small_chunks_are_read_in_turn(loop: Loop) -> None:
    """However many there are, a turn takes some of one."""
    several = [f"/{i}" for i in range(5)]
    waiting(loop, *[in_small_chunks(path, 900) + LAST_CHUNK for path in several])
    loop.turn(5 * (900 // request_reader.CHUNKS_PER_READ) - 10)
    assert loop.app.asked == []
    loop.turn(12)
    assert sorted(loop.app.asked) == several


def test_large_requests_wait_for_none_of_small_chunks(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_loop, "READ_BYTES", 500)
    waiting(loop, *[in_small_chunks(f"/{i}", 900) for i in range(9)], post("/large", b"x" * 900))
    loop.turn(2)
    assert loop.app.asked == ["/large"]


def test_a_body_of_small_chunks_that_ends_before_its_last_is_told_as_broken(loop: Loop) -> None:
    sock = loop.client(in_small_chunks("/chunks", 900))
    sock.shutdown(socket.SHUT_WR)
    assert error_of(loop.take(sock)) == (500, "internal_error")  # of this application: it cannot read its input
    loop.turn()
    assert not loop.worker.event_loop.connections


@pytest.mark.usefixtures("small_pieces")
def test_what_comes_with_small_chunks_keeps_no_large_request_from_being_read(loop: Loop) -> None:
    waiting(loop, in_small_chunks("/chunks", 300), post("/large", b"x" * 500))
    loop.turn(15)
    assert loop.app.asked == ["/large"]


@pytest.mark.usefixtures("small_pieces")
def test_a_request_that_comes_for_too_long_is_cut_off_however_fast_it_comes(loop: Loop) -> None:
    (sock,) = waiting(loop, in_small_chunks("/chunks", 300))
    loop.turn(2)
    (connection,) = loop.worker.event_loop.connections
    connection.deadline = time.monotonic()
    loop.turn(2)
    loop.worker.expire_connections(time.monotonic())
    assert error_of(loop.take(sock)) == (408, "request_timeout")


@pytest.mark.usefixtures("small_pieces")
def test_what_could_be_read_in_time_is_not_late(loop: Loop) -> None:
    _, second = waiting(loop, post("/0", b"x" * 900), post("/1", b"x" * 900))
    loop.turn(1)
    connection = loop.worker.event_loop.readable_connections[-1]
    assert not connection.pending_request
    loop.worker.expire_connections(connection.deadline + 1)
    assert loop.take(second).endswith(b"x" * 900)


@pytest.mark.usefixtures("small_pieces")
def test_who_sends_on_after_a_last_answer_is_closed_in_time(loop: Loop) -> None:
    waiting(loop, b"nonsense\r\n\r\n" + b"x" * 10_000)
    loop.turn(3)
    (connection,) = loop.worker.event_loop.connections
    assert connection.lingering
    loop.worker.expire_connections(connection.deadline + 1)
    assert not loop.worker.event_loop.connections


def test_one_that_the_application_has_to_answer_leaves_the_others_theirs(loop: Loop) -> None:
    clients = waiting(loop, post("/plain", b"1"), post("/plain", b""), post("/other", b"2"), post("/plain", b"3"))
    answers = [loop.take(client) for client in clients]
    assert [answer.rpartition(b"\r\n")[2] for answer in answers] == [b"1", b"", b"2", b"3"]
    assert loop.app.asked.count("/plain") == 1
    assert loop.app.asked.count("/other") == 1


def test_what_is_plain_waits_for_none_that_came_after_it(loop: Loop) -> None:
    seen: list[bytes] = []
    loop.app.on_call = lambda: seen.append(loop.clients[0].recv(1000, socket.MSG_DONTWAIT))
    _, other = waiting(loop, post("/plain", b"first"), post("/other", b"second"))
    assert loop.take(other).endswith(b"second")
    assert seen[0].endswith(b"first")


def test_requests_of_one_connection_are_answered_in_their_order(loop: Loop) -> None:
    client = loop.client(post("/plain", b"1") + post("/other", b"2") + post("/plain", b"3"))
    assert [part[-1:] for part in loop.take(client).split(b"HTTP/1.1 ")[1:]] == [b"1", b"2", b"3"]


def test_a_head_that_no_address_can_have_is_refused_and_the_worker_goes_on(loop: Loop) -> None:
    """gunicorn's default lets a proxy on this machine say SCRIPT_NAME, and raises where the path is not below it."""
    loop.worker.cfg.set("forwarder_headers", "SCRIPT_NAME")
    client = loop.client(b"GET /models HTTP/1.1\r\nHost: h\r\nSCRIPT_NAME: /y\r\n\r\n")
    assert loop.take(client).startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert loop.take(loop.client(post("/plain", b"1"))).endswith(b"1")


@pytest.mark.parametrize("step", ["try_parse", "respond"])
def test_what_fails_on_the_short_way_is_answered_by_the_application_and_told(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, step: str
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(loop.app.plain, step, fail)
    clients = waiting(loop, post("/plain", b"1"), post("/plain", b"2"))
    assert [loop.take(client)[-1:] for client in clients] == [b"1", b"2"]
    assert loop.app.asked == ["/plain", "/plain"]
    assert "RuntimeError: boom" in caplog.text


def test_requests_sent_at_once_while_memory_is_short_are_shed_with_their_connection(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them would else be shed within the call of the one before, deeper than Python goes."""
    monkeypatch.setattr(admission, "MAX_INPUT_BYTES", 1000)
    for _ in range(2):
        loop.client(post("/x", b"x" * 900)[:-1])
    found = loop.take(loop.client(post("/x") * 1000))
    assert error_of(found) == (503, "overloaded")
    assert b"Connection: close\r\n" in found


def test_head_is_refused_without_a_body_that_would_be_taken_for_the_next_answer(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_QUEUE_SECONDS", -1.0)
    found = loop.take(loop.client(b"HEAD /x HTTP/1.1\r\nHost: h\r\n\r\n"))
    assert found.startswith(b"HTTP/1.1 503 ")
    assert b"Connection: keep-alive\r\n" in found
    assert found.endswith(b"\r\n\r\n")


def test_a_refusal_says_what_every_answer_says(loop: Loop) -> None:
    found = loop.take(loop.client(b"nonsense\r\n\r\n"))
    assert all(f"\r\n{name}: {value}\r\n".encode() in found for name, value in RESPONSE_HEADERS.items())


class Exhausted:
    """A listener where something is short, descriptors if nothing else."""

    def __init__(self, code: int = errno.EMFILE) -> None:
        self.code = code

    def accept(self) -> None:
        raise OSError(self.code, os.strerror(self.code))


def test_fewer_descriptors_than_connections_make_room_as_too_many_connections_do(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(admission, "RESERVED_DESCRIPTORS", 2)
    idle = [loop.client() for _ in range(4)]
    loop.worker.event_loop._accept_connections(Exhausted())
    assert [sock.recv(10) for sock in idle[:2]] == [b"", b""]
    assert len(loop.worker.event_loop.connections) == 2
    assert "connection limit lowered from 1000 to 2: Too many open files" in caplog.text
    assert loop.take(loop.client(post("/good", b"good"))).endswith(b"good")
    assert len(loop.worker.event_loop.connections) == 2  # so many from now on


@pytest.mark.parametrize("code", [errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_a_shortage_of_the_system_closes_nobody_and_leaves_room_for_when_it_has_passed(loop: Loop, code: int) -> None:
    """It goes on for many turns, each of which would take some more."""
    for _ in range(40):
        loop.client()
    for _ in range(10):
        loop.worker.event_loop._accept_connections(Exhausted(code))
    assert len(loop.worker.event_loop.connections) == 40
    assert loop.worker.event_loop.admission.connection_limit == admission.MAX_CONNECTIONS


def test_draining_lets_an_answer_be_taken_to_its_end(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_loop, "LINGER_SECONDS", 0.1)
    sock = loop.client(post("/large"))
    found = bytearray()

    def read() -> None:
        time.sleep(0.5)
        while piece := sock.recv(1 << 20):
            found.extend(piece)

    reader = threading.Thread(target=read)
    reader.start()
    loop.worker.drain()
    reader.join()
    assert len(found.partition(b"\r\n\r\n")[2]) == 5_000_000


def test_a_request_that_began_before_the_answer_to_another_has_as_long_as_any(loop: Loop) -> None:
    sock = loop.client()
    sock.sendall(post("/one", b"1") + post("/two", b"22")[:-1])
    assert loop.take(sock).endswith(b"1")
    loop.worker.expire_connections(time.monotonic() + loop.worker.cfg.keepalive + 1)
    sock.sendall(b"2")
    assert loop.take(sock).endswith(b"22")
