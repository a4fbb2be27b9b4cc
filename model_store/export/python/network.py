"""The network of an exported file: one line for each layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from model_store.nn import (
    Average,
    AveragePool2D,
    BatchNorm,
    Clip,
    ConstantInputs,
    Conv2D,
    Dropout,
    Embedding,
    Exp,
    FeatureScale,
    Flatten,
    Gather,
    LayerNorm,
    Linear,
    MaxPool2D,
    Module,
    ParametricActivation,
    PeriodicEmbedding,
    Sequential,
    Softmax,
)
from model_store.nn.layers.activations import ACTIVATIONS

# The functions of activations in `layers` have their names in job files.
_ACTIVATIONS: Mapping[type[Module], str] = {
    **{kind: name for name, kind in ACTIVATIONS.items()},
    Exp: "exp",
    Softmax: "softmax",
}


def _settings(module: Module) -> list[str]:
    """Return the fields of a layer's configuration."""
    return [repr(getattr(module, name)) for name in module.config_fields]


# The function of each layer in `layers`, and what it takes besides X and the layer's arrays: texts of values.
_LAYERS: Mapping[type[Module], tuple[str, Callable[[Any], list[str]]]] = {
    **{kind: (name, _settings) for kind, name in _ACTIVATIONS.items()},
    Linear: ("linear", lambda _: []),
    Conv2D: ("convolution", lambda one: [str(one.stride), str(one.padding)]),
    MaxPool2D: ("max_pool", lambda one: _settings(one)[1:]),
    AveragePool2D: ("average_pool", lambda one: _settings(one)[1:]),
    Gather: ("gather", lambda one: [repr(one.shape)]),
    Flatten: ("flatten", lambda _: []),
    BatchNorm: ("batch_norm", lambda one: [repr(one.epsilon)]),
    LayerNorm: ("layer_norm", lambda one: [repr(one.epsilon)]),
    ConstantInputs: ("constant_inputs", lambda _: []),
    FeatureScale: ("feature_scale", lambda _: []),
    ParametricActivation: ("parametric", lambda one: [_ACTIVATIONS[type(one.function)]]),
    Clip: ("clip", lambda _: []),
    Embedding: ("embedding", lambda one: [repr(list(one.positions)), repr(list(one.counts))]),
    PeriodicEmbedding: ("periodic_embedding", lambda one: [repr(list(one.positions))]),
}


def layer_names() -> frozenset[str]:
    """Return the types of layers that have a form in Python."""
    return frozenset(layer.__name__ for layer in (Average, Dropout, *_LAYERS))


def used_functions(network: Sequential) -> set[str]:
    """Return the functions of `layers` that the network needs."""
    found = set()
    for module in network.modules:
        if isinstance(module, Average):
            found |= {"average"}.union(*map(used_functions, module.members))
        elif type(module) in _LAYERS:
            found.add(_LAYERS[type(module)][0])
        if isinstance(module, ParametricActivation):
            found.add(_ACTIVATIONS[type(module.function)])
    return found


def network_functions(network: Sequential, name: str = "network", prefix: str = "") -> Iterator[str]:
    """Yield the source of the function `name`, after those of the members of its averages."""
    lines = []
    for i, module in enumerate(network.modules):
        location = f"{prefix}modules.{i}"
        if isinstance(module, Average):
            members = [f"{name}_{i}_member_{k}" for k in range(len(module.members))]
            for k, member in enumerate(module.members):
                yield from network_functions(member, members[k], f"{location}.members.{k}.")
            lines.append(f"x = average([{', '.join(f'{one}(x)' for one in members)}])")
        elif not isinstance(module, Dropout):  # in training only
            function, others = _LAYERS[type(module)]
            values = [*(f'ARRAYS["{location}.{array}"]' for array in module.arrays()), *others(module)]
            lines.append(f"x = {function}({', '.join(['x', *values])})")
    if network.input_shape is not None and len(network.input_shape) > 1:
        lines.insert(0, f"x = x.reshape(-1, {', '.join(map(str, network.input_shape))})")
    body = "".join(f"    {line}\n" for line in lines)
    yield (
        f"def {name}(x: Array) -> Array:\n"
        f'    """Return the outputs (n, {network.output_size}) of encoded rows (n, {network.input_size})."""\n'
        f"{body}    return x"
    )
