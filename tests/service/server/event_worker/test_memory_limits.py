"""Limits of connections and memory: which requests are shed and which connections closed."""

from __future__ import annotations

import errno
import os
import socket
import time

import pytest

from service.server import acceptor, admission, event_loop
from service.server.connection import READ_TIMEOUT_SECONDS
from tests.service.server.event_worker.harness import Loop, error_of, post, queued_clients


def test_input_is_bounded_for_all_connections_together(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    loop.worker.event_loop.admission.max_input_bytes = 2000
    waiting = [loop.client(post("/x", b"x" * 900)[:-1]) for _ in range(2)]
    refused = loop.client(post("/x", b"x" * 900)[:-1])
    assert error_of(loop.take(refused)) == (503, "overloaded")
    assert loop.worker.event_loop.admission.input_bytes < 2000
    waiting[0].sendall(b"x")
    assert loop.take(waiting[0]).endswith(b"x" * 900)
    loop.worker.event_loop.admission.max_input_bytes = 0
    assert loop.take(loop.client(post("/x"))).startswith(b"HTTP/1.1 200")  # no input is kept


def test_complete_requests_in_the_queue_count_toward_the_input_limit(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop.worker.event_loop.admission.max_input_bytes = 2000
    clients = [loop.client() for _ in range(4)]
    for client in clients:
        client.sendall(post("/x", b"x" * 900))
    for connection in list(loop.worker.event_loop.connections):
        loop.worker.event_loop._read_connection(connection, time.monotonic(), event_loop.READ_BYTES)
    assert loop.worker.event_loop.admission.input_bytes == 1800
    found = [loop.take(client).split()[1] for client in clients]
    assert sorted(found) == [b"200", b"200", b"503", b"503"]
    assert loop.worker.event_loop.admission.input_bytes == 0


def test_heads_without_their_bodies_count_toward_the_input_limit(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    loop.worker.event_loop.admission.max_input_bytes = 2000
    large = b"X: " + b"x" * 700
    waiting = loop.client(post("/x", b"x", large)[:-1])
    assert error_of(loop.take(loop.client(post("/x", b"x", large)[:-1]))) == (503, "overloaded")
    assert loop.take(loop.client(post("/x", b"", large))).startswith(b"HTTP/1.1 200")  # nothing of it is kept
    waiting.sendall(b"y")
    assert loop.take(waiting).endswith(b"y")
    assert loop.worker.event_loop.admission.input_bytes == 0


def test_slow_uploads_are_shed_for_others(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    loop.worker.event_loop.admission.max_input_bytes = 2000
    slow = [loop.client(post("/x", b"x" * 900)[:-1]) for _ in range(2)]
    for connection in loop.worker.event_loop.connections:
        connection.deadline -= admission.SLOW_CLIENT_SECONDS + 1
    good = loop.client(post("/x", b"x" * 900)[:-1])
    good.sendall(b"x")
    assert loop.take(good).endswith(b"x" * 900)
    assert [error_of(loop.take(sock)) for sock in slow[:1]] == [(503, "overloaded")]
    slow[1].sendall(b"x")  # shedding one was enough
    assert loop.take(slow[1]).endswith(b"x" * 900)


def test_large_uploads_shed_no_small_request(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh uploads that fill the limit exactly shed each other; a connection within its share is served."""
    monkeypatch.setattr(admission, "MAX_CONNECTIONS", 10)
    loop.worker.event_loop.admission.max_input_bytes = 2000  # a share is 200
    large = [loop.client(post("/x", b"x" * 850)[:-1]) for _ in range(2)]
    small = [loop.client(post("/x", b"y" * 60)[:-1]) for _ in range(3)]
    assert error_of(loop.take(large[1])) == (503, "overloaded")  # the newest of the large ones
    for sock in small:
        sock.sendall(b"y")
        assert loop.take(sock).endswith(b"y" * 60)
    assert loop.worker.event_loop.admission.input_bytes < 2000
    large[0].sendall(b"x")
    assert loop.take(large[0]).endswith(b"x" * 850)


def test_a_queued_large_request_is_shed_for_a_small_one(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_CONNECTIONS", 10)
    loop.worker.event_loop.admission.max_input_bytes = 2000
    bodies = [b"x" * 950, b"x" * 950, b"y" * 150]
    *large, small = queued_clients(loop, *(post("/x", body) for body in bodies))
    loop.worker.event_loop.poll(0)
    assert [len(queue) for queue in (loop.worker.event_loop.large_queue, loop.worker.event_loop.queue)] == [1, 1]
    assert loop.take(small).endswith(bodies[2])
    assert sorted(loop.take(sock).split()[1] for sock in large) == [b"200", b"503"]
    for sock in large:
        sock.sendall(post("/again", b"again"))
        assert loop.take(sock).endswith(b"again")  # the connections are kept


def test_unread_responses_are_bounded_for_all_connections_together(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_STALLED_OUTPUT_BYTES", 1000)
    loop.client(post("/large"))
    taking = loop.client(post("/large", b"", b"Connection: close"))
    for connection in loop.worker.event_loop.connections:
        connection.last_sent_at -= admission.SLOW_CLIENT_SECONDS + 1
    came = 0
    while came < 2_000_000:
        came += len(taking.recv(1 << 20))
    loop.turn()
    assert len(loop.worker.event_loop.connections) == 1  # the other is closed, because it has read nothing
    assert came + len(loop.take(taking)) > 5_000_000
    assert loop.worker.event_loop.admission.output_bytes == 0


def test_slowly_read_responses_are_bounded_too(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slowest is closed; a single response may exceed the limit."""
    monkeypatch.setattr(admission, "MAX_STALLED_OUTPUT_BYTES", 1000)
    first, last = (loop.client(post("/large", b"", b"Connection: close")) for _ in range(2))
    assert len(loop.worker.event_loop.connections) == 2
    monkeypatch.setattr(admission, "MAX_OUTPUT_BYTES", 1000)
    loop.turn(1)
    (connection,) = loop.worker.event_loop.connections
    assert connection.output_bytes == loop.worker.event_loop.admission.output_bytes > 1000
    assert len(loop.take(last).partition(b"\r\n\r\n")[2]) == 5_000_000
    assert len(loop.take(first)) < 5_000_000


def test_a_connection_over_the_limit_replaces_the_one_with_the_nearest_deadline(
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


def test_pipelined_requests_over_the_input_limit_are_shed_with_their_connection(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise each would be shed within the call of the one before, deeper than Python's recursion limit."""
    loop.worker.event_loop.admission.max_input_bytes = 1000
    for _ in range(2):
        loop.client(post("/x", b"x" * 900)[:-1])
    found = loop.take(loop.client(post("/x") * 1000))
    assert error_of(found) == (503, "overloaded")
    assert b"Connection: close\r\n" in found


class Exhausted:
    """A listener whose accept fails, by default for want of descriptors."""

    def __init__(self, code: int = errno.EMFILE) -> None:
        self.code = code

    def accept(self) -> None:
        raise OSError(self.code, os.strerror(self.code))


def test_without_descriptors_the_connection_limit_is_lowered(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(admission, "RESERVED_DESCRIPTORS", 2)
    idle = [loop.client() for _ in range(4)]
    loop.worker.event_loop.acceptor.accept(Exhausted())
    assert [sock.recv(10) for sock in idle[:2]] == [b"", b""]
    assert len(loop.worker.event_loop.connections) == 2
    assert "connection limit lowered from 1000 to 2: Too many open files" in caplog.text
    assert loop.take(loop.client(post("/good", b"good"))).endswith(b"good")
    assert len(loop.worker.event_loop.connections) == 2  # the new limit


@pytest.mark.parametrize("code", [errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_a_passing_shortage_of_the_system_closes_no_connection(loop: Loop, code: int) -> None:
    """The shortage lasts for many turns, each of which would close more."""
    for _ in range(40):
        loop.client()
    for _ in range(10):
        loop.worker.event_loop.acceptor.accept(Exhausted(code))
    assert len(loop.worker.event_loop.connections) == 40
    assert loop.worker.event_loop.admission.connection_limit == admission.MAX_CONNECTIONS


def test_accepting_pauses_while_the_system_is_short(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    """The listener stays readable, so accepting again at once would take the whole CPU."""
    poller = loop.worker.event_loop.poller
    for _ in range(10):
        loop.worker.event_loop.acceptor.accept(Exhausted(errno.ENFILE))
    assert loop.listener not in poller.watched.values()
    assert caplog.text.count("cannot accept connections: Too many open files in system") == 1
    assert loop.take(loop.client(post("/good", b"good"))).endswith(b"good")  # after the pause
    assert loop.listener in poller.watched.values()


def test_draining_accepts_what_arrived_in_a_pause(loop: Loop) -> None:
    client = loop.client()
    loop.worker.event_loop.acceptor.accept(Exhausted(errno.ENOMEM))
    client.close()
    with socket.create_connection(loop.listener.getsockname(), timeout=10) as last:
        last.sendall(post("/x", b"in time", b"Connection: close"))
        loop.worker.drain()
        assert last.recv(10_000).endswith(b"in time")


def test_the_connection_limit_is_restored_once_descriptors_suffice(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(admission, "RESERVED_DESCRIPTORS", 2)
    for _ in range(4):
        loop.client()
    loop.worker.event_loop.acceptor.accept(Exhausted())
    now = time.monotonic()
    loop.worker.expire_connections(now + admission.RESTORE_LIMIT_SECONDS - 1)
    assert loop.worker.event_loop.admission.connection_limit == 2
    loop.worker.expire_connections(now + admission.RESTORE_LIMIT_SECONDS + 1)
    assert loop.worker.event_loop.admission.connection_limit == admission.MAX_CONNECTIONS
    assert "connection limit restored to 1000" in caplog.text


def test_idle_clients_do_not_shut_out_new_ones(loop: Loop) -> None:
    """Connections that wait for another request have later deadlines than new ones, as in the service."""
    loop.worker.event_loop._keepalive_seconds = 2 * READ_TIMEOUT_SECONDS
    loop.worker.event_loop.admission.connection_limit = 6
    idle = [loop.client(post("/idle", b"x")) for _ in range(6)]
    assert all(loop.take(sock).endswith(b"x") for sock in idle)
    arriving = [loop.client(post("/good", b"good")[:-1]) for _ in range(6)]
    assert [sock.recv(10) for sock in idle] == [b""] * 6
    for sock in arriving:
        sock.sendall(b"d")
        assert loop.take(sock).endswith(b"good")


def test_overload_does_not_leave_connections_in_the_backlog(loop: Loop) -> None:
    loop.worker.cfg.set("workers", 2)
    queued = queued_clients(loop, post("/slow"), post("/slower"))
    loop.worker.event_loop.poll(0)
    burst = [socket.create_connection(loop.listener.getsockname()) for _ in range(30)]
    loop.clients += burst
    loop.worker.event_loop.poll(0)
    assert len(loop.worker.event_loop.connections) == len(queued) + acceptor.MAX_ACCEPTS_PER_TURN
    loop.worker.event_loop.acceptor._backlog_since -= 2 * acceptor.OVERLOAD_SECONDS
    loop.worker.event_loop.poll(0)
    assert len(loop.worker.event_loop.connections) == len(queued) + len(burst)
