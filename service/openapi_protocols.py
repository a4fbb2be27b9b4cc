"""The other protocols in the OpenAPI document: their addresses, and the forms that each of them prescribes."""

from __future__ import annotations

import re
from typing import Any

from apispec import APISpec

Json = dict[str, Any]


def _object(required: str = "", **properties: Json) -> Json:
    return {"type": "object", "required": required.split(), "properties": properties}


def _list(items: Json) -> Json:
    return {"type": "array", "items": items}


_TEXT: Json = {"type": "string"}
_FLAG: Json = {"type": "boolean"}
_ANY: Json = {}
_VERSION: Json = {"type": ["integer", "string", "null"]}
_OPTIONS: Json = {"type": ["object", "null"]}
_COUNT: Json = {"type": "integer", "minimum": 0}
_SHAPE = _list({"type": "integer"})
_TENSOR = _object("name datatype shape", name=_TEXT, datatype=_TEXT, shape=_SHAPE)
_DATA = _object("name datatype shape", name=_TEXT, datatype=_TEXT, shape=_SHAPE, data=_list(_ANY), parameters=_OPTIONS)
_INFER = _object(
    "inputs",
    id={"type": ["string", "null"]},
    parameters=_OPTIONS,
    inputs=_list(_DATA) | {"minItems": 1},
    outputs=_list(_object("name", name=_TEXT, parameters=_OPTIONS)) | {"type": ["array", "null"]},
)
_INFERRED = _object(
    "model_name model_version outputs", model_name=_TEXT, model_version=_TEXT, id=_TEXT, outputs=_list(_DATA)
)
_SERVER = _object("name version extensions", name=_TEXT, version=_TEXT, extensions=_list(_TEXT))
_HEALTH = _object("live ready", live=_FLAG, ready=_FLAG)
_MODEL = _object(
    "name versions platform inputs outputs",
    name=_TEXT,
    versions=_list(_TEXT),
    platform=_TEXT,
    inputs=_list(_TENSOR),
    outputs=_list(_TENSOR),
)
_CONFIG = _object(
    "name platform max_batch_size input output",
    name=_TEXT,
    platform=_TEXT,
    max_batch_size=_COUNT,
    input=_list(_object("name data_type dims")),
    output=_list(_object("name data_type dims")),
)
_STATISTICS = _object(
    "model_stats",
    model_stats=_list(
        _object(
            "name version inference_count execution_count inference_stats",
            name=_TEXT,
            version=_TEXT,
            inference_count=_COUNT,
            execution_count=_COUNT,
            inference_stats=_object("success compute_infer queue"),
        )
    ),
)
_STATE = _object("name version state reason", name=_TEXT, version=_TEXT, state=_TEXT, reason=_TEXT)
_PREDICT = _object(signature_name=_TEXT, instances=_list(_ANY), inputs=_ANY)
_STATUS = _object(
    "name ready model_version_status",
    name=_TEXT,
    ready=_FLAG,
    model_version_status=_list(_object("version state status", version=_TEXT, state=_TEXT, status=_object())),
)
_METADATA = _object("model_spec metadata", model_spec=_object("name version"), metadata=_object("signature_def"))
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
        _object("name ready", name=_TEXT, ready=_FLAG),
    ),
    (
        "open inference",
        "get",
        (f"{_V2}/example", f"{_VERSIONED}/example"),
        "A body that is answered",
        None,
        _object("inputs", inputs=_list(_DATA)),
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
        _object(ready=_FLAG),
        _list(_STATE),
    ),
    (
        "open inference",
        "post",
        ("/v2/repository/models/{name}/load", "/v2/repository/models/{name}/unload"),
        "Into service and out of it, where SERVE_ADMIN is on",
        _object(parameters=_object()),
        _object(),
    ),
    ("hosted", "get", ("/ping",), "Whether a model can answer", None, _object()),
    (
        "hosted",
        "post",
        ("/invocations",),
        "Predictions of the only model, or of the one that the body names",
        _object(
            "instances",
            model=_TEXT,
            version={"type": ["integer", "string", "null"]},
            instances=_list(_ANY) | {"minItems": 1},
            parameters=_ANY,
        ),
        _object("predictions", predictions=_list(_ANY)),
    ),
    (
        "tensorflow serving",
        "get",
        ("/v1/models",),
        "The models there are",
        None,
        _object("models", models=_list(_TEXT)),
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
        _object(predictions=_list(_ANY), outputs=_ANY),
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
    error = _object("error", error=_TEXT)
    for status, text in _WRONG.items():
        spec.components.response(f"P{status}", {"description": text, **_content(error)})
    for tag, method, paths, summary, asked, answered in _OPERATIONS:
        for path in paths:
            names = re.findall(r"\{(\w+)\}", path)
            wrong = _WRONG if asked is not None else {"404", "503"} if names else set()
            own = tag == "hosted"  # the platforms have no form for errors: they get ours
            operation: Json = {
                "tags": [tag],
                "summary": summary,
                "parameters": [{"in": "path", "name": name, "required": True, "schema": _TEXT} for name in names],
                "responses": {
                    "200": {"description": "Yes.", **_content(answered)},
                    **{status: f"{'E' if own else 'P'}{status}" for status in wrong},
                },
            }
            if asked is not None:
                operation["requestBody"] = {"required": "repository" not in path, **_content(asked)}
            if own and asked is not None:
                operation["responses"]["422"] = "E422"
            if path in {"/v2/health/ready", "/ping", *_V1}:
                operation["responses"]["503"] = {"description": "No.", **_content({"anyOf": [answered, error]})}
            spec.path(path, operations={method: operation})


def _content(schema: Json) -> Json:
    return {"content": {"application/json": {"schema": schema}}}
