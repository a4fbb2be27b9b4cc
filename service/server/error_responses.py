"""The refusal: what the worker answers by itself, in the shape of all errors of the protocol that was spoken."""

from __future__ import annotations

from typing import Any

from gunicorn.http import errors as http_errors  # type: ignore[import-untyped]

from service.http.responses import RESPONSE_HEADERS, json_bytes, uses_plain_error_body
from service.server.connection import Connection
from service.server.request_reader import HeadTooLargeError
from service.telemetry.request_record import RequestRecorder

_STATUS_OF_ERROR = {
    http_errors.LimitRequestLine: "414 URI Too Long",
    http_errors.LimitRequestHeaders: "431 Request Header Fields Too Large",
    HeadTooLargeError: "431 Request Header Fields Too Large",
    http_errors.ExpectationFailed: "417 Expectation Failed",
    http_errors.UnsupportedTransferCoding: "501 Not Implemented",
}


def parse_error_status(error: Exception) -> str:
    """For a head that is not to be taken."""
    return next((status for kind, status in _STATUS_OF_ERROR.items() if isinstance(error, kind)), "400 Bad Request")


def error_response(
    recorder: RequestRecorder,
    connection: Connection,
    status: str,
    code: str,
    message: str,
    *,
    close: bool = True,
    extra_headers: str = "",
) -> bytes:
    """The whole answer to what a connection has sent, observed as everything else, as far as its head was read."""
    waiting = connection.pending_request
    head: Any = waiting.head if waiting is not None else connection.reader.head
    given = dict(head.headers) if head is not None else {}
    record = recorder.begin(
        getattr(head, "method", None) or "-",
        getattr(head, "uri", None) or "-",
        request_id=given.get("X-REQUEST-ID", ""),
        traceparent=given.get("TRACEPARENT", ""),
        client=connection.client_ip,
        arrived_at=connection.received_at if waiting is not None else 0.0,
    )
    record.error_code = code
    if head is not None and uses_plain_error_body(head.path):
        body = json_bytes({"error": message})
    else:
        error = {"code": code, "message": message, "faults": []}
        body = json_bytes({"error": error, "request_id": record.request_id})
    extra_headers += "".join(
        [f"{name}: {value}\r\n" for name, value in (*RESPONSE_HEADERS.items(), *recorder.response_headers(record))]
    )
    recorder.finish(record, route="none", status=int(status[:3]))
    lines = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{extra_headers}"
    lines += f"Connection: {'close' if close else 'keep-alive'}\r\n\r\n"
    if record.method == "HEAD":  # whoever asks so would take a body for the beginning of the next answer
        body = b""
    return lines.encode("latin-1", "replace") + body
