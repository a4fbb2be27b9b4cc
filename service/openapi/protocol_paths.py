"""The endpoints of the other protocols in the OpenAPI document, with the formats that they specify."""

from __future__ import annotations

import re

from apispec import APISpec

from service.openapi.json_schema import (
    OCTET_STREAM,
    PARAMETERS,
    RETRY_AFTER,
    STRING,
    VERSION,
    Json,
    add_media_types,
    array_schema,
    json_content,
    object_schema,
)
from service.protocols.csv_npy import CSV, NPY

_BOOLEAN: Json = {"type": "boolean"}
_ANY: Json = {}
_FAULT: Json = {"$ref": "#/components/schemas/Fault"}
_COUNT: Json = {"type": "integer", "minimum": 0}
_SHAPE = array_schema({"type": "integer"})
_TENSOR_METADATA = object_schema("name datatype shape", name=STRING, datatype=STRING, shape=_SHAPE)
_TENSOR_DATA = object_schema(
    "name datatype shape", name=STRING, datatype=STRING, shape=_SHAPE, data=array_schema(_ANY), parameters=PARAMETERS
)
_INFER_REQUEST = object_schema(
    "inputs",
    id={"type": ["string", "null"]},
    parameters=PARAMETERS,
    inputs=array_schema(_TENSOR_DATA) | {"minItems": 1},
    outputs=array_schema(object_schema("name", name=STRING, parameters=PARAMETERS)) | {"type": ["array", "null"]},
)
_INFER_RESPONSE = object_schema(
    "model_name model_version outputs",
    model_name=STRING,
    model_version=STRING,
    id=STRING,
    outputs=array_schema(_TENSOR_DATA),
)
_SERVER_METADATA = object_schema(
    "name version extensions", name=STRING, version=STRING, extensions=array_schema(STRING)
)
_HEALTH = object_schema("live ready", live=_BOOLEAN, ready=_BOOLEAN)
_MODEL_METADATA = object_schema(
    "name versions platform inputs outputs",
    name=STRING,
    versions=array_schema(STRING),
    platform=STRING,
    inputs=array_schema(_TENSOR_METADATA),
    outputs=array_schema(_TENSOR_METADATA),
)
_MODEL_CONFIG = object_schema(
    "name platform max_batch_size input output",
    name=STRING,
    platform=STRING,
    max_batch_size=_COUNT,
    input=array_schema(object_schema("name data_type dims")),
    output=array_schema(object_schema("name data_type dims")),
)
_STATISTICS = object_schema(
    "model_stats",
    model_stats=array_schema(
        object_schema(
            "name version inference_count execution_count inference_stats",
            name=STRING,
            version=STRING,
            inference_count=_COUNT,
            execution_count=_COUNT,
            inference_stats=object_schema("success compute_infer queue"),
        )
    ),
)
_REPOSITORY_ENTRY = object_schema("name version state reason", name=STRING, version=STRING, state=STRING, reason=STRING)
_TF_PREDICT_REQUEST = object_schema(signature_name=STRING, instances=array_schema(_ANY), inputs=_ANY)
_TF_MODEL_STATUS = object_schema(
    "name ready model_version_status",
    name=STRING,
    ready=_BOOLEAN,
    model_version_status=array_schema(
        object_schema("version state status", version=STRING, state=STRING, status=object_schema())
    ),
)
_TF_MODEL_METADATA = object_schema(
    "model_spec metadata", model_spec=object_schema("name version"), metadata=object_schema("signature_def")
)
_TF_MODEL_PATHS = ("/v1/models/{name}", "/v1/models/{name}/versions/{version}", "/v1/models/{name}/labels/{version}")
_V2_MODEL, _V2_VERSION = "/v2/models/{name}", "/v2/models/{name}/versions/{version}"

# Tag, method, paths, summary, schema of the request, schema of the response.
_OPERATIONS: tuple[tuple[str, str, tuple[str, ...], str, Json | None, Json], ...] = (
    ("open inference", "get", ("/v2",), "Server metadata and extensions", None, _SERVER_METADATA),
    ("open inference", "get", ("/v2/health/live", "/v2/health/ready"), "Health", None, _HEALTH),
    ("open inference", "get", (_V2_MODEL, _V2_VERSION), "Input and output tensors of a model", None, _MODEL_METADATA),
    (
        "open inference",
        "get",
        (f"{_V2_MODEL}/ready", f"{_V2_VERSION}/ready"),
        "Readiness of a model",
        None,
        object_schema("name ready", name=STRING, ready=_BOOLEAN),
    ),
    (
        "open inference",
        "get",
        (f"{_V2_MODEL}/example", f"{_V2_VERSION}/example"),
        "A valid request body",
        None,
        object_schema("inputs", inputs=array_schema(_TENSOR_DATA)),
    ),
    (
        "open inference",
        "get",
        (f"{_V2_MODEL}/config", f"{_V2_VERSION}/config"),
        "Model configuration in Triton's format",
        None,
        _MODEL_CONFIG,
    ),
    (
        "open inference",
        "get",
        ("/v2/models/stats", f"{_V2_MODEL}/stats", f"{_V2_VERSION}/stats"),
        "Statistics",
        None,
        _STATISTICS,
    ),
    (
        "open inference",
        "post",
        (f"{_V2_MODEL}/infer", f"{_V2_VERSION}/infer"),
        "Predictions as tensors",
        _INFER_REQUEST,
        _INFER_RESPONSE,
    ),
    (
        "open inference",
        "post",
        ("/v2/repository/index",),
        "Models and their states (requires SERVE_ADMIN)",
        object_schema(ready=_BOOLEAN),
        array_schema(_REPOSITORY_ENTRY),
    ),
    (
        "open inference",
        "post",
        ("/v2/repository/models/{name}/load", "/v2/repository/models/{name}/unload"),
        "Load or unload a model (requires SERVE_ADMIN)",
        object_schema(parameters=object_schema()),
        object_schema(),
    ),
    ("hosted", "get", ("/ping",), "Readiness", None, object_schema()),
    (
        "hosted",
        "post",
        ("/invocations",),
        "Predictions of the only model, or of the model named in the body",
        object_schema(
            "instances",
            model=STRING,
            version=VERSION,
            instances=array_schema(_ANY) | {"minItems": 1},
            parameters=_ANY,
        ),
        object_schema("predictions", predictions=array_schema(_ANY), warnings=array_schema(_FAULT)),
    ),
    (
        "tensorflow serving",
        "get",
        ("/v1/models",),
        "List of models",
        None,
        object_schema("models", models=array_schema(STRING)),
    ),
    ("tensorflow serving", "get", _TF_MODEL_PATHS, "Versions in memory and their states", None, _TF_MODEL_STATUS),
    (
        "tensorflow serving",
        "get",
        tuple(f"{path}/metadata" for path in _TF_MODEL_PATHS),
        "Input and output tensors of a model",
        None,
        _TF_MODEL_METADATA,
    ),
    (
        "tensorflow serving",
        "post",
        tuple(f"{path}:predict" for path in _TF_MODEL_PATHS),
        "Predictions from rows or columns",
        _TF_PREDICT_REQUEST,
        object_schema(predictions=array_schema(_ANY), outputs=_ANY, warnings=array_schema(_FAULT)),
    ),
)
_ERROR_DESCRIPTIONS = {
    "400": "The body is incomplete, not valid JSON, or invalid for the model. The text lists every error.",
    "404": "The model or version does not exist.",
    "413": "The body is too large.",
    "415": "The Content-Type or Content-Encoding is not supported.",
    "503": "No version of the model can predict now.",
}


def add_protocol_paths(spec: APISpec) -> None:
    error = object_schema("error", error=STRING)
    for status, text in _ERROR_DESCRIPTIONS.items():
        retry = RETRY_AFTER if status == "503" else {}
        spec.components.response(f"P{status}", {"description": text, **retry, **json_content(error)})
    for tag, method, paths, summary, request, response in _OPERATIONS:
        for path in paths:
            names = re.findall(r"\{(\w+)\}", path)
            errors = _ERROR_DESCRIPTIONS if request is not None else {"404", "503"} if names else set()
            own = tag == "hosted"  # the platforms specify no error format: ours is used
            operation: Json = {
                "tags": [tag],
                "summary": summary,
                "parameters": [{"in": "path", "name": name, "required": True, "schema": STRING} for name in names],
                "responses": {
                    "200": {"description": "Success.", **json_content(response)},
                    **{status: f"{'E' if own else 'P'}{status}" for status in errors},
                },
            }
            if request is not None:
                operation["requestBody"] = {"required": "repository" not in path, **json_content(request)}
            if own and request is not None:
                operation["responses"]["422"] = "E422"
                add_media_types(operation["requestBody"], CSV, NPY)
            if path.endswith("/infer"):
                add_media_types(operation["requestBody"], OCTET_STREAM)
                add_media_types(operation["responses"]["200"], OCTET_STREAM)
            if path in {"/v2/health/ready", "/ping", *_TF_MODEL_PATHS}:
                operation["responses"]["503"] = {
                    "description": "Not ready.",
                    **json_content({"anyOf": [response, error]}),
                }
            spec.path(path, operations={method: operation})
