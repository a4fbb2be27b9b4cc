"""The schemas of explanations in the OpenAPI document: what a request asks for, and what a response has."""

from __future__ import annotations

from model_store.schema.columns import ArrayColumn, Column
from model_store.schema.signature import RegressionOutput, Signature
from service.openapi.json_schema import Json, object_schema
from service.openapi.parameters import EXPLAIN_PARAMETERS

_NUMBER: Json = {"type": "number"}


def explain_schema(signature: Signature, instance: Json, *, has_baseline: bool) -> Json:
    """Return the schema of a request's key `explain`. A model without a baseline needs one in the request."""
    baseline = {"anyOf": [instance, {"type": "null"}]} if has_baseline else instance
    named: dict[str, Json] = {_name_key(signature): {"enum": [*_names(signature), None]}}
    asked = object_schema("" if has_baseline else "baseline", **named, baseline=baseline)
    plain: Json = {"type": ["boolean", "null"]}
    if not has_baseline:  # an enum of values of two types is more than generators of clients understand
        plain["not"] = {"const": True}
    return {
        "description": "Explain each prediction: what each column contributed to the difference to a baseline.",
        "anyOf": [plain, asked | {"additionalProperties": False}],
    }


def explain_parameters(signature: Signature) -> list[Json]:
    """Return the parameters of the URL."""
    name = f"explain_{_name_key(signature)}"
    own: Json = {"type": "string", "enum": list(map(str, _names(signature)))}
    plain, *named = EXPLAIN_PARAMETERS
    return [plain, *(parameter | {"schema": own} for parameter in named if parameter["name"] == name)]


def explanation_schema(signature: Signature) -> Json:
    """Return the schema of the explanation of a row."""
    columns = {column.name: _contributions(column) for column in signature.inputs}
    required, key = ["baseline", "answer", "contributions", "residual"], _name_key(signature)
    named = {}
    if key == "label" or len(_names(signature)) > 1:
        required, named = [key, *required], {key: {"enum": _names(signature)}}
    return object_schema(
        required,
        **named,
        baseline=_NUMBER,
        answer=_NUMBER,
        contributions=object_schema(list(columns), **columns),
        residual=_NUMBER,
    )


def _contributions(column: Column) -> Json:
    schema = _NUMBER
    if isinstance(column, ArrayColumn):
        for size in reversed(column.shape):
            schema = {"type": "array", "minItems": size, "maxItems": size, "items": schema}
    return schema


def _name_key(signature: Signature) -> str:
    return "target" if isinstance(signature.output, RegressionOutput) else "label"


def _names(signature: Signature) -> list[str | int]:
    output = signature.output
    return list(output.names if isinstance(output, RegressionOutput) else output.labels)
