"""The layers of a job file: which values `[network] layers` accepts.

A number is a dense layer of that size, a string is an activation or another layer without settings, and a table is a
layer with settings: `{ conv = 16, kernel = 3 }`. Input sizes follow from the layer before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from marshmallow import ValidationError, fields

from model_store.errors import Fault, did_you_mean
from model_store.nn import Exp, Module, Softmax
from model_store.nn.layers.activations import ACTIVATIONS
from model_store.utils.values import describe_value
from training.config.fields import (
    CheckedField,
    ChoiceField,
    integer_field,
    is_integer_between,
    number_field,
    quoted,
    validation_error,
)

LayerSpec = int | str | dict[str, Any]

OUTPUT_ACTIVATIONS: dict[str, type[Module]] = {**ACTIVATIONS, "exp": Exp, "softmax": Softmax}
LAYER_NAMES = [*ACTIVATIONS, "batch_norm", "layer_norm", "flatten", "feature_scale"]
# The layer that a table describes is the key that it contains; its other keys are optional.
LAYER_TABLES: dict[str, dict[str, CheckedField]] = {
    "conv": {
        "conv": integer_field(1, 2**16),
        "kernel": integer_field(1, 255),
        "stride": integer_field(1, 255),
        "padding": integer_field(0, 255),
    },
    "pool": {"pool": integer_field(1, 255), "stride": integer_field(1, 255), "padding": integer_field(0, 255)},
    "average_pool": {
        "average_pool": integer_field(1, 255),
        "stride": integer_field(1, 255),
        "padding": integer_field(0, 255),
    },
    "dropout": {"dropout": number_field("a number from 0 to below 1", lambda rate: 0 <= rate < 1)},
    "parametric": {"parametric": ChoiceField(tuple(ACTIVATIONS))},
    "embedding": {"embedding": integer_field(1, 1024), "one_hot": integer_field(0, 2**16)},
    "periodic": {
        "periodic": integer_field(1, 1024),
        "size": integer_field(2, 1024),
        "sigma": number_field("a number above 0", lambda sigma: sigma > 0),
    },
}
_EXAMPLES = {
    "conv": "{ conv = 16, kernel = 3 }",
    "pool": "{ pool = 2 }",
    "average_pool": "{ average_pool = 2 }",
    "dropout": "{ dropout = 0.5 }",
    "parametric": "{ parametric = 'selu' }",
    "embedding": "{ embedding = 8 }",
    "periodic": "{ periodic = 16, size = 4, sigma = 0.1 }",
}
IMAGE_TABLES = ("conv", "pool", "average_pool")
DEFAULT_MAX_ONE_HOT = 9  # categories of a column that an embedding leaves one-hot
_MAX_LAYER_SIZE = 2**20


class LayersField(fields.Field[list[LayerSpec]]):
    """The hidden layers: sizes, names, and tables of layers with settings."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_: Any) -> list[LayerSpec]:
        if not isinstance(value, list):
            raise validation_error(f"expected a list such as [16, 'tanh'], found {describe_value(value)}")
        if faults := {str(i): found for i, layer in enumerate(value) if (found := _layer_faults(layer))}:
            raise ValidationError(faults)
        return value


def _layer_faults(layer: Any) -> Any:
    """Return the faults of a layer: a list, for a table by key; empty if it is valid."""
    if isinstance(layer, dict):
        return _table_faults(layer)
    if layer in LAYER_NAMES if isinstance(layer, str) else is_integer_between(layer, 1, _MAX_LAYER_SIZE):
        return []
    fix = ""
    if isinstance(layer, str):
        fix = (
            f"write {_EXAMPLES[layer]}" if layer in LAYER_TABLES else did_you_mean(layer, [*LAYER_NAMES, *LAYER_TABLES])
        )
    expected = (
        f"a size from 1 to {_MAX_LAYER_SIZE}, one of {quoted(LAYER_NAMES)}, or a table such as {_EXAMPLES['conv']}"
    )
    return [Fault("", f"expected {expected}, found {describe_value(layer)}", fix)]


def _table_faults(table: dict[str, Any]) -> Any:
    kinds = [kind for kind in LAYER_TABLES if kind in table]
    if len(kinds) != 1:
        problem = f"expected one of the keys {quoted(LAYER_TABLES)} in a table, found {quoted(table) or 'none'}"
        fixes = [fix for key in table if (fix := did_you_mean(key, LAYER_TABLES))]
        return [Fault("", problem, fixes[0] if fixes and not kinds else f"such as {_EXAMPLES['conv']}")]
    settings = LAYER_TABLES[kinds[0]]
    faults: dict[str, Any] = {}
    for key, value in table.items():
        if key not in settings:
            fix = did_you_mean(key, settings) or f"known keys: {', '.join(settings)}"
            faults[key] = [Fault("", "unknown key", fix)]
            continue
        try:
            settings[key].deserialize(value)
        except ValidationError as error:
            faults[key] = error.messages
    return faults


def needs_images(layers: Sequence[LayerSpec]) -> bool:
    """Return True if a layer takes images: a convolution or a pool."""
    return any(isinstance(layer, dict) and not layer.keys().isdisjoint(IMAGE_TABLES) for layer in layers)
