"""Error responses that the worker sends without the application, in the error format of the endpoint's protocol."""

from __future__ import annotations

from model_store.errors import Fault
from service.http.cross_origin import CrossOrigin, Headers
from service.http.responses import RESPONSE_HEADERS, json_bytes, uses_plain_error_body
from service.server.connection import Connection
from service.server.response_head import header_lines, response_head
from service.telemetry.request_record import RequestRecorder

TRY_AGAIN = "try again in a moment"
HTTP_FIX = "send it with an HTTP library"


class ErrorResponder:
    """Makes the error responses of one worker."""

    def __init__(self, recorder: RequestRecorder, cross_origin: CrossOrigin) -> None:
        self._recorder, self._cross_origin = recorder, cross_origin

    def __call__(
        self,
        connection: Connection,
        status: str,
        code: str,
        problem: str,
        fix: str,
        *,
        close: bool = True,
        headers: Headers = (),
    ) -> bytes:
        """Return the whole response to a connection's request, and record it like every other request.

        Where the head was not parsed, the record has neither method nor path.
        """
        pending = connection.pending_request
        head = pending.head if pending is not None else connection.reader.head
        record = self._recorder.begin(
            "-" if head is None else head.method,
            "-" if head is None else head.uri,
            request_id="" if head is None else head.uncached_headers.get("X-REQUEST-ID", ""),
            traceparent="" if head is None else head.uncached_headers.get("TRACEPARENT", ""),
            tracestate="" if head is None else head.uncached_headers.get("TRACESTATE", ""),
            client=connection.client_ip,
            arrived_at=connection.arrived_at if pending is not None else 0.0,
        )
        record.error_code = code
        origin = None if head is None else dict(head.parsed.headers).get("ORIGIN")
        if head is not None:
            record.served = self._recorder.served_at(head.path, head.uncached_headers.get("AUTHORIZATION"))
        message = f"{problem}; {fix}"
        if head is not None and uses_plain_error_body(head.path):
            body = json_bytes({"error": message})
        else:
            fault = Fault("request", problem, fix)
            error = {"code": code, "message": message, "faults": [fault.as_dict()]}
            body = json_bytes({"error": error, "request_id": record.request_id})
        lines = header_lines(
            [
                ("Content-Type", "application/json"),
                *RESPONSE_HEADERS.items(),
                ("Content-Length", str(len(body))),
                *headers,
                *self._cross_origin.headers(origin),
                *self._recorder.response_headers(record),
            ]
        )
        self._recorder.finish(record, route="none", status=int(status[:3]))
        if record.method == "HEAD":  # a client would take a body for the beginning of the next response
            body = b""
        return response_head(status, lines, close=close) + body
