"""Google Cloud Storage's XML API for the server in s3.py: it is S3's with other header names.

`x-goog-if-generation-match: 0` puts an object only if the key is free; metadata headers start with `x-goog-meta-`. Keys
and listings are the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

CREDENTIALS = {"GOOGLE_BEARER_TOKEN": "token"}
SIGNED = "AWS4-HMAC-SHA256 Credential=key/20260102/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"


def translate_request(environ: dict[str, Any]) -> dict[str, Any]:
    """Return a request of Google's client as S3's client sends it."""
    assert environ.get("HTTP_AUTHORIZATION") == "Bearer token", "expected Google's bearer token"
    assert not [name for name in environ if "AMZ" in name or name == "HTTP_IF_NONE_MATCH"]
    found = {name.replace("HTTP_X_GOOG_META_", "HTTP_X_AMZ_META_"): value for name, value in environ.items()}
    found["HTTP_AUTHORIZATION"] = SIGNED
    if (generation := found.pop("HTTP_X_GOOG_IF_GENERATION_MATCH", None)) is not None:
        assert generation == "0", generation
        found["HTTP_IF_NONE_MATCH"] = "*"
    return found


def translate_response(start_response: Any) -> Any:
    """Return a start_response that renames the headers to Google's."""

    def start(status: str, headers: Iterable[tuple[str, str]], *rest: Any) -> Any:
        renamed = [(name.lower().replace("x-amz-meta-", "x-goog-meta-"), value) for name, value in headers]
        return start_response(status, renamed, *rest)

    return start
