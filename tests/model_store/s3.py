"""A server of this process with a bucket, which can be told to go wrong as real ones do.

It answers by moto's S3, or by a real server that it stands before. The clients of all kinds of bucket ask it: S3's,
Google's (gs.py translates) and, before Azurite, Azure's.
"""

from __future__ import annotations

import http.client
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from tests.model_store import gs

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}

Answer = Callable[[dict[str, Any], Any], list[bytes]]
Environ = Callable[[str], dict[str, str]]


class S3:
    """WSGI before whatever keeps the objects: moto, or a server whose endpoint is `behind`.

    `scheme` is of the addresses that mean it, `environ` gives the environment in which they do.
    """

    endpoint = ""

    def __init__(self, behind: str = "", scheme: str = "s3", environ: Environ | None = None) -> None:
        self.answer = of_server(behind) if behind else of_moto()
        self.behind, self.scheme, self.environ = behind, scheme, environ or environment
        self.reset()

    def reset(self) -> dict[str, str]:
        """A new address, and the environment in which it means this server."""
        self.url = f"{self.scheme}://models/{uuid.uuid4().hex}"
        self.conditions = "honoured"  # or "ignored", or "raced": looks first, writes later
        self.answers_to_lose = 0  # of writes that were made
        self.conflicts_to_tell = 0  # instead of writing
        self.away = False
        self.forbidden = False
        self.flowing = threading.Event()  # cleared, it takes requests and says nothing
        self.flowing.set()
        self.requests: list[str] = []
        self.sent = 0  # bytes
        return self.environ(self.endpoint)

    def speak_googles(self) -> None:
        """A `gs://` address from now on: a server speaks one dialect at a time."""
        self.url = self.url.replace("s3://", "gs://")

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.flowing.wait()
        self.requests.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
        if self.url.startswith("gs://"):
            environ, start_response = gs.understood(environ), gs.answering(start_response)
        if self.away:
            return refuse(start_response, "503 Service Unavailable", "SlowDown")
        if self.forbidden:
            return refuse(start_response, "403 Forbidden", "AccessDenied")
        if environ["REQUEST_METHOD"] != "PUT" or "HTTP_IF_NONE_MATCH" not in environ:
            pieces = self.answer(environ, start_response)
            self.sent += sum(map(len, pieces))
            return pieces
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

    def has(self, environ: dict[str, Any]) -> bool:
        told: list[str] = []
        body = environ["wsgi.input"]
        look = {**environ, "REQUEST_METHOD": "HEAD", "CONTENT_LENGTH": "0"}
        del look["HTTP_IF_NONE_MATCH"]
        self.answer(look, lambda status, *_: told.append(status))
        environ["wsgi.input"] = body
        time.sleep(0.05)  # the gap between looking and writing
        return told[0].startswith("200")


def environment(endpoint: str) -> dict[str, str]:
    """In which `s3://` and `gs://` addresses mean the server there."""
    return {**CREDENTIALS, **gs.CREDENTIALS, "AWS_ENDPOINT_URL": endpoint, "GOOGLE_BASE_URL": endpoint}


def of_moto() -> Answer:
    """One request at a time, since moto itself looks first and writes afterwards."""
    moto, lock = DomainDispatcherApplication(create_backend_app), threading.Lock()

    def answer(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        with lock:
            return list(moto(environ, start_response))

    return answer


def of_server(endpoint: str) -> Answer:
    """What the server there answers to the same request."""
    host = urlsplit(endpoint).netloc

    def answer(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        headers = {name[5:].replace("_", "-"): value for name, value in environ.items() if name.startswith("HTTP_")}
        named = {"Content-Type": environ.get("CONTENT_TYPE"), "Content-Length": environ.get("CONTENT_LENGTH")}
        headers |= {name: value for name, value in named.items() if value}
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        connection = http.client.HTTPConnection(host, timeout=60)
        connection.request(environ["REQUEST_METHOD"], environ["REQUEST_URI"], body or None, headers)
        response = connection.getresponse()
        hops = {"connection", "keep-alive", "transfer-encoding"}
        kept = [pair for pair in response.getheaders() if pair[0].lower() not in hops]
        start_response(f"{response.status} {response.reason}", kept)
        data = response.read()
        connection.close()
        return [data]

    return answer


class Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - werkzeug's own name
        pass


def refuse(start_response: Any, status: str, code: str) -> list[bytes]:
    start_response(status, [("Content-Type", "application/xml")])
    return [f"<Error><Code>{code}</Code><Message>Told to say so</Message></Error>".encode()]


@contextmanager
def serving(s3: S3) -> Iterator[S3]:
    server = make_server("127.0.0.1", 0, s3, threaded=True, request_handler=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    s3.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield s3
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def running() -> Iterator[S3]:
    with serving(S3()) as s3:
        make_bucket(s3.endpoint)
        yield s3


def make_bucket(endpoint: str) -> None:
    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/models", method="PUT")).close()
