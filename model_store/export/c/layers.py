"""Layers as C: the constants of each, and the lines of `predict` that call its function.

Values of one row are flat; an image is row by row, its channels last, as in the network itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from model_store.export.base import ExportError
from model_store.export.c.code import Code, Values
from model_store.export.c.layer_functions import LAYER_FUNCTIONS
from model_store.nn import (
    ELU,
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
    Identity,
    LayerNorm,
    LeakyReLU,
    Linear,
    MaxPool2D,
    Module,
    ParametricActivation,
    PeriodicEmbedding,
    Sequential,
    Softmax,
)
from model_store.nn.layers.activations import ACTIVATIONS
from model_store.nn.layers.window import Window
from model_store.nn.module import Shape


def layer_names() -> frozenset[str]:
    """Return the types of layers that have a form in C."""
    return frozenset({Average.__name__, *(layer.__name__ for layer in _LAYERS)})


def add_network(code: Code, network: Sequential, values: Values) -> Values:
    """Add the network's constants, functions and lines to the code; return where its outputs are.

    ExportError names the first layer that has no form in C.
    """
    return _add_modules(code, network, values, frozenset(), "modules")


def _add_modules(code: Code, network: Sequential, values: Values, kept: frozenset[str], location: str) -> Values:
    for i, module in enumerate(network.modules):
        here = f"{location}.{i}"
        if isinstance(module, Average) and type(module) is Average:
            values = _add_average(code, module, values, kept, here)
            continue
        add = _LAYERS.get(type(module))
        if add is None:
            raise ExportError(f"{here}: expected one of {', '.join(sorted(one.__name__ for one in _LAYERS))} for C; "
                              f"found {type(module).__name__}")  # fmt: skip
        values = add(code, module, values, kept, here.replace(".", "_"))
    return values


def _add_average(code: Code, module: Average, values: Values, kept: frozenset[str], here: str) -> Values:
    """Add the members, one after the other, and the mean of their outputs."""
    kept = kept | {values.name}
    first, *others = module.members
    total = code.writable(_add_modules(code, first, values, kept, f"{here}.members.0.modules"), kept)
    for i, member in enumerate(others, 1):
        one = _add_modules(code, member, values, kept | {total.name}, f"{here}.members.{i}.modules")
        code.run(f"{_function(code, 'add')}({total.name}, {one.name}, {total.size});")
    code.run(f"{_function(code, 'divide')}({total.name}, {total.size}, {len(module.members)});")
    return total


def _function(code: Code, name: str) -> str:
    return code.use(name, LAYER_FUNCTIONS)


def _constant(code: Code, value: float) -> str:
    return f"(real){float(code.dtype.type(value))!r}"


def _linear(code: Code, module: Linear, values: Values, kept: frozenset[str], name: str) -> Values:
    weights, bias = code.constant(f"{name}_weights", module.weights), code.constant(f"{name}_bias", module.bias)
    out = code.buffer((module.output_size,), kept | {values.name})
    call = f"{values.name}, {module.input_size}, {out.name}, {module.output_size}, {weights}, {bias}"
    code.run(f"{_function(code, 'linear')}({call});")
    return out


def _conv(code: Code, module: Conv2D, values: Values, kept: frozenset[str], name: str) -> Values:
    weights, bias = code.constant(f"{name}_weights", module.weights), code.constant(f"{name}_bias", module.bias)
    out = code.buffer(module.output_shape(None), kept | {values.name})
    sizes = code.constant(f"{name}_window", [*_window(module.window)], "size_t")
    call = f"{_images(module.input_shape, values, out)}, {module.filters}, {sizes}, {weights}, {bias}"
    code.run(f"{_function(code, 'convolve')}({call});")
    return out


def _window(window: Window) -> tuple[int, ...]:
    return (*window.size, *window.stride, *window.padding[:2])


def _images(shape: Shape, values: Values, out: Values) -> str:
    """Return the arguments of an image and of its result without the channels."""
    return f"{values.name}, {', '.join(map(str, shape))}, {out.name}, {out.shape[0]}, {out.shape[1]}"


def _pool(code: Code, module: MaxPool2D | AveragePool2D, values: Values, kept: frozenset[str], name: str) -> Values:
    out = code.buffer(module.output_shape(None), kept | {values.name})
    sizes = code.constant(f"{name}_window", [*_window(module.window), *module.window.dilation], "size_t")
    call = f"{_images(module.input_shape, values, out)}, {sizes}"
    if isinstance(module, MaxPool2D):
        code.run(f"{_function(code, 'max_pool')}({call});")
    else:
        count = module.window.places if module.include_padding else 0
        code.run(f"{_function(code, 'average_pool')}({call}, {count});")
    return out


def _gather(code: Code, module: Gather, values: Values, kept: frozenset[str], name: str) -> Values:
    index = code.constant(f"{name}_index", module.index.astype(np.uint32), "uint32_t")
    out = code.buffer(module.shape, kept | {values.name})
    code.run(f"{_function(code, 'gather')}({values.name}, {out.name}, {out.size}, {index});")
    return out


def _flatten(code: Code, module: Flatten, values: Values, kept: frozenset[str], name: str) -> Values:
    del code, module, kept, name
    return Values(values.name, (values.size,))


def _unchanged(code: Code, module: Module, values: Values, kept: frozenset[str], name: str) -> Values:
    del code, module, kept, name
    return values


def _batch_norm(code: Code, module: BatchNorm, values: Values, kept: frozenset[str], name: str) -> Values:
    factor = module.scale / np.sqrt(module.running_variance + module.epsilon)
    arrays = {"mean": module.running_mean, "factor": factor, "shift": module.shift}
    names = [code.constant(f"{name}_{key}", array) for key, array in arrays.items()]
    values = code.writable(values, kept)
    call = f"{values.name}, {values.size // module.size}, {module.size}, {', '.join(names)}"
    code.run(f"{_function(code, 'normalize_batch')}({call});")
    return values


def _layer_norm(code: Code, module: LayerNorm, values: Values, kept: frozenset[str], name: str) -> Values:
    names = [code.constant(f"{name}_{key}", array) for key, array in (("scale", module.scale), ("shift", module.shift))]
    values = code.writable(values, kept)
    sizes = f"{values.size // module.size}, {module.size}, {_constant(code, module.epsilon)}"
    code.run(f"{_function(code, 'normalize_layer')}({values.name}, {sizes}, {', '.join(names)});")
    return values


def _constant_inputs(code: Code, module: ConstantInputs, values: Values, kept: frozenset[str], name: str) -> Values:
    constant = code.constant(f"{name}_constant", (module.constant != 0).astype(int), "unsigned char")
    held = code.constant(f"{name}_values", module.values)
    values = code.writable(values, kept)
    code.run(f"{_function(code, 'hold_constant')}({values.name}, {values.size}, {constant}, {held});")
    return values


def _feature_scale(code: Code, module: FeatureScale, values: Values, kept: frozenset[str], name: str) -> Values:
    scale = code.constant(f"{name}_scale", module.scale)
    values = code.writable(values, kept)
    code.run(f"{_function(code, 'scale_features')}({values.name}, {values.size}, {scale});")
    return values


def _clip(code: Code, module: Clip, values: Values, kept: frozenset[str], name: str) -> Values:
    low, high = code.constant(f"{name}_low", module.low), code.constant(f"{name}_high", module.high)
    values = code.writable(values, kept)
    code.run(f"{_function(code, 'clip')}({values.name}, {values.size}, {low}, {high});")
    return values


def _embedding(code: Code, module: Embedding, values: Values, kept: frozenset[str], name: str) -> Values:
    positions = code.constant(f"{name}_positions", module.positions, "uint32_t")
    counts = code.constant(f"{name}_counts", module.counts, "uint32_t")
    weights = code.constant(f"{name}_weights", module.weights)
    out = code.buffer((module.output_size,), kept | {values.name})
    call = f"{values.name}, {module.input_size}, {out.name}, {len(module.positions)}, {positions}, {counts}"
    code.run(f"{_function(code, 'embed')}({call}, {module.size}, {weights});")
    return out


def _periodic(code: Code, module: PeriodicEmbedding, values: Values, kept: frozenset[str], name: str) -> Values:
    positions = code.constant(f"{name}_positions", module.positions, "uint32_t")
    arrays = {
        "frequencies": module.frequencies * module.dtype.type(2 * np.pi),
        "phases": module.phases,
        "weights": module.weights,
        "bias": module.bias,
    }
    names = [code.constant(f"{name}_{key}", array) for key, array in arrays.items()]
    out = code.buffer((module.output_size,), kept | {values.name})
    call = f"{values.name}, {module.input_size}, {out.name}, {len(module.positions)}, {positions}"
    code.run(f"{_function(code, 'embed_periodic')}({call}, {module.waves}, {module.size}, {', '.join(names)});")
    return out


def _softmax(code: Code, module: Softmax, values: Values, kept: frozenset[str], name: str) -> Values:
    del module, name
    values = code.writable(values, kept)
    code.run(f"{_function(code, 'softmax')}({values.name}, {values.size // values.shape[-1]}, {values.shape[-1]});")
    return values


def _activation(code: Code, module: Module, values: Values, kept: frozenset[str], name: str) -> Values:
    del name
    values = code.writable(values, kept)
    if isinstance(module, LeakyReLU):
        call = f"{values.name}, {values.size}, {_constant(code, module.slope)}"
        code.run(f"{_function(code, 'leaky_relu')}({call});")
        return values
    if isinstance(module, ELU):
        code.run(f"{_function(code, 'elu')}({values.name}, {values.size}, {_constant(code, module.alpha)});")
        return values
    function = _function(code, f"activation_{type(module).__name__}")
    code.run(f"{_function(code, 'activate')}({values.name}, {values.size}, {function});")
    return values


def _parametric(code: Code, module: ParametricActivation, values: Values, kept: frozenset[str], name: str) -> Values:
    alpha = code.constant(f"{name}_alpha", module.alpha)
    values = code.writable(values, kept)
    function = _function(code, f"activation_{type(module.function).__name__}")
    code.run(f"{_function(code, 'activate_in_part')}({values.name}, {values.size}, {function}, {alpha});")
    return values


_LAYERS: Mapping[type[Module], Callable[[Code, Any, Values, frozenset[str], str], Values]] = {
    **dict.fromkeys((*ACTIVATIONS.values(), Exp), _activation),
    Identity: _unchanged,
    Dropout: _unchanged,
    Flatten: _flatten,
    Softmax: _softmax,
    Linear: _linear,
    Conv2D: _conv,
    MaxPool2D: _pool,
    AveragePool2D: _pool,
    Gather: _gather,
    BatchNorm: _batch_norm,
    LayerNorm: _layer_norm,
    ConstantInputs: _constant_inputs,
    FeatureScale: _feature_scale,
    ParametricActivation: _parametric,
    Clip: _clip,
    Embedding: _embedding,
    PeriodicEmbedding: _periodic,
}
