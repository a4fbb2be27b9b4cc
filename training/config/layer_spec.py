"""The layers of a job file: how `[network] layers` writes them.

A number is a dense layer of that size, a text an activation or another layer without settings, a table a layer with
settings: `{ conv = 16, kernel = 3 }`. Sizes of inputs follow from what comes before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from marshmallow import ValidationError, fields

from model_store.errors import Fault, did_you_mean
from model_store.nn import GELU, Identity, LeakyReLU, Module, ReLU, Sigmoid, Softmax, Tanh
from training.config.fields import Setting, faulty, named, number, shown, whole, whole_number

Layer = int | str | dict[str, Any]

ACTIVATIONS: dict[str, type[Module]] = {
    "tanh": Tanh,
    "relu": ReLU,
    "leaky_relu": LeakyReLU,
    "sigmoid": Sigmoid,
    "gelu": GELU,
    "identity": Identity,
}
OUTPUTS = {**ACTIVATIONS, "softmax": Softmax}
NAMES = [*ACTIVATIONS, "batch_norm", "layer_norm", "flatten"]
# A table is the layer whose key it has; the other keys may be left out.
TABLES: dict[str, dict[str, Setting]] = {
    "conv": {
        "conv": whole_number(1, 2**16),
        "kernel": whole_number(1, 255),
        "stride": whole_number(1, 255),
        "padding": whole_number(0, 255),
    },
    "pool": {"pool": whole_number(1, 255), "stride": whole_number(1, 255)},
    "dropout": {"dropout": number("a number from 0 to below 1", lambda rate: 0 <= rate < 1)},
}
_EXAMPLES = {"conv": "{ conv = 16, kernel = 3 }", "pool": "{ pool = 2 }", "dropout": "{ dropout = 0.5 }"}


class Layers(fields.Field[list[Layer]]):
    """Hidden layers: sizes, names, and tables of a layer with settings."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_: Any) -> list[Layer]:
        if not isinstance(value, list):
            raise faulty(f"expected a list such as [16, 'tanh']; found {shown(value)}")
        if wrong := {str(i): found for i, layer in enumerate(value) if (found := _faults(layer))}:
            raise ValidationError(wrong)
        return value


_WIDEST = 2**20


def _faults(layer: Any) -> Any:
    """What is wrong with a layer: faults, or faults by key, or nothing."""
    if isinstance(layer, dict):
        return _table_faults(layer)
    if layer in NAMES if isinstance(layer, str) else whole(layer, 1, _WIDEST):
        return []
    fix = ""
    if isinstance(layer, str):
        meant = layer if layer in TABLES else ""
        fix = f"write {_EXAMPLES[meant]}" if meant else did_you_mean(layer, [*NAMES, *TABLES])
    expected = f"a size from 1 to {_WIDEST}, one of {named(NAMES)}, or a table such as {_EXAMPLES['conv']}"
    return [Fault("", f"expected {expected}; found {shown(layer)}", fix)]


def _table_faults(table: dict[str, Any]) -> Any:
    kinds = [kind for kind in TABLES if kind in table]
    if len(kinds) != 1:
        problem = f"expected one of the keys {named(TABLES)} in a table; found {named(table) or 'none'}"
        fixes = [fix for key in table if (fix := did_you_mean(key, TABLES))]
        return [Fault("", problem, fixes[0] if fixes and not kinds else f"such as {_EXAMPLES['conv']}")]
    settings = TABLES[kinds[0]]
    wrong: dict[str, Any] = {}
    for key, value in table.items():
        if key not in settings:
            fix = did_you_mean(key, settings) or f"known keys: {', '.join(settings)}"
            wrong[key] = [Fault("", "unknown key", fix)]
            continue
        try:
            settings[key].deserialize(value)
        except ValidationError as error:
            wrong[key] = error.messages
    return wrong


def needs_images(layers: Sequence[Layer]) -> bool:
    return any(isinstance(layer, dict) and ("conv" in layer or "pool" in layer) for layer in layers)
