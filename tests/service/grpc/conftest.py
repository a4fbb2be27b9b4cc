"""A gRPC server in this process, over an application that other tests call over HTTP."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from flask import Flask

from model_store.registry.store import Store
from tests.service.conftest import MakeClient
from tests.service.server.server_process import PATIENCE_SECONDS, free_port

grpc = pytest.importorskip("grpc", reason="the extra grpc is installed by make test")

from service.grpc.messages import SERVICE, message_class  # noqa: E402
from service.grpc.server import GrpcServer  # noqa: E402


class GrpcClient:
    """Calls methods by name, and returns their response and trailing metadata."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.address = f"127.0.0.1:{port}"
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
        self.channel = grpc.insecure_channel(self.address, options=options)

    def call(self, name: str, message: Any = None, *, metadata: Sequence[tuple[str, str]] = (), **options: Any) -> Any:
        return self.with_metadata(name, message, metadata=metadata, **options)[0]

    def with_metadata(self, name: str, message: Any = None, **options: Any) -> tuple[Any, dict[str, str]]:
        message = message_class(f"{name}Request")() if message is None else message
        data = message if isinstance(message, bytes) else message.SerializeToString()
        method = self.channel.unary_unary(
            f"/{SERVICE}/{name}", response_deserializer=message_class(f"{name}Response").FromString
        )
        options = {"timeout": PATIENCE_SECONDS, "wait_for_ready": True, **options}
        response, call = method.with_call(data, **options)
        return response, dict(call.trailing_metadata())

    def error(self, name: str, message: Any = None, **options: Any) -> Any:
        """Return the error of a call: `.code()`, `.details()` and `.trailing_metadata()`."""
        with pytest.raises(grpc.RpcError) as caught:
            self.call(name, message, **options)
        return caught.value


def request(model: str, version: str = "", **tensors: Any) -> Any:
    """Return a ModelInferRequest whose tensors are arrays, sent as raw contents."""
    made = message_class("ModelInferRequest")(model_name=model, model_version=version)
    for name, values in tensors.items():
        array = np.asarray(values)
        if array.dtype.kind in "OU":
            texts = [str(text).encode() for text in array.ravel()]
            datatype, raw = "BYTES", b"".join(struct.pack("<I", len(text)) + text for text in texts)
        else:
            names = {"f": "FP", "i": "INT", "u": "UINT"}
            datatype, raw = f"{names[array.dtype.kind]}{8 * array.itemsize}", array.tobytes()
        made.inputs.add(name=name, datatype=datatype, shape=array.shape)
        made.raw_input_contents.append(raw)
    return made


Serve = Callable[..., GrpcClient]


@pytest.fixture
def serve_grpc() -> Iterator[Serve]:
    """Start gRPC servers over applications, which stop after the test."""
    started: list[tuple[GrpcServer, GrpcClient]] = []

    def serve(app: Flask, *, has_repository: bool = False) -> GrpcClient:
        client = GrpcClient(free_port())
        server = app.extensions["grpc_server"]([(has_repository, [client.address])], lambda: True)
        server.start()
        started.append((server, client))
        assert server.listening.wait(PATIENCE_SECONDS)
        return client

    yield serve
    for server, client in started:
        client.channel.close()
        server.stop(PATIENCE_SECONDS)


@pytest.fixture
def make(store: Store, make_client: MakeClient, serve_grpc: Serve) -> Any:
    """Return clients over HTTP and gRPC of one application."""

    def both(**settings: Any) -> tuple[Any, GrpcClient]:
        client = make_client(store, **settings)
        return client, serve_grpc(client.application, has_repository=settings.get("admin", False))

    return both


@pytest.fixture
def both(make: Any) -> tuple[Any, GrpcClient]:
    found: tuple[Any, GrpcClient] = make()
    return found


def penguin_request(**changes: Any) -> Any:
    values = {"island": [["Biscoe"]], "mass": [[4200.5]], "sex": [["MALE"]], **changes}
    return request("penguins", **values)


def over_http(client: Any, model: str, inputs: list[dict[str, Any]], outputs: list[str]) -> Any:
    asked = [{"name": name, "parameters": {"binary_data": True}} for name in outputs]
    return client.post(f"/v2/models/{model}/infer", json={"inputs": inputs, "outputs": asked})


class RawConnection:
    """HTTP/2 by hand: a client that sends what it likes, as slowly as it likes."""

    def __init__(self, port: int, *, window: int = 65535) -> None:
        """`window`: the bytes of a response that the server may send."""
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, struct.pack(">HI", 4, window)))
        self._stream = -1

    def start(self, path: str, *more: tuple[str, str]) -> None:
        """Send the head of a call."""
        self._stream += 2
        head = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "here")]
        head += [("te", "trailers"), ("content-type", "application/grpc"), *more]
        fields = b"".join(b"\0" + _text(name) + _text(value) for name, value in head)
        self.socket.sendall(_frame(1, 4, self._stream, fields))

    def send(self, data: bytes, *, end: bool = False) -> None:
        """Send a part of the message of the last call; the message begins with a flag and its length."""
        self.socket.sendall(_frame(0, int(end), self._stream, data))

    def received(self, seconds: float) -> bytes:
        """Return the bytes that come until the connection is silent for some seconds, or closed."""
        self.socket.settimeout(seconds)
        found = b""
        try:
            while piece := self.socket.recv(65536):
                found += piece
        except TimeoutError:
            pass
        return found

    def close(self) -> None:
        self.socket.close()


def message_head(size: int) -> bytes:
    return struct.pack(">BI", 0, size)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _text(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()
