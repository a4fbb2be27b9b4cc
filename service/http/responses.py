"""Responses: JSON bodies, and the headers that every response has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson
from werkzeug.wrappers import Response

# A page may load resources of this service only; any other response may load nothing.
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
_PLAIN_ERROR_PATH = re.compile(r"/v[12](/|$)")


def uses_plain_error_body(path: str) -> bool:
    """True if the protocol at this path has `{"error": "text"}` as its only error format."""
    return _PLAIN_ERROR_PATH.match(path) is not None


def json_bytes(value: Any) -> bytes:
    return orjson.dumps(value) + b"\n"


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(json_bytes(value), status, headers, content_type="application/json")


def add_response_headers(response: Response) -> None:
    headers = response.headers
    for name, value in RESPONSE_HEADERS.items():
        headers.setdefault(name, value)
    if response.mimetype == "text/html":
        headers["Content-Security-Policy"] = PAGE_SECURITY_POLICY
        headers["Cross-Origin-Opener-Policy"] = "same-origin"
