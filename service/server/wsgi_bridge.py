"""The WSGI bridge: runs a complete request through the WSGI application and buffers its response.

The pieces of a large body are sent as they are, without a copy of them all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType
from typing import Any

from service.server.connection import Connection
from service.server.error_responses import HTTP_FIX, ErrorResponder
from service.server.gunicorn_compat import EnvironError, describe_parse_error
from service.server.request_reader import BufferedRequest
from service.server.response_head import header_lines, response_head

MAX_BUFFERED_BYTES = 2**18
_ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]


class WsgiBridge:
    def __init__(
        self,
        application: Callable[..., Any],
        cfg: Any,
        respond_with_error: ErrorResponder,
        log: logging.Logger,
    ) -> None:
        self._application, self._cfg, self._respond_with_error, self.log = application, cfg, respond_with_error, log

    def handle(self, connection: Connection, request: BufferedRequest, *, close: bool) -> bool:
        """Append the application's response to what the connection sends; True if the connection must then close."""
        head = request.head
        try:
            environ = head.parsed.environ(self._cfg, connection.peer, connection.local_address)
        except EnvironError as e:  # a head that no endpoint can have
            problem = f"the request is not well-formed HTTP: {describe_parse_error(e)}"
            connection.send_buffer += self._respond_with_error(
                connection, "400 Bad Request", "bad_request", problem, HTTP_FIX
            )
            return True
        for name, value in head.uncached_headers.items():
            environ.setdefault(f"HTTP_{name.replace('-', '_')}", value)
        environ["wsgi.input"] = request.body
        environ["forward_pass.arrived_at"], environ["forward_pass.request"] = connection.arrived_at, request
        close = close or not head.parsed.keep_alive
        try:
            response = _Response()
            parts = self._application(environ, response.start)
            try:
                body = [*response.written, *parts]
            finally:
                if hasattr(parts, "close"):
                    parts.close()
            length = sum(memoryview(part).nbytes for part in body)  # TypeError for text
            start = response.head(head.method, length, close=close)
        except Exception:
            self.log.exception("%s failed outside the application's error handling", head.method)
            status, fix = "500 Internal Server Error", "the cause is in the service's log under this request_id"
            connection.send_buffer += self._respond_with_error(
                connection, status, "internal_error", "the service failed", fix
            )
            return True
        connection.send_buffer += start
        if response.has_body and head.method != "HEAD":
            if length <= MAX_BUFFERED_BYTES:
                connection.send_buffer += b"".join(body)
            else:
                connection.send_pieces.extend(filter(None, body))
        return close


class _Response:
    """The status and headers that a WSGI application sets (PEP 3333)."""

    def __init__(self) -> None:
        self.status = ""
        self.headers: list[tuple[str, str]] = []
        self.written: list[bytes] = []

    def start(
        self, status: str, headers: list[tuple[str, str]], exc_info: _ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        if self.status and exc_info is None:
            raise RuntimeError("expected one call of start_response")
        self.status, self.headers = status, headers
        return self.written.append

    @property
    def has_body(self) -> bool:
        return not self.status.startswith(("1", "204", "304"))

    def head(self, method: str, length: int, *, close: bool) -> bytes:
        """Return the response's head. `length` replaces the application's Content-Length, except for HEAD."""
        headers = self.headers
        if method != "HEAD" or not any(name.lower() == "content-length" for name, _ in headers):
            headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
            if self.has_body:
                headers.append(("Content-Length", str(length)))
        if not self.status:
            raise RuntimeError("expected a call of start_response")
        lines = header_lines(headers)
        if lines.count("\n") != len(headers) or lines.count("\r") != len(headers):  # it would begin another header
            raise ValueError("expected header names and values without line breaks")
        return response_head(self.status, lines, close=close)
