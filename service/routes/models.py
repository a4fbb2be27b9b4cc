"""The list of models, and each model's metadata and example; for a browser the model's page."""

from __future__ import annotations

from flask import Blueprint, request
from werkzeug.wrappers import Response

from service.config import Settings
from service.http.responses import json_response
from service.pages import model_page
from service.protocols import model_metadata
from service.registry.registry import ModelRegistry
from service.routes.page_frame import page_view, render_page, wants_page
from service.security.access_control import AccessControl


def create_blueprint(registry: ModelRegistry, settings: Settings, access: AccessControl) -> Blueprint:
    blueprint = Blueprint("models", __name__)

    @blueprint.get("/models")
    def models() -> Response:
        return json_response(
            {"models": [model_metadata.model_summary(entry) for entry in registry.snapshot.entries.values()]}
        )

    @blueprint.get("/models/<name>")
    @blueprint.get("/models/<name>/versions/<version>")
    @page_view("predict")
    def model(name: str, version: str | None = None) -> Response:
        snapshot = registry.snapshot
        served = registry.find(name, version, snapshot)
        entry = snapshot.entries[name]
        if not wants_page():
            return json_response(model_metadata.model_details(entry, served), headers={"Vary": "Accept"})
        page = model_page.describe(entry, served)
        page["form"] |= {
            "movesAliases": settings.admin and access.serves("aliases.move", request.environ["SERVER_PORT"]),
            "adminPort": settings.admin_port if settings.admin else None,
        }
        links = _links(name, served.number)
        text = render_page("model_page.html", "overview", script="model", links_of_model=links, **page)
        return Response(text, headers={"Vary": "Accept"}, content_type="text/html; charset=utf-8")

    @blueprint.get("/models/<name>/example")
    @blueprint.get("/models/<name>/versions/<version>/example")
    def example_body(name: str, version: str | None = None) -> Response:
        """Return a valid body for the predict endpoints that take rows."""
        example = model_metadata.require_example(registry.find(name, version))
        return json_response({"model": name, "instances": [example.instance]})

    return blueprint


def _links(name: str, number: int) -> list[tuple[str, str]]:
    """Return the paths and titles of other pages of a model."""
    return [
        (f"models/{name}/network", "The network at work"),
        (f"models/{name}/versions/{number}/report", "Report"),
        (f"docs#model-{name}", "API reference"),
    ]
