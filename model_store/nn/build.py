"""From a list of layers, as a manifest or a job file has it, to a network. The table of types is closed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from model_store.nn.activations import GELU, Identity, LeakyReLU, ReLU, Sigmoid, Softmax, Tanh
from model_store.nn.linear import Linear
from model_store.nn.module import Module
from model_store.nn.sequential import Sequential
from model_store.nn.tape import Array

LAYERS: dict[str, type[Module]] = {
    layer.__name__: layer for layer in (Linear, Identity, Tanh, Sigmoid, ReLU, LeakyReLU, GELU, Softmax)
}
_FIELDS: dict[str, dict[str, type]] = {
    "Linear": {"input_size": int, "output_size": int},
    "LeakyReLU": {"slope": float},
}


def build(
    config: Sequence[Mapping[str, Any]],
    dtype: npt.DTypeLike = np.float32,
    *,
    arrays: Mapping[str, Array] | None = None,
    rng: np.random.Generator | None = None,
    initializer: str = "normal",
) -> Sequential:
    """The network that `config` (see `Sequential.config`) describes.

    With `arrays` (see `Sequential.arrays`) the network infers on those very arrays, uncopied; without, its
    parameters are drawn from `rng`. ValueError where a layer, a size or an array does not fit, naming the place.
    """
    modules: list[Module] = []
    wanted: dict[str, tuple[int, ...]] = {}
    width: int | None = None
    for i, layer in enumerate(config):
        place = f"modules.{i}"
        kind, fields = _checked(layer, place)
        if kind == "Linear":
            inputs, outputs = fields["input_size"], fields["output_size"]
            if width is not None and inputs != width:
                raise ValueError(f"{place}.input_size: wanted {width}, the width before it; found {inputs}")
            width = outputs
            wanted |= {f"{place}.weights": (outputs, inputs), f"{place}.bias": (outputs,)}
            if arrays is None:
                modules.append(Linear(inputs, outputs, dtype=dtype, rng=rng, initializer=initializer))
            else:
                modules.append(Linear.from_arrays(*(_array(arrays, name, wanted, dtype) for name in list(wanted)[-2:])))
        else:
            modules.append(LAYERS[kind](**fields))
    if width is None:
        raise ValueError("modules: wanted at least one Linear layer, found none")
    if arrays is not None and (unknown := sorted(arrays.keys() - wanted.keys())):
        raise ValueError(f"{unknown[0]}: wanted no such array, for no layer uses it")
    return Sequential(modules)


def _checked(layer: Any, place: str) -> tuple[str, dict[str, Any]]:
    kind = layer.get("type") if isinstance(layer, Mapping) else None
    if not isinstance(kind, str) or kind not in LAYERS:
        raise ValueError(f"{place}.type: wanted one of {', '.join(LAYERS)}; found {kind!r}")
    wanted = _FIELDS.get(kind, {})
    found = {name: value for name, value in layer.items() if name != "type"}
    if found.keys() != wanted.keys():
        raise ValueError(f"{place}: wanted the fields {sorted(wanted)} of a {kind}, found {sorted(found)}")
    for name, value in found.items():
        number = isinstance(value, int if wanted[name] is int else (int, float)) and not isinstance(value, bool)
        if not number or (wanted[name] is int and not 1 <= value <= 2**31):
            raise ValueError(f"{place}.{name}: wanted a positive {wanted[name].__name__}, found {value!r}")
    return kind, found


def _array(
    arrays: Mapping[str, Array], name: str, shapes: Mapping[str, tuple[int, ...]], dtype: npt.DTypeLike
) -> Array:
    if name not in arrays:
        raise ValueError(f"{name}: wanted an array of shape {shapes[name]}, found none")
    array = arrays[name]
    if array.shape != shapes[name]:
        raise ValueError(f"{name}: wanted {shapes[name]}, found {array.shape}")
    if array.dtype != np.dtype(dtype):
        raise ValueError(f"{name}: wanted {np.dtype(dtype)}, found {array.dtype}")
    return array
