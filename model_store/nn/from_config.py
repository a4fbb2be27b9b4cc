"""Build a network from a list of layers in a manifest or a job file. The table of types is closed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from model_store.nn.arrays import Array
from model_store.nn.average import Average
from model_store.nn.cost import MAX_ARRAY_BYTES, MAX_ROW_OPERATIONS
from model_store.nn.initializers import DEFAULT_INITIALIZER
from model_store.nn.layers.activations import ACTIVATIONS, Exp, Softmax
from model_store.nn.layers.conv import Conv2D, Flatten
from model_store.nn.layers.dropout import Dropout
from model_store.nn.layers.embeddings import Embedding, PeriodicEmbedding
from model_store.nn.layers.feature_layers import Clip, ConstantInputs, FeatureScale, ParametricActivation
from model_store.nn.layers.gather import Gather
from model_store.nn.layers.linear import Linear
from model_store.nn.layers.normalization import BatchNorm, LayerNorm
from model_store.nn.layers.pooling import AveragePool2D, MaxPool2D
from model_store.nn.module import Module
from model_store.nn.sequential import Sequential

_TYPES: list[type[Module]] = [Linear, *ACTIVATIONS.values(), Exp, Softmax]
_TYPES += [Conv2D, MaxPool2D, AveragePool2D, Flatten, Gather, Dropout, BatchNorm, LayerNorm, ConstantInputs]
_TYPES += [FeatureScale, ParametricActivation, Embedding, PeriodicEmbedding, Clip, Average]
LAYERS: dict[str, type[Module]] = {layer.__name__: layer for layer in _TYPES}


def build(
    config: Sequence[Mapping[str, Any]],
    dtype: npt.DTypeLike = np.float32,
    *,
    arrays: Mapping[str, Array] | None = None,
    rng: np.random.Generator | None = None,
    initializer: str = DEFAULT_INITIALIZER,
) -> Sequential:
    """Return the network that `config` (see `Sequential.config`) describes.

    With `arrays` (see `Sequential.arrays`) the network uses these arrays for inference, without a copy; otherwise `rng`
    draws its parameters. ValueError names the location of a layer, a size or an array that does not fit.
    """
    modules: list[Module] = []
    locations = None if arrays is None else _group_by_module(arrays)
    members = None if arrays is None else _group_by_member(arrays)
    for i, layer in enumerate(config):
        location = f"modules.{i}"
        kind, fields = _validate_layer(layer, location)
        if kind is Average:
            modules.append(_build_average(fields["members"], location, dtype, members, rng, initializer))
            continue
        own = None if locations is None else locations.get(location, {})
        given = {"dtype": dtype, "rng": rng, "initializer": initializer, "arrays": own}
        try:
            modules.append(kind(**fields, **{name: given[name] for name in kind.build_options}))
        except ValueError as error:
            raise ValueError(f"{location}.{str(error).removeprefix(f'{kind.__name__}.')}") from error
    if not any(module.parameters() for module in modules):
        raise ValueError("modules: expected at least one Linear layer, found none")
    network = Sequential(modules)
    if (found := network.row_cost.one_row_operations) > MAX_ROW_OPERATIONS:
        raise ValueError(f"modules: expected at most {MAX_ROW_OPERATIONS} operations a row, found {found}")
    if (found := network.row_cost.bytes) > MAX_ARRAY_BYTES:
        raise ValueError(f"modules: expected at most {MAX_ARRAY_BYTES} bytes of a row in an array, found {found}")
    if arrays is not None and (unknown := sorted(arrays.keys() - network.arrays().keys())):
        raise ValueError(f"{unknown[0]}: expected no such array, for no layer uses it")
    return network


def _build_average(
    members: Sequence[Sequence[Any]],
    location: str,
    dtype: npt.DTypeLike,
    arrays: Mapping[str, Mapping[str, Array]] | None,
    rng: np.random.Generator | None,
    initializer: str,
) -> Average:
    """Return the average of the networks `members`, none of which has another average inside.

    arrays: those of each member of any average, by its location.
    """
    networks = []
    for i, config in enumerate(members):
        prefix = f"{location}.members.{i}."
        for j, layer in enumerate(config):
            if isinstance(layer, Mapping) and layer.get("type") == Average.__name__:
                raise ValueError(f"{prefix}modules.{j}.type: expected no Average inside an Average")
        own = None if arrays is None else arrays.get(prefix, {})
        try:
            networks.append(build(config, dtype, arrays=own, rng=rng, initializer=initializer))
        except ValueError as error:
            raise ValueError(f"{prefix}{error}") from error
    try:
        return Average(networks)
    except ValueError as error:
        raise ValueError(f"{location}.{str(error).removeprefix('Average.')}") from error


def _validate_layer(layer: Any, location: str) -> tuple[type[Module], dict[str, Any]]:
    """Return a layer's class and its arguments from the configuration."""
    kind = layer.get("type") if isinstance(layer, Mapping) else None
    if not isinstance(kind, str) or kind not in LAYERS:
        raise ValueError(f"{location}.type: expected one of {', '.join(LAYERS)}; found {kind!r}")
    expected = LAYERS[kind].config_fields
    found = {name: value for name, value in layer.items() if name != "type"}
    if not expected.keys() - LAYERS[kind].newer_fields.keys() <= found.keys() <= expected.keys():
        raise ValueError(f"{location}: expected the fields {sorted(expected)} of a {kind}, found {sorted(found)}")
    for name, value in found.items():
        if not expected[name].accepts(value):
            raise ValueError(f"{location}.{name}: expected {expected[name].expected}, found {value!r}")
    return LAYERS[kind], found


def _group_by_module(arrays: Mapping[str, Array]) -> dict[str, dict[str, Array]]:
    """Return the arrays by the location of their module, then by their own name."""
    locations: dict[str, dict[str, Array]] = {}
    for name, array in arrays.items():
        location, _, own = name.rpartition(".")
        locations.setdefault(location, {})[own] = array
    return locations


def _group_by_member(arrays: Mapping[str, Array]) -> dict[str, dict[str, Array]]:
    """Return the arrays of averages by the location of their member, then by their name in it.

    One pass: to look for each member's arrays among all took 28 s for a file of 9,600.
    """
    members: dict[str, dict[str, Array]] = {}
    for name, array in arrays.items():
        words = name.split(".", 4)
        if len(words) == 5 and words[2] == "members":
            members.setdefault(f"{'.'.join(words[:4])}.", {})[words[4]] = array
    return members
