"""The HTML pages of the whole service: all models at `/`."""

from __future__ import annotations

from flask import Blueprint
from werkzeug.wrappers import Response

from service.config import Settings
from service.http.responses import json_response
from service.pages import overview
from service.registry.registry import ModelRegistry
from service.routes.page_frame import check_access, page_view, render_page, wants_page


def create_blueprint(registry: ModelRegistry, settings: Settings) -> Blueprint:
    blueprint = Blueprint("pages", __name__)

    @blueprint.get("/")
    @page_view("predict")
    def root() -> Response:
        """Return the page of all models to a browser. Any other client makes a health check, without a key."""
        if not wants_page():
            return json_response({"status": "alive"}, headers={"Vary": "Accept"})
        check_access("pages.overview")
        snapshot = registry.snapshot
        page = render_page(
            "overview.html",
            "overview",
            script="",
            models=overview.describe_models(snapshot),
            problems=snapshot.problems,
            settings=settings,
        )
        return Response(page, headers={"Vary": "Accept"}, content_type="text/html; charset=utf-8")

    return blueprint
