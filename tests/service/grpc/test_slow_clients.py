"""Clients that send or read slowly, or not at all, by HTTP/2 frames made by hand."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flask import Flask

from model_store.registry.store import Store
from service.grpc import calls, connections, server, slow_uploads, watchers
from tests.service.conftest import MakeClient
from tests.service.grpc.conftest import GrpcClient, RawConnection, Serve, message_head, request
from tests.service.server.server_process import PATIENCE_SECONDS, free_port, until

INFER = "/inference.GRPCInferenceService/ModelInfer"
LIVE = "/inference.GRPCInferenceService/ServerLive"
METADATA = "/inference.GRPCInferenceService/ServerMetadata"
CHECK = "/grpc.health.v1.Health/Check"


@pytest.fixture
def ours(store: Store, make_client: MakeClient, serve_grpc: Serve) -> GrpcClient:
    app: Flask = make_client(store).application
    return serve_grpc(app)


@pytest.fixture
def connect(ours: GrpcClient) -> Iterator[Callable[..., RawConnection]]:
    opened: list[RawConnection] = []

    def open_one(**options: Any) -> RawConnection:
        opened.append(RawConnection(ours.port, **options))
        return opened[-1]

    yield open_one
    for connection in opened:
        connection.close()


def answers(ours: GrpcClient) -> bool:
    asked = request("image", pixels=np.zeros((1, 4)))
    return bool(ours.call("ModelInfer", asked).model_version == "1")


def test_a_message_that_does_not_arrive_in_time_is_given_up(ours, connect, monkeypatch):
    monkeypatch.setattr(slow_uploads, "READ_TIMEOUT_SECONDS", 0.2)
    slow = connect()
    slow.start(INFER)
    slow.send(message_head(100) + b"x")
    assert b"did not arrive in time" in slow.received(1.0)
    assert answers(ours)


def test_slow_uploads_beyond_the_limit_are_ended_and_quick_calls_answered(ours, connect, monkeypatch):
    """Four of the largest messages fit into the limit of input."""
    monkeypatch.setattr(slow_uploads, "SLOW_CLIENT_SECONDS", 0.2)
    slow = [connect() for _ in range(6)]
    for connection in slow[:4]:
        connection.start(INFER)
        connection.send(message_head(2**20) + b"x")
    time.sleep(0.5)
    for connection in slow[4:]:
        connection.start(INFER)
        connection.send(message_head(2**20) + b"x")
    ended = [b"more requests than can be answered" in each.received(0.3) for each in slow]
    assert ended.count(True) == 2
    assert not any(ended[4:])  # the slowest make room for the newest
    assert answers(ours)


def test_the_newest_is_ended_while_no_upload_is_slow(ours, connect, monkeypatch):
    monkeypatch.setattr(slow_uploads, "SLOW_CLIENT_SECONDS", 60.0)
    slow = [connect() for _ in range(5)]
    for connection in slow:
        connection.start(INFER)
        connection.send(message_head(2**20) + b"x")
        time.sleep(0.1)
    assert [b"more requests than" in each.received(0.3) for each in slow] == [False, False, False, False, True]


def test_health_checks_that_never_come_take_no_place_of_uploads(ours, connect, monkeypatch):
    monkeypatch.setattr(slow_uploads, "SLOW_CLIENT_SECONDS", 60.0)
    for _ in range(8):
        stranger = connect()
        stranger.start(CHECK)
        stranger.send(message_head(100))
    time.sleep(0.2)
    slow = connect()
    slow.start(INFER)
    slow.send(message_head(2**20) + b"x")
    assert b"more requests than" not in slow.received(0.5)


def test_a_client_that_goes_while_it_sends_or_reads_leaves_nothing(ours, connect, caplog):
    sending, reading = connect(), connect(window=0)
    sending.start(INFER)
    sending.send(message_head(100) + b"x")
    data = request("image", pixels=np.zeros((10_000, 4), np.int8)).SerializeToString()
    reading.start(INFER)
    message = message_head(len(data)) + data
    for at in range(0, len(message), 16_384):
        reading.send(message[at : at + 16_384], end=at + 16_384 >= len(message))
    time.sleep(0.3)
    sending.close()
    reading.close()
    time.sleep(0.3)
    assert answers(ours)
    assert "Traceback" not in caplog.text


def test_bytes_that_are_no_http_2_end_their_connection_alone(ours, connect):
    for garbage in (
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        bytes(range(256)) * 100,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nxxxx",
    ):
        with socket.create_connection(("127.0.0.1", ours.port), timeout=20) as other:
            other.sendall(garbage)
            assert answers(ours)


def test_metadata_beyond_the_limit_is_refused(ours):
    asked = request("image", pixels=np.zeros((1, 4)))
    error = ours.error("ModelInfer", asked, metadata=[("x-long", "x" * 40_000)], wait_for_ready=False)
    assert error.code().name in {"RESOURCE_EXHAUSTED", "INTERNAL", "UNAVAILABLE"}
    assert answers(ours)


def watch(ours: GrpcClient) -> Any:
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    stub = health_pb2_grpc.HealthStub(ours.channel)
    return stub.Watch(health_pb2.HealthCheckRequest(), timeout=20, wait_for_ready=True)


def test_watchers_of_health_are_limited(ours, monkeypatch):
    monkeypatch.setattr(watchers, "MAX_WATCHERS", 1)
    first = watch(ours)
    next(first)
    with pytest.raises(Exception, match="call Check instead"):
        next(watch(ours))
    first.cancel()
    until(lambda: next(watch(ours)) is not None)


def test_a_client_with_many_watchers_shuts_out_no_other_address(ours, monkeypatch):
    monkeypatch.setattr(watchers, "MAX_WATCHERS", 2)
    addresses = iter(["10.0.0.1", "10.0.0.1", "10.0.0.2"])
    monkeypatch.setattr(calls, "_client_ip", lambda _: next(addresses))
    first = watch(ours)
    assert next(first).status == 1
    second = watch(ours)
    assert next(second).status == 1
    other = watch(ours)
    assert next(other).status == 1
    with pytest.raises(Exception, match="call Check instead"):
        next(second)
    for each in (first, other):
        each.cancel()


def test_the_watchers_of_one_proxy_are_not_ended_for_newer_ones():
    entered = watchers.Watchers()
    ours = [entered.enter("10.0.0.1") for _ in range(watchers.MAX_WATCHERS)]
    assert entered.enter("10.0.0.1") is None
    assert not any(each.is_set() for each in ours)
    assert entered.enter("10.0.0.2") is not None
    assert [each.is_set() for each in ours] == [False] * 99 + [True]


def leave_unread(connection: RawConnection, path: str, count: int) -> None:
    """Make calls without a message, whose responses the client, which gives no window, does not read."""
    for _ in range(count):
        connection.start(path)
        connection.send(message_head(0), end=True)


def is_closed(connection: RawConnection) -> bool:
    connection.socket.settimeout(0.05)
    try:
        while connection.socket.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


@pytest.fixture
def close_after(monkeypatch) -> Callable[[int], None]:
    """Return a function that lets nothing be closed until so many responses are unread, all for about as long."""

    def wait_for(count: int) -> None:
        close_excess, begun = connections.Connections.close_excess, []

        def close(self, *arguments):
            times = [call.answered_at for call in (*self._small, *self._large)]
            if begun or (len(times) >= count and time.monotonic() - max(times) > max(times) - min(times)):
                begun.append(True)
                close_excess(self, *arguments)

        monkeypatch.setattr(connections.Connections, "close_excess", close)

    return wait_for


@pytest.mark.parametrize("path", [LIVE, METADATA])
def test_clients_that_read_no_responses_lose_their_connections(ours, connect, monkeypatch, close_after, path):
    """600 unread responses of 9.9 kB in all kept every other call over gRPC from an answer for 142 s."""
    monkeypatch.setattr(connections, "MAX_UNREAD", 20)
    close_after(46)
    deaf, slow = [connect(window=0) for _ in range(3)], connect(window=0)
    leave_unread(slow, path, 1)
    for each in deaf:
        leave_unread(each, path, 15)
    assert ours.call("ServerLive").live
    assert answers(ours)
    until(lambda: [is_closed(each) for each in deaf].count(True) >= 2)
    assert not is_closed(slow)
    assert answers(ours)


def test_clients_that_read_no_large_responses_lose_their_connections(ours, connect, monkeypatch, close_after):
    monkeypatch.setattr(connections, "SMALL_BYTES", 0)
    monkeypatch.setattr(connections, "MAX_UNREAD_BYTES", 2**19)  # two responses, as each counts at least 256 KiB
    monkeypatch.setattr(connections, "SLOW_CLIENT_SECONDS", 0.2)
    close_after(4)
    deaf, slow = connect(window=0), connect(window=0)
    leave_unread(deaf, LIVE, 3)
    leave_unread(slow, LIVE, 1)
    until(lambda: is_closed(deaf))
    assert not is_closed(slow)
    assert answers(ours)


def test_no_client_is_closed_in_place_of_one_with_more_unread_responses():
    slow, new = connections.OpenCall("slow", 10.0), [connections.OpenCall("new", 10.06) for _ in range(45)]
    unread = dict.fromkeys([slow, *new], 1)
    assert connections._most_unread(unread, 20, 10.05, 10.15) == []  # only `slow` has had its time
    assert connections._most_unread(unread, 20, 10.1, 10.2) == ["new"]
    assert connections._most_unread(unread, 46, 10.1, 10.2) == []


def test_silent_connections_make_room_for_new_clients(store, make_client, serve_grpc, monkeypatch):
    """1,100 silent connections, which HTTP closes for others, shut gRPC to new clients for 70 s."""
    monkeypatch.setattr(server, "max_connections", lambda _: 8)
    ours = serve_grpc(make_client(store).application)
    assert answers(ours)
    busy = RawConnection(ours.port)
    busy.start(INFER)
    silent = [RawConnection(ours.port) for _ in range(10)]
    until(lambda: sum(map(is_closed, silent)) >= 6)
    newer = GrpcClient(ours.port)
    assert answers(newer)
    assert not is_closed(busy)
    for each in (busy, *silent):
        each.close()
    newer.channel.close()


def test_idle_connections_are_closed_from_the_longest_idle_on(monkeypatch):
    found = connections.Connections()
    ports = {1}
    served = ["10.0.0.1:1", "10.0.0.1:2", "10.0.0.1:3"]
    for client in served:
        context = SimpleNamespace(peer=lambda client=client: f"ipv4:{client}", add_done_callback=lambda end: end(None))
        found.begin(context)
    silent = [f"10.0.0.2:{port}" for port in range(2)]
    monkeypatch.setattr(connections, "_clients", lambda _: enumerate([*served, *silent]))
    assert found._most_idle(ports, 6) == served[:2]  # silent ones may be about to make their first call
    first, second, third = found._most_idle(ports, 4)
    assert ({first, second}, third) == ({*silent}, served[0])
    assert found._most_idle(ports, 8) == []


def test_a_server_that_fails_starts_again(store, make_client, caplog):
    port = free_port()
    alive = True
    app = make_client(store).application
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        failing = app.extensions["grpc_server"]([(False, [f"127.0.0.1:{port}"])], lambda: alive)
        failing.start()
        until(lambda: "it starts again in 1 s" in caplog.text)
    assert failing.listening.wait(PATIENCE_SECONDS)
    alive = False
    failing.stop(PATIENCE_SECONDS)


@pytest.mark.parametrize(
    ("descriptors", "listeners", "expected"),
    [(1024, 1, 256), (1024, 2, 128), (2, 1, 1), (20_000, 2, 1000), (-1, 1, 1000)],
)
def test_connections_are_limited_by_a_quarter_of_the_descriptors(monkeypatch, descriptors, listeners, expected):
    monkeypatch.setattr("resource.getrlimit", lambda _: (descriptors, descriptors))
    assert server.max_connections(listeners) == expected
