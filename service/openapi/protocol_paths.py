"""The other protocols in the OpenAPI document: their addresses, and the forms that each of them prescribes."""

from __future__ import annotations

import re

from apispec import APISpec

from service.openapi.json_schema import BINARY, OPTIONS, RETRY, TEXT, VERSION, Json, also, content, list_of, object_of
from service.protocols.csv_npy import CSV, NPY

_FLAG: Json = {"type": "boolean"}
_ANY: Json = {}
_COUNT: Json = {"type": "integer", "minimum": 0}
_SHAPE = list_of({"type": "integer"})
_TENSOR = object_of("name datatype shape", name=TEXT, datatype=TEXT, shape=_SHAPE)
_DATA = object_of("name datatype shape", name=TEXT, datatype=TEXT, shape=_SHAPE, data=list_of(_ANY), parameters=OPTIONS)
_INFER = object_of(
    "inputs",
    id={"type": ["string", "null"]},
    parameters=OPTIONS,
    inputs=list_of(_DATA) | {"minItems": 1},
    outputs=list_of(object_of("name", name=TEXT, parameters=OPTIONS)) | {"type": ["array", "null"]},
)
_INFERRED = object_of(
    "model_name model_version outputs", model_name=TEXT, model_version=TEXT, id=TEXT, outputs=list_of(_DATA)
)
_SERVER = object_of("name version extensions", name=TEXT, version=TEXT, extensions=list_of(TEXT))
_HEALTH = object_of("live ready", live=_FLAG, ready=_FLAG)
_MODEL = object_of(
    "name versions platform inputs outputs",
    name=TEXT,
    versions=list_of(TEXT),
    platform=TEXT,
    inputs=list_of(_TENSOR),
    outputs=list_of(_TENSOR),
)
_CONFIG = object_of(
    "name platform max_batch_size input output",
    name=TEXT,
    platform=TEXT,
    max_batch_size=_COUNT,
    input=list_of(object_of("name data_type dims")),
    output=list_of(object_of("name data_type dims")),
)
_STATISTICS = object_of(
    "model_stats",
    model_stats=list_of(
        object_of(
            "name version inference_count execution_count inference_stats",
            name=TEXT,
            version=TEXT,
            inference_count=_COUNT,
            execution_count=_COUNT,
            inference_stats=object_of("success compute_infer queue"),
        )
    ),
)
_STATE = object_of("name version state reason", name=TEXT, version=TEXT, state=TEXT, reason=TEXT)
_PREDICT = object_of(signature_name=TEXT, instances=list_of(_ANY), inputs=_ANY)
_STATUS = object_of(
    "name ready model_version_status",
    name=TEXT,
    ready=_FLAG,
    model_version_status=list_of(object_of("version state status", version=TEXT, state=TEXT, status=object_of())),
)
_METADATA = object_of("model_spec metadata", model_spec=object_of("name version"), metadata=object_of("signature_def"))
_V1 = ("/v1/models/{name}", "/v1/models/{name}/versions/{version}", "/v1/models/{name}/labels/{version}")
_V2, _VERSIONED = "/v2/models/{name}", "/v2/models/{name}/versions/{version}"

# Tag, method, addresses, summary, form of the request, form of the answer.
_OPERATIONS: tuple[tuple[str, str, tuple[str, ...], str, Json | None, Json], ...] = (
    ("open inference", "get", ("/v2",), "The server and its extensions", None, _SERVER),
    ("open inference", "get", ("/v2/health/live", "/v2/health/ready"), "Health", None, _HEALTH),
    ("open inference", "get", (_V2, _VERSIONED), "The tensors a model takes and gives", None, _MODEL),
    (
        "open inference",
        "get",
        (f"{_V2}/ready", f"{_VERSIONED}/ready"),
        "Whether a model can answer",
        None,
        object_of("name ready", name=TEXT, ready=_FLAG),
    ),
    (
        "open inference",
        "get",
        (f"{_V2}/example", f"{_VERSIONED}/example"),
        "A body that is answered",
        None,
        object_of("inputs", inputs=list_of(_DATA)),
    ),
    ("open inference", "get", (f"{_V2}/config", f"{_VERSIONED}/config"), "Triton's configuration", None, _CONFIG),
    (
        "open inference",
        "get",
        ("/v2/models/stats", f"{_V2}/stats", f"{_VERSIONED}/stats"),
        "What was counted",
        None,
        _STATISTICS,
    ),
    ("open inference", "post", (f"{_V2}/infer", f"{_VERSIONED}/infer"), "Predictions as tensors", _INFER, _INFERRED),
    (
        "open inference",
        "post",
        ("/v2/repository/index",),
        "Models and their states, where SERVE_ADMIN is on",
        object_of(ready=_FLAG),
        list_of(_STATE),
    ),
    (
        "open inference",
        "post",
        ("/v2/repository/models/{name}/load", "/v2/repository/models/{name}/unload"),
        "Into service and out of it, where SERVE_ADMIN is on",
        object_of(parameters=object_of()),
        object_of(),
    ),
    ("hosted", "get", ("/ping",), "Whether a model can answer", None, object_of()),
    (
        "hosted",
        "post",
        ("/invocations",),
        "Predictions of the only model, or of the one that the body names",
        object_of(
            "instances",
            model=TEXT,
            version=VERSION,
            instances=list_of(_ANY) | {"minItems": 1},
            parameters=_ANY,
        ),
        object_of("predictions", predictions=list_of(_ANY)),
    ),
    (
        "tensorflow serving",
        "get",
        ("/v1/models",),
        "The models there are",
        None,
        object_of("models", models=list_of(TEXT)),
    ),
    ("tensorflow serving", "get", _V1, "The versions in memory and their states", None, _STATUS),
    (
        "tensorflow serving",
        "get",
        tuple(f"{path}/metadata" for path in _V1),
        "The tensors a model takes and gives",
        None,
        _METADATA,
    ),
    (
        "tensorflow serving",
        "post",
        tuple(f"{path}:predict" for path in _V1),
        "Predictions, by rows or by columns",
        _PREDICT,
        object_of(predictions=list_of(_ANY), outputs=_ANY),
    ),
)
_WRONG = {
    "400": "The body is not whole, not JSON, or does not fit the model; the text names every fault.",
    "404": "There is no such model or version.",
    "413": "The body is too large.",
    "415": "The Content-Type or Content-Encoding is none that is taken.",
    "503": "No version of the model can answer.",
}


def add_protocols(spec: APISpec) -> None:
    error = object_of("error", error=TEXT)
    for status, text in _WRONG.items():
        retry = RETRY if status == "503" else {}
        spec.components.response(f"P{status}", {"description": text, **retry, **content(error)})
    for tag, method, paths, summary, asked, answered in _OPERATIONS:
        for path in paths:
            names = re.findall(r"\{(\w+)\}", path)
            wrong = _WRONG if asked is not None else {"404", "503"} if names else set()
            own = tag == "hosted"  # the platforms have no form for errors: they get ours
            operation: Json = {
                "tags": [tag],
                "summary": summary,
                "parameters": [{"in": "path", "name": name, "required": True, "schema": TEXT} for name in names],
                "responses": {
                    "200": {"description": "Yes.", **content(answered)},
                    **{status: f"{'E' if own else 'P'}{status}" for status in wrong},
                },
            }
            if asked is not None:
                operation["requestBody"] = {"required": "repository" not in path, **content(asked)}
            if own and asked is not None:
                operation["responses"]["422"] = "E422"
                also(operation["requestBody"], CSV, NPY)
            if path.endswith("/infer"):
                also(operation["requestBody"], BINARY)
                also(operation["responses"]["200"], BINARY)
            if path in {"/v2/health/ready", "/ping", *_V1}:
                operation["responses"]["503"] = {"description": "No.", **content({"anyOf": [answered, error]})}
            spec.path(path, operations={method: operation})
