"""Predictions: POST /predict and the same below /models."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, request
from werkzeug.wrappers import Response

from model_store.errors import Fault, InputError
from model_store.nn import Array
from service.body import read_json
from service.catalog import Catalog, Served, UnavailableError, UnknownError
from service.inference import Inference
from service.schemas import PredictSchema, is_version_ref, not_an_object
from service.settings import Settings
from service.wire import json_response


def routes(catalog: Catalog, inference: Inference, settings: Settings) -> Blueprint:
    blueprint = Blueprint("predict", __name__)
    general = PredictSchema(settings.max_instances)

    @blueprint.post("/predict")
    @blueprint.post("/models/<name>/predict")
    @blueprint.post("/models/<name>/versions/<version>/predict")
    def predict(name: str | None = None, version: str | None = None) -> Response:
        if name is not None:
            catalog.find(name, version)  # a wrong address is told before the body is read
        body = read_json(request, settings.max_body_bytes)
        if not isinstance(body, dict):
            raise not_an_object(body)
        served, inputs = _checked(body, name, version)
        predictions = served.model.signature.decode(inference(served, inputs))
        return json_response({"model": served.name, "version": served.number, "predictions": predictions})

    def _checked(body: dict[str, Any], name: str | None, version: str | None) -> tuple[Served, Array]:
        """Who answers and what goes in; InputError with every fault of the body."""
        model, ref = body.get("model"), body.get("version")
        intelligible = isinstance(model, str | None) and (ref is None or is_version_ref(ref))
        faults: list[Fault] = []
        served = None
        try:
            served = catalog.find(
                name if name is not None else model if isinstance(model, str) else None,
                version if version is not None else ref if is_version_ref(ref) else None,
            )
        except (InputError, UnknownError, UnavailableError) as e:
            # What is wrong with the body's words for a model and a version, the schema says; no names at all, we do.
            if intelligible and not isinstance(e, InputError):
                raise
            faults += e.faults if intelligible and isinstance(e, InputError) else []
        if version is not None and is_version_ref(ref) and str(ref) != version:
            problem = f"wanted {version!r}, which the address names; found {ref!r}"
            faults.append(Fault("version", problem, "leave it out, or send the request to another address"))
        total = len(faults)
        try:
            inputs = (served.schema if served else general).inputs(body)
        except InputError as e:
            faults += e.faults
            total += e.total
        if faults or served is None or inputs is None:
            raise InputError(faults, total)
        return served, inputs

    return blueprint
