"""Cross-origin requests (CORS): which origins may call the service from a browser, SERVE_CORS_ORIGINS.

Browsers send the origin of the page with each request, and ask before one with a key or a JSON body (a preflight
request). No credentials are involved: a page sends its key itself. Flask, the fast path and the worker's error
responses all take their headers from here, so that a page can read every response.
"""

from __future__ import annotations

Headers = tuple[tuple[str, str], ...]

_EXPOSED = (
    "Access-Control-Expose-Headers",
    "X-Request-Id, X-Model-Version, Retry-After, Inference-Header-Content-Length, Server-Timing, traceparent, "
    "tracestate",
)
_PREFLIGHT: Headers = (
    ("Access-Control-Allow-Methods", "GET, HEAD, POST"),
    (
        "Access-Control-Allow-Headers",
        "Authorization, Content-Type, Content-Encoding, Inference-Header-Content-Length, X-Model-Version-At-Least, "
        "X-Request-Id, traceparent, tracestate",
    ),
    ("Access-Control-Max-Age", "7200"),  # seconds; browsers keep it no longer
)


class CrossOrigin:
    """The headers for pages of other origins."""

    def __init__(self, origins: str = "") -> None:
        """`origins`: separated by commas, or * for all; without any there are no headers."""
        self._origins = frozenset(filter(None, (origin.strip().lower() for origin in origins.split(","))))

    def headers(self, origin: str | None) -> Headers:
        """Return the headers of a response to a request whose Origin header is `origin`."""
        if "*" in self._origins:
            return ("Access-Control-Allow-Origin", "*"), _EXPOSED
        vary: Headers = (("Vary", "Origin"),) if self._origins else ()
        if origin not in self._origins:
            return vary
        return ("Access-Control-Allow-Origin", origin), _EXPOSED, *vary

    def preflight_headers(self, method: str, origin: str | None, requested_method: str | None) -> Headers:
        """Return the headers that answer a preflight request, beside `headers`; () if the request is none."""
        allowed = bool(self._origins & {"*", origin})
        return _PREFLIGHT if method == "OPTIONS" and requested_method is not None and origin and allowed else ()
