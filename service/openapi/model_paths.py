"""Each model in the OpenAPI document: what exactly goes in and comes out, at its address in every protocol.

Only what no schema can say is left to the service: that columns are of one length, and tensors of the shape they claim.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from apispec import APISpec

from model_store.schema.columns import ArrayColumn, CategoryColumn, NumberColumn
from model_store.schema.signature import ClassificationOutput, InputColumn, Signature
from service.openapi.json_schema import BINARY, OPTIONS, TEXT, VERSION, Json, also, content, list_of, object_of
from service.protocols import tensors
from service.registry.column_stats import column_range
from service.registry.loaded_version import LoadedVersion

_WHOLE: Json = {"type": "integer"}
_SIZE: Json = {"type": "integer", "minimum": 1}


def add_model(
    spec: APISpec, served: LoadedVersion, parameters: list[Json], extras: list[Json], refusals: Mapping[str, str]
) -> None:
    """The addresses of one model; `parameters` and `refusals` are those of every address for predictions, `extras` are
    more parameters of our own.
    """
    name, signature, example = served.name, served.model.signature, served.example
    spec.components.schema(f"{name}.instance", _either(_instance(signature)))
    spec.components.schema(f"{name}.prediction", _prediction(signature))
    rows = {"type": "array", "minItems": 1, "items": _ref(f"{name}.instance")}
    request = object_of(
        "instances",
        model={"enum": [name, None]},
        version=VERSION,
        instances=rows,
    ) | {"additionalProperties": False}
    predictions = list_of(_ref(f"{name}.prediction"))
    answer = object_of(
        "model version predictions",
        model={"const": name},
        version=_WHOLE,
        predictions=predictions,
        warnings=list_of(_ref("Fault")),
        receipt=_ref("Receipt"),
    )
    answered = {"model": name, "version": served.number, "predictions": [example.prediction]}

    def add(path: str, tag: str, operation: str, asked: tuple[Json, Json], given: Json, refused: str) -> None:
        about: Json = {
            "tags": [tag],
            "operationId": f"{operation}_{name}",
            "summary": served.model.description or f"Predictions of {name}",
            "description": f"Version {served.number} answers.",
            "parameters": [*extras, *parameters] if refused == "E" else parameters,
            "requestBody": {"required": True, **content(*asked)},
            "responses": {"200": {"description": "One for each row.", **given}}
            | {status: f"{refused}{status}" for status in refusals if refused == "E" or status != "422"},
        }
        if path.endswith("/infer"):
            also(about["requestBody"], BINARY)
            also(about["responses"]["200"], BINARY)
        spec.path(path, operations={"post": about})

    instances = {"instances": [example.instance]}
    add(f"/models/{name}/predict", "models", "predict", (request, instances), content(answer, answered), "E")
    request, answer = _by_columns(served, rows)
    add(f"/v1/models/{name}:predict", "tensorflow serving", "v1", (request, instances), content(answer), "P")
    request, answer = _as_tensors(served)
    given = {"inputs": tensors.of_row(signature, example.instance)}
    add(f"/v2/models/{name}/infer", "open inference", "v2", (request, given), content(answer), "P")


def _by_columns(served: LoadedVersion, rows: Json) -> tuple[Json, Json]:
    """TensorFlow Serving's request, by rows or by columns, and its answer."""
    signature, columns = served.model.signature, {}
    for column in signature.inputs:
        columns[column.name] = {"type": "array", "minItems": 1, "items": _column(column)}
    named = object_of(_required(signature), **columns) | {"additionalProperties": False}
    if len(columns) == 1 and not isinstance(signature.inputs[0], ArrayColumn):
        rows = rows | {"items": _either([rows["items"], _column(signature.inputs[0])])}
    signature_name = {"enum": ["serving_default", "", None]}
    request = {
        "oneOf": [
            object_of("instances", signature_name=signature_name, instances=rows) | {"not": {"required": ["inputs"]}},
            object_of("inputs", signature_name=signature_name, inputs=named) | {"not": {"required": ["instances"]}},
        ]
    }
    one: dict[str, Json] = {}
    for tensor in tensors.outputs(served.model):
        value: Json = {"type": "number"}
        if tensor.name == "label" and isinstance(signature.output, ClassificationOutput):
            value = {"enum": list(signature.output.labels)}
        elif tensor.shape != (-1, 1):
            value = {"type": "array", "minItems": tensor.shape[1], "maxItems": tensor.shape[1], "items": value}
        one[tensor.name] = value
    several = len(one) > 1
    row = object_of(list(one), **one) if several else next(iter(one.values()))
    by_column = {name: list_of(value) for name, value in one.items()}
    outputs = object_of(list(one), **by_column) if several else next(iter(by_column.values()))
    answer = object_of(predictions=list_of(row), outputs=outputs)
    return request, answer | {"minProperties": 1, "maxProperties": 1}


def _as_tensors(served: LoadedVersion) -> tuple[Json, Json]:
    """The Open Inference Protocol's request and answer, for tensors in JSON."""
    signature = served.model.signature
    declared = tensors.inputs(signature)
    table = tensors.whole(signature)
    inputs: Json = {"type": "array", "minItems": 1, "items": {"anyOf": [_tensor(each) for each in declared]}}
    inputs |= {"maxItems": len(declared)}
    if table is not None:
        alone = {"type": "array", "minItems": 1, "maxItems": 1, "items": _tensor(table)}
        inputs = {"anyOf": [inputs, alone]}
    outputs = tensors.outputs(served.model)
    expected = object_of("name", name={"enum": [each.name for each in outputs]}, parameters=OPTIONS)
    request = object_of(
        "inputs",
        id={"type": ["string", "null"]},
        parameters=OPTIONS,
        inputs=inputs,
        outputs={"type": ["array", "null"], "items": expected},
    )
    answer = object_of(
        "model_name model_version outputs",
        model_name={"const": served.name},
        model_version=TEXT,
        id=TEXT,
        outputs=list_of({"anyOf": [_tensor(each, answered=True) for each in outputs]}),
    )
    return request, answer


def _tensor(tensor: tensors.Tensor, *, answered: bool = False) -> Json:
    text = tensor.datatype == "BYTES"
    kinds = [each for each in tensors.DATATYPES if (each == "BYTES") == text]
    shapes = [tensor.shape]
    if not answered and tensor.shape == (-1, 1):
        shapes.append((-1,))
    elif not answered and len(tensor.shape) > 2:
        shapes.append((-1, math.prod(tensor.shape[1:])))
    return object_of(
        "name datatype shape data",
        name={"const": tensor.name},
        datatype={"const": tensor.datatype} if answered else {"enum": kinds},
        shape=_either([_shape(shape) for shape in shapes]),
        data={"type": "array"},
        parameters=OPTIONS,
    )


def _shape(sizes: tuple[int, ...]) -> Json:
    """So many dimensions, of which the first counts the rows."""
    return {"type": "array", "items": _SIZE, "minItems": len(sizes), "maxItems": len(sizes)}


def _instance(signature: Signature) -> list[Json]:
    """The forms that a row may take."""
    columns = signature.inputs
    first = columns[0]
    if len(columns) == 1 and isinstance(first, ArrayColumn):
        return _arrays(first)
    by_name = {
        "type": "object",
        "required": _required(signature),
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


def _required(signature: Signature) -> list[str]:
    return [column.name for column in signature.inputs if getattr(column, "fill", None) is None]


def _column(column: InputColumn) -> Json:
    if isinstance(column, ArrayColumn):
        return _either(_arrays(column))
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
        "description": " ".join(part for part in (_seen(column), note) if part),
    }


def _seen(column: NumberColumn) -> str:
    known = column_range(column)
    low, high = known.get("min"), known.get("max")
    return "" if low is None or high is None else f"{low:g} to {high:g} in training."


def _arrays(column: ArrayColumn) -> list[Json]:
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


def _either(forms: list[Json]) -> Json:
    return {"anyOf": forms} if len(forms) > 1 else forms[0]


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}
