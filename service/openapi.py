"""The OpenAPI document: every address, and for each model what exactly goes in and comes out.

The general addresses are described by the marshmallow schemas that check them; a model's own address by its signature.
"""

from __future__ import annotations

from typing import Any

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from marshmallow import Schema

from model_store.columns import Array, Category, Number
from model_store.signature import Classes, Input, Signature
from service import schemas
from service.catalog import Served, Snapshot
from service.openapi_protocols import add_protocols
from service.tables import CSV, NPY

Json = dict[str, Any]

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
_WRONG = {
    "400": "The body is not whole or not JSON.",
    "404": "There is no such model or version; the answer names those there are.",
    "413": "The body is too large.",
    "415": "The Content-Type is not JSON.",
    "422": "The rows do not fit the model. Every fault is named, with its place and how to mend it.",
    "503": "No version of the model can answer.",
}


def document(snapshot: Snapshot) -> Json:
    """The whole document, as JSON knows it."""
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
            {
                "name": "open inference",
                "description": "The Open Inference Protocol (V2) of Triton, KServe and MLServer.",
            },
        ],
    )
    for status, text in _WRONG.items():
        spec.components.response(f"E{status}", {"description": text, **_json_schema(schemas.ErrorSchema)})
    for served in snapshot.answering:
        _add_model(spec, served)
    _add_general(spec)
    add_protocols(spec)
    return spec.to_dict()


def _add_model(spec: APISpec, served: Served) -> None:
    name, signature = served.name, served.model.signature
    row = {"anyOf": _instance(signature)} if len(_instance(signature)) > 1 else _instance(signature)[0]
    spec.components.schema(f"{name}.instance", row)
    spec.components.schema(f"{name}.prediction", _prediction(signature))
    request: Json = {
        "type": "object",
        "required": ["instances"],
        "additionalProperties": False,
        "properties": {
            "model": {"enum": [name, None]},
            "version": {"type": ["integer", "string", "null"]},
            "instances": {"type": "array", "minItems": 1, "items": _ref(f"{name}.instance")},
        },
    }
    answer: Json = {
        "type": "object",
        "required": ["model", "version", "predictions"],
        "properties": {
            "model": {"const": name},
            "version": {"type": "integer"},
            "predictions": {"type": "array", "items": _ref(f"{name}.prediction")},
        },
    }
    example = served.example
    answered = {"model": name, "version": served.number, "predictions": [example.prediction]}
    spec.path(
        f"/models/{name}/predict",
        operations={
            "post": {
                "tags": ["models"],
                "operationId": f"predict_{name}",
                "summary": served.model.description or f"Predictions of {name}",
                "description": f"Version {served.number} answers.",
                "parameters": [_REQUEST_ID],
                "requestBody": {"required": True, **_json(request, {"instances": [example.instance]})},
                "responses": {"200": {"description": "One for each row.", **_json(answer, answered)}, **_wrong()},
            }
        },
    )


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
                    "parameters": [*parameters, _REQUEST_ID],
                    "requestBody": {"required": True, "content": _rows()},
                    "responses": {
                        "200": {"description": "One for each row.", **_json_schema(schemas.AnswerSchema)},
                        **_wrong(),
                    },
                }
            },
        )
    for path, tag, text, schema, parameters in (
        ("/models", "general", "The models there are", schemas.ModelsSchema, []),
        ("/models/{name}", "general", "What a model takes and gives", schemas.ModelSchema, [_NAME]),
        (
            "/models/{name}/versions/{version}",
            "general",
            "What a version takes and gives",
            schemas.ModelSchema,
            [_NAME, _VERSION],
        ),
        ("/models/{name}/example", "general", "A body that is answered", schemas.ExampleSchema, [_NAME]),
        (
            "/models/{name}/versions/{version}/example",
            "general",
            "A body that is answered by a version",
            schemas.ExampleSchema,
            [_NAME, _VERSION],
        ),
        ("/healthz", "health", "Whether the process lives", schemas.HealthSchema, []),
        ("/readyz", "health", "Whether a model can answer, and what is amiss", schemas.ReadySchema, []),
    ):
        responses: Json = {"200": {"description": "Yes.", **_json_schema(schema)}}
        if parameters:
            responses |= {status: f"E{status}" for status in ("404", "503")}
        if path == "/readyz":
            responses["503"] = {"description": "No.", **_json_schema(schema)}
        operation = {"tags": [tag], "summary": text, "parameters": parameters, "responses": responses}
        spec.path(path, operations={"get": operation})
    metrics = {"200": {"description": "Prometheus's text format.", "content": {"text/plain": {}}}}
    spec.path("/metrics", operations={"get": {"tags": ["health"], "summary": "Figures", "responses": metrics}})


def _instance(signature: Signature) -> list[Json]:
    """The forms that a row may take."""
    columns = signature.inputs
    first = columns[0]
    if len(columns) == 1 and isinstance(first, Array):
        return _arrays(first)
    by_name = {
        "type": "object",
        "required": [column.name for column in columns if getattr(column, "fill", None) is None],
        "additionalProperties": False,
        "properties": {column.name: _column(column) for column in columns},
    }
    in_order = {
        "type": "array",
        "prefixItems": [_column(column) for column in columns],
        "minItems": len(columns),
        "maxItems": len(columns),
    }
    return [by_name, in_order]


def _column(column: Input) -> Json:
    if isinstance(column, Array):
        return _arrays(column)[0]
    missing = column.fill is not None
    note = f"Missing: null stands for {column.fill}." if missing else ""
    if isinstance(column, Category):
        form: Json = {"type": ["string", "null"] if missing else "string"}
        if column.unknown == "refuse":
            form["enum"] = [*column.categories, *([None] if missing else [])]
        else:
            form["examples"] = list(column.categories)
            note = f"Others than the examples are taken as unknown. {note}"
        return form | ({"description": note.strip()} if note else {})
    return {
        "type": ["number", "null"] if missing else "number",
        "description": " ".join(part for part in (_seen(column), note) if part),
    }


def _seen(column: Number) -> str:
    low, high = column.statistics.get("min"), column.statistics.get("max")
    return "" if low is None or high is None else f"{low:g} to {high:g} in training."


def _arrays(column: Array) -> list[Json]:
    """Nested as the shape says, and flat."""
    number: Json = {"type": "number"}
    if column.low is not None:
        number["minimum"] = column.low
    if column.high is not None:
        number["maximum"] = column.high
    nested = number
    for size in reversed(column.shape):
        nested = {"type": "array", "minItems": size, "maxItems": size, "items": nested}
    flat = {"type": "array", "minItems": column.width, "maxItems": column.width, "items": number}
    return [nested] if len(column.shape) == 1 else [nested, flat]


def _prediction(signature: Signature) -> Json:
    output = signature.output
    if isinstance(output, Classes):
        names = [str(label) for label in output.labels]
        probability = {"type": "number", "minimum": 0, "maximum": 1}
        return {
            "type": "object",
            "required": ["label", "probabilities"],
            "properties": {
                "label": {"enum": list(output.labels)},
                "probabilities": {
                    "type": "object",
                    "required": names,
                    "properties": dict.fromkeys(names, probability),
                },
            },
        }
    if len(output.names) == 1:
        return {"type": "number", "description": output.names[0]}
    return {
        "type": "object",
        "required": list(output.names),
        "properties": {name: {"type": "number"} for name in output.names},
    }


def _wrong() -> Json:
    return {status: f"E{status}" for status in _WRONG}


def _json(schema: Json, example: Json) -> Json:
    return {"content": {"application/json": {"schema": schema, "examples": {"real": {"value": example}}}}}


def _json_schema(schema: Schema | type[Schema]) -> Json:
    return {"content": {"application/json": {"schema": schema}}}


def _rows() -> Json:
    """The bodies that rows may come in."""
    tables: Json = {media_type: {"schema": {"type": "string"}} for media_type in (CSV, NPY)}
    return {"application/json": {"schema": schemas.PredictSchema(1)}} | tables


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}
