"""Access control: whether a request may be answered, on this listener and with this key.

Flask and the fast path both ask here, for every request.
"""

from __future__ import annotations

from werkzeug.exceptions import NotFound

from service.security.api_keys import ApiKeys

# The scope that a Flask endpoint requires. All others require `predict`, paths that do not exist included.
_ENDPOINT_SCOPES = {
    "health.exposition": "metrics",
    "pages.traffic_page": "metrics",
    "open_inference.index": "admin",
    "open_inference.load": "admin",
    "open_inference.unload": "admin",
    "aliases.move": "admin",
    "aliases.rollback": "admin",
    "aliases.protect": "admin",
}
# Health checks need no key: an orchestrator that asks every few seconds should need no secret. Neither does the form
# that asks for one.
_PUBLIC_ENDPOINTS = frozenset(
    {
        "pages.root",  # JSON for health checks; the page checks the key itself
        "health.alive",
        "health.ready",
        "sagemaker_vertex.ping",
        "sagemaker_vertex.health",
        "open_inference.health",
        "docs.slash",
        "model_pages.runtime",
        "model_pages.chart_styles",
        "pages.report_styles",
        "static",  # scripts and styles of the pages, which ask for the key; nothing of the models
    }
)


class AccessControl:
    """Checks keys, scopes and listeners. With `admin_port`, only that port serves metrics, the repository and moves."""

    def __init__(self, keys: ApiKeys, admin_port: int = 0) -> None:
        self.keys = keys
        self._admin_port = str(admin_port or "")

    @staticmethod
    def required_scope(endpoint: str) -> str:
        return _ENDPOINT_SCOPES.get(endpoint, "predict")

    @staticmethod
    def is_public(endpoint: str) -> bool:
        """True if the endpoint needs no key: health checks, and the files of the page that asks for one."""
        return endpoint in _PUBLIC_ENDPOINTS

    def serves(self, endpoint: str, port: str) -> bool:
        """True if the listener on this port serves the endpoint."""
        return self.required_scope(endpoint) == "predict" or not self._admin_port or port == self._admin_port

    def check(self, endpoint: str, authorization: str | None, port: str) -> str:
        """Return the name of the key if the request may be answered; otherwise raise NotFound or AccessDeniedError.

        `endpoint` is Flask's name of the view, "" for a path that has none; `port` is the listener's. The name is
        "" where no key is required.
        """
        scope = self.required_scope(endpoint)
        if not self.serves(endpoint, port):
            if self.keys.is_known(authorization):
                raise NotFound
            self.keys.require_scope(authorization, scope)  # a stranger gets 401 here as for any other path
        return "" if self.is_public(endpoint) else self.keys.require_scope(authorization, scope)
