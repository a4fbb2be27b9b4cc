"""Responses: JSON bodies, and the headers that every response has.

A long list is rendered in blocks: a list of all its items would take many times the memory of its JSON. The body is
complete before its first byte is sent, so its Content-Length is known, and a failure gives an error response.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import orjson
from werkzeug.wrappers import Response

# A page may load resources of this service only, and has no script or style of its own; any other response may load
# nothing.
PAGE_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Headers of every response that is not a page, whether Flask or the worker sends it.
RESPONSE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
PIECE_BYTES = 2**18
_PLAIN_ERROR_PATH = re.compile(r"/v[12](/|$)")


def uses_plain_error_body(path: str) -> bool:
    """True if the protocol at this path has `{"error": "text"}` as its only error format."""
    return _PLAIN_ERROR_PATH.match(path) is not None


@dataclass(frozen=True)
class ListInBlocks:
    """A JSON list of at least one item. `blocks` makes its items again each time, as lists that are not empty.

    A block that is an object is one item, whose values may be `ListInBlocks`.
    """

    blocks: Callable[[], Iterator[list[Any] | dict[str, Any]]]


@dataclass(frozen=True)
class ObjectInBlocks:
    """A JSON object of at least one key. `blocks` makes its items, as objects that are not empty."""

    blocks: Callable[[], Iterator[dict[str, Any]]]


def json_bytes(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)


def json_pieces(value: Mapping[str, Any], end: bytes = b"\n") -> list[bytes]:
    """Return an object as pieces of JSON of about `PIECE_BYTES`. Its values may be `ListInBlocks`, at any depth.

    A value that is a function is called after what is before it is rendered.
    """
    return list(join_pieces(chain(_json_parts(value), [end])))


def join_pieces(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Yield at least one piece, of `PIECE_BYTES` or more but for the last: the server sends each by itself."""
    waiting: list[bytes] = []
    size = 0
    for part in parts:
        waiting.append(part)
        size += len(part)
        if size >= PIECE_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    yield b"".join(waiting)


def _json_parts(value: Any) -> Iterator[bytes]:
    if isinstance(value, ListInBlocks):
        before = b"["
        for block in value.blocks():
            yield before
            yield from [orjson.dumps(block)[1:-1]] if isinstance(block, list) else _json_parts(block)
            before = b","
        yield b"]"
    elif isinstance(value, ObjectInBlocks):
        before = b"{"
        for items in value.blocks():
            yield before + orjson.dumps(items)[1:-1]
            before = b","
        yield b"}"
    elif callable(value):
        yield from _json_parts(value())
    elif isinstance(value, dict):
        before = b"{"
        for key, item in value.items():
            yield before + orjson.dumps(key) + b":"
            yield from _json_parts(item)
            before = b","
        yield b"}" if value else b"{}"
    elif isinstance(value, list) and any(isinstance(item, dict | ListInBlocks) for item in value):
        before = b"["
        for item in value:
            yield before
            yield from _json_parts(item)
            before = b","
        yield b"]"
    else:
        yield orjson.dumps(value)


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(json_bytes(value), status, headers, content_type="application/json")


def json_response_in_pieces(value: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """Return a response with the JSON of `value`, whose lists may be `ListInBlocks`."""
    return Response(json_pieces(value), 200, headers, content_type="application/json")


def add_response_headers(response: Response) -> None:
    headers = response.headers
    for name, value in RESPONSE_HEADERS.items():
        headers.setdefault(name, value)
    if response.mimetype == "text/html":
        headers["Content-Security-Policy"] = PAGE_SECURITY_POLICY
        headers["Cross-Origin-Opener-Policy"] = "same-origin"
