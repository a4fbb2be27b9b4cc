"""The endpoints of the other protocols in the OpenAPI document, with the formats that they specify."""

from __future__ import annotations

import re

from apispec import APISpec

from service.openapi.json_schema import (
    PARAMETERS,
    RETRY_AFTER,
    STRING,
    TABLE_BODIES,
    VERSION,
    Json,
    add_octet_stream,
    array_schema,
    json_content,
    object_schema,
    ref,
)
from service.openapi.level_schemas import LEVEL_KEYS, RANGE_LISTS

_BOOLEAN: Json = {"type": "boolean"}
_ANY: Json = {}
_COUNT: Json = {"type": "integer", "minimum": 0}
_SIZES = array_schema({"type": "integer"})
_OBJECT = object_schema()
_STAGES = "success fail queue compute_input compute_infer compute_output cache_hit cache_miss"

# The components by name. Names are stable: clients name their classes after them.
_COMPONENTS: dict[str, Json] = {
    "ErrorText": object_schema("error", error=STRING),
    "Empty": _OBJECT,
    "V2Tensor": object_schema(
        "name datatype shape",
        name=STRING,
        datatype=STRING,
        shape=_SIZES,
        data=array_schema(_ANY),
        parameters=PARAMETERS,
    ),
    "V2RequestedOutput": object_schema("name", name=STRING, parameters=PARAMETERS),
    "V2InferRequest": object_schema(
        "inputs",
        id={"type": ["string", "null"]},
        parameters=PARAMETERS,
        inputs=array_schema(ref("V2Tensor")) | {"minItems": 1},
        outputs=array_schema(ref("V2RequestedOutput")) | {"type": ["array", "null"]},
    ),
    "V2InferResponse": object_schema(
        "model_name model_version outputs",
        model_name=STRING,
        model_version=STRING,
        id=STRING,
        parameters=PARAMETERS,
        outputs=array_schema(ref("V2Tensor")),
    ),
    "V2ServerMetadata": object_schema(
        "name version extensions", name=STRING, version=STRING, extensions=array_schema(STRING)
    ),
    "V2Health": object_schema("live ready", live=_BOOLEAN, ready=_BOOLEAN),
    "V2TensorMetadata": object_schema("name datatype shape", name=STRING, datatype=STRING, shape=_SIZES),
    "V2ModelMetadata": object_schema(
        "name versions platform inputs outputs",
        name=STRING,
        versions=array_schema(STRING),
        platform=STRING,
        inputs=array_schema(ref("V2TensorMetadata")),
        outputs=array_schema(ref("V2TensorMetadata")),
    ),
    "V2ModelReady": object_schema("name ready", name=STRING, ready=_BOOLEAN),
    "V2Example": object_schema("inputs", inputs=array_schema(ref("V2Tensor"))),
    "V2TensorConfig": object_schema(
        "name data_type dims", name=STRING, data_type=STRING, dims=_SIZES, labels=array_schema(STRING)
    ),
    "V2ModelConfig": object_schema(
        "name platform backend max_batch_size input output",
        name=STRING,
        platform=STRING,
        backend=STRING,
        max_batch_size=_COUNT,
        input=array_schema(ref("V2TensorConfig")),
        output=array_schema(ref("V2TensorConfig")),
    ),
    "V2Duration": object_schema("count ns", count=_COUNT, ns=_COUNT),
    "V2InferStatistics": object_schema(
        _STAGES,
        **dict.fromkeys(_STAGES.split(), ref("V2Duration")),
    ),
    "V2ModelStatistics": object_schema(
        "name version inference_count execution_count inference_stats batch_stats",
        name=STRING,
        version=STRING,
        inference_count=_COUNT,
        execution_count=_COUNT,
        inference_stats=ref("V2InferStatistics"),
        batch_stats=array_schema(_OBJECT),
    ),
    "V2Statistics": object_schema("model_stats", model_stats=array_schema(ref("V2ModelStatistics"))),
    "V2RepositoryQuery": object_schema(ready=_BOOLEAN),
    "V2RepositoryEntry": object_schema(
        "name version state reason", name=STRING, version=STRING, state=STRING, reason=STRING
    ),
    "V2RepositoryIndex": array_schema(ref("V2RepositoryEntry")),
    "V2RepositoryChange": object_schema(parameters=_OBJECT),
    "V1PredictRequest": object_schema(
        "", signature_name=STRING, instances=array_schema(_ANY), inputs=_ANY, **LEVEL_KEYS
    ),
    "V1PredictResponse": object_schema(
        "", predictions=array_schema(_ANY), outputs=_ANY, **RANGE_LISTS, warnings=array_schema(ref("Fault"))
    ),
    "V1ExplainRequest": object_schema(
        "",
        signature_name=STRING,
        instances=array_schema(_ANY),
        inputs=_ANY,
        explain={"type": ["boolean", "object", "null"]},
        **LEVEL_KEYS,
    ),
    "V1ExplainResponse": object_schema(
        "explanations",
        predictions=array_schema(_ANY),
        outputs=_ANY,
        explanations=array_schema(ref("Explanation")),
        **RANGE_LISTS,
        warnings=array_schema(ref("Fault")),
    ),
    "V1Models": object_schema("models", models=array_schema(STRING)),
    "V1Status": object_schema("error_code error_message", error_code=STRING, error_message=STRING),
    "V1VersionStatus": object_schema("version state status", version=STRING, state=STRING, status=ref("V1Status")),
    "V1ModelStatus": object_schema(
        "name ready model_version_status",
        name=STRING,
        ready=_BOOLEAN,
        model_version_status=array_schema(ref("V1VersionStatus")),
    ),
    "V1ModelSpec": object_schema("name signature_name version", name=STRING, signature_name=STRING, version=STRING),
    "V1SignatureDef": object_schema("signature_def", signature_def=_OBJECT),
    "V1Metadata": object_schema("signature_def", signature_def=ref("V1SignatureDef")),
    "V1ModelMetadata": object_schema("model_spec metadata", model_spec=ref("V1ModelSpec"), metadata=ref("V1Metadata")),
    "InvocationRequest": object_schema(
        "instances",
        model=STRING,
        version=VERSION,
        instances=array_schema(_ANY) | {"minItems": 1},
        parameters=_ANY,
        **LEVEL_KEYS,
    ),
    "InvocationResponse": object_schema(
        "predictions",
        predictions=array_schema(_ANY),
        explanations=array_schema(ref("Explanation")),
        **RANGE_LISTS,
        warnings=array_schema(ref("Fault")),
    ),
}
_TF_MODEL_PATHS = ("/v1/models/{name}", "/v1/models/{name}/versions/{version}", "/v1/models/{name}/labels/{version}")
_V2_MODEL, _V2_VERSION = "/v2/models/{name}", "/v2/models/{name}/versions/{version}"

# Tag, method, paths, summary, component of the request, component of the response.
_OPERATIONS: tuple[tuple[str, str, tuple[str, ...], str, str, str], ...] = (
    ("open inference", "get", ("/v2",), "Server metadata and extensions", "", "V2ServerMetadata"),
    ("open inference", "get", ("/v2/health/live", "/v2/health/ready"), "Health", "", "V2Health"),
    ("open inference", "get", (_V2_MODEL, _V2_VERSION), "Input and output tensors of a model", "", "V2ModelMetadata"),
    (
        "open inference",
        "get",
        (f"{_V2_MODEL}/ready", f"{_V2_VERSION}/ready"),
        "Readiness of a model",
        "",
        "V2ModelReady",
    ),
    (
        "open inference",
        "get",
        (f"{_V2_MODEL}/example", f"{_V2_VERSION}/example"),
        "A valid request body",
        "",
        "V2Example",
    ),
    (
        "open inference",
        "get",
        (f"{_V2_MODEL}/config", f"{_V2_VERSION}/config"),
        "Model configuration in Triton's format",
        "",
        "V2ModelConfig",
    ),
    (
        "open inference",
        "get",
        ("/v2/models/stats", f"{_V2_MODEL}/stats", f"{_V2_VERSION}/stats"),
        "Statistics",
        "",
        "V2Statistics",
    ),
    (
        "open inference",
        "post",
        (f"{_V2_MODEL}/infer", f"{_V2_VERSION}/infer"),
        "Predictions as tensors",
        "V2InferRequest",
        "V2InferResponse",
    ),
    (
        "open inference",
        "post",
        ("/v2/repository/index",),
        "Models and their states (requires SERVE_ADMIN)",
        "V2RepositoryQuery",
        "V2RepositoryIndex",
    ),
    (
        "open inference",
        "post",
        ("/v2/repository/models/{name}/load", "/v2/repository/models/{name}/unload"),
        "Load or unload a model (requires SERVE_ADMIN)",
        "V2RepositoryChange",
        "Empty",
    ),
    ("hosted", "get", ("/ping",), "Readiness", "", "Empty"),
    (
        "hosted",
        "post",
        ("/invocations",),
        "Predictions of the only model, or of the model named in the body",
        "InvocationRequest",
        "InvocationResponse",
    ),
    (
        "tensorflow serving",
        "get",
        ("/v1/models",),
        "List of models",
        "",
        "V1Models",
    ),
    ("tensorflow serving", "get", _TF_MODEL_PATHS, "Versions in memory and their states", "", "V1ModelStatus"),
    (
        "tensorflow serving",
        "get",
        tuple(f"{path}/metadata" for path in _TF_MODEL_PATHS),
        "Input and output tensors of a model",
        "",
        "V1ModelMetadata",
    ),
    (
        "tensorflow serving",
        "post",
        tuple(f"{path}:predict" for path in _TF_MODEL_PATHS),
        "Predictions from rows or columns",
        "V1PredictRequest",
        "V1PredictResponse",
    ),
    (
        "tensorflow serving",
        "post",
        tuple(f"{path}:explain" for path in _TF_MODEL_PATHS),
        "Predictions with what each column contributed",
        "V1ExplainRequest",
        "V1ExplainResponse",
    ),
)
_ERROR_DESCRIPTIONS = {
    "400": "The body is incomplete, not valid JSON, or invalid for the model. The text lists every error.",
    "404": "The model or version does not exist.",
    "413": "The body is too large, or has more rows than the model's limit.",
    "415": "The Content-Type or Content-Encoding is not supported.",
    "503": "No version of the model can predict now.",
}


def add_protocol_paths(spec: APISpec, request_id: Json, at_least: Json) -> None:
    """Add the endpoints. `request_id` is a parameter of all that have a body, `at_least` of all that predict."""
    for name, schema in _COMPONENTS.items():
        spec.components.schema(name, schema)
    error = ref("ErrorText")
    for status, text in _ERROR_DESCRIPTIONS.items():
        retry = RETRY_AFTER if status == "503" else {}
        spec.components.response(f"P{status}", {"description": text, **retry, **json_content(error)})
    for tag, method, paths, summary, request, response in _OPERATIONS:
        for path in paths:
            names = re.findall(r"\{(\w+)\}", path)
            errors = _ERROR_DESCRIPTIONS if request else {"404", "503"} if names else set()
            own = tag == "hosted"  # the platforms specify no error format: ours is used
            operation: Json = {
                "tags": [tag],
                "summary": summary,
                "operationId": f"{method}{re.sub(r'[^A-Za-z0-9]+', '_', path)}".rstrip("_"),
                "parameters": [{"in": "path", "name": name, "required": True, "schema": STRING} for name in names],
                "responses": {
                    "200": {"description": "Success.", **json_content(ref(response))},
                    **{status: f"{'E' if own else 'P'}{status}" for status in errors},
                },
            }
            if request:
                operation["parameters"].append(request_id)
                operation["parameters"] += [] if "repository" in path else [at_least]
                operation["requestBody"] = {"required": "repository" not in path, **json_content(ref(request))}
            if own and request:
                operation["responses"]["422"] = "E422"
                operation["description"] = TABLE_BODIES
            if path.endswith("/infer"):
                add_octet_stream(operation["requestBody"])
                add_octet_stream(operation["responses"]["200"])
            if path in {"/v2/health/ready", "/ping", *_TF_MODEL_PATHS}:
                operation["responses"]["503"] = {
                    "description": "Not ready.",
                    **json_content({"anyOf": [ref(response), error]}),
                }
            spec.path(path, operations={method: operation})
