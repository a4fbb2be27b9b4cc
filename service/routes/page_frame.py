"""The frame of the HTML pages: the header with its links, the form for an API key, and which views are pages.

    @blueprint.get("/models/<name>/network")
    @page_view("predict")
    def network(name: str) -> str:
        require_pages()
        return render_page("network_page.html", "network", **network_page.describe(...))

All links of a page are relative, so that they work behind any prefix of a proxy. `static/page.js` loads the script of
the page's name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from flask import current_app, render_template, request
from werkzeug.wrappers import Response

from model_store.errors import Fault
from service.http.exceptions import ApiError
from service.http.request_head import prefers_page

_View = TypeVar("_View", bound=Callable[..., Any])
# Name, path and title of the pages that every header has.
_LINKS = (
    ("overview", "", "Models"),
    ("traffic", "traffic", "Traffic"),
    ("reports", "reports", "Reports"),
    ("docs", "docs", "API reference"),
)


def page_view(scope: str) -> Callable[[_View], _View]:
    """Mark a view that answers a page: a browser without a valid key gets the form for one, with this scope."""

    def mark(view: _View) -> _View:
        view.page_scope = scope  # type: ignore[attr-defined]
        return view

    return mark


def page_scope() -> str | None:
    """Return the scope of the page that a request asks for, None if it asks for something else."""
    view = current_app.view_functions.get(request.endpoint or "")
    scope: str | None = getattr(view, "page_scope", None)
    return scope if scope is not None and wants_page() else None


def wants_page() -> bool:
    """Return True if a view that has a page and JSON should return the page."""
    settings = current_app.extensions["settings"]
    return bool(settings.pages) and prefers_page(request)


def require_pages() -> None:
    """Raise ApiError 404 if pages are turned off."""
    if not current_app.extensions["settings"].pages:
        fix = "set SERVE_PAGES=on, or use /openapi.json and the JSON endpoints"
        raise ApiError(404, "not_found", f"pages are turned off; {fix}", [Fault("URL", "pages are turned off", fix)])


def check_access(endpoint: str) -> None:
    """Check key, listener and host as for `endpoint`, in a view whose own endpoint is public.

    AccessDeniedError, NotFound or ApiError if the request may not have the page.
    """
    extensions, environ = current_app.extensions, request.environ
    extensions["access"].check(endpoint, environ.get("HTTP_AUTHORIZATION"), environ["SERVER_PORT"])
    extensions["hosts"].check(environ.get("HTTP_HOST"))


def may_read_traffic() -> bool:
    """Return True if this listener serves /metrics and the request's key has its scope."""
    extensions, authorization = current_app.extensions, request.environ.get("HTTP_AUTHORIZATION")
    return has_traffic() and extensions["keys"].has_scope(authorization, "metrics")


def has_traffic() -> bool:
    """Return True if this listener serves /metrics, and so /traffic."""
    serves: bool = current_app.extensions["access"].serves("pages.traffic_page", request.environ["SERVER_PORT"])
    return serves


def root() -> str:
    """Return the relative URL of the service's root, with a slash at its end: "./" or "../../"."""
    return "../" * (request.path.count("/") - 1) or "./"


def render_page(template: str, page: str, *, script: str | None = None, **values: Any) -> str:
    """Render a template that extends base.html.

    `page` is the name of its link in the header, and also of its script in `static` if `script` does not name another
    one; with "" it has none.
    """
    script = page if script is None else script
    links = [link for link in _LINKS if link[0] != "traffic" or has_traffic()]
    return render_template(template, page=page, script=script, root=root(), links=links, **values)


def key_page(scope: str, status: int, headers: dict[str, str]) -> Response:
    """Return the form that asks for an API key and then shows the page of this URL."""
    text = render_page("key.html", "key", script="", scope=scope)
    return Response(text, status, headers, content_type="text/html; charset=utf-8")
