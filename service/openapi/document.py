"""The OpenAPI document: every address, and for each model what exactly goes in and comes out.

The general addresses are described by the marshmallow schemas that check them; a model's own addresses by its signature
(`openapi_models`), the other protocols' by what those prescribe (`openapi_protocols`).
"""

from __future__ import annotations

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from marshmallow import Schema

from service.http.responses import uses_plain_error_body
from service.openapi import response_schemas
from service.openapi.json_schema import RETRY_AFTER, Json, add_media_types, json_content, response_header
from service.openapi.model_paths import add_model_paths
from service.openapi.protocol_paths import add_protocol_paths
from service.protocols.csv_npy import CSV, NPY
from service.registry.snapshot import Snapshot
from service.validation.predict_request import PredictSchema

_NAME_PARAMETER = {
    "in": "path",
    "name": "name",
    "required": True,
    "schema": {"type": "string"},
    "description": "Name of a model.",
}
_VERSION_PARAMETER = {
    "in": "path",
    "name": "version",
    "required": True,
    "schema": {"type": "string"},
    "description": "Number of a version, an alias, or `latest`.",
}
_REQUEST_ID_PARAMETER = {
    "in": "header",
    "name": "X-Request-Id",
    "required": False,
    "schema": {"type": "string"},
    "description": "Comes back in the answer and stands in the log; made up when left out, or longer than 128.",
}
_QUERY_PARAMETERS = [
    {
        "in": "query",
        "name": name,
        "required": False,
        "schema": {"type": "string", "enum": ["true", "false"]},
        "description": text,
    }
    for name, text in (
        ("warnings", "Whether the answer names values beyond what training saw."),
        ("receipt", "Whether the answer has a receipt, with which it can be proved and repeated."),
    )
]
_ERROR_DESCRIPTIONS = {
    "400": "The body is not whole or not JSON.",
    "404": "There is no such model or version; the answer names those there are.",
    "413": "The body is too large.",
    "415": "The Content-Type is not JSON.",
    "422": "The rows do not fit the model. Every fault is named, with its place and how to mend it.",
    "503": "No version of the model can answer.",
}


_KEYLESS_PATHS = ("/", "/healthz", "/readyz", "/ping", "/v2/health/live", "/v2/health/ready")  # asked without a key


def build_document(snapshot: Snapshot, *, require_keys: bool = False) -> Json:
    """The whole document, as JSON knows it. `require_keys`: requests need an API key."""
    spec = APISpec(
        title="Forward Pass",
        version="1",
        openapi_version="3.1.0",
        plugins=[MarshmallowPlugin(schema_name_resolver=_component_name)],
        info={"description": "Predictions of neural networks over HTTP."},
        servers=[{"url": "/"}],
        tags=[
            {"name": "models", "description": "What each model takes and gives."},
            {"name": "general", "description": "The same for any model, and what there is."},
            {"name": "health", "description": "For load balancers, orchestrators and Prometheus."},
            {"name": "tensorflow serving", "description": "TensorFlow Serving's REST and KServe's first version."},
            {"name": "hosted", "description": "What Amazon SageMaker and Google Vertex AI ask of a container."},
            {
                "name": "open inference",
                "description": "The Open Inference Protocol (V2) of Triton, KServe and MLServer.",
            },
        ],
    )
    for status, text in _ERROR_DESCRIPTIONS.items():
        retry = RETRY_AFTER if status == "503" else {}
        spec.components.response(
            f"E{status}", {"description": text, **retry, **json_content(response_schemas.ErrorSchema)}
        )
    for served in snapshot.default_versions:
        add_model_paths(spec, served, [_REQUEST_ID_PARAMETER], _QUERY_PARAMETERS, _ERROR_DESCRIPTIONS)
    _add_general_paths(spec)
    add_protocol_paths(spec)
    found: Json = spec.to_dict()
    return _add_security(found) if require_keys else found


# Generated clients name their classes after these.
_COMPONENT_NAMES = {
    "ErrorExampleSchema": "Lesson",
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
    challenge = response_header("WWW-Authenticate", "Which kind of key is expected.")
    for kind in "EP":
        error = {"content": responses[f"{kind}404"]["content"], **challenge}
        responses[f"{kind}401"] = {"description": "No key, or none that is known.", **error}
        responses[f"{kind}403"] = {"description": "A key without the scope that this needs.", **error}
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
    for path, parameters in (
        ("/predict", []),
        ("/models/{name}/predict", [_NAME_PARAMETER]),
        ("/models/{name}/versions/{version}/predict", [_NAME_PARAMETER, _VERSION_PARAMETER]),
    ):
        spec.path(
            path,
            operations={
                "post": {
                    "tags": ["general"],
                    "summary": "Predictions",
                    "operationId": "predict" + "_by" * bool(parameters) + "".join(f"_{p['name']}" for p in parameters),
                    "parameters": [*parameters, *_QUERY_PARAMETERS, _REQUEST_ID_PARAMETER],
                    "requestBody": {"required": True, **add_media_types(json_content(PredictSchema(1)), CSV, NPY)},
                    "responses": {
                        "200": {
                            "description": "One for each row.",
                            **json_content(response_schemas.PredictResponseSchema),
                        },
                        **_error_responses(),
                    },
                }
            },
        )
    for path, tag, text, schema, parameters in (
        ("/models", "general", "The models there are", response_schemas.ModelListSchema, []),
        ("/models/{name}", "general", "What a model takes and gives", response_schemas.ModelSchema, [_NAME_PARAMETER]),
        (
            "/models/{name}/versions/{version}",
            "general",
            "What a version takes and gives",
            response_schemas.ModelSchema,
            [_NAME_PARAMETER, _VERSION_PARAMETER],
        ),
        (
            "/models/{name}/example",
            "general",
            "A body that is answered",
            response_schemas.ExampleRequestSchema,
            [_NAME_PARAMETER],
        ),
        (
            "/models/{name}/versions/{version}/example",
            "general",
            "A body that is answered by a version",
            response_schemas.ExampleRequestSchema,
            [_NAME_PARAMETER, _VERSION_PARAMETER],
        ),
        ("/healthz", "health", "Whether the process lives", response_schemas.HealthSchema, []),
        ("/readyz", "health", "Whether a model can answer, and what is amiss", response_schemas.ReadinessSchema, []),
    ):
        responses: Json = {"200": {"description": "Yes.", **json_content(schema)}}
        if parameters:
            responses |= {status: f"E{status}" for status in ("404", "503")}
        if path == "/readyz":
            responses["503"] = {"description": "No.", **json_content(schema)}
        operation = {"tags": [tag], "summary": text, "parameters": parameters, "responses": responses}
        spec.path(path, operations={"get": operation})
    metrics = {"200": {"description": "Prometheus's text format.", "content": {"text/plain": {}}}}
    spec.path("/metrics", operations={"get": {"tags": ["health"], "summary": "Figures", "responses": metrics}})


def _error_responses() -> Json:
    return {status: f"E{status}" for status in _ERROR_DESCRIPTIONS}
