"""Layers as C: the function of each in C99, and the lines of `predict` that call it.

Values of one row are flat; an image is row by row, its channels last, as in the network itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from model_store.export.base import ExportError
from model_store.export.c.code import Code, Values
from model_store.nn import (
    Average,
    BatchNorm,
    Clip,
    ConstantInputs,
    Conv2D,
    Dropout,
    Embedding,
    Exp,
    FeatureScale,
    Flatten,
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

_FUNCTIONS: Mapping[str, str] = {
    "linear": """\
/* y = W x + b */
static void linear(const real *x, size_t inputs, real *y, size_t outputs, const real *weights, const real *bias) {
    for (size_t i = 0; i < outputs; i++) {
        real sum = 0;
        for (size_t j = 0; j < inputs; j++) sum += weights[i * inputs + j] * x[j];
        y[i] = sum + bias[i];
    }
}
""",
    "convolve": """\
/* y[i, j, f] = b[f] + the sum of W[f, u, v, c] x[i stride + u - padding, j stride + v - padding, c] */
static void convolve(const real *x, size_t height, size_t width, size_t channels, real *y, size_t rows, size_t columns,
                     size_t filters, size_t kernel, size_t stride, size_t padding, const real *weights,
                     const real *bias) {
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < columns; j++)
            for (size_t f = 0; f < filters; f++) {
                real sum = 0;
                for (size_t u = 0; u < kernel; u++)
                    for (size_t v = 0; v < kernel; v++) {
                        size_t row = i * stride + u, column = j * stride + v;
                        if (row < padding || row >= padding + height) continue;
                        if (column < padding || column >= padding + width) continue;
                        const real *pixel = x + ((row - padding) * width + column - padding) * channels;
                        const real *weight = weights + ((f * kernel + u) * kernel + v) * channels;
                        for (size_t c = 0; c < channels; c++) sum += weight[c] * pixel[c];
                    }
                y[(i * columns + j) * filters + f] = sum + bias[f];
            }
}
""",
    "max_pool": """\
/* The largest value of each window, channel by channel. */
static void max_pool(const real *x, size_t width, size_t channels, real *y, size_t rows, size_t columns, size_t size,
                     size_t stride) {
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < columns; j++)
            for (size_t c = 0; c < channels; c++) {
                real largest = x[(i * stride * width + j * stride) * channels + c];
                for (size_t u = 0; u < size; u++)
                    for (size_t v = 0; v < size; v++) {
                        real value = x[((i * stride + u) * width + j * stride + v) * channels + c];
                        if (value > largest || isnan(value)) largest = value;
                    }
                y[(i * columns + j) * channels + c] = largest;
            }
}
""",
    "normalize_batch": """\
/* x = (x - mean) factor + shift, factor = scale / sqrt(variance + epsilon) */
static void normalize_batch(real *x, size_t count, size_t size, const real *mean, const real *factor,
                            const real *shift) {
    for (size_t i = 0; i < count; i++, x += size)
        for (size_t j = 0; j < size; j++) x[j] = (x[j] - mean[j]) * factor[j] + shift[j];
}
""",
    "normalize_layer": """\
/* x = (x - mean of x) / sqrt(variance of x + epsilon) scale + shift */
static void normalize_layer(real *x, size_t count, size_t size, real epsilon, const real *scale, const real *shift) {
    for (size_t i = 0; i < count; i++, x += size) {
        real first = x[0], mean = 0, variance = 0;
        for (size_t j = 0; j < size; j++) mean += (x[j] -= first) / (real)size;
        for (size_t j = 0; j < size; j++) variance += (x[j] - mean) * (x[j] - mean) / (real)size;
        variance = sqrt$F(variance + epsilon);
        for (size_t j = 0; j < size; j++) x[j] = (x[j] - mean) / variance * scale[j] + shift[j];
    }
}
""",
    "hold_constant": """\
/* x = value where the feature was constant in training */
static void hold_constant(real *x, size_t size, const unsigned char *constant, const real *values) {
    for (size_t i = 0; i < size; i++)
        if (constant[i]) x[i] = values[i];
}
""",
    "scale_features": """\
/* x = x scale */
static void scale_features(real *x, size_t size, const real *scale) {
    for (size_t i = 0; i < size; i++) x[i] *= scale[i];
}
""",
    "clip": """\
/* x = min(max(x, low), high) */
static void clip(real *x, size_t size, const real *low, const real *high) {
    for (size_t i = 0; i < size; i++) {
        if (x[i] < low[i]) x[i] = low[i];
        if (x[i] > high[i]) x[i] = high[i];
    }
}
""",
    "embed": """\
/* The other features, then a row of a table for the category at each of the positions. */
static void embed(const real *x, size_t inputs, real *y, size_t count, const uint32_t *positions,
                  const uint32_t *counts, size_t size, const real *weights) {
    size_t next = 0;
    for (size_t j = 0; j < inputs; j++) {
        if (next < count && positions[next] == j) next++;
        else *y++ = x[j];
    }
    for (size_t i = 0; i < count; i++) {
        real code = rint$F(x[positions[i]]), last = (real)(counts[i] - 1);
        if (!(code < last)) code = last;
        if (code < 0) code = 0;
        for (size_t j = 0; j < size; j++) *y++ = weights[(size_t)code * size + j];
        weights += counts[i] * size;
    }
}
""",
    "embed_periodic": """\
/* The other features, then cos(2 pi w x + b) V + c and x itself for the number x at each of the positions. */
static void embed_periodic(const real *x, size_t inputs, real *y, size_t count, const uint32_t *positions,
                           size_t waves, size_t size, const real *frequencies, const real *phases,
                           const real *weights, const real *bias) {
    size_t next = 0;
    for (size_t j = 0; j < inputs; j++) {
        if (next < count && positions[next] == j) next++;
        else *y++ = x[j];
    }
    for (size_t i = 0; i < count; i++, y += size) {
        real value = x[positions[i]];
        for (size_t j = 0; j + 1 < size; j++) y[j] = 0;
        for (size_t k = 0; k < waves; k++) {
            real wave = cos$F(value * frequencies[i * waves + k] + phases[i * waves + k]);
            for (size_t j = 0; j + 1 < size; j++) y[j] += wave * weights[(i * waves + k) * (size - 1) + j];
        }
        for (size_t j = 0; j + 1 < size; j++) y[j] += bias[i * (size - 1) + j];
        y[size - 1] = value;
    }
}
""",
    "softmax": """\
/* x = e^(x - max x) / the sum of them */
static void softmax(real *x, size_t count, size_t size) {
    for (size_t i = 0; i < count; i++, x += size) {
        real largest = x[0], sum = 0;
        for (size_t j = 1; j < size; j++)
            if (x[j] > largest) largest = x[j];
        for (size_t j = 0; j < size; j++) sum += x[j] = exp$F(x[j] - largest);
        for (size_t j = 0; j < size; j++) x[j] /= sum;
    }
}
""",
    "activate": """\
static void activate(real *x, size_t size, real (*f)(real)) {
    for (size_t i = 0; i < size; i++) x[i] = f(x[i]);
}
""",
    "activate_in_part": """\
/* x = x + alpha (f(x) - x) */
static void activate_in_part(real *x, size_t size, real (*f)(real), const real *alpha) {
    for (size_t i = 0; i < size; i++) x[i] += alpha[i] * (f(x[i]) - x[i]);
}
""",
    "leaky_relu": """\
static void leaky_relu(real *x, size_t size, real slope) {
    for (size_t i = 0; i < size; i++)
        if (x[i] < 0) x[i] *= slope;
}
""",
    "add": """\
static void add(real *sum, const real *x, size_t size) {
    for (size_t i = 0; i < size; i++) sum[i] += x[i];
}
""",
    "divide": """\
static void divide(real *x, size_t size, real by) {
    for (size_t i = 0; i < size; i++) x[i] /= by;
}
""",
}
# The element-wise activations by the name of their class.
_ACTIVATIONS: Mapping[str, str] = {
    "Identity": "x",
    "Tanh": "tanh$F(x)",
    "Sigmoid": "1 / (1 + exp$F(-x))",
    "ReLU": "x < 0 ? 0 : x",
    "LeakyReLU": "x < 0 ? 0.01$F * x : x",  # as ParametricActivation has it
    "GELU": "0.5$F * x * (1 + tanh$F(0.7978845608028654$F * (x + 0.044715$F * x * x * x)))",
    "SELU": "1.0507009873554805$F * (x > 0 ? x : 1.6732632423543772$F * expm1$F(x))",
    "SmoothClip": "x * (1 / hypot$F(x / 3, 1))",
    "Exp": "exp$F(x)",
}
_MISH = """\
static real activation_Mish(real x) {
    real n = exp$F(x < 20 ? x : 20), p = n * (n + 2);
    return x * (p / (p + 2));
}
"""
_LIBRARY = {
    **_FUNCTIONS,
    **{
        f"activation_{name}": f"static real activation_{name}(real x) {{ return {body}; }}\n"
        for name, body in _ACTIVATIONS.items()
    },
    "activation_Mish": _MISH,
}


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
    return code.use(name, _LIBRARY)


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
    image, result = (", ".join(map(str, shape)) for shape in (module.input_shape, out.shape))
    sizes = f"{module.kernel}, {module.stride}, {module.padding}"
    call = f"{values.name}, {image}, {out.name}, {result}, {sizes}, {weights}, {bias}"
    code.run(f"{_function(code, 'convolve')}({call});")
    return out


def _max_pool(code: Code, module: MaxPool2D, values: Values, kept: frozenset[str], name: str) -> Values:
    del name
    out = code.buffer(module.output_shape(None), kept | {values.name})
    _, width, channels = module.input_shape
    rows, columns, _ = out.shape
    call = f"{values.name}, {width}, {channels}, {out.name}, {rows}, {columns}, {module.size}, {module.stride}"
    code.run(f"{_function(code, 'max_pool')}({call});")
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
    MaxPool2D: _max_pool,
    BatchNorm: _batch_norm,
    LayerNorm: _layer_norm,
    ConstantInputs: _constant_inputs,
    FeatureScale: _feature_scale,
    ParametricActivation: _parametric,
    Clip: _clip,
    Embedding: _embedding,
    PeriodicEmbedding: _periodic,
}
