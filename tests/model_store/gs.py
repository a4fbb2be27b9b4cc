"""Google's dialect for the server in s3.py: Cloud Storage's XML protocol says in other headers what S3 says.

A new object is asked for by `x-goog-if-generation-match: 0`, and metadata are called `x-goog-meta-`. Keys and listings
are the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

CREDENTIALS = {"GOOGLE_BEARER_TOKEN": "token"}
SIGNED = "AWS4-HMAC-SHA256 Credential=key/20260102/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"


def understood(environ: dict[str, Any]) -> dict[str, Any]:
    """A request of Google's client as S3's would have made it."""
    assert environ.get("HTTP_AUTHORIZATION") == "Bearer token", "not signed as Google wants it"
    assert not [name for name in environ if "AMZ" in name or name == "HTTP_IF_NONE_MATCH"]
    found = {name.replace("HTTP_X_GOOG_META_", "HTTP_X_AMZ_META_"): value for name, value in environ.items()}
    found["HTTP_AUTHORIZATION"] = SIGNED
    if (generation := found.pop("HTTP_X_GOOG_IF_GENERATION_MATCH", None)) is not None:
        assert generation == "0", generation
        found["HTTP_IF_NONE_MATCH"] = "*"
    return found


def answering(start_response: Any) -> Any:
    """The answer's headers under Google's names."""

    def start(status: str, headers: Iterable[tuple[str, str]], *rest: Any) -> Any:
        renamed = [(name.lower().replace("x-amz-meta-", "x-goog-meta-"), value) for name, value in headers]
        return start_response(status, renamed, *rest)

    return start
