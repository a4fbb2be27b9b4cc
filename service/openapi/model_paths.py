"""Each model in the OpenAPI document: what exactly goes in and comes out, at its address in every protocol.

Only what no schema can say is left to the service: that columns are of one length, and tensors of the shape they claim.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from apispec import APISpec

from model_store.schema.columns import ArrayColumn, CategoryColumn, NumberColumn
from model_store.schema.signature import ClassificationOutput, InputColumn, Signature
from service.openapi.json_schema import (
    OCTET_STREAM,
    PARAMETERS,
    STRING,
    VERSION,
    Json,
    add_media_types,
    array_schema,
    json_content,
    object_schema,
)
from service.protocols import tensors
from service.registry.column_stats import column_range
from service.registry.loaded_version import LoadedVersion

_INTEGER: Json = {"type": "integer"}
_DIMENSION: Json = {"type": "integer", "minimum": 1}


def add_model_paths(
    spec: APISpec,
    served: LoadedVersion,
    parameters: list[Json],
    query_parameters: list[Json],
    error_descriptions: Mapping[str, str],
) -> None:
    """Add the endpoints of one model.

    `parameters` and `error_descriptions` apply to every prediction endpoint, `query_parameters` to the native one only.
    """
    name, signature, example = served.name, served.model.signature, served.example
    spec.components.schema(f"{name}.instance", _any_of(_instance_schemas(signature)))
    spec.components.schema(f"{name}.prediction", _prediction_schema(signature))
    rows = {"type": "array", "minItems": 1, "items": _ref(f"{name}.instance")}
    request = object_schema(
        "instances",
        model={"enum": [name, None]},
        version=VERSION,
        instances=rows,
    ) | {"additionalProperties": False}
    predictions = array_schema(_ref(f"{name}.prediction"))
    answer = object_schema(
        "model version predictions",
        model={"const": name},
        version=_INTEGER,
        predictions=predictions,
        warnings=array_schema(_ref("Fault")),
        receipt=_ref("Receipt"),
    )
    answered = {"model": name, "version": served.number, "predictions": [example.prediction]}

    def add(path: str, tag: str, operation: str, asked: tuple[Json, Json], given: Json, refused: str) -> None:
        about: Json = {
            "tags": [tag],
            "operationId": f"{operation}_{name}",
            "summary": served.model.description or f"Predictions of {name}",
            "description": f"Version {served.number} answers.",
            "parameters": [*query_parameters, *parameters] if refused == "E" else parameters,
            "requestBody": {"required": True, **json_content(*asked)},
            "responses": {"200": {"description": "One for each row.", **given}}
            | {status: f"{refused}{status}" for status in error_descriptions if refused == "E" or status != "422"},
        }
        if path.endswith("/infer"):
            add_media_types(about["requestBody"], OCTET_STREAM)
            add_media_types(about["responses"]["200"], OCTET_STREAM)
        spec.path(path, operations={"post": about})

    instances = {"instances": [example.instance]}
    add(f"/models/{name}/predict", "models", "predict", (request, instances), json_content(answer, answered), "E")
    request, answer = _tensorflow_serving_schemas(served, rows)
    add(f"/v1/models/{name}:predict", "tensorflow serving", "v1", (request, instances), json_content(answer), "P")
    request, answer = _open_inference_schemas(served)
    given = {"inputs": tensors.row_to_tensors(signature, example.instance)}
    add(f"/v2/models/{name}/infer", "open inference", "v2", (request, given), json_content(answer), "P")


def _tensorflow_serving_schemas(served: LoadedVersion, rows: Json) -> tuple[Json, Json]:
    """TensorFlow Serving's request, by rows or by columns, and its answer."""
    signature, columns = served.model.signature, {}
    for column in signature.inputs:
        columns[column.name] = {"type": "array", "minItems": 1, "items": _column_schema(column)}
    named = object_schema(_required_columns(signature), **columns) | {"additionalProperties": False}
    if len(columns) == 1 and not isinstance(signature.inputs[0], ArrayColumn):
        rows = rows | {"items": _any_of([rows["items"], _column_schema(signature.inputs[0])])}
    signature_name = {"enum": ["serving_default", "", None]}
    request = {
        "oneOf": [
            object_schema("instances", signature_name=signature_name, instances=rows)
            | {"not": {"required": ["inputs"]}},
            object_schema("inputs", signature_name=signature_name, inputs=named) | {"not": {"required": ["instances"]}},
        ]
    }
    one: dict[str, Json] = {}
    for tensor in tensors.output_specs(served.model):
        value: Json = {"type": "number"}
        if tensor.name == "label" and isinstance(signature.output, ClassificationOutput):
            value = {"enum": list(signature.output.labels)}
        elif tensor.shape != (-1, 1):
            value = {"type": "array", "minItems": tensor.shape[1], "maxItems": tensor.shape[1], "items": value}
        one[tensor.name] = value
    several = len(one) > 1
    row = object_schema(list(one), **one) if several else next(iter(one.values()))
    by_column = {name: array_schema(value) for name, value in one.items()}
    outputs = object_schema(list(one), **by_column) if several else next(iter(by_column.values()))
    answer = object_schema(predictions=array_schema(row), outputs=outputs)
    return request, answer | {"minProperties": 1, "maxProperties": 1}


def _open_inference_schemas(served: LoadedVersion) -> tuple[Json, Json]:
    """The Open Inference Protocol's request and answer, for tensors in JSON."""
    signature = served.model.signature
    declared = tensors.input_specs(signature)
    table = tensors.table_spec(signature)
    inputs: Json = {"type": "array", "minItems": 1, "items": {"anyOf": [_tensor_schema(each) for each in declared]}}
    inputs |= {"maxItems": len(declared)}
    if table is not None:
        alone = {"type": "array", "minItems": 1, "maxItems": 1, "items": _tensor_schema(table)}
        inputs = {"anyOf": [inputs, alone]}
    outputs = tensors.output_specs(served.model)
    expected = object_schema("name", name={"enum": [each.name for each in outputs]}, parameters=PARAMETERS)
    request = object_schema(
        "inputs",
        id={"type": ["string", "null"]},
        parameters=PARAMETERS,
        inputs=inputs,
        outputs={"type": ["array", "null"], "items": expected},
    )
    answer = object_schema(
        "model_name model_version outputs",
        model_name={"const": served.name},
        model_version=STRING,
        id=STRING,
        outputs=array_schema({"anyOf": [_tensor_schema(each, answered=True) for each in outputs]}),
    )
    return request, answer


def _tensor_schema(tensor: tensors.TensorSpec, *, answered: bool = False) -> Json:
    text = tensor.datatype == "BYTES"
    kinds = [each for each in tensors.DATATYPES if (each == "BYTES") == text]
    shapes = [tensor.shape]
    if not answered and tensor.shape == (-1, 1):
        shapes.append((-1,))
    elif not answered and len(tensor.shape) > 2:
        shapes.append((-1, math.prod(tensor.shape[1:])))
    return object_schema(
        "name datatype shape data",
        name={"const": tensor.name},
        datatype={"const": tensor.datatype} if answered else {"enum": kinds},
        shape=_any_of([_shape_schema(shape) for shape in shapes]),
        data={"type": "array"},
        parameters=PARAMETERS,
    )


def _shape_schema(sizes: tuple[int, ...]) -> Json:
    """So many dimensions, of which the first counts the rows."""
    return {"type": "array", "items": _DIMENSION, "minItems": len(sizes), "maxItems": len(sizes)}


def _instance_schemas(signature: Signature) -> list[Json]:
    """The forms that a row may take."""
    columns = signature.inputs
    first = columns[0]
    if len(columns) == 1 and isinstance(first, ArrayColumn):
        return _array_schemas(first)
    by_name = {
        "type": "object",
        "required": _required_columns(signature),
        "additionalProperties": False,
        "properties": {column.name: _column_schema(column) for column in columns},
    }
    in_order = {
        "type": "array",
        "prefixItems": [_column_schema(column) for column in columns],
        "minItems": len(columns),
        "maxItems": len(columns),
    }
    return [by_name, in_order]


def _required_columns(signature: Signature) -> list[str]:
    return [column.name for column in signature.inputs if getattr(column, "fill", None) is None]


def _column_schema(column: InputColumn) -> Json:
    if isinstance(column, ArrayColumn):
        return _any_of(_array_schemas(column))
    missing = column.fill is not None
    note = f"Missing: null stands for {column.fill}." if missing else ""
    if isinstance(column, CategoryColumn):
        form: Json = {"type": ["string", "null"] if missing else "string"}
        if column.unknown == "refuse":
            form["enum"] = [*column.categories, *([None] if missing else [])]
        else:
            form["examples"] = list(column.categories)
            note = f"Others than the examples are taken as unknown. {note}"
        return form | ({"description": note.strip()} if note else {})
    return {
        "type": ["number", "null"] if missing else "number",
        "description": " ".join(part for part in (_training_range(column), note) if part),
    }


def _training_range(column: NumberColumn) -> str:
    known = column_range(column)
    low, high = known.get("min"), known.get("max")
    return "" if low is None or high is None else f"{low:g} to {high:g} in training."


def _array_schemas(column: ArrayColumn) -> list[Json]:
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


def _prediction_schema(signature: Signature) -> Json:
    output = signature.output
    if isinstance(output, ClassificationOutput):
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


def _any_of(forms: list[Json]) -> Json:
    return {"anyOf": forms} if len(forms) > 1 else forms[0]


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}
