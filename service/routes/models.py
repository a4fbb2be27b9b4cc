"""The list of models, and each model's metadata and example."""

from __future__ import annotations

from flask import Blueprint
from werkzeug.wrappers import Response

from service.http.responses import json_response
from service.protocols import model_metadata
from service.registry.registry import ModelRegistry


def create_blueprint(registry: ModelRegistry) -> Blueprint:
    blueprint = Blueprint("models", __name__)

    @blueprint.get("/models")
    def models() -> Response:
        return json_response(
            {"models": [model_metadata.model_summary(entry) for entry in registry.snapshot.entries.values()]}
        )

    @blueprint.get("/models/<name>")
    @blueprint.get("/models/<name>/versions/<version>")
    def model(name: str, version: str | None = None) -> Response:
        snapshot = registry.snapshot
        served = registry.find(name, version, snapshot)
        return json_response(model_metadata.model_details(snapshot.entries[name], served))

    @blueprint.get("/models/<name>/example")
    @blueprint.get("/models/<name>/versions/<version>/example")
    def example_body(name: str, version: str | None = None) -> Response:
        """Return a valid body for the predict endpoints that take rows."""
        example = model_metadata.require_example(registry.find(name, version))
        return json_response({"model": name, "instances": [example.instance]})

    return blueprint
