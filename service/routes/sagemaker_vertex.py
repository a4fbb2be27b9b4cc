"""The endpoints that Amazon SageMaker and Google Vertex AI expect of a container.

SageMaker calls /ping and /invocations. Vertex AI sets its paths in AIP_HEALTH_ROUTE and AIP_PREDICT_ROUTE, and sends
`parameters` next to `instances`, which are ignored.
"""

from __future__ import annotations

from flask import Blueprint, request
from werkzeug.wrappers import Response

from model_store.errors import Fault, InputError
from service.config import Settings
from service.http.model_version import MODEL_VERSION_HEADER
from service.http.responses import json_response, json_response_in_pieces
from service.protocols.native import with_warnings
from service.registry.registry import ModelRegistry
from service.routes.predict import Predictor
from service.validation.predict_request import QUERY_PARAMETERS


def create_blueprint(registry: ModelRegistry, predictor: Predictor, settings: Settings) -> Blueprint:
    blueprint = Blueprint("sagemaker_vertex", __name__)

    def ping() -> Response:
        return json_response({}, 200 if registry.is_ready else 503)

    def invocations() -> Response:
        _reject_native_parameters()
        result = predictor(None, None, ignored_key="parameters")
        headers = {MODEL_VERSION_HEADER: str(result.served.number)}
        found = {} if result.explanations is None else {"explanations": result.explanations}
        beside = found | dict(result.ranges or {})
        response = with_warnings({"predictions": result.predictions, **beside}, result.locate(result.warnings))
        return json_response_in_pieces(response, headers)

    blueprint.add_url_rule("/ping", view_func=ping, methods=["GET"])
    blueprint.add_url_rule("/invocations", view_func=invocations, methods=["POST"])
    if settings.health_route:
        blueprint.add_url_rule(settings.health_route, "health", ping, methods=["GET"])
    if settings.predict_route:
        blueprint.add_url_rule(settings.predict_route, "predict", invocations, methods=["POST"])
    return blueprint


def _reject_native_parameters() -> None:
    """Raise InputError for query parameters of the native protocol. Others are ignored: platforms may add some."""
    fix = "leave it out, or use /models/<name>/predict"
    found = [name for name in QUERY_PARAMETERS if name in request.args]
    if found:
        raise InputError([Fault(name, f"{request.path} has no such query parameter", fix) for name in found])
