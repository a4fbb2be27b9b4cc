"""An S3 server in the test process that can inject the faults of real servers.

It answers with moto's S3, or proxies a real server. It serves the clients of all providers: S3's, Google's (gs.py
translates) and, as a proxy of Azurite, Azure's.
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

from model_store.storage import bucket_files
from tests.model_store import gs

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}

Backend = Callable[[dict[str, Any], Any], list[bytes]]
Environ = Callable[[str], dict[str, str]]


class S3:
    """A WSGI application in front of moto, or of the server at the endpoint `behind`.

    `scheme` is that of its URLs; `environ` returns the environment in which clients find it.
    """

    endpoint = ""

    def __init__(self, behind: str = "", scheme: str = "s3", environ: Environ | None = None) -> None:
        self.backend = proxy_backend(behind) if behind else moto_backend()
        self.behind, self.scheme, self.environ = behind, scheme, environ or environment
        self.reset()

    def reset(self) -> dict[str, str]:
        """Reset faults and counters, choose a new URL, and return the environment in which clients find this server."""
        bucket_files._open_bucket.cache_clear()  # a test process has several servers of the same bucket
        self.url = f"{self.scheme}://models/{uuid.uuid4().hex}"
        self.conditions = "honoured"  # or "ignored", or "raced": checks first, writes later
        self.responses_to_lose = 0  # of successful writes
        self.conflicts_to_send = 0  # instead of writing
        self.away = False
        self.forbidden = False
        self.responding = threading.Event()  # while cleared, requests wait
        self.responding.set()
        self.requests: list[str] = []
        self.sent = 0  # bytes of responses
        return self.environ(self.endpoint)

    def use_google_api(self) -> None:
        """Serve Google's API at a `gs://` URL; a server has one API at a time."""
        self.url = self.url.replace("s3://", "gs://")

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.responding.wait()
        self.requests.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
        if self.url.startswith("gs://"):
            environ, start_response = gs.translate_request(environ), gs.translate_response(start_response)
        if self.away:
            return error_response(start_response, "503 Service Unavailable", "SlowDown")
        if self.forbidden:
            return error_response(start_response, "403 Forbidden", "AccessDenied")
        if environ["REQUEST_METHOD"] != "PUT" or "HTTP_IF_NONE_MATCH" not in environ:
            chunks = self.backend(environ, start_response)
            self.sent += sum(map(len, chunks))
            return chunks
        if self.conflicts_to_send:
            self.conflicts_to_send -= 1
            return error_response(start_response, "409 Conflict", "ConditionalRequestConflict")
        if self.conditions == "ignored" or (self.conditions == "raced" and not self.exists(environ)):
            del environ["HTTP_IF_NONE_MATCH"]
        if self.responses_to_lose:
            self.responses_to_lose -= 1
            self.backend(environ, lambda *_: None)
            return error_response(start_response, "500 Internal Server Error", "InternalError")
        return self.backend(environ, start_response)

    def exists(self, environ: dict[str, Any]) -> bool:
        statuses: list[str] = []
        body = environ["wsgi.input"]
        request = {**environ, "REQUEST_METHOD": "HEAD", "CONTENT_LENGTH": "0"}
        del request["HTTP_IF_NONE_MATCH"]
        self.backend(request, lambda status, *_: statuses.append(status))
        environ["wsgi.input"] = body
        time.sleep(0.05)  # the gap between check and write
        return statuses[0].startswith("200")


def environment(endpoint: str) -> dict[str, str]:
    """Return the environment in which `s3://` and `gs://` URLs reach the server at `endpoint`."""
    return {**CREDENTIALS, **gs.CREDENTIALS, "AWS_ENDPOINT_URL": endpoint, "GOOGLE_BASE_URL": endpoint}


def moto_backend() -> Backend:
    """Serve from moto, one request at a time: moto itself checks first and writes later."""
    moto, lock = DomainDispatcherApplication(create_backend_app), threading.Lock()

    def respond(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        with lock:
            return list(moto(environ, start_response))

    return respond


def proxy_backend(endpoint: str) -> Backend:
    """Forward each request to the server at `endpoint`."""
    host = urlsplit(endpoint).netloc

    def respond(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        headers = {name[5:].replace("_", "-"): value for name, value in environ.items() if name.startswith("HTTP_")}
        named = {"Content-Type": environ.get("CONTENT_TYPE"), "Content-Length": environ.get("CONTENT_LENGTH")}
        headers |= {name: value for name, value in named.items() if value}
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        connection = http.client.HTTPConnection(host, timeout=60)
        connection.request(environ["REQUEST_METHOD"], environ["REQUEST_URI"], body or None, headers)
        response = connection.getresponse()
        hop_by_hop = {"connection", "keep-alive", "transfer-encoding"}
        headers_to_send = [pair for pair in response.getheaders() if pair[0].lower() not in hop_by_hop]
        start_response(f"{response.status} {response.reason}", headers_to_send)
        data = response.read()
        connection.close()
        return [data]

    return respond


class QuietRequestHandler(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - werkzeug's own name
        pass


def error_response(start_response: Any, status: str, code: str) -> list[bytes]:
    start_response(status, [("Content-Type", "application/xml")])
    return [f"<Error><Code>{code}</Code><Message>Injected by the test</Message></Error>".encode()]


@contextmanager
def serving(s3: S3) -> Iterator[S3]:
    server = make_server("127.0.0.1", 0, s3, threaded=True, request_handler=QuietRequestHandler)
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
