"""Cross-site requests: what a page of another origin can make a visitor's browser send to the repository API.

The browser may reach an admin listener that the page's author cannot. It needs no permission (preflight request) to
send a form or `text/plain`, and without API keys such a request would load or unload models.
"""

from __future__ import annotations

from typing import Any

from service.http.exceptions import error_at

_OWN_SITES = ("none", "same-origin")  # Sec-Fetch-Site of an address that was typed, and of the service's own pages
_FIX = "call the repository API from a program, not from a web page"


def check_no_foreign_page(environ: dict[str, Any]) -> None:
    """Raise ApiError: 403 for a request of another origin's page, 415 for a body of a type that needs no preflight.

    Browsers send Origin with every POST, which a page cannot change. Programs send neither it nor Sec-Fetch-Site, and
    may send any type: Triton's asynchronous client sends text/plain.
    """
    site, origin = environ.get("HTTP_SEC_FETCH_SITE"), environ.get("HTTP_ORIGIN")
    if site is None and origin is None:
        return
    if _is_foreign(site, origin, environ.get("HTTP_HOST", "")):
        raise error_at(403, "forbidden", "Origin", "expected no page of another origin, found one", _FIX)
    media_type = environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
    if media_type not in {"", "application/json"}:
        problem = "expected application/json, found another type"
        fix = "send -H 'Content-Type: application/json'"
        raise error_at(415, "unsupported_media_type", "Content-Type", problem, fix)


def _is_foreign(site: str | None, origin: str | None, host: str) -> bool:
    if site is not None:
        return site.strip().lower() not in _OWN_SITES
    return origin is not None and origin.partition("://")[2].lower() != host.lower()
