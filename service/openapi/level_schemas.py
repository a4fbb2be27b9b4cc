"""The schemas of intervals, sets of labels and thresholds in the OpenAPI document."""

from __future__ import annotations

from model_store.artifact.model import Model
from model_store.schema.signature import ClassificationOutput, RegressionOutput
from service.openapi.json_schema import Json, array_schema, object_schema

_INTERVAL: Json = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
_LEVEL: Json = {"type": ["number", "null"], "exclusiveMinimum": 0, "exclusiveMaximum": 1}
_THRESHOLD: Json = _LEVEL | {"description": "The second label is predicted from this probability on."}
LEVEL_KEYS: dict[str, Json] = {"interval": _LEVEL, "set": _LEVEL, "threshold": _THRESHOLD}  # of a request for any model
RANGE_LISTS: dict[str, Json] = {"intervals": array_schema({}), "sets": array_schema(array_schema({}))}


def level_schemas(model: Model) -> tuple[dict[str, Json], dict[str, Json]]:
    """Return the keys of a request that this model accepts beside rows, and those of a response that they add."""
    output, conformal = model.signature.output, model.conformal
    asked: dict[str, Json] = {}
    found: dict[str, Json] = {}
    if isinstance(output, ClassificationOutput) and len(output.labels) == 2:
        asked["threshold"] = _THRESHOLD
    if conformal is None:
        return asked, found
    level: Json = {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": conformal.max_level}
    if isinstance(output, RegressionOutput):
        named = dict.fromkeys(output.names, _INTERVAL)
        interval = object_schema(list(named), **named) if len(named) > 1 else _INTERVAL
        asked["interval"] = level | {"description": "How often an interval holds the true value."}
        found["intervals"] = array_schema(interval)
    elif isinstance(output, ClassificationOutput):
        labels: Json = {"type": "array", "items": {"enum": list(output.labels)}, "minItems": 1, "uniqueItems": True}
        asked["set"] = level | {"description": "How often a set of labels holds the true one."}
        found["sets"] = array_schema(labels)
    return asked, found
