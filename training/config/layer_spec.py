"""The layers of a job file: how `[network] layers` writes them, and the modules that they become.

A number is a dense layer of that size, a text an activation or another layer without settings, a table a layer with
settings: `{ conv = 16, kernel = 3 }`. Sizes of inputs follow from what comes before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from marshmallow import ValidationError, fields

from model_store.errors import Fault, did_you_mean
from model_store.nn import (
    GELU,
    BatchNorm,
    Conv2D,
    Dropout,
    Flatten,
    Identity,
    LayerNorm,
    LeakyReLU,
    Linear,
    MaxPool2D,
    Module,
    ReLU,
    Sigmoid,
    Softmax,
    Tanh,
)
from training.config.fields import Setting, faulty, named, number, shown, whole, whole_number
from training.errors import JobError

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
_RELU_FAMILY = (ReLU, LeakyReLU, GELU)


# What a job file may say ---------------------------------------------------------------------------------------------


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


# What it becomes -----------------------------------------------------------------------------------------------------


def needs_images(layers: Sequence[Layer]) -> bool:
    return any(isinstance(layer, dict) and ("conv" in layer or "pool" in layer) for layer in layers)


def modules(
    layers: Sequence[Layer],
    input_shape: tuple[int, ...],
    *,
    dtype: str,
    rng: np.random.Generator,
    initializer: str | None,
    source: str = "job",
) -> list[Module]:
    """The modules of these layers for samples of `input_shape`. JobError where a layer does not fit there.

    Images are flattened before the first dense layer. `rng` draws the weights and, later, what dropout drops; no
    initializer is he_normal before a ReLU and its kin, else glorot_uniform.
    """
    made: list[Module] = []
    shape = input_shape
    for i, layer in enumerate(layers):
        learned = {"dtype": np.dtype(dtype), "rng": rng, "initializer": initializer or _initializer(layers[i + 1 :])}
        if len(shape) > 1 and (isinstance(layer, int) or layer == "flatten"):
            made.append(Flatten(shape))
            shape = made[-1].output_shape(shape) or shape
        if layer == "flatten":
            continue
        try:
            made.append(_module(layer, shape, rng, learned))
            shape = made[-1].output_shape(shape) or shape
        except ValueError as error:
            raise JobError(source, [Fault(f"network.layers.{i}", str(error))]) from error
    return made


def _module(layer: Layer, shape: tuple[int, ...], rng: np.random.Generator, learned: dict[str, Any]) -> Module:
    if isinstance(layer, int):
        return Linear(shape[0], layer, **learned)
    if layer == "batch_norm":
        return BatchNorm(shape[-1], dtype=learned["dtype"])
    if layer == "layer_norm":
        return LayerNorm(shape[-1], dtype=learned["dtype"])
    if isinstance(layer, str):
        activation: Module = OUTPUTS[layer]()
        return activation
    if "dropout" in layer:
        return Dropout(layer["dropout"], rng=rng)
    kind = "conv" if "conv" in layer else "pool"
    if len(shape) == 1:
        raise ValueError(f"expected images for '{kind}'; found {shape[0]} values in a row")
    settings = {key: value for key, value in layer.items() if key != kind}
    if kind == "pool":
        return MaxPool2D(shape, layer["pool"], **settings)
    return Conv2D(shape, layer["conv"], **settings, **learned)


def _initializer(followers: Sequence[Layer]) -> str:
    """By the first activation that follows before other weights do."""
    for layer in followers:
        if isinstance(layer, int) or (isinstance(layer, dict) and "conv" in layer):
            break
        if isinstance(layer, str) and layer in OUTPUTS:
            return "he_normal" if OUTPUTS[layer] in _RELU_FAMILY else "glorot_uniform"
    return "glorot_uniform"
