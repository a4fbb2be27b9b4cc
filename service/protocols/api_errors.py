"""Errors of the registry and of validation as error responses, the same ones for every protocol."""

from __future__ import annotations

from model_store.errors import InputError
from service.http.exceptions import ApiError
from service.registry.errors import UnavailableError, UnknownModelError
from service.validation.row_limits import RowLimitError

REQUEST_ERRORS = (ApiError, InputError, RowLimitError, UnknownModelError, UnavailableError)


def to_api_error(error: Exception) -> ApiError:
    """Return one of `REQUEST_ERRORS` as ApiError: 422 for a request that is well-formed but invalid, 503 for a model
    that exists but cannot predict now. Raises any other error.
    """
    if isinstance(error, ApiError):
        return error
    if isinstance(error, InputError):
        more = " or more" if error.total >= error.MAX_COUNTED else ""
        count = "1 error" if error.total == 1 else f"{error.total}{more} errors"
        return ApiError(422, "invalid_request", f"{count} in the request: {error}", error.faults)
    if isinstance(error, RowLimitError):
        return ApiError(413, "too_many_rows", str(error), [error.fault])
    if isinstance(error, UnknownModelError):
        return ApiError(404, error.code, str(error), [error.fault])
    if isinstance(error, UnavailableError):
        return ApiError(503, error.code, str(error), [error.fault], {"Retry-After": str(error.retry_after)})
    raise error
