"""The body of a request: read completely and once, then parsed as strict JSON.

A WSGI server passes on what the client sent, complete or not. A body that is shorter than its Content-Length is
rejected, even if its first half parses.
"""

from __future__ import annotations

import codecs
import zlib
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import orjson
from werkzeug.wrappers import Request

from model_store.errors import Fault, InputError
from model_store.utils.duplicate_keys import duplicate_key_faults, has_duplicate_keys
from model_store.utils.values import describe_value
from service.http.exceptions import ApiError, error_at
from service.http.request_head import list_items

# `curl -d` sends form-urlencoded by default, some clients send octet-stream or text, some nothing.
_TREATED_AS_JSON = {"", "application/octet-stream", "application/x-www-form-urlencoded", "text/plain"}
_MIN_BYTES_PER_VALUE = 16
_UNSUPPORTED = "unsupported_media_type"
_SEND_AGAIN = "send the whole body, as long as Content-Length says"
_UNCOUNTED_BYTES = 1 << 20  # smaller bodies are not checked: counting takes 14 µs per 100 kB
_UNCOUNTED_CSV_BYTES = 1 << 16  # each may be an empty cell, which takes 0.4 µs
_MAX_COMPRESSION = 100  # of a body that is larger than `_UNCOUNTED_BYTES` when decompressed
_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


def read_json(request: Request, max_bytes: int) -> Any:
    """Return the parsed body; ApiError 400, 413 or 415 if it cannot be used."""
    check_json_content_type(request)
    return parse_json(read_body(request, max_bytes), max_bytes)


def parse_json(body: bytes, max_bytes: int, *, accepts_csv: bool = False) -> Any:
    """Parse strict JSON, with or without a byte order mark. If the endpoint accepts CSV, an error for CSV says how.

    ApiError 400 if it is invalid, 413 if it would take many times `max_bytes` in memory; InputError if an object has a
    key twice.
    """
    check_value_count(body, max_bytes, "JSON")
    body = body.removeprefix(codecs.BOM_UTF8)
    if not body:
        raise bad_request("the body is empty", 'send JSON such as {"instances": [...]}')
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as e:
        raise _invalid_json(e, body, accepts_csv) from e
    if has_duplicate_keys(body, parsed):
        raise InputError(duplicate_key_faults(body))
    return parsed


def check_value_count(body: bytes, max_bytes: int, kind: Literal["JSON", "CSV"]) -> None:
    if has_too_many_values(body, max_bytes, kind):
        found = f"about {_estimate_value_count(body, kind)}"
        raise _body_too_large(
            found, max_bytes // _MIN_BYTES_PER_VALUE, f"values in {kind}", "send fewer rows, or binary tensors"
        )


def check_text_count(count: int, max_bytes: int, what: str = "texts in tensors", fix: str = "send fewer rows") -> None:
    """Raise ApiError 413 if binary tensors have more texts, or other values, than JSON may have values."""
    if count > max_bytes // _MIN_BYTES_PER_VALUE:
        raise _body_too_large(str(count), max_bytes // _MIN_BYTES_PER_VALUE, what, fix)


def has_too_many_values(body: bytes, max_bytes: int, kind: Literal["JSON", "CSV"] = "JSON") -> bool:
    """True if a body has more values than a sixteenth of its limit: each takes 32 bytes as a Python object."""
    if len(body) <= (_UNCOUNTED_BYTES if kind == "JSON" else _UNCOUNTED_CSV_BYTES):
        return False
    return _estimate_value_count(body, kind) > max_bytes // _MIN_BYTES_PER_VALUE


def _estimate_value_count(body: bytes, kind: Literal["JSON", "CSV"]) -> int:
    """Count what begins a value: in JSON a comma or an opening bracket, in CSV a comma or a line.

    A list or an object takes 56 bytes or more, and may nest without a comma; lines may be empty. On numbers
    `bytes.count` takes six times as long.
    """
    signs = np.frombuffer(body, np.uint8)
    commas, *others = (int(np.count_nonzero(signs == sign)) for sign in (b",[{" if kind == "JSON" else b",\n\r"))
    return 1 + commas + (sum(others) if kind == "JSON" else max(others))  # a line may end in CR LF


def is_json_content_type(content_type: str) -> bool:
    """True if a body with this Content-Type, "" for none, is read as JSON."""
    media_type = _media_type(content_type)
    return media_type in _TREATED_AS_JSON or media_type == "application/json" or media_type.endswith("+json")


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def check_json_content_type(request: Request, others: Iterable[str] = ()) -> None:
    """Raise ApiError 415 unless the body is JSON by its Content-Type. `others` are what the endpoint accepts too."""
    content_type = request.headers.get("Content-Type", "")
    if not is_json_content_type(content_type):
        expected = f"one of {', '.join(['application/json', *others])}" if others else "application/json"
        problem = f"expected {expected}; found {describe_value(_media_type(content_type))}"
        fix = "send one of these, and say which in Content-Type" if others else "send JSON, and say so in Content-Type"
        raise error_at(415, _UNSUPPORTED, "Content-Type", problem, fix)


def read_body(request: Request, max_bytes: int) -> bytes:
    """Return the body, decompressed if its Content-Encoding is gzip or deflate (in its zlib form)."""
    codings = [coding for coding in list_items(request.headers.get("Content-Encoding", "")) if coding != "identity"]
    if len(codings) > 1 or not _WINDOW_BITS.keys() >= set(codings):
        problem = f"expected gzip, deflate or none, found {describe_value(', '.join(codings))}"
        raise error_at(415, _UNSUPPORTED, "Content-Encoding", problem, "send the body uncompressed, or as gzip")
    transfer_codings = request.headers.get("Transfer-Encoding", "")
    if set(list_items(transfer_codings)) - {"chunked", "identity"}:  # gunicorn passes gzip on as it is
        problem = f"expected chunked, found {transfer_codings}"
        raise error_at(501, "bad_request", "Transfer-Encoding", problem, "compress with Content-Encoding")
    body = _read_raw_body(request, max_bytes)
    return _decompress(body, codings[0], max_bytes) if codings else body


def _decompress(body: bytes, coding: str, max_bytes: int) -> bytes:
    """Decompress no more than the limit, so that a small body can neither fill the memory nor take seconds to parse.

    Rows of numbers and texts shrink to a third or a tenth; only repetitions shrink to less than a hundredth.
    """
    inflater = zlib.decompressobj(_WINDOW_BITS[coding])
    max_inflated = min(max_bytes, max(_UNCOUNTED_BYTES, _MAX_COMPRESSION * len(body)))
    try:
        whole = inflater.decompress(body, max_inflated + 1)
    except zlib.error as e:
        raise bad_request(f"the body is not {coding}: {e}", _compress_fix(coding), "broken_body") from e
    if len(whole) > max_inflated:
        if max_inflated == max_bytes:
            raise _body_too_large("more when decompressed", max_bytes)
        what = f"bytes, {_MAX_COMPRESSION} times as many as were sent"
        raise _body_too_large("more when decompressed", max_inflated, what, "send it uncompressed")
    if not inflater.eof or inflater.unused_data:
        found = "bytes after its end" if inflater.eof else "no end"
        problem = f"the body is not {coding}: expected one whole stream, found {found}"
        raise bad_request(problem, _compress_fix(coding), "broken_body")
    return whole


def _read_raw_body(request: Request, max_bytes: int) -> bytes:
    environ = request.environ
    announced = request.content_length
    if announced is None and not environ.get("wsgi.input_terminated"):
        return b""  # no Content-Length and not chunked: there is no body
    if announced is not None and announced > max_bytes:
        raise _body_too_large(str(announced), max_bytes)
    try:
        body: bytes = environ["wsgi.input"].read(max_bytes + 1 if announced is None else announced)
    except MemoryError:
        raise  # the body may be valid: 500
    except Exception as e:  # the client has broken off, whatever error the server raises
        raise bad_request(f"the body ended early or is not well-formed HTTP: {e}", _SEND_AGAIN, "broken_body") from e
    if announced is None:
        if len(body) > max_bytes:
            raise _body_too_large("more", max_bytes)
    elif len(body) < announced:
        message = f"the body ended early: Content-Length says {announced} bytes, {len(body)} came"
        raise bad_request(message, _SEND_AGAIN, "broken_body")
    return body


def bad_request(problem: str, fix: str, code: str = "bad_json") -> ApiError:
    return ApiError(400, code, f"{problem}; {fix}", [Fault("body", problem, fix)])


def _compress_fix(coding: str) -> str:
    return f"compress the whole body once with {coding}, or leave Content-Encoding out"


def _body_too_large(found: str, limit: int, what: str = "bytes", fix: str = "send fewer rows") -> ApiError:
    problem = f"expected at most {limit} {what}, found {found}"
    return ApiError(413, "body_too_large", f"the body: {problem}; {fix}", [Fault("body", problem, fix)])


def _invalid_json(error: orjson.JSONDecodeError, body: bytes, accepts_csv: bool) -> ApiError:
    """Return the position of the fault, the text around it, and the usual fix."""
    text = body.decode("utf-8", "replace")
    around = text[max(0, error.pos - 10) : error.pos + 20]
    rest = text[error.pos : error.pos + 9].lstrip("-")
    if rest.startswith(("NaN", "Inf")) or "infinity" in error.msg:
        fix = "JSON has finite numbers only; send null for a missing value"
    elif rest.startswith(("'", "True", "False", "None")):
        fix = 'that is Python, not JSON: write "text", true, false and null'
    elif accepts_csv and _looks_like_csv(text):
        fix = "write JSON; or for CSV send Content-Type: text/csv, with curl as --data-binary @FILE"
    else:
        fix = "write valid JSON; a JSON library writes it from your data"
    location = f"body, line {error.lineno} column {error.colno}"
    fault = Fault(location, f"{error.msg.split(': line ')[0]}; found {around!r}", fix)
    return ApiError(400, "bad_json", f"the body is not JSON: {fault}", [fault])


def _looks_like_csv(text: str) -> bool:
    stripped = text.strip()
    return not stripped.startswith(("{", "[")) and ("\n" in stripped or "," in stripped)
