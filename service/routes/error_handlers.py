"""Error responses of the Flask application, in the JSON format of each protocol. The native one:

    {"error": {"code": "unknown_model", "message": "there is no model 'pengins'; did you mean 'penguins'?",
               "faults": [{"location": "model", "problem": "...", "fix": "..."}],
               "example": {"body": {...}, "curl": "..."}}, "request_id": "4b0f..."}

`code` is for programs and `message` for people. `faults` lists every error of the request. `example` is a request that
works, without its body if that is long. The protocols under /v1 and /v2 allow only `{"error": "text"}`: there the text
contains the message and the curl command.
"""

from __future__ import annotations

import logging
from typing import Any

from flask import Flask, current_app, g, request
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from model_store.errors import Fault
from service.http.exceptions import ApiError
from service.http.responses import json_response, uses_plain_error_body
from service.protocols.api_errors import REQUEST_ERRORS, to_api_error
from service.routes.error_examples import REPOSITORY_PATH, error_example
from service.routes.page_frame import key_page, page_scope
from service.security.api_keys import AccessDeniedError
from service.telemetry.mmap_counters import CountsUnavailableError

log = logging.getLogger("service")

# `code` for errors that Flask and Werkzeug raise, by status.
_FRAMEWORK_ERROR_CODES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}


def error_response(error: ApiError) -> Response:
    g.request_record.error_code = error.code
    example = None
    scope = "admin" if request.path.startswith(REPOSITORY_PATH) else "predict"
    known = current_app.extensions["keys"].has_scope(request.headers.get("Authorization"), scope)
    known = known and current_app.extensions["hosts"].is_trusted(request.headers.get("Host"))
    if known and 400 <= error.status < 500:
        example = error_example(current_app.extensions["registry"], error.faults)
    if uses_plain_error_body(request.path):
        status = 400 if error.status == 422 else error.status  # these protocols have no 422
        stop = "" if error.message.endswith("?") else "."
        text = f"{error.message}{stop} This works: {example['curl']}" if example else error.message
        return json_response({"error": text}, status, error.headers)
    body: dict[str, Any] = {
        "error": {
            "code": error.code,
            "message": error.message,
            "faults": [fault.as_dict() for fault in error.faults],
        },
        "request_id": g.request_record.request_id,
    }
    if example is not None:
        body["error"]["example"] = example
    return json_response(body, error.status, error.headers)


def register(app: Flask) -> None:
    for kind in REQUEST_ERRORS:
        app.register_error_handler(kind, lambda error: error_response(to_api_error(error)))
    app.register_error_handler(AccessDeniedError, _access_denied)
    app.register_error_handler(CountsUnavailableError, _metrics_unavailable)
    app.register_error_handler(HTTPException, _framework_error)
    app.register_error_handler(Exception, _internal_error)


def _access_denied(error: AccessDeniedError) -> Response:
    g.request_record.key_name = error.key_name
    challenge = {"WWW-Authenticate": error.challenge}
    if (scope := page_scope()) is not None:  # a browser: its page asks for the key
        g.request_record.error_code = error.code
        return key_page(scope, error.status, challenge)
    return error_response(ApiError(error.status, error.code, str(error), [error.fault], challenge))


def _metrics_unavailable(error: CountsUnavailableError) -> Response:
    """Return 503: predictions go on without metrics."""
    log.error("%s", error)
    fix = "restart the service to count again"
    return error_response(ApiError(503, "metrics_unavailable", f"{error}; {fix}", [Fault("metrics", str(error), fix)]))


def _framework_error(error: HTTPException) -> Response:
    """Convert an error or redirect that Flask or Werkzeug raised: unknown endpoint, wrong method."""
    if error.code is None or error.code < 400:
        return error.get_response()
    headers = {name: value for name, value in error.get_headers() if name.lower() not in _OWN_HEADERS}
    reference = f"{request.script_root}/{'docs' if current_app.extensions['settings'].pages else 'openapi.json'}"
    problem, fix = {
        404: ("no such endpoint", f"see {reference} for a list"),
        405: ("method not allowed", f"this endpoint supports {headers.get('Allow', 'others')}"),
    }.get(error.code, (error.description or error.name, f"see {reference} for valid requests"))
    code = _FRAMEWORK_ERROR_CODES.get(error.code, "http_error")
    fault = Fault("URL", problem, fix)
    return error_response(ApiError(error.code, code, f"{problem}; {fix}", [fault], headers))


_OWN_HEADERS = {"content-type", "content-length"}


def _internal_error(error: Exception) -> Response:
    """Return 500 for a bug in the service. The traceback goes to the log; the client gets only the request id."""
    record = g.request_record
    log.error("request %s crashed", record.request_id, exc_info=error, extra={"request_record": record})
    fix = "the cause is in the service's log under this request_id"
    return error_response(
        ApiError(500, "internal_error", f"internal error; {fix}", [Fault("service", "internal error", fix)])
    )
