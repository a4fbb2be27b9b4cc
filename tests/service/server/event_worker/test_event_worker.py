"""The event worker: which code handles a request, in which order, and what happens under overload."""

from __future__ import annotations

import json
import socket
import threading
import time
from types import SimpleNamespace

import pytest

from service.server import admission, event_loop, event_worker
from service.server.connection import READ_TIMEOUT_SECONDS
from tests.service.server.event_worker.harness import Loop, error_of, post, queued_clients


def test_the_application_receives_only_complete_requests(loop: Loop) -> None:
    request = post("/predict", b"0123456789")
    sock = loop.client(*(request[i : i + 1] for i in range(len(request) - 1)))
    assert loop.app.handled_paths == []
    sock.sendall(request[-1:])
    assert loop.take(sock).endswith(b"0123456789")


def test_a_request_queued_for_too_long_is_shed_and_its_connection_kept(loop: Loop, caplog) -> None:
    caplog.set_level("INFO", "service.access")
    sock = loop.client()
    sock.sendall(post("/late"))
    (connection,) = loop.worker.event_loop.connections
    loop.worker.run_once(0.1)
    if connection.pending_request is None:
        assert loop.app.handled_paths == ["/late"]  # handled within the same turn; make the next one wait
        loop.take(sock)
    loop.app.handled_paths.clear()
    connection.reader.feed(post("/late"))
    loop.worker.event_loop._parse_next_request(connection, time.monotonic())
    connection.arrived_at -= admission.MAX_QUEUE_SECONDS + 1
    found = loop.take(sock)
    assert error_of(found) == (503, "overloaded")
    assert b"Retry-After: 1\r\n" in found
    assert loop.app.error_counts == {"overloaded": 1}
    assert loop.app.handled_paths == []
    assert "id=" not in caplog.text  # a flood of requests does not flood the log
    sock.sendall(post("/again", b"again"))
    assert loop.take(sock).endswith(b"again")


def test_error_responses_of_the_worker_are_counted_logged_and_traced(loop: Loop, caplog) -> None:
    sock = loop.client()
    trace = "0af7651916cd43dd8448eb211c80319c"
    head = f"X-Request-Id: mine\r\ntraceparent: 00-{trace}-b7ad6b7169203331-01\r\ntracestate: a=1\r\n"
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
    assert b"\r\ntracestate: a=1\r\n" in cut
    assert b"X-Request-Id: mine\r\n" in cut
    assert loop.app.error_counts == {"bad_request": 1, "request_timeout": 1}
    lines = [record.getMessage() for record in caplog.records if record.name == "service.access"]
    assert f"error=bad_request id={told}" in lines[0]
    assert lines[1].startswith("POST /late 408 ")
    assert lines[1].endswith("error=request_timeout id=mine from=127.0.0.1")


@pytest.mark.parametrize("path", ["/v1/models/m:predict", "/v2/models/m/infer"])
def test_503_and_408_have_the_error_format_of_the_protocol(loop: Loop, path: str) -> None:
    late, slow = loop.client(), loop.client(post(path, b"body")[:-1])
    (connection,) = [c for c in loop.worker.event_loop.connections if c.reader.head is None]
    connection.reader.feed(post(path))
    loop.worker.event_loop._parse_next_request(connection, time.monotonic())
    connection.arrived_at -= admission.MAX_QUEUE_SECONDS + 1
    shed = loop.take(late)
    loop.worker.expire_connections(time.monotonic() + READ_TIMEOUT_SECONDS + 1)
    for answer, status in ((shed, b"503"), (loop.take(slow), b"408")):
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.split()[1] == status
        assert isinstance(json.loads(body)["error"], str)
        assert b"Content-Type: application/json\r\n" in head


@pytest.mark.parametrize("path", ["/healthz", "/ping", "/v2/health/ready", "/where/vertex/asks"])
def test_health_checks_skip_the_queue_and_are_never_shed(loop: Loop, path: str) -> None:
    others = [loop.client() for _ in range(3)]
    health = loop.client()
    for sock, address in zip([*others, health], ["/a", "/b", "/c", path], strict=True):
        sock.sendall(post(address))
    for connection in list(loop.worker.event_loop.connections):
        loop.worker.event_loop._read_connection(connection, time.monotonic(), event_loop.READ_BYTES)
        connection.arrived_at -= admission.MAX_QUEUE_SECONDS + 1
    loop.turn(8)
    assert loop.app.handled_paths == [path]
    assert loop.app.error_counts == {"overloaded": 3}


def test_a_flood_of_scrapes_does_not_delay_health_checks(loop: Loop) -> None:
    """One takes up to 75 ms: 300 clients that scraped without a pause delayed health checks by 0.8 s."""
    flood = [loop.client() for _ in range(4)]
    health = loop.client()
    for sock in [*flood, health]:
        sock.sendall(post("/metrics" if sock is not health else "/healthz"))
    for connection in sorted(loop.worker.event_loop.connections, key=lambda c: c.peer == health.getsockname()):
        loop.worker.event_loop._read_connection(connection, time.monotonic(), event_loop.READ_BYTES)
    loop.turn(8)
    assert loop.app.handled_paths == ["/healthz", *["/metrics"] * 4]


@pytest.mark.parametrize("path", ["/healthz", "/metrics"])
def test_a_flood_of_health_checks_does_not_delay_other_requests(loop: Loop, path: str) -> None:
    flood = [loop.client() for _ in range(4)]
    good = loop.client()
    for sock in flood:
        sock.sendall(post(path) * 50)
    for connection in list(loop.worker.event_loop.connections):
        loop.worker.event_loop._read_connection(connection, time.monotonic(), event_loop.READ_BYTES)
    good.sendall(post("/a"))
    loop.turn(20)
    assert "/a" in loop.app.handled_paths[:10]
    loop.turn(250)
    assert loop.app.handled_paths.count(path) == 200  # and all of them are served


def test_large_requests_take_at_most_half_of_the_time_while_small_ones_wait(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large one takes 3 s here, a small one 1 s."""
    clock = SimpleNamespace(monotonic=lambda: 1.0 * sum(3 if "large" in path else 1 for path in loop.app.handled_paths))
    monkeypatch.setattr(admission, "MAX_CONNECTIONS", 10)
    loop.worker.event_loop.admission.max_input_bytes = 5000  # so a share is 500
    small, large = [post(f"/small/{i}", b"x") for i in range(7)], [post(f"/large/{i}", b"x" * 900) for i in range(3)]
    clients = queued_clients(loop, *large, *small)
    monkeypatch.setattr(event_worker, "time", clock)
    loop.turn(len(clients))
    assert loop.app.handled_paths == [
        "/small/0", "/large/0", "/small/1", "/small/2", "/small/3", "/large/1", "/small/4", "/small/5", "/small/6",
        "/large/2",
    ]  # fmt: skip


def test_a_crash_outside_the_application_is_500_and_the_worker_goes_on(loop: Loop) -> None:
    loop.app.crash = RuntimeError("boom")
    assert error_of(loop.take(loop.client(post("/x")))) == (500, "internal_error")
    loop.app.crash = None
    assert loop.take(loop.client(post("/x", b"fine"))).endswith(b"fine")


def test_draining_responds_to_requests_that_have_arrived(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_queued_fast_path_requests_share_batches_of_the_target_size(loop: Loop) -> None:
    bodies = [b"1", b"2", b"3", b"4", b"5"]
    clients = queued_clients(loop, *[post("/plain", body) for body in bodies])
    loop.turn(1)
    assert sorted(map(len, loop.app.plain.batches)) == [2, 3]
    assert loop.app.handled_paths == []
    for client, body in zip(clients, bodies, strict=True):
        assert loop.take(client).endswith(b"\r\n\r\n" + body)


def test_a_single_fast_path_request_waits_for_no_other(loop: Loop) -> None:
    client = loop.client(post("/plain", b"alone"))
    assert loop.app.plain.batches == [[b"alone"]]
    assert loop.take(client).endswith(b"alone")


def test_metrics_are_recorded_after_the_response_is_sent(loop: Loop) -> None:
    seen: list[bytes] = []
    loop.app.plain.on_record_metrics = lambda: seen.append(loop.clients[-1].recv(1000, socket.MSG_DONTWAIT))
    loop.client(post("/plain", b"at once"))
    assert len(seen) == 1
    assert seen[0].endswith(b"at once")


def test_a_response_whose_metrics_fail_is_sent_and_the_failure_logged(loop: Loop, caplog) -> None:
    def fail() -> None:
        raise OSError("no room for counts")

    loop.app.plain.on_record_metrics = fail
    sock = loop.client(post("/plain", b"all the same"))
    assert loop.take(sock).endswith(b"all the same")
    assert "no room for counts" in caplog.text
    assert loop.app.handled_paths == []


def test_a_request_that_flask_has_to_handle_does_not_affect_its_batch(loop: Loop) -> None:
    clients = queued_clients(
        loop, post("/plain", b"1"), post("/plain", b""), post("/other", b"2"), post("/plain", b"3")
    )
    answers = [loop.take(client) for client in clients]
    assert [answer.rpartition(b"\r\n")[2] for answer in answers] == [b"1", b"", b"2", b"3"]
    assert loop.app.handled_paths.count("/plain") == 1
    assert loop.app.handled_paths.count("/other") == 1


def test_fast_path_requests_do_not_wait_for_later_ones(loop: Loop) -> None:
    seen: list[bytes] = []
    loop.app.on_call = lambda: seen.append(loop.clients[0].recv(1000, socket.MSG_DONTWAIT))
    _, other = queued_clients(loop, post("/plain", b"first"), post("/other", b"second"))
    assert loop.take(other).endswith(b"second")
    assert seen[0].endswith(b"first")


def test_a_path_outside_of_script_name_is_400_and_the_worker_goes_on(loop: Loop) -> None:
    """gunicorn by default lets a local proxy set SCRIPT_NAME, and raises if the path is not below it."""
    loop.worker.cfg.set("forwarder_headers", "SCRIPT_NAME")
    client = loop.client(b"GET /models HTTP/1.1\r\nHost: h\r\nSCRIPT_NAME: /y\r\n\r\n")
    assert loop.take(client).startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert loop.take(loop.client(post("/plain", b"1"))).endswith(b"1")


@pytest.mark.parametrize("step", ["try_parse", "respond"])
def test_a_failure_of_the_fast_path_is_logged_and_flask_handles_the_request(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, step: str
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(loop.app.plain, step, fail)
    clients = queued_clients(loop, post("/plain", b"1"), post("/plain", b"2"))
    assert [loop.take(client)[-1:] for client in clients] == [b"1", b"2"]
    assert loop.app.handled_paths == ["/plain", "/plain"]
    assert "RuntimeError: boom" in caplog.text


def test_draining_lets_a_client_read_its_response_to_the_end(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_requests_rejected_by_overload_are_counted_for_their_model(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    class Version:
        name, number = "price", 3

    monkeypatch.setattr(admission, "MAX_QUEUE_SECONDS", -1.0)
    loop.app.recorder.served_at = lambda path, _: Version() if path == "/models/price/predict" else None
    loop.take(loop.client(post("/models/price/predict")))
    labels = 'code="overloaded",model="price",version="3"'
    assert f"forward_pass_errors_total{{{labels}}} 1.0\n" in loop.app.recorder.metrics.counters.exposition()
