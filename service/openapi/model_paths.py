"""The endpoints of each model in the OpenAPI document, with exact schemas for every protocol.

JSON Schema cannot express that columns have equal lengths and tensors as many values as their shape.
"""

from __future__ import annotations

import math

from apispec import APISpec

from model_store.schema.columns import Column
from model_store.schema.signature import ClassificationOutput, MultiLabelOutput, RegressionOutput, Signature
from service.openapi.explanation_schemas import explain_parameters, explain_schema, explanation_schema
from service.openapi.json_schema import (
    PARAMETERS,
    STRING,
    VERSION,
    Json,
    add_octet_stream,
    array_schema,
    json_content,
    object_schema,
    ref,
)
from service.openapi.level_schemas import level_schemas
from service.openapi.parameters import (
    AT_LEAST_PARAMETER,
    ERROR_DESCRIPTIONS,
    LEVEL_PARAMETERS,
    QUERY_PARAMETERS,
    REQUEST_ID_PARAMETER,
    TOP_K_PARAMETER,
)
from service.protocols import tensors
from service.protocols.open_inference import range_specs
from service.protocols.tensors import TensorSpec
from service.registry.loaded_version import LoadedVersion

_INTEGER: Json = {"type": "integer"}
_DIMENSION: Json = {"type": "integer", "minimum": 1}
_EXPLANATION_TENSOR = object_schema(
    "name datatype shape data",
    name={"type": "string", "pattern": r"^(contributions|explained)\."},
    datatype={"enum": ["FP64", "BYTES"]},
    shape={"type": "array", "items": _DIMENSION},
    data=array_schema({}),
    parameters=PARAMETERS,
)


def add_model_paths(spec: APISpec, served: LoadedVersion) -> None:
    """Add the endpoints of one model."""
    name, signature, example = served.name, served.model.signature, served.example
    parameters = [REQUEST_ID_PARAMETER, AT_LEAST_PARAMETER]
    native_parameters, max_rows = [*QUERY_PARAMETERS, *parameters], served.max_rows
    if not isinstance(signature.output, RegressionOutput):
        native_parameters, max_rows = [TOP_K_PARAMETER, *native_parameters], served.row_limit.max_rows(top_k=1)
    if served.row_limit.explained_rows and served.model.baseline is not None:
        native_parameters += explain_parameters(signature)
    levels, ranges = level_schemas(served.model)
    native_parameters += [LEVEL_PARAMETERS[key] for key in levels]

    def component(part: str, schema: Json) -> Json:
        """Add a component, whose name is stable: clients name their classes after it."""
        spec.components.schemas[f"{name}.{part}"] = schema  # its `schema` would copy it
        return ref(f"{name}.{part}")

    instance = component("instance", _any_of(_instance_schemas(signature)))
    rows: Json = {"type": "array", "minItems": 1, "maxItems": served.max_rows, "items": instance}
    native_rows = rows | {"maxItems": max_rows}
    if max_rows > served.max_rows:
        native_rows["description"] = f"Without top_k at most {served.max_rows}."
    asked, explanations = {}, {}
    if served.row_limit.explained_rows:
        has_baseline = served.model.baseline is not None
        asked = {"explain": component("explain", explain_schema(signature, instance, has_baseline=has_baseline))}
        explanations = {"explanations": array_schema(component("explanation", explanation_schema(signature)))}
    request = object_schema(
        "instances",
        model={"enum": [name, None]},
        version=VERSION,
        instances=native_rows,
        **asked,
        **levels,
    ) | {"additionalProperties": False}
    predictions = array_schema(component("prediction", _prediction_schema(signature)))
    response = object_schema(
        "model version predictions",
        model={"const": name},
        version=_INTEGER,
        predictions=predictions,
        **explanations,
        **ranges,
        warnings=array_schema(ref("Fault")),
        receipt=ref("Receipt"),
    )
    rows_example = tensors_example = response_example = None
    if example is not None:
        rows_example = {"instances": [example.instance]}
        tensors_example = {"inputs": tensors.row_to_tensors(signature, example.instance)}
        response_example = {"model": name, "version": served.number, "predictions": [example.prediction]}

    def add(path: str, tag: str, prefix: str, request_body: Json, response_body: Json, errors: str) -> None:
        native = errors == "E"
        operation: Json = {
            "tags": [tag],
            "operationId": f"{prefix}_{name}",
            "summary": served.model.description or f"Predictions of {name}",
            "description": f"Uses version {served.number}.",
            "parameters": native_parameters if native else parameters,
            "requestBody": {"required": True, **request_body},
            "responses": {"200": {"description": "One prediction for each row.", **response_body}}
            | {status: f"{errors}{status}" for status in ERROR_DESCRIPTIONS if native or status != "422"},
        }
        if path.endswith("/infer"):
            add_octet_stream(operation["requestBody"])
            add_octet_stream(operation["responses"]["200"])
        spec.path(path, operations={"post": operation})

    request_body = json_content(component("request", request), rows_example)
    response_body = json_content(component("response", response), response_example)
    add(f"/models/{name}/predict", "models", "predict", request_body, response_body, "E")
    by_row, by_column, response = _tensorflow_serving_schemas(served, rows)
    either = {"oneOf": [component("v1.rows", by_row), component("v1.columns", by_column)]}
    request_body = json_content(component("v1.request", either), rows_example)
    response_body = json_content(component("v1.response", response))
    add(f"/v1/models/{name}:predict", "tensorflow serving", "v1", request_body, response_body, "P")
    if asked:
        forms = {"v1.explain.rows": by_row, "v1.explain.columns": by_column}
        with_key = {part: form | {"properties": form["properties"] | asked} for part, form in forms.items()}
        either = {"oneOf": [component(part, form) for part, form in with_key.items()]}
        with_explanations = {"allOf": [ref(f"{name}.v1.response"), object_schema("explanations", **explanations)]}
        request_body = json_content(component("v1.explain.request", either), rows_example)
        response_body = json_content(component("v1.explain.response", with_explanations))
        add(f"/v1/models/{name}:explain", "tensorflow serving", "v1_explain", request_body, response_body, "P")
    request, response = _open_inference_schemas(served)
    request_body = json_content(component("v2.request", request), tensors_example)
    response_body = json_content(component("v2.response", response))
    add(f"/v2/models/{name}/infer", "open inference", "v2", request_body, response_body, "P")


def _tensorflow_serving_schemas(served: LoadedVersion, rows: Json) -> tuple[Json, Json, Json]:
    """Return TensorFlow Serving's request by rows, its request by columns, and its response."""
    signature, columns = served.model.signature, {}
    levels, ranges = level_schemas(served.model)
    for column in signature.inputs:
        columns[column.name] = rows | {"items": _column_schema(column)}
    named = object_schema(_required_columns(signature), **columns) | {"additionalProperties": False}
    if len(columns) == 1 and not signature.inputs[0].is_whole_row:
        rows = rows | {"items": _any_of([rows["items"], _column_schema(signature.inputs[0])])}
    signature_name = {"enum": ["serving_default", "", None]}
    rows_request = object_schema("instances", signature_name=signature_name, instances=rows, **levels)
    columns_request = object_schema("inputs", signature_name=signature_name, inputs=named, **levels)
    output_schemas: dict[str, Json] = {}
    for tensor in tensors.output_specs(served.model):
        value: Json = {"type": "boolean" if tensor.datatype == "BOOL" else "number"}
        if tensor.name == "label" and isinstance(signature.output, ClassificationOutput):
            value = {"enum": list(signature.output.labels)}
        elif tensor.shape != (-1, 1):
            value = {"type": "array", "minItems": tensor.shape[1], "maxItems": tensor.shape[1], "items": value}
        output_schemas[tensor.name] = value
    several = len(output_schemas) > 1
    row = object_schema(list(output_schemas), **output_schemas) if several else next(iter(output_schemas.values()))
    by_column = {name: array_schema(value) for name, value in output_schemas.items()}
    outputs = object_schema(list(output_schemas), **by_column) if several else next(iter(by_column.values()))
    warnings = array_schema(ref("Fault"))
    response = object_schema("", predictions=array_schema(row), outputs=outputs, **ranges, warnings=warnings)
    return (
        rows_request | {"not": {"required": ["inputs"]}},
        columns_request | {"not": {"required": ["instances"]}},
        response | {"minProperties": 1, "maxProperties": 3 + len(ranges)},
    )


def _open_inference_schemas(served: LoadedVersion) -> tuple[Json, Json]:
    """Return the Open Inference Protocol's request and response with tensors in JSON."""
    signature = served.model.signature
    declared = tensors.input_specs(signature)
    files = [TensorSpec(column.name, "BYTES", (-1, 1)) for column in signature.inputs if column.takes_files]
    forms = [*declared, *files]
    table = tensors.table_spec(signature)
    inputs: Json = {"type": "array", "minItems": 1, "items": {"anyOf": [_tensor_schema(each) for each in forms]}}
    inputs |= {"maxItems": len(declared)}
    if table is not None:
        alone = {"type": "array", "minItems": 1, "maxItems": 1, "items": _tensor_schema(table)}
        inputs = {"anyOf": [inputs, alone]}
    outputs = tensors.output_specs(served.model)
    explained = [_EXPLANATION_TENSOR] if served.row_limit.explained_rows else []
    ranges = [_tensor_schema(each, is_response=True) for each in range_specs(served.model)]
    expected = object_schema("name", name={"enum": [each.name for each in outputs]}, parameters=PARAMETERS)
    request = object_schema(
        "inputs",
        id={"type": ["string", "null"]},
        parameters=PARAMETERS,
        inputs=inputs,
        outputs={"type": ["array", "null"], "items": expected},
    )
    response = object_schema(
        "model_name model_version outputs",
        model_name={"const": served.name},
        model_version=STRING,
        id=STRING,
        parameters=PARAMETERS,
        outputs=array_schema(
            {"anyOf": [*(_tensor_schema(each, is_response=True) for each in outputs), *ranges, *explained]}
        ),
    )
    return request, response


def _tensor_schema(tensor: tensors.TensorSpec, *, is_response: bool = False) -> Json:
    text = tensor.datatype == "BYTES"
    kinds = [each for each in tensors.DATATYPES if (each == "BYTES") == text]
    shapes = [tensor.shape]
    if not is_response and tensor.shape == (-1, 1):
        shapes.append((-1,))
    elif not is_response and len(tensor.shape) > 2:
        shapes.append((-1, math.prod(tensor.shape[1:])))
    return object_schema(
        "name datatype shape data",
        name={"const": tensor.name},
        datatype={"const": tensor.datatype} if is_response else {"enum": kinds},
        shape=_any_of([_shape_schema(shape) for shape in shapes]),
        data=array_schema({}),
        parameters=PARAMETERS,
    )


def _shape_schema(sizes: tuple[int, ...]) -> Json:
    """Return the schema of a shape; only its number of dimensions is fixed."""
    return {"type": "array", "items": _DIMENSION, "minItems": len(sizes), "maxItems": len(sizes)}


def _instance_schemas(signature: Signature) -> list[Json]:
    """Return the allowed formats of a row."""
    columns = signature.inputs
    first = columns[0]
    if first.is_whole_row:
        return first.value_schemas()
    required = _required_columns(signature)
    by_name = {
        "type": "object",
        "required": required,
        "additionalProperties": False,
        "properties": {column.name: _column_schema(column) for column in columns},
    } | ({} if required else {"minProperties": 1})
    in_order = {
        "type": "array",
        "prefixItems": [_column_schema(column) for column in columns],
        "minItems": len(columns),
        "maxItems": len(columns),
    }
    return [by_name, in_order]


def _required_columns(signature: Signature) -> list[str]:
    return [column.name for column in signature.inputs if column.fill is None]


def _column_schema(column: Column) -> Json:
    return _any_of(column.value_schemas())


def _prediction_schema(signature: Signature) -> Json:
    output = signature.output
    if not isinstance(output, RegressionOutput):
        names = [str(label) for label in output.labels]
        answer: Json = {"label": {"enum": list(output.labels)}}
        if isinstance(output, MultiLabelOutput):
            description = f"Those with a probability of at least {output.threshold:g}, in the order of the model."
            items = {"enum": names}
            answer = {"labels": {"type": "array", "uniqueItems": True, "items": items, "description": description}}
        probability = {"type": "number", "minimum": 0, "maximum": 1}
        return {
            "type": "object",
            "required": [*answer, "probabilities"],
            "properties": {
                **answer,
                "probabilities": {
                    "type": "object",
                    "description": "Of every label, or of the most probable ones with `top_k`.",
                    "minProperties": 1,
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
