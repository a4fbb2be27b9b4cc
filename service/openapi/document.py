"""The OpenAPI document: every address, and for each model what exactly goes in and comes out.

The general addresses are described by the marshmallow schemas that check them; a model's own addresses by its signature
(`openapi_models`), the other protocols' by what those prescribe (`openapi_protocols`).
"""

from __future__ import annotations

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin

from service.http.responses import uses_plain_error_body
from service.openapi import response_schemas
from service.openapi.json_schema import RETRY, Json, also, content, header
from service.openapi.model_paths import add_model
from service.openapi.protocol_paths import add_protocols
from service.protocols.csv_npy import CSV, NPY
from service.registry.snapshot import Snapshot
from service.validation.predict_request import PredictSchema

_NAME = {
    "in": "path",
    "name": "name",
    "required": True,
    "schema": {"type": "string"},
    "description": "Name of a model.",
}
_VERSION = {
    "in": "path",
    "name": "version",
    "required": True,
    "schema": {"type": "string"},
    "description": "Number of a version, an alias, or `latest`.",
}
_REQUEST_ID = {
    "in": "header",
    "name": "X-Request-Id",
    "required": False,
    "schema": {"type": "string"},
    "description": "Comes back in the answer and stands in the log; made up when left out, or longer than 128.",
}
_EXTRAS = [
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
_WRONG = {
    "400": "The body is not whole or not JSON.",
    "404": "There is no such model or version; the answer names those there are.",
    "413": "The body is too large.",
    "415": "The Content-Type is not JSON.",
    "422": "The rows do not fit the model. Every fault is named, with its place and how to mend it.",
    "503": "No version of the model can answer.",
}


_OPEN = ("/", "/healthz", "/readyz", "/ping", "/v2/health/live", "/v2/health/ready")  # asked without a key


def document(snapshot: Snapshot, *, keys: bool = False) -> Json:
    """The whole document, as JSON knows it. `keys`: callers need one."""
    spec = APISpec(
        title="Forward Pass",
        version="1",
        openapi_version="3.1.0",
        plugins=[MarshmallowPlugin()],
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
    for status, text in _WRONG.items():
        retry = RETRY if status == "503" else {}
        spec.components.response(f"E{status}", {"description": text, **retry, **content(response_schemas.ErrorSchema)})
    for served in snapshot.default_versions:
        add_model(spec, served, [_REQUEST_ID], _EXTRAS, _WRONG)
    _add_general(spec)
    add_protocols(spec)
    found: Json = spec.to_dict()
    return _with_keys(found) if keys else found


def _with_keys(document: Json) -> Json:
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"key": []}]
    responses = document["components"]["responses"]
    challenge = header("WWW-Authenticate", "Which kind of key is expected.")
    for kind in "EP":
        error = {"content": responses[f"{kind}404"]["content"], **challenge}
        responses[f"{kind}401"] = {"description": "No key, or none that is known.", **error}
        responses[f"{kind}403"] = {"description": "A key without the scope that this needs.", **error}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if path in _OPEN:
                operation["security"] = []
            else:
                kind = "P" if uses_plain_error_body(path) else "E"
                operation["responses"] |= {
                    status: {"$ref": f"#/components/responses/{kind}{status}"} for status in ("401", "403")
                }
    return document


def _add_general(spec: APISpec) -> None:
    for path, parameters in (
        ("/predict", []),
        ("/models/{name}/predict", [_NAME]),
        ("/models/{name}/versions/{version}/predict", [_NAME, _VERSION]),
    ):
        spec.path(
            path,
            operations={
                "post": {
                    "tags": ["general"],
                    "summary": "Predictions",
                    "operationId": "predict" + "_by" * bool(parameters) + "".join(f"_{p['name']}" for p in parameters),
                    "parameters": [*parameters, *_EXTRAS, _REQUEST_ID],
                    "requestBody": {"required": True, **also(content(PredictSchema(1)), CSV, NPY)},
                    "responses": {
                        "200": {"description": "One for each row.", **content(response_schemas.AnswerSchema)},
                        **_wrong(),
                    },
                }
            },
        )
    for path, tag, text, schema, parameters in (
        ("/models", "general", "The models there are", response_schemas.ModelsSchema, []),
        ("/models/{name}", "general", "What a model takes and gives", response_schemas.ModelSchema, [_NAME]),
        (
            "/models/{name}/versions/{version}",
            "general",
            "What a version takes and gives",
            response_schemas.ModelSchema,
            [_NAME, _VERSION],
        ),
        ("/models/{name}/example", "general", "A body that is answered", response_schemas.ExampleSchema, [_NAME]),
        (
            "/models/{name}/versions/{version}/example",
            "general",
            "A body that is answered by a version",
            response_schemas.ExampleSchema,
            [_NAME, _VERSION],
        ),
        ("/healthz", "health", "Whether the process lives", response_schemas.HealthSchema, []),
        ("/readyz", "health", "Whether a model can answer, and what is amiss", response_schemas.ReadySchema, []),
    ):
        responses: Json = {"200": {"description": "Yes.", **content(schema)}}
        if parameters:
            responses |= {status: f"E{status}" for status in ("404", "503")}
        if path == "/readyz":
            responses["503"] = {"description": "No.", **content(schema)}
        operation = {"tags": [tag], "summary": text, "parameters": parameters, "responses": responses}
        spec.path(path, operations={"get": operation})
    metrics = {"200": {"description": "Prometheus's text format.", "content": {"text/plain": {}}}}
    spec.path("/metrics", operations={"get": {"tags": ["health"], "summary": "Figures", "responses": metrics}})


def _wrong() -> Json:
    return {status: f"E{status}" for status in _WRONG}
