"""Large responses: sent in pieces, each copied only when it is its turn."""

from __future__ import annotations

import json
import socket
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient

from model_store.registry.store import Store
from service.registry.errors import WouldBlock
from service.server import fast_path as fast_path_module
from service.server.wsgi_bridge import MAX_BUFFERED_BYTES
from tests.service.conftest import MakeClient
from tests.service.routes.test_row_limits import CLASSES, NATIVE, classifier
from tests.service.server.event_worker.harness import Environ, Loop, post
from tests.service.server.event_worker.loading_harness import Gate, end, waited
from tests.service.server.server_process import Server
from tests.service.server.test_fast_path import fast_path_of, take

PIECES = [bytes([65 + i]) * MAX_BUFFERED_BYTES for i in range(20)]


def application(environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", [])
    return [*PIECES[:3], b"", *PIECES[3:]] if environ["PATH_INFO"] == "/large" else [b"small"]


@pytest.fixture
def loop() -> Iterator[Loop]:
    it = Loop(application=application)
    yield it
    it.close()


def body_of(answer: bytes) -> bytes:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"Content-Length: %d" % len(body) in head.split(b"\r\n")
    assert b"Transfer-Encoding" not in head
    return body


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_the_pieces_arrive_in_order_with_their_length(loop: Loop, version: bytes) -> None:
    sock = loop.client(post("/large").replace(b"HTTP/1.1", b"HTTP/" + version))
    assert body_of(loop.take(sock)) == b"".join(PIECES)
    assert loop.worker.event_loop.admission.output_bytes == 0


def test_a_pipelined_request_has_its_response_after_the_last_piece(loop: Loop) -> None:
    found = loop.take(loop.client(post("/large") + post("/small")))
    large, small = (b"HTTP" + answer for answer in found.split(b"HTTP")[1:])
    assert body_of(large) == b"".join(PIECES)
    assert body_of(small) == b"small"


@pytest.mark.parametrize("line", [b"Connection: keep-alive", b"Connection: close"])
def test_a_large_response_that_waited_for_a_load_is_whole_and_comes_first(line: bytes) -> None:
    """Its head went out alone, and the next response before its pieces."""
    gate = Gate()
    gate.open.set()

    def loads(environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
        if environ["PATH_INFO"] == "/large":
            if threading.get_ident() == gate.loop:
                raise WouldBlock
            gate("large")
        return application(environ, start_response)

    loop = Loop(application=loads)
    sock = loop.client(post("/large", b"", line) + post("/small"))
    found = b""
    while len(found) < 20 * MAX_BUFFERED_BYTES or (b"keep" in line and not found.endswith(b"small")):
        found += waited(loop, sock)
    large, *small = (b"HTTP" + answer for answer in found.split(b"HTTP")[1:])
    assert body_of(large) == b"".join(PIECES)
    assert [body_of(each) for each in small] == [b"small"] * (b"keep" in line)
    end(loop, gate)


def test_a_client_that_does_not_read_keeps_no_other_waiting_and_counts_as_output(loop: Loop) -> None:
    loop.client(post("/large"))
    (connection,) = loop.worker.event_loop.connections
    loop.turn(50)
    assert len(connection.send_pieces) > 2
    unsent = len(connection.send_buffer) + sum(map(len, connection.send_pieces))
    assert loop.worker.event_loop.admission.output_bytes == connection.output_bytes == unsent
    assert body_of(loop.take(loop.client(post("/small")))) == b"small"
    assert body_of(loop.take(loop.client(post("/large")))) == b"".join(PIECES)
    loop.worker.event_loop.close(connection)
    assert loop.worker.event_loop.admission.output_bytes == 0


def test_a_response_that_breaks_off_is_shorter_than_its_length(loop: Loop) -> None:
    sock = loop.client(post("/large"))
    (connection,) = loop.worker.event_loop.connections
    loop.turn(50)
    loop.worker.event_loop.close(connection)
    found = b"".join(iter(lambda: sock.recv(1 << 20), b""))
    head, _, body = found.partition(b"\r\n\r\n")
    assert b"Content-Length: %d" % (20 * MAX_BUFFERED_BYTES) in head.split(b"\r\n")
    assert 0 < len(body) < 20 * MAX_BUFFERED_BYTES


@pytest.mark.parametrize("parts", [[*PIECES, "text"], [*PIECES, 5]])
def test_an_application_that_fails_in_its_last_piece_gets_500(parts: list[Any]) -> None:
    def failing(_: Environ, start_response: Callable[..., Any]) -> list[Any]:
        start_response("200 OK", [])
        return parts

    loop = Loop(application=failing)
    found = loop.take(loop.client(post("/large")))
    loop.close()
    assert found.startswith(b"HTTP/1.1 500 ")
    assert json.loads(body_of(found))["error"]["code"] == "internal_error"


@pytest.fixture
def wide(store: Store, make_client: MakeClient) -> FlaskClient:
    store.publish("wide", classifier(CLASSES))
    return make_client(store)


def test_the_fast_path_leaves_large_responses_to_flask(wide: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    fast_path = fast_path_of(wide)
    fit = fast_path_module.MAX_RESPONSE_VALUES // CLASSES
    bodies = [json.dumps({"instances": [[i / 7] for i in range(rows)]}).encode() for rows in (fit, fit + 1)]
    assert take(fast_path, bodies[0], path=NATIVE) is not None
    assert take(fast_path, bodies[1], path=NATIVE) is None
    monkeypatch.setattr(fast_path_module, "MAX_RESPONSE_VALUES", 2**20)
    (answer,) = fast_path.respond([take(fast_path, bodies[1], path=NATIVE)])  # type: ignore[list-item]
    assert answer is not None
    assert answer.partition(b"\r\n\r\n")[2] == wide.post(NATIVE, data=bodies[1]).data


def test_the_largest_response_takes_little_more_than_its_own_memory(wide: FlaskClient) -> None:
    """Whole, the objects of a million probabilities and three copies of their JSON took four times as much."""
    limit = wide.application.extensions["registry"].find("wide", None).max_rows
    body = json.dumps({"instances": [[0.5]] * limit})
    wide.post(NATIVE, data=b'{"instances": [[0.5]]}')
    tracemalloc.start()
    response = wide.post(NATIVE, data=body, buffered=False)
    size = sum(map(len, response.response))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size > 20_000_000
    assert peak < 1.6 * size


@pytest.mark.parametrize("worker", ["event", "gthread"])
def test_a_running_service_sends_them_to_clients_of_each_version(
    store: Store, own_server: Callable[..., Server], worker: str
) -> None:
    store.publish("wide", classifier(CLASSES))
    server = own_server(SERVE_WORKER=worker, SERVE_WORKERS="1")
    body = json.dumps({"instances": [[0.5]] * 150}).encode()
    predictions = server.ask("POST", NATIVE, json.loads(body))[1]["predictions"]
    assert len(predictions) == 150
    lines = b"POST %s HTTP/1.0\r\nHost: h\r\nContent-Type: application/json\r\n" % NATIVE.encode()
    request = lines + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with socket.create_connection(("127.0.0.1", server.port)) as idle:  # reads nothing
        idle.sendall(request.replace(b"HTTP/1.0", b"HTTP/1.1"))
        found = server.raw(request)
    assert json.loads(body_of(found))["predictions"] == predictions
