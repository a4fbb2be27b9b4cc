"""A server of this process with a bucket: moto's S3, which can be told to go wrong as real ones do."""

from __future__ import annotations

import threading
import time
import urllib.request
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from tests.model_store import gs

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}


class S3:
    """WSGI around moto. One request at a time, since moto itself looks first and writes afterwards."""

    endpoint = ""

    def __init__(self) -> None:
        self.moto = DomainDispatcherApplication(create_backend_app)
        self.lock = threading.Lock()
        self.reset()

    def reset(self) -> dict[str, str]:
        """A new address, and the environment in which it means this server."""
        self.address = f"s3://models/{uuid.uuid4().hex}"
        self.conditions = "honoured"  # or "ignored", or "raced": looks first, writes later
        self.answers_to_lose = 0  # of writes that were made
        self.conflicts_to_tell = 0  # instead of writing
        self.away = False
        self.forbidden = False
        self.requests: list[str] = []
        endpoints = {"AWS_ENDPOINT_URL": self.endpoint, "GOOGLE_BASE_URL": self.endpoint}
        return {**CREDENTIALS, **gs.CREDENTIALS, **endpoints}

    def speak_googles(self) -> None:
        """A `gs://` address from now on: a server speaks one dialect at a time."""
        self.address = self.address.replace("s3://", "gs://")

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.requests.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
        if self.address.startswith("gs://"):
            environ, start_response = gs.understood(environ), gs.answering(start_response)
        if self.away:
            return refuse(start_response, "503 Service Unavailable", "SlowDown")
        if self.forbidden:
            return refuse(start_response, "403 Forbidden", "AccessDenied")
        if environ["REQUEST_METHOD"] != "PUT" or "HTTP_IF_NONE_MATCH" not in environ:
            return self.answer(environ, start_response)
        if self.conflicts_to_tell:
            self.conflicts_to_tell -= 1
            return refuse(start_response, "409 Conflict", "ConditionalRequestConflict")
        if self.conditions == "ignored" or (self.conditions == "raced" and not self.has(environ)):
            del environ["HTTP_IF_NONE_MATCH"]
        if self.answers_to_lose:
            self.answers_to_lose -= 1
            self.answer(environ, lambda *_: None)
            return refuse(start_response, "500 Internal Server Error", "InternalError")
        return self.answer(environ, start_response)

    def answer(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        with self.lock:
            return list(self.moto(environ, start_response))

    def has(self, environ: dict[str, Any]) -> bool:
        told: list[str] = []
        body = environ["wsgi.input"]
        look = {**environ, "REQUEST_METHOD": "HEAD", "CONTENT_LENGTH": "0"}
        del look["HTTP_IF_NONE_MATCH"]
        self.answer(look, lambda status, *_: told.append(status))
        environ["wsgi.input"] = body
        time.sleep(0.05)  # the gap between looking and writing
        return told[0].startswith("200")


class Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - werkzeug's own name
        pass


def refuse(start_response: Any, status: str, code: str) -> list[bytes]:
    start_response(status, [("Content-Type", "application/xml")])
    return [f"<Error><Code>{code}</Code><Message>Told to say so</Message></Error>".encode()]


@contextmanager
def running() -> Iterator[S3]:
    s3 = S3()
    server = make_server("127.0.0.1", 0, s3, threaded=True, request_handler=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    s3.endpoint = f"http://127.0.0.1:{server.server_port}"
    make_bucket(s3.endpoint)
    try:
        yield s3
    finally:
        server.shutdown()
        server.server_close()


def make_bucket(endpoint: str) -> None:
    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/models", method="PUT")).close()
