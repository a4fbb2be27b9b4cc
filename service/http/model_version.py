"""The headers with the version of a model: the one that predicted, and the oldest one that a client accepts.

Replicas find a new version within seconds of each other. A client that sends the newest version that it has seen gets
no older one from another replica.
"""

from __future__ import annotations

import re

from service.http.exceptions import error_at

MODEL_VERSION_HEADER = "X-Model-Version"
AT_LEAST_HEADER = "X-Model-Version-At-Least"
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")


def parse_at_least(text: str | None) -> int | None:
    """Return the value of X-Model-Version-At-Least: 0 without the header, None if it is not the number of a version."""
    if text is None:
        return 0
    return int(text) if _NUMBER.fullmatch(text) else None


def require_at_least(text: str | None) -> int:
    """Return what `parse_at_least` does. Raises ApiError 400 for an invalid value."""
    number = parse_at_least(text)
    if number is None:
        problem = f"expected the number of a version, from 1 to 999999999; found {(text or '')[:100]!r}"
        fix = f"send the {MODEL_VERSION_HEADER} of an earlier response, once, or leave it out"
        raise error_at(400, "bad_request", AT_LEAST_HEADER, problem, fix)
    return number
