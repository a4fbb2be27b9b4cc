"""ApiError: an error response, raised from anywhere in a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from model_store.errors import Fault


class ApiError(Exception):
    """An error response: its status, a code for programs, a message for people, faults and extra headers.

    There is at least one fault, and each says how to fix it.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        faults: Sequence[Fault],
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status, self.code, self.message = status, code, message
        self.faults = list(faults)
        self.headers = dict(headers or {})
        super().__init__(message)


def error_at(status: int, code: str, location: str, problem: str, fix: str) -> ApiError:
    """Return the error of a single fault: "LOCATION: PROBLEM; FIX"."""
    return ApiError(status, code, f"{location}: {problem}; {fix}", [Fault(location, problem, fix)])
