"""The OpenAPI document: every endpoint, and the exact request and response of each model.

The native endpoints are described by marshmallow schemas, the endpoints of a model by its signature (model_paths.py),
those of other protocols by their specifications (protocol_paths.py).
"""

from __future__ import annotations

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from marshmallow import Schema

from model_store.utils.values import list_names
from service.http.responses import uses_plain_error_body
from service.openapi import response_schemas
from service.openapi.alias_paths import add_alias_paths
from service.openapi.described_models import split_described
from service.openapi.json_schema import RETRY_AFTER, STRING, TABLE_BODIES, Json, json_content, ref, response_header
from service.openapi.model_paths import add_model_paths
from service.openapi.network_paths import add_network_paths
from service.openapi.parameters import (
    AT_LEAST_PARAMETER,
    ERROR_DESCRIPTIONS,
    EXPLAIN_PARAMETERS,
    LEVEL_PARAMETERS,
    NAME_PARAMETER,
    QUERY_PARAMETERS,
    REQUEST_ID_PARAMETER,
    TOP_K_PARAMETER,
    VERSION_PARAMETER,
)
from service.openapi.protocol_paths import add_protocol_paths
from service.openapi.traffic_schema import TRAFFIC
from service.registry.loaded_version import LoadedVersion
from service.registry.snapshot import Snapshot

_KEYLESS_PATHS = ("/", "/healthz", "/readyz", "/ping", "/v2/health/live", "/v2/health/ready")  # need no API key


def build_document(snapshot: Snapshot, *, require_keys: bool = False) -> Json:
    """Return the document as JSON. `require_keys`: requests need an API key."""
    described, only_named = split_described(snapshot)
    spec = APISpec(
        title="Forward Pass",
        version="1",
        openapi_version="3.1.0",
        plugins=[MarshmallowPlugin(schema_name_resolver=_component_name)],
        info={"description": f"Predictions of neural networks over HTTP.{_not_described(only_named)}"},
        tags=[
            {"name": "models", "description": "Predictions of each model."},
            {"name": "general", "description": "Predictions of any model, and metadata."},
            {"name": "health", "description": "For load balancers, orchestrators and Prometheus."},
            {
                "name": "tensorflow serving",
                "description": "The REST API of TensorFlow Serving and the V1 protocol of KServe.",
            },
            {
                "name": "hosted",
                "description": "The endpoints that Amazon SageMaker and Google Vertex AI expect of a container.",
            },
            {
                "name": "open inference",
                "description": "The Open Inference Protocol (V2) of Triton, KServe and MLServer.",
            },
        ],
    )
    for status, text in ERROR_DESCRIPTIONS.items():
        retry = RETRY_AFTER if status == "503" else {}
        spec.components.response(
            f"E{status}", {"description": text, **retry, **json_content(response_schemas.ErrorSchema)}
        )
    for served in described:
        add_model_paths(spec, served)
    _add_general_paths(spec)
    add_alias_paths(spec)
    add_network_paths(spec)
    add_protocol_paths(spec, REQUEST_ID_PARAMETER, AT_LEAST_PARAMETER)
    found: Json = spec.to_dict()
    return _add_security(found) if require_keys else found


def _not_described(versions: list[LoadedVersion]) -> str:
    names = list_names([served.name for served in versions])
    return f" Too large to describe here: {names}; see /models/{{name}}." if versions else ""


# Generated clients name their classes after these.
_COMPONENT_NAMES = {
    "ErrorExampleSchema": "Lesson",
    "PredictBodySchema": "Predict",
    "PredictResponseSchema": "Answer",
    "ModelSummarySchema": "ModelLine",
    "ModelListSchema": "Models",
    "ExampleRequestSchema": "Example",
    "ReadinessSchema": "Ready",
}


def _component_name(schema: Schema | type[Schema]) -> str:
    """Return the name of a marshmallow schema under components/schemas."""
    name = (schema if isinstance(schema, type) else type(schema)).__name__
    return _COMPONENT_NAMES.get(name, name.removesuffix("Schema"))


def _add_security(document: Json) -> Json:
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"key": []}]
    responses = document["components"]["responses"]
    challenge = response_header("WWW-Authenticate", "The authentication scheme.")
    for kind in "EP":
        error = {"content": responses[f"{kind}404"]["content"], **challenge}
        responses[f"{kind}401"] = {"description": "The API key is missing or unknown.", **error}
        responses[f"{kind}403"] = {"description": "The API key lacks the required scope.", **error}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if path in _KEYLESS_PATHS:
                operation["security"] = []
            else:
                kind = "P" if uses_plain_error_body(path) else "E"
                operation["responses"] |= {
                    status: {"$ref": f"#/components/responses/{kind}{status}"} for status in ("401", "403")
                }
    return document


def _add_general_paths(spec: APISpec) -> None:
    # The operations of a model are predict_NAME, v1_NAME and v2_NAME: no other begins so.
    for operation_id, path, parameters in (
        ("predict", "/predict", []),
        ("model_predict", "/models/{name}/predict", [NAME_PARAMETER]),
        ("version_predict", "/models/{name}/versions/{version}/predict", [NAME_PARAMETER, VERSION_PARAMETER]),
    ):
        spec.path(
            path,
            operations={
                "post": {
                    "tags": ["general"],
                    "summary": "Predictions",
                    "description": TABLE_BODIES,
                    "operationId": operation_id,
                    "parameters": [
                        *parameters,
                        *QUERY_PARAMETERS,
                        *EXPLAIN_PARAMETERS,
                        *LEVEL_PARAMETERS.values(),
                        TOP_K_PARAMETER,
                        REQUEST_ID_PARAMETER,
                        AT_LEAST_PARAMETER,
                    ],
                    "requestBody": {"required": True, **json_content(response_schemas.PredictBodySchema())},
                    "responses": {
                        "200": {
                            "description": "One prediction for each row.",
                            **json_content(response_schemas.PredictResponseSchema),
                        },
                        **_error_responses(),
                    },
                }
            },
        )
    for operation_id, path, tag, text, schema, parameters in (
        ("list_models", "/models", "general", "List of models", response_schemas.ModelListSchema, []),
        (
            "get_model",
            "/models/{name}",
            "general",
            "Metadata of a model",
            response_schemas.ModelSchema,
            [NAME_PARAMETER],
        ),
        (
            "get_version",
            "/models/{name}/versions/{version}",
            "general",
            "Metadata of a version",
            response_schemas.ModelSchema,
            [NAME_PARAMETER, VERSION_PARAMETER],
        ),
        (
            "get_example",
            "/models/{name}/example",
            "general",
            "A valid request body",
            response_schemas.ExampleRequestSchema,
            [NAME_PARAMETER],
        ),
        (
            "get_version_example",
            "/models/{name}/versions/{version}/example",
            "general",
            "A valid request body for a version",
            response_schemas.ExampleRequestSchema,
            [NAME_PARAMETER, VERSION_PARAMETER],
        ),
        ("get_liveness", "/healthz", "health", "Liveness", response_schemas.HealthSchema, []),
        (
            "get_readiness",
            "/readyz",
            "health",
            "Readiness, with current problems",
            response_schemas.ReadinessSchema,
            [],
        ),
    ):
        responses: Json = {"200": {"description": "Success.", **json_content(schema)}}
        if parameters:
            responses |= {status: f"E{status}" for status in ("404", "503")}
        if path == "/readyz":
            responses["503"] = {"description": "No model can predict.", **json_content(schema)}
        operation = {
            "tags": [tag],
            "summary": text,
            "operationId": operation_id,
            "parameters": parameters,
            "responses": responses,
        }
        spec.path(path, operations={"get": operation})
    spec.components.schema("Traffic", TRAFFIC)
    window = {"type": "integer", "enum": [5, 15, 60], "default": 60}
    spec.path(
        "/traffic",
        operations={
            "get": {
                "tags": ["health"],
                "summary": "Traffic of the last minutes, by model and version; a page for browsers",
                "operationId": "get_traffic",
                "parameters": [
                    {"in": "query", "name": "model", "schema": STRING, "description": "A name, or name/version."},
                    {"in": "query", "name": "minutes", "schema": window, "description": "Minutes until now."},
                ],
                "responses": {"200": {"description": "Success.", **json_content(ref("Traffic"))}, "422": "E422"},
            }
        },
    )
    metrics = {"200": {"description": "Prometheus's text format.", "content": {"text/plain": {"schema": STRING}}}}
    spec.path(
        "/metrics",
        operations={
            "get": {
                "tags": ["health"],
                "summary": "Prometheus metrics",
                "operationId": "get_metrics",
                "responses": metrics,
            }
        },
    )


def _error_responses() -> Json:
    return {status: f"E{status}" for status in ERROR_DESCRIPTIONS}
