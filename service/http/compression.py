"""Compression of pages: their HTML, scripts, styles and figures, with gzip.

Predictions are not compressed: they are small, and the time of a request counts. A compressed response that has a
secret beside text of an attacker can reveal it by its length (BREACH). Pages have no secret: the API key is in the
request's head only, and no browser adds one by itself.
"""

from __future__ import annotations

import gzip
from collections import OrderedDict

from werkzeug.wrappers import Request, Response

_TYPES = frozenset(
    {"text/html", "text/css", "text/javascript", "application/javascript", "application/json", "image/svg+xml"}
)
_MIN_BYTES, _MAX_BYTES = 1_000, 4 << 20
_LEVEL = 6
_MAX_KEPT, _MAX_KEPT_BYTES = 100, 1 << 16  # files, and bytes of one


class PageCompressor:
    """Compresses responses for the clients that accept gzip. Files, which have an ETag, are compressed once."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], bytes] = OrderedDict()

    def compress(self, request: Request, response: Response) -> None:
        """Compress the body of a successful response, if it is text of a page and not compressed already."""
        if response.status_code != 200 or response.mimetype not in _TYPES or "Content-Encoding" in response.headers:
            return
        response.vary.add("Accept-Encoding")
        if not request.accept_encodings["gzip"] or request.method == "HEAD":
            return
        etag, _ = response.get_etag()
        key = (request.path, etag) if etag else None
        body = self._kept.get(key) if key else None
        response.direct_passthrough = False  # of a file
        if body is not None:
            response.call_on_close(getattr(response.response, "close", lambda: None))  # the file
        else:
            plain = response.get_data()
            if not _MIN_BYTES <= len(plain) <= _MAX_BYTES:
                return
            body = gzip.compress(plain, _LEVEL, mtime=0)
            if key and len(body) <= _MAX_KEPT_BYTES:
                self._kept[key] = body
                while len(self._kept) > _MAX_KEPT:
                    self._kept.popitem(last=False)
        response.set_data(body)
        response.headers["Content-Encoding"] = "gzip"
        response.headers.pop("Accept-Ranges", None)
        if etag:
            response.set_etag(etag, weak=True)  # the same as of the body that is not compressed
