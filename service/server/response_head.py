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
    return f"{status_lines(status, int(time.time()), close=close)}{lines}\r\n".encode("latin-1")


@lru_cache(maxsize=16)
def status_lines(status: str, second: int, *, close: bool) -> str:
    """Return the first lines of a response that is sent in this second of Unix time, up to its own headers."""
    date, connection = formatdate(second, usegmt=True), "close" if close else "keep-alive"
    return f"HTTP/1.1 {status}\r\nServer: gunicorn\r\nDate: {date}\r\nConnection: {connection}\r\n"
