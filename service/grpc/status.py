"""Errors as gRPC statuses: the code of the HTTP status, and the text of HTTP's error as details."""

from __future__ import annotations

from urllib.parse import quote

from model_store.errors import Fault
from service.http.exceptions import ApiError
from service.protocols.api_errors import REQUEST_ERRORS, to_api_error
from service.security.api_keys import AccessDeniedError

# Names of `grpc.StatusCode`. HTTP's 400 and 422 are one code here.
_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    413: "RESOURCE_EXHAUSTED",
    422: "INVALID_ARGUMENT",
    503: "UNAVAILABLE",
}
MAX_DETAILS_BYTES = 4096  # escaped: clients take 8 KiB of metadata, and close the stream beyond 16
_SAFE = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")


def to_status(error: Exception) -> ApiError | None:
    """Return an error that a client causes, or that it can wait for; None for a bug in the service."""
    if isinstance(error, AccessDeniedError):
        return ApiError(error.status, error.code, str(error), [error.fault], {"WWW-Authenticate": error.challenge})
    return to_api_error(error) if isinstance(error, REQUEST_ERRORS) else None


def internal_error() -> ApiError:
    fix = "the cause is in the service's log under this x-request-id"
    return ApiError(500, "internal_error", f"internal error; {fix}", [Fault("service", "internal error", fix)])


def code_name(error: ApiError) -> str:
    if error.code == "not_found":  # HTTP's code for an address that does not exist
        return "UNIMPLEMENTED"
    return _CODES.get(error.status, "INTERNAL")


def details(error: ApiError) -> str:
    """Return the error's message, cut if it is longer than what fits into the metadata of a response."""
    text = error.message.replace("\n", " ")
    if len(text) <= MAX_DETAILS_BYTES and text.isascii() and text.isprintable() and "%" not in text:
        return text
    text = text[:MAX_DETAILS_BYTES]
    while len(quote(text, safe=_SAFE)) > MAX_DETAILS_BYTES:
        text = text[: len(text) * 9 // 10]
    return text


def retry_metadata(error: ApiError) -> list[tuple[str, str]]:
    """Return when to try again, in seconds for people and as clients that retry by themselves read it (gRFC A6)."""
    seconds = error.headers.get("Retry-After")
    return [] if seconds is None else [("retry-after", seconds), ("grpc-retry-pushback-ms", f"{seconds}000")]
