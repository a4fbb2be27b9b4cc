"""Response heads: one builder for the fast path, the application's responses and the worker's error responses."""

from __future__ import annotations

import time
from collections.abc import Sequence
from email.utils import formatdate
from functools import lru_cache


def header_lines(headers: Sequence[tuple[str, str]]) -> str:
    """Return the lines of some headers, whose values must not contain line breaks."""
    return "".join([f"{name}: {value}\r\n" for name, value in headers])


def response_head(status: str, lines: str, *, close: bool) -> bytes:
    """Return the head of a response: `status` such as "200 OK", and `lines` from `header_lines`."""
    connection = "close" if close else "keep-alive"
    head = f"HTTP/1.1 {status}\r\n{_server_lines(int(time.time()))}Connection: {connection}\r\n{lines}\r\n"
    return head.encode("latin-1")


@lru_cache(maxsize=1)
def _server_lines(second: int) -> str:
    return f"Server: gunicorn\r\nDate: {formatdate(second, usegmt=True)}\r\n"
