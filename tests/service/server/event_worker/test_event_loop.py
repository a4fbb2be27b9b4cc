"""The event loop: reading requests, sending responses, deadlines, invalid HTTP."""

from __future__ import annotations

import socket
import time

import pytest

from service.http.responses import RESPONSE_HEADERS
from service.server import acceptor, admission, event_loop, request_reader
from service.server.connection import READ_TIMEOUT_SECONDS
from tests.service.server.event_worker.harness import LAST_CHUNK, Loop, error_of, in_small_chunks, post, queued_clients


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
    assert loop.app.handled_paths == ["/a", "/b", "/c"]


def test_an_idle_worker_accepts_one_connection_of_a_burst_per_turn(loop: Loop) -> None:
    for workers, taken in ((1, [4, 8]), (2, [9, 10])):
        loop.worker.cfg.set("workers", workers)
        burst = [socket.create_connection(loop.listener.getsockname()) for _ in range(8)]
        loop.clients += burst
        for count in taken:
            loop.turn(1)
            assert len(loop.worker.event_loop.connections) == count


def test_slow_and_silent_clients_do_not_delay_others(loop: Loop) -> None:
    for _ in range(30):
        loop.client()
        loop.client(b"POST / HTTP/1.1\r\nX: ")
        loop.client(post("/slow", b"x" * 500)[:-1])
    sock = loop.client(post("/good", b"good"))
    assert loop.take(sock).endswith(b"good")
    assert loop.app.handled_paths == ["/good"]


def test_a_client_that_does_not_read_its_response_does_not_delay_others(loop: Loop) -> None:
    loop.client(post("/large"))
    assert loop.take(loop.client(post("/good", b"good"))).endswith(b"good")


def test_a_large_response_arrives_complete(loop: Loop) -> None:
    found = loop.take(loop.client(post("/large", b"", b"Connection: close")))
    assert len(found.partition(b"\r\n\r\n")[2]) == 5_000_000


def test_a_request_that_does_not_arrive_in_time_is_408(loop: Loop) -> None:
    sock = loop.client(b"POST / HTTP/1.1\r\n")
    silent = loop.client()
    loop.worker.expire_connections(time.monotonic() + READ_TIMEOUT_SECONDS + 1)
    assert error_of(loop.take(sock)) == (408, "request_timeout")
    assert silent.recv(10) == b""


def test_an_idle_connection_is_closed_after_the_keepalive_time(loop: Loop) -> None:
    sock = loop.client(post("/one", b"1"))
    loop.take(sock)
    loop.worker.expire_connections(time.monotonic() + loop.worker.cfg.keepalive + 1)
    assert sock.recv(10) == b""


@pytest.mark.parametrize("location", ["method", "target", "header"])
def test_a_rejected_request_cannot_write_control_characters_to_the_log(
    loop: Loop, caplog: pytest.LogCaptureFixture, location: str
) -> None:
    loop.worker.log.error_log.propagate = True
    forged = b"\x1b[2J\x9b\r2026 INFO all is well"
    head = {"method": b"G%bT / HTTP/1.1", "target": b"GET /%b HTTP/1.1", "header": b"GET / HTTP/1.1\r\nX%b: y"}
    assert loop.take(loop.client(head[location] % forged + b"\r\nHost: h\r\n\r\n")).startswith(b"HTTP/1.1 400")
    told = caplog.messages[0]
    assert told.startswith("rejected a request")
    assert not any(character < " " or "\x7f" <= character < "\xa0" for character in told)


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
def test_invalid_http_gets_an_error_response_in_json(loop: Loop, text: bytes, status: int) -> None:
    sock = loop.client(text)
    assert error_of(loop.take(sock)) == (status, "bad_request")
    assert loop.take(sock, max_turns=5) == b""
    assert loop.app.handled_paths == []


def test_100_continue_is_sent(loop: Loop) -> None:
    sock = loop.client(post("/x", b"body", b"Expect: 100-continue")[:-4])
    assert loop.take(sock) == b"HTTP/1.1 100 Continue\r\n\r\n"
    sock.sendall(b"body")
    found = loop.take(sock)
    assert found.startswith(b"HTTP/1.1 200 OK")
    assert found.endswith(b"body")


def test_a_client_that_is_gone_leaves_nothing_behind(loop: Loop) -> None:
    for text in (b"", b"POST /", post("/x", b"x" * 100)[:-1], post("/large")):
        sock = loop.client(text)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        sock.close()
    loop.turn(20)
    assert not loop.worker.event_loop.connections
    assert loop.worker.event_loop.admission.input_bytes == 0


def test_draining_accepts_the_backlog_first(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing a listener resets the connections in its backlog."""
    monkeypatch.setattr(event_loop, "LINGER_SECONDS", 0.1)
    clients = [
        socket.create_connection(loop.listener.getsockname(), timeout=10)
        for _ in range(acceptor.MAX_ACCEPTS_PER_TURN + 2)
    ]
    for client in clients:
        client.sendall(post("/x", b"in time"))
    loop.worker.drain()
    assert all(client.recv(10_000).endswith(b"in time") for client in clients)
    for client in clients:
        client.close()


@pytest.mark.usefixtures("small_pieces")
def test_large_requests_are_read_one_after_another(loop: Loop) -> None:
    """Otherwise many of them would fill the memory with incomplete requests."""
    clients = queued_clients(loop, *[post(f"/{i}", b"x" * 500) for i in range(3)])
    loop.turn(3)
    assert loop.app.handled_paths == ["/0"]
    assert (
        sum(len(connection.reader.buffer) for connection in loop.worker.event_loop.connections)
        <= 2 * event_loop.LARGE_READ_BYTES
    )
    clients[0].sendall(post("/again", b"x" * 500))
    loop.turn(20)
    assert loop.app.handled_paths == ["/0", "/1", "/2", "/again"]
    assert loop.worker.event_loop.admission.input_bytes == 0


@pytest.mark.usefixtures("small_pieces")
def test_small_requests_do_not_wait_for_large_ones(loop: Loop) -> None:
    queued_clients(loop, *[post(f"/{i}", b"x" * 500) for i in range(3)], post("/small"))
    loop.turn(2)
    assert loop.app.handled_paths == ["/small"]


@pytest.mark.usefixtures("small_pieces")
def test_the_time_that_a_large_request_waits_to_be_read_counts(loop: Loop) -> None:
    _, second = queued_clients(loop, post("/0", b"x" * 250), post("/1", b"x" * 250))
    loop.turn(1)
    loop.worker.event_loop.readable_connections[-1].readable_since -= admission.MAX_QUEUE_SECONDS + 1
    assert error_of(loop.take(second)) == (503, "overloaded")


def test_a_body_of_small_chunks_does_not_delay_other_requests(loop: Loop) -> None:
    queued_clients(loop, in_small_chunks("/chunks", 900) + LAST_CHUNK, post("/good"))
    loop.turn(1)
    assert loop.app.handled_paths == ["/good"]
    loop.turn(900 // request_reader.CHUNKS_PER_READ - 3)
    assert loop.app.handled_paths == ["/good"]
    loop.turn(4)
    assert loop.app.handled_paths == ["/good", "/chunks"]


def test_bodies_of_small_chunks_are_read_in_turn(loop: Loop) -> None:
    """A turn decodes chunks of one body only."""
    several = [f"/{i}" for i in range(5)]
    queued_clients(loop, *[in_small_chunks(path, 900) + LAST_CHUNK for path in several])
    loop.turn(5 * (900 // request_reader.CHUNKS_PER_READ) - 10)
    assert loop.app.handled_paths == []
    loop.turn(12)
    assert sorted(loop.app.handled_paths) == several


def test_large_requests_do_not_wait_for_bodies_of_small_chunks(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_loop, "READ_BYTES", 500)
    queued_clients(loop, *[in_small_chunks(f"/{i}", 900) for i in range(9)], post("/large", b"x" * 900))
    loop.turn(2)
    assert loop.app.handled_paths == ["/large"]


def test_a_body_without_its_last_chunk_cannot_be_read(loop: Loop) -> None:
    sock = loop.client(in_small_chunks("/chunks", 900))
    sock.shutdown(socket.SHUT_WR)
    assert error_of(loop.take(sock)) == (
        500,
        "internal_error",
    )  # from the test's application, which cannot read its input
    loop.turn()
    assert not loop.worker.event_loop.connections


@pytest.mark.usefixtures("small_pieces")
def test_bodies_of_small_chunks_do_not_delay_large_requests(loop: Loop) -> None:
    queued_clients(loop, in_small_chunks("/chunks", 300), post("/large", b"x" * 500))
    loop.turn(15)
    assert loop.app.handled_paths == ["/large"]


@pytest.mark.usefixtures("small_pieces")
def test_a_request_that_takes_too_long_is_408_however_fast_it_arrives(loop: Loop) -> None:
    (sock,) = queued_clients(loop, in_small_chunks("/chunks", 300))
    loop.turn(2)
    (connection,) = loop.worker.event_loop.connections
    connection.deadline = time.monotonic()
    loop.turn(2)
    loop.worker.expire_connections(time.monotonic())
    assert error_of(loop.take(sock)) == (408, "request_timeout")


@pytest.mark.usefixtures("small_pieces")
def test_a_request_that_arrived_in_time_and_is_not_read_yet_is_not_late(loop: Loop) -> None:
    _, second = queued_clients(loop, post("/0", b"x" * 900), post("/1", b"x" * 900))
    loop.turn(1)
    connection = loop.worker.event_loop.readable_connections[-1]
    assert not connection.pending_request
    loop.worker.expire_connections(connection.deadline + 1)
    assert loop.take(second).endswith(b"x" * 900)


@pytest.mark.usefixtures("small_pieces")
def test_a_client_that_sends_on_after_the_last_response_is_closed_in_time(loop: Loop) -> None:
    queued_clients(loop, b"nonsense\r\n\r\n" + b"x" * 10_000)
    loop.turn(3)
    (connection,) = loop.worker.event_loop.connections
    assert connection.lingering
    loop.worker.expire_connections(connection.deadline + 1)
    assert not loop.worker.event_loop.connections


def test_requests_of_one_connection_are_answered_in_their_order(loop: Loop) -> None:
    client = loop.client(post("/plain", b"1") + post("/other", b"2") + post("/plain", b"3"))
    assert [part[-1:] for part in loop.take(client).split(b"HTTP/1.1 ")[1:]] == [b"1", b"2", b"3"]


def test_an_error_response_to_head_has_no_body(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_QUEUE_SECONDS", -1.0)
    found = loop.take(loop.client(b"HEAD /x HTTP/1.1\r\nHost: h\r\n\r\n"))
    assert found.startswith(b"HTTP/1.1 503 ")
    assert b"Connection: keep-alive\r\n" in found
    assert found.endswith(b"\r\n\r\n")


def test_error_responses_have_the_headers_of_every_response(loop: Loop) -> None:
    found = loop.take(loop.client(b"nonsense\r\n\r\n"))
    assert all(f"\r\n{name}: {value}\r\n".encode() in found for name, value in RESPONSE_HEADERS.items())


def test_a_pipelined_request_has_the_whole_read_timeout(loop: Loop) -> None:
    sock = loop.client()
    sock.sendall(post("/one", b"1") + post("/two", b"22")[:-1])
    assert loop.take(sock).endswith(b"1")
    loop.worker.expire_connections(time.monotonic() + loop.worker.cfg.keepalive + 1)
    sock.sendall(b"2")
    assert loop.take(sock).endswith(b"22")


@pytest.mark.parametrize("error", [RuntimeError("a fault of ours"), MemoryError()], ids=["fault", "memory"])
@pytest.mark.parametrize("fails", ["RequestReader.feed", "AdmissionController.update", "EventLoop._send"])
def test_an_internal_error_closes_its_own_connection_only(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fails: str, error: Exception
) -> None:
    """It ended the worker with a thousand connections."""
    others = [loop.client(post("/half", b"other")[:-1]) for _ in range(3)]
    owner, _, method = fails.partition(".")
    patched = {"RequestReader": request_reader.RequestReader, "AdmissionController": admission.AdmissionController}
    kind = patched.get(owner, event_loop.EventLoop)
    sound = getattr(kind, method)

    def fail_once(*arguments: object) -> object:
        monkeypatch.setattr(kind, method, sound)
        raise error

    victim = loop.client()
    monkeypatch.setattr(kind, method, fail_once)
    victim.sendall(post("/x", b"x"))
    assert loop.take(victim) == b""
    assert "closed a connection of 127.0.0.1 after an internal error" in caplog.text
    for sock in others:
        sock.sendall(b"r")
        assert loop.take(sock).endswith(b"other")
    assert len(loop.worker.event_loop.connections) == 3


@pytest.mark.parametrize(
    "lines",
    [(b"Connection: te, close",), (b"Connection: keep-alive", b"Connection: Close"), (b"Connection: close ,te",)],
)
def test_close_in_a_list_of_connection_options_closes(loop: Loop, lines: tuple[bytes, ...]) -> None:
    sock = loop.client(post("/x", b"x", *lines))
    assert loop.take(sock).endswith(b"x")
    assert sock.recv(1) == b""


def test_without_keepalive_every_response_says_that_the_connection_closes(loop: Loop) -> None:
    loop.worker.cfg.set("keepalive", 0)
    sock = loop.client(post("/x", b"x"))
    assert b"\r\nConnection: close\r\n" in loop.take(sock)
    assert sock.recv(1) == b""


@pytest.mark.parametrize("text", [b"GET / HTTP/1.1\nHost: h\n\n", b"\nGET / HTTP/1.1\r\n", b"GET /\n"])
def test_lines_that_end_in_lf_alone_are_rejected_at_once(loop: Loop, text: bytes) -> None:
    assert error_of(loop.take(loop.client(text))) == (400, "bad_request")


@pytest.mark.parametrize("name", [b"Content-Length", b"transfer-encoding", b"Host", b"Authorization "])
def test_a_trailer_that_would_change_the_request_is_rejected(loop: Loop, name: bytes) -> None:
    sock = loop.client(in_small_chunks("/x", 1) + b"0\r\n" + name + b": 1\r\n\r\n")
    assert error_of(loop.take(sock))[0] in (400, 500)  # 500 from the test's application, which cannot read its input
    assert loop.take(sock, max_turns=50) == b""


def test_a_harmless_trailer_is_dropped(loop: Loop) -> None:
    sock = loop.client(in_small_chunks("/x", 1) + b"0\r\nX-Checksum: 1\r\n\r\n" + post("/y", b"y"))
    found = loop.take(sock)
    while not found.endswith(b"y"):
        found += loop.take(sock)
    assert loop.app.handled_paths == ["/x", "/y"]
