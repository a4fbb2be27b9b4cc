"""A model's network in the OpenAPI document: its layers, and the activations of a row."""

from __future__ import annotations

from apispec import APISpec

from service.openapi.json_schema import STRING, Json, array_schema, json_content, object_schema, ref
from service.openapi.parameters import NAME_PARAMETER, VERSION_PARAMETER

_COUNT: Json = {"type": "integer", "minimum": 0}
_SHAPE: Json = {"type": ["array", "null"], "items": _COUNT}
_NAMES: Json = {"type": ["array", "null"], "items": STRING}
_NUMBER: Json = {"type": ["number", "null"], "description": "null if it is not finite."}
_COMPONENTS: dict[str, Json] = {
    "WeightArray": object_schema(
        "name shape form",
        name=STRING,
        shape=array_schema(_COUNT),
        form={
            "enum": ["lines", "kernels", "map", "none"],
            "description": "map: each value is the one of largest size in a `block`. none: too many values.",
        },
        values={"type": "array", "items": {}, "description": "The weights with four digits, nested as in `shape`."},
        block=array_schema(_COUNT),
        largest={
            "type": "array",
            "items": array_schema({"type": "number"}),
            "description": "[output, input, weight] of the largest.",
        },
    ),
    "NetworkLayer": object_schema(
        "type formula member input_shape output_shape parameters names arrays",
        type=STRING,
        formula=STRING,
        member={"type": ["integer", "null"], "description": "The network of an ensemble that the layer belongs to."},
        input_shape=_SHAPE,
        output_shape=_SHAPE,
        parameters=_COUNT,
        names=_NAMES | {"description": "Of the values of the output, where they have names."},
        arrays=array_schema(ref("WeightArray")),
    ),
    "Network": object_schema(
        "model version dtype parameters members member input_shape input_names image_shape layers hidden_layers",
        model=STRING,
        version=_COUNT,
        dtype=STRING,
        parameters=_COUNT,
        members=_COUNT | {"description": "The number of networks of an ensemble; 1 for a single network."},
        member=_COUNT,
        input_shape=_SHAPE,
        input_names=_NAMES,
        image_shape=_SHAPE,
        layers=array_schema(ref("NetworkLayer")),
        hidden_layers=_COUNT | {"description": "The number of layers after those listed."},
    ),
    "LayerValues": object_schema(
        "shape values",
        shape=array_schema(_COUNT),
        values={"type": ["array", "null"], "items": _NUMBER, "description": "null: too many for one response."},
    ),
    "ActivationsRequest": object_schema(
        "instances",
        instances={"type": "array", "items": {}, "minItems": 1, "maxItems": 1, "description": "One row."},
        member=_COUNT | {"description": "The network of an ensemble whose layers are shown; 0 by default."},
        layer=_COUNT | {"description": "With `neuron`: explain this neuron. From 0, in the order of `layers`."},
        neuron=_COUNT | {"description": "From 0, in the order of the layer's `values`."},
    ),
    "Activations": object_schema(
        "model version predictions inputs layers",
        model=STRING,
        version=_COUNT,
        predictions={"type": "array", "items": {}},
        warnings={"type": "array", "items": {}},
        inputs=ref("LayerValues"),
        layers=array_schema(ref("LayerValues")),
        neuron={
            "type": "array",
            "items": {"type": "object"},
            "description": "The formula of the neuron with its numbers, and those of the activations after it.",
        },
    ),
}
_MEMBER_PARAMETER = {
    "in": "query",
    "name": "member",
    "required": False,
    "schema": _COUNT,
    "description": "The network of an ensemble, from 0.",
}


def add_network_paths(spec: APISpec) -> None:
    for name, schema in _COMPONENTS.items():
        spec.components.schema(name, schema)
    for prefix, path, parameters in (
        ("", "/models/{name}", [NAME_PARAMETER]),
        ("version_", "/models/{name}/versions/{version}", [NAME_PARAMETER, VERSION_PARAMETER]),
    ):
        network: Json = {
            "tags": ["general"],
            "summary": "Layers and weights of a network (requires SERVE_PAGES)",
            "operationId": f"get_{prefix}network",
            "parameters": [*parameters, _MEMBER_PARAMETER],
            "responses": {
                "200": {"description": "The network.", **json_content(ref("Network"))},
                **{status: f"E{status}" for status in ("404", "422", "503")},
            },
        }
        activations: Json = {
            "tags": ["general"],
            "summary": "The output of each layer for one row (requires SERVE_PAGES)",
            "operationId": f"get_{prefix}activations",
            "parameters": parameters,
            "requestBody": {"required": True, **json_content(ref("ActivationsRequest"))},
            "responses": {
                "200": {"description": "The activations.", **json_content(ref("Activations"))},
                **{status: f"E{status}" for status in ("400", "404", "413", "415", "422", "503")},
            },
        }
        spec.path(f"{path}/network", operations={"get": network})
        spec.path(f"{path}/activations", operations={"post": activations})
