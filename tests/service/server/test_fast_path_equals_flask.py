"""The fast path responds as Flask does: 70 requests, each sent as it is and in two forms that Flask has to handle.

`?warnings=false` and a harmless header that is sent twice change nothing but the way: status, headers and body are
equal, but for ids, the date and timings.
"""

from __future__ import annotations

import gzip
import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from model_store.registry.store import Store, open_store
from service.app import create_app
from service.config import Settings
from service.security.api_keys import generate_key
from service.server.gunicorn_app import GunicornApplication
from tests.service.conftest import image, penguins, price
from tests.service.server.event_worker.harness import Loop

PRICE, IMAGE, PENGUINS = "/models/price/predict", "/models/image/predict", "/models/penguins/predict"
PENGUIN = {"island": "Biscoe", "mass": 4200.5, "sex": None}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SECRETS, KEYS = zip(*(generate_key(scope, (scope,)) for scope in ("predict", "metrics")), strict=True)


@dataclass(frozen=True)
class Sent:
    path: str = PRICE
    body: bytes = b'{"instances": [[3, 80.5]]}'
    lines: tuple[str, ...] = ()
    method: str = "POST"
    version: str = "1.1"
    fast: bool = False  # the fast path responds
    keys: bool = False  # the service requires keys
    chunked: bool = False
    host: str = "Host: here"

    def text(self, query: str = "", lines: tuple[str, ...] = ()) -> bytes:
        start = f"{self.method} {self.path}{query} HTTP/{self.version}"
        if self.chunked:
            length, body = "Transfer-Encoding: chunked", b"%x\r\n%b\r\n0\r\n\r\n" % (len(self.body), self.body)
        else:
            length, body = f"Content-Length: {len(self.body)}", self.body
        return "\r\n".join([start, self.host, length, *self.lines, *lines, "", ""]).encode("latin-1") + body


def instances(*rows: Any, **more: Any) -> bytes:
    return json.dumps({"instances": rows, **more}).encode()


REQUESTS = {
    # Valid requests
    "a row": Sent(fast=True),
    "three rows": Sent(body=instances([1, 20.5], [2, 70], [3, -1e-3]), fast=True),
    "rows by name": Sent(body=instances({"rooms": 3, "area": 80}), fast=True),
    "a missing value": Sent(body=instances([3, None]), fast=True),
    "an image": Sent(IMAGE, instances([[0, 1], [2, 3]]), fast=True),
    "a penguin by name": Sent(PENGUINS, instances(PENGUIN), fast=True),
    "a penguin in order": Sent(PENGUINS, instances(list(PENGUIN.values())), fast=True),
    "a version": Sent("/models/price/versions/1/predict", fast=True),
    "an alias": Sent("/models/price/versions/latest/predict", fast=True),
    "a model in the body": Sent("/predict", instances([3, 80], model="price"), fast=True),
    "a model and a version in the body": Sent("/predict", instances([3, 80], model="price", version=1), fast=True),
    "a version as text": Sent("/predict", instances([3, 80], model="price", version="latest"), fast=True),
    # Content types
    "JSON": Sent(lines=("Content-Type: application/json",), fast=True),
    "JSON with parameters": Sent(lines=("Content-Type: Application/JSON ; charset=utf-8",), fast=True),
    "a JSON dialect": Sent(lines=("Content-Type: application/vnd.rows+json",), fast=True),
    "plain text": Sent(lines=("Content-Type: text/plain",), fast=True),
    "a form": Sent(lines=("Content-Type: application/x-www-form-urlencoded",), fast=True),
    "an empty content type": Sent(lines=("Content-Type:",), fast=True),
    "HTML": Sent(lines=("Content-Type: text/html",)),
    "CSV": Sent(body=b"rooms,area\n3,80\n", lines=("Content-Type: text/csv",)),
    # Headers
    "a request id": Sent(lines=("X-Request-Id: mine",), fast=True),
    "a request id that is not taken": Sent(lines=("X-Request-Id: not mine",), fast=True),
    "a trace": Sent(lines=(f"traceparent: {TRACE}", "tracestate: a=b"), fast=True),
    "a tracestate in two lines": Sent(lines=(f"traceparent: {TRACE}", "tracestate: a=b", "tracestate: c=d")),
    "a tracestate that is not taken": Sent(lines=(f"traceparent: {TRACE}", "tracestate: a"), fast=True),
    "a trace that is not taken": Sent(lines=("traceparent: 00-0-0-0",), fast=True),
    "a key where none is required": Sent(lines=("Authorization: Bearer fp_any",), fast=True),
    "a connection to be closed": Sent(lines=("Connection: close",)),
    "an expectation": Sent(lines=("Expect: 100-continue",)),
    "compressed": Sent(body=gzip.compress(instances([3, 80]), mtime=0), lines=("Content-Encoding: gzip",)),
    "not compressed": Sent(lines=("Content-Encoding: gzip",)),
    "an unknown compression": Sent(lines=("Content-Encoding: br",)),
    "chunks": Sent(chunked=True),
    "HTTP/1.0": Sent(version="1.0"),
    "a byte order mark": Sent(body=b"\xef\xbb\xbf" + instances([3, 80])),
    "a host that is none": Sent(lines=("X: y",), host="Host: a b"),
    "no host": Sent(lines=("X: y",), host="X-Host: here"),
    # The oldest version that the client accepts
    "a version that is new enough": Sent(lines=("X-Model-Version-At-Least: 1",), fast=True),
    "an older version by number": Sent(
        "/models/price/versions/1/predict", lines=("X-Model-Version-At-Least: 2",), fast=True
    ),
    "too old a version": Sent(lines=("X-Model-Version-At-Least: 2",)),
    "too old an alias": Sent("/models/price/versions/latest/predict", lines=("X-Model-Version-At-Least: 2",)),
    "an oldest version that is none": Sent(lines=("X-Model-Version-At-Least: newest",)),
    # Invalid bodies
    "instances twice": Sent(body=b'{"instances": [[3, 80]], "instances": [[5, 80]]}'),
    "a column twice": Sent(body=b'{"instances": [{"rooms": 3, "area": 80, "rooms": 5}]}'),
    "a column twice in a later row": Sent(body=b'{"instances": [{"rooms": 3}, {"rooms": 3, "rooms": 5}]}'),
    "no body": Sent(body=b""),
    "half an object": Sent(body=b"{"),
    "a list": Sent(body=b"[]"),
    "Python": Sent(body=b"{'instances': [[3, 80]]}"),
    "not a number": Sent(body=b'{"instances": [[NaN, 1]]}'),
    "too large a number": Sent(body=b'{"instances": [[3, 1e39]]}'),
    "not UTF-8": Sent(body=b'{"instances": [["\xff", 1]]}'),
    "no instances": Sent(body=b"{}"),
    "no rows": Sent(body=instances()),
    "too many rows": Sent(body=instances(*[[3, 80]] * 10_001)),
    "too few columns": Sent(body=instances([3])),
    "two invalid values": Sent(body=instances(["a", 80], [3, "b"])),
    "an unknown key": Sent(body=instances([3, 80], other=1)),
    "another model": Sent(body=instances([3, 80], model="image")),
    "a model that is no text": Sent("/predict", instances([3, 80], model=7)),
    # Invalid endpoints
    "an unknown model": Sent("/models/pric/predict"),
    "an unknown version": Sent("/models/price/versions/9/predict"),
    "an escaped path": Sent("/models/pric%65/predict"),
    "a slash at the end": Sent("/models/price/predict/"),
    "GET": Sent(body=b"", method="GET"),
    # Keys
    "a key with the scope": Sent(lines=(f"Authorization: Bearer {SECRETS[0]}",), keys=True, fast=True),
    "no key": Sent(keys=True),
    "an unknown key of the service": Sent(lines=("Authorization: Bearer fp_unknown",), keys=True),
    "a key without the scope": Sent(lines=(f"Authorization: Bearer {SECRETS[1]}",), keys=True),
    "another scheme": Sent(lines=(f"Authorization: Basic {SECRETS[0]}",), keys=True),
}

VARYING_HEADERS = {"Date", "Server-Timing", "X-Request-Id", "traceparent"}


class Service:
    """The application in an event loop of the test's own, which counts what the fast path accepts."""

    def __init__(self, store: Store, folder: Path, **settings: Any) -> None:
        used = Settings(store=str(store.root), cache_dir=str(folder / "cache"), poll_seconds=0, **settings)
        app = create_app(used)
        self.loop = Loop(GunicornApplication(app, used, [], lambda _: None), app)
        self.accepted = 0
        fast_path = self.loop.worker.fast_path
        try_parse = fast_path.try_parse

        def counted(*arguments: Any) -> Any:
            parsed = try_parse(*arguments)
            self.accepted += parsed is not None
            return parsed

        fast_path.try_parse = counted

    def send(self, text: bytes) -> tuple[str, dict[str, str], bytes]:
        """Return status line, headers and body."""
        sock = self.loop.client(text)
        sock.shutdown(socket.SHUT_WR)
        found = self.loop.take(sock).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
        head, _, body = found.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        assert len(headers) == len(lines)
        return status, headers, body


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[bool, Service]]:
    folder = tmp_path_factory.mktemp("services")
    store = open_store(folder / "models")
    for name, model in {"penguins": penguins(), "image": image(), "price": price()}.items():
        store.publish(name, model)
    file = folder / "keys"
    file.write_text("".join(f"{key}\n" for key in KEYS))
    made = {False: Service(store, folder), True: Service(store, folder, keys_file=str(file))}
    yield made
    for service in made.values():
        service.loop.close()


def comparable(response: tuple[str, dict[str, str], bytes]) -> tuple[str, dict[str, str], bytes]:
    """Return the response without what differs from request to request."""
    status, headers, body = response
    assert re.fullmatch(r"mine|[0-9a-f]{32}", headers["X-Request-Id"])
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]", headers["traceparent"])
    body = body.replace(headers["X-Request-Id"].encode(), b"ID")
    return status, {name: "" if name in VARYING_HEADERS else value for name, value in headers.items()}, body


@pytest.mark.parametrize("name", REQUESTS)
def test_the_fast_path_responds_as_flask_does(services: dict[bool, Service], name: str) -> None:
    sent = REQUESTS[name]
    service = services[sent.keys]
    service.accepted = 0
    plain = service.send(sent.text())
    assert service.accepted == sent.fast, "handled by the other one"
    for query, lines in (("?warnings=false", ()), ("", ("X-Harmless: a", "X-Harmless: b"))):
        by_flask = service.send(sent.text(query, lines))
        assert comparable(by_flask) == comparable(plain)
    assert service.accepted == sent.fast


def test_there_are_70_requests_of_which_the_fast_path_accepts_half() -> None:
    assert len(REQUESTS) == 70
    assert sum(sent.fast for sent in REQUESTS.values()) >= 22
