"""Clients that send or read slowly, or not at all, by HTTP/2 frames made by hand."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from flask import Flask

from model_store.registry.store import Store
from service.grpc import calls, slow_uploads
from service.grpc.server import max_connections
from tests.service.conftest import MakeClient
from tests.service.grpc.conftest import GrpcClient, RawConnection, Serve, grpc, message_head, request
from tests.service.server.server_process import PATIENCE_SECONDS, free_port, until

INFER = "/inference.GRPCInferenceService/ModelInfer"
LIVE = "/inference.GRPCInferenceService/ServerLive"
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


def test_watchers_of_health_are_limited(ours, monkeypatch):
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    monkeypatch.setattr(calls, "MAX_WATCHERS", 1)
    stub = health_pb2_grpc.HealthStub(ours.channel)
    first = stub.Watch(health_pb2.HealthCheckRequest(), timeout=20, wait_for_ready=True)
    next(first)
    with pytest.raises(Exception, match="call Check instead"):
        next(stub.Watch(health_pb2.HealthCheckRequest(), timeout=20))
    first.cancel()
    until(lambda: next(stub.Watch(health_pb2.HealthCheckRequest(), timeout=20)) is not None)


def test_unread_responses_of_health_checks_are_limited_for_themselves(ours, connect, monkeypatch):
    monkeypatch.setattr(calls, "MAX_UNREAD_CHECKS", 3)
    deaf = connect(window=0)
    for _ in range(3):
        deaf.start(LIVE)
        deaf.send(message_head(0), end=True)
    until(lambda: is_shed(ours))
    assert answers(ours)
    monkeypatch.setattr(calls, "MAX_UNREAD_CHECKS", 4)
    assert ours.call("ServerLive").live


def is_shed(ours: GrpcClient) -> bool:
    try:
        ours.call("ServerLive")
    except grpc.RpcError as e:
        return bool(e.code() is grpc.StatusCode.UNAVAILABLE)
    return False


def test_a_client_that_does_not_read_the_response_of_a_health_check_is_given_up(ours, connect, monkeypatch):
    monkeypatch.setattr(calls, "MAX_UNREAD_CHECKS", 1)
    monkeypatch.setattr(calls, "_CHECK_SECONDS", 0.5)
    deaf = connect(window=0)
    deaf.start(LIVE)
    deaf.send(message_head(0), end=True)
    time.sleep(0.1)
    until(lambda: not is_shed(ours))


def test_a_server_that_fails_starts_again(store, make_client, caplog):
    port = free_port()
    alive = True
    app = make_client(store).application
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        server = app.extensions["grpc_server"]([(False, [f"127.0.0.1:{port}"])], lambda: alive)
        server.start()
        until(lambda: "it starts again in 1 s" in caplog.text)
    assert server.listening.wait(PATIENCE_SECONDS)
    alive = False
    server.stop(PATIENCE_SECONDS)


@pytest.mark.parametrize(
    ("descriptors", "listeners", "expected"),
    [(1024, 1, 256), (1024, 2, 128), (2, 1, 1), (20_000, 2, 1000), (-1, 1, 1000)],
)
def test_connections_are_limited_by_a_quarter_of_the_descriptors(monkeypatch, descriptors, listeners, expected):
    monkeypatch.setattr("resource.getrlimit", lambda _: (descriptors, descriptors))
    assert max_connections(listeners) == expected
