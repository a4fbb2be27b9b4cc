"""The head of a request: its host, and headers that are lists."""

from __future__ import annotations

import re

from service.http.exceptions import error_at

# RFC 3986: a registered name, IPv4 address, or IPv6 address in brackets, and a port. The name may be empty.
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[\w.~!$&'()*+,;=%-]*)(?::\d*)?", re.ASCII)


def is_valid_host(host: str | None, protocol: str = "HTTP/1.1") -> bool:
    """True for a valid Host header (RFC 9112, section 3.2). Only HTTP/1.0 may leave it out."""
    return protocol == "HTTP/1.0" if host is None else _HOST.fullmatch(host) is not None


def check_host(host: str | None, protocol: str) -> None:
    """Raise ApiError 400 unless the Host header is valid."""
    if not is_valid_host(host, protocol):
        found = "none" if host is None else repr(host[:100])
        problem = f"expected a host, with or without a port; found {found}"
        raise error_at(400, "bad_request", "Host", problem, "send the header Host once, as in the URL")


def list_items(text: str) -> list[str]:
    """Return the items of a header that is a list, in lower case; empty ones are none (RFC 9110, section 5.6.1)."""
    return [item for item in (part.strip().lower() for part in text.split(",")) if item]
