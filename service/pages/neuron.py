"""The formula of one neuron with the numbers that it just computed.

Each explanation has the formula with symbols, the same with numbers, and the value that the layer computed; a sum also
has its terms, the largest first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from model_store.nn import Array, AveragePool2D, BatchNorm, Conv2D, Gather, LayerNorm, Linear, MaxPool2D, Softmax
from model_store.nn.average import Average
from model_store.nn.layers.activations import Activation
from model_store.nn.layers.conv import Flatten
from model_store.nn.layers.dropout import Dropout
from model_store.nn.layers.embeddings import Embedding, PeriodicEmbedding
from model_store.nn.layers.feature_layers import Clip, ConstantInputs, FeatureScale, ParametricActivation
from model_store.nn.layers.window import Window
from model_store.nn.module import Module
from service.pages.network import formula_of

_MAX_TERMS = 12
_MAX_EXPLAINED = 4  # a layer and the element-wise layers after it
Names = Sequence[str] | None
Explanation = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """A layer with the inputs and the outputs of one row, each with the batch axis.

    Of an `Average`, `members` has what each network gave for the neuron that was asked for.
    """

    module: Module
    inputs: Array
    outputs: Array
    members: Sequence[float] = ()


def belongs_to(found: Sequence[Explanation], module: Module) -> bool:
    """Return whether the next layer makes the activation of the neuron whose explanations were found so far."""
    return not found or (len(found) < _MAX_EXPLAINED and isinstance(module, Activation | Softmax | Dropout))


def explain(step: Step, names: Names, layer: int, neuron: int) -> Explanation:
    """Return the explanation of a neuron of one layer. `names` are those of the layer's inputs."""
    module, x, y = step.module, step.inputs[0], step.outputs[0]
    handler = next((found for kind, found in _HANDLERS.items() if isinstance(module, kind)), _explain_other)
    return {
        "layer": layer,
        "neuron": neuron,
        "type": type(module).__name__,
        "formula": formula_of(module),
        "value": float(y.flat[neuron]),
        **(_explain_average(step.members) if isinstance(module, Average) else handler(module, x, neuron, names)),
    }


def numeral(value: float) -> str:
    """Format a number for a formula: four decimals, or three digits if it is small or large."""
    value = float(value)
    if value.is_integer() and abs(value) < 1e5:
        text = f"{value:.0f}"
    elif abs(value) < 1e-3 or abs(value) >= 1e5:
        text = f"{value:.2e}"
    else:
        text = f"{value:.4f}"
    return text.replace("-", "−")


def _bracketed(value: float) -> str:
    return f"({numeral(value)})" if value < 0 else numeral(value)


def _sum(weights: Array, inputs: Array, name: Callable[[int], str], bias: float | None) -> Explanation:
    """Return a sum of products, the largest first, the small ones as one number. `name` is that of an input."""
    w, x = weights.ravel().astype(np.float64), inputs.ravel().astype(np.float64)
    products = w * x
    sizes = np.nan_to_num(np.abs(products), nan=np.inf)
    count = products.size if products.size <= _MAX_TERMS + 1 else _MAX_TERMS
    chosen = np.argpartition(-sizes, count - 1)[:count]
    chosen = chosen[np.argsort(-sizes[chosen], kind="stable")]
    terms = [
        {"name": name(i), "weight": float(w[i]), "input": float(x[i]), "product": float(products[i])}
        for i in chosen.tolist()
    ]
    parts = [f"{_bracketed(w[i])} · {_bracketed(x[i])}" for i in chosen[:3]]
    if products.size > 3:
        parts.append("…")
    if bias is not None:
        parts.append(_bracketed(bias))
    found: Explanation = {"numbers": " + ".join(parts), "terms": terms, "bias": bias}
    if count < products.size:
        found["others"] = {"count": products.size - count, "sum": float(np.delete(products, chosen).sum())}
    return found


def _name(names: Names, index: int) -> str:
    return names[index] if names is not None and index < len(names) else f"x{index + 1}"


def _explain_linear(module: Linear, x: Array, neuron: int, names: Names) -> Explanation:
    found = _sum(module.weights[neuron], x, lambda i: _name(names, i), float(module.bias[neuron]))
    return found | {"formula": "y = Σᵢ wᵢ xᵢ + b"}


def _explain_conv(module: Conv2D, x: Array, neuron: int, _: Names) -> Explanation:
    row, column, kernel = (int(i) for i in np.unravel_index(neuron, module.output_shape(None)))
    pixels, places = _window(module.window, x, row, column)
    channels = module.input_shape[2]

    def name(index: int) -> str:
        place, channel = divmod(index, channels)
        return places[place] + (f", channel {channel + 1}" if channels > 1 and places[place] != "border" else "")

    return {
        **_sum(module.weights[kernel], pixels, name, float(module.bias[kernel])),
        "formula": "y = Σ w[u, v, c] x[i + u, j + v, c] + b",
        "place": f"kernel {kernel + 1}, row {row + 1}, column {column + 1}",
    }


def _window(window: Window, x: Array, row: int, column: int) -> tuple[Array, list[str]]:
    """Return the pixels of one window (places, channels) with a border of zeros, and the place of each in the image."""
    pixels, places = np.zeros((window.places, window.channels), x.dtype), []
    for k, (u, v) in enumerate(window.offsets):
        i = row * window.stride[0] + u * window.dilation[0] - window.padding[0]
        j = column * window.stride[1] + v * window.dilation[1] - window.padding[1]
        is_inside = 0 <= i < window.image_height and 0 <= j < window.image_width
        places.append(f"row {i + 1}, column {j + 1}" if is_inside else "border")
        if is_inside:
            pixels[k] = x[i, j]
    return pixels, places


def _explain_pool(module: MaxPool2D | AveragePool2D, x: Array, neuron: int, _: Names) -> Explanation:
    row, column, channel = (int(i) for i in np.unravel_index(neuron, module.output_shape(None)))
    pixels, places = _window(module.window, x, row, column)
    counts_border = isinstance(module, AveragePool2D) and module.include_padding
    counted = [counts_border or place != "border" for place in places]
    values = pixels[counted, channel].tolist()
    more = ", …" if len(values) > 9 else ""
    name, formula = ("max", "the largest value") if isinstance(module, MaxPool2D) else ("mean", "the mean")
    return {
        "formula": f"y = {formula} of the window",
        "numbers": f"{name}({', '.join(map(numeral, values[:9]))}{more})",
        "place": f"channel {channel + 1}, row {row + 1}, column {column + 1}",
    }


def _explain_gather(module: Gather, x: Array, neuron: int, names: Names) -> Explanation:
    index = int(module.index[neuron])
    return {"formula": f"y = {_name(names if x.ndim == 1 else None, index)}", "numbers": numeral(x.flat[index])}


def _explain_flatten(module: Flatten, _x: Array, neuron: int, _: Names) -> Explanation:
    row, column, channel = (int(i) for i in np.unravel_index(neuron, module.input_shape))
    return {"formula": "y = x[row, column, channel]", "numbers": f"x[{row + 1}, {column + 1}, {channel + 1}]"}


def _explain_activation(module: Activation, x: Array, neuron: int, _names: Names) -> Explanation:
    value = x.flat[neuron]
    left, _, right = formula_of(module).partition(" = ")
    shown = f"tanh({numeral(value)})" if right == "tanh x" else f"f({numeral(value)})"
    return {"formula": f"y = {left} = {right}" if right else f"y = {left}", "numbers": shown}


def _explain_softmax(_: Module, x: Array, neuron: int, _names: Names) -> Explanation:
    row = x.reshape(-1, x.shape[-1])[neuron // x.shape[-1]].astype(np.float64) if x.shape[-1] > 1 else x.ravel()
    highest = float(row.max())
    total = float(np.exp(row - highest).sum())
    power = f"e^({numeral(x.flat[neuron])} − {_bracketed(highest)})"
    return {"formula": "yᵢ = e^(xᵢ − max x) / Σⱼ e^(xⱼ − max x)", "numbers": f"{power} / {numeral(total)}"}


def _explain_layer_norm(module: LayerNorm, x: Array, neuron: int, _: Names) -> Explanation:
    size = x.shape[-1]
    row, j = x.reshape(-1, size)[neuron // size].astype(np.float64), neuron % size
    return _normalized(module, float(x.flat[neuron]), j, float(row.mean()), float(row.var()))


def _explain_batch_norm(module: BatchNorm, x: Array, neuron: int, _: Names) -> Explanation:
    j = neuron % module.size
    return _normalized(
        module, float(x.flat[neuron]), j, float(module.running_mean[j]), float(module.running_variance[j])
    )


def _normalized(module: LayerNorm | BatchNorm, value: float, j: int, mean: float, variance: float) -> Explanation:
    sigma = math.sqrt(variance + module.epsilon)
    scale, shift = _bracketed(float(module.scale[j])), _bracketed(float(module.shift[j]))
    numbers = f"({numeral(value)} − {_bracketed(mean)}) / {numeral(sigma)} · {scale} + {shift}"
    return {"formula": "y = (x − mean) / σ · scale + shift", "numbers": numbers}


def _explain_scale(module: FeatureScale, x: Array, neuron: int, _: Names) -> Explanation:
    s = module.scale[neuron % module.size]
    return {"formula": "y = s x", "numbers": f"{_bracketed(s)} · {_bracketed(x.flat[neuron])}"}


def _explain_parametric(module: ParametricActivation, x: Array, neuron: int, _: Names) -> Explanation:
    value, alpha = x.flat[neuron], module.alpha[neuron % module.size]
    f = np.ravel(module.function(x[None]))[neuron]
    numbers = f"{_bracketed(value)} + {_bracketed(alpha)} · ({numeral(f)} − {_bracketed(value)})"
    return {"formula": f"y = x + α ({module.activation}(x) − x)", "numbers": numbers}


def _explain_clip(module: Clip, x: Array, neuron: int, _: Names) -> Explanation:
    j = neuron % module.size
    numbers = f"min(max({numeral(x.flat[neuron])}, {numeral(module.low[j])}), {numeral(module.high[j])})"
    return {"formula": "y = min(max(x, low), high)", "numbers": numbers}


def _explain_constant(module: ConstantInputs, x: Array, neuron: int, _: Names) -> Explanation:
    if module.constant[neuron % module.size]:
        return {"formula": "y = a constant, as in all training rows", "numbers": ""}
    return {"formula": "y = x", "numbers": numeral(x.flat[neuron])}


def _explain_embedding(module: Embedding | PeriodicEmbedding, x: Array, neuron: int, names: Names) -> Explanation:
    if neuron < module.others_size:
        index = int(np.flatnonzero(module.is_other())[neuron])
        return {"formula": f"y = {_name(names, index)}, passed on", "numbers": numeral(x[index])}
    which, k = divmod(neuron - module.others_size, module.embedded_size)
    position = module.positions[which]
    if isinstance(module, Embedding):
        row = int(module.table_rows(x[None])[0, which] - module.offsets[which])
        return {"formula": f"y = E[{_name(names, position)}], column {k}", "numbers": f"row {row} of its table"}
    value = float(x[position])
    if k == module.size - 1:
        return {"formula": f"y = {_name(names, position)}, the number itself", "numbers": numeral(value)}
    waves, phases = module.frequencies[which].astype(np.float64), module.phases[which].astype(np.float64)
    cosines = np.cos(2 * math.pi * waves * value + phases)
    bias = float(module.bias[which, k])
    found = _sum(
        module.weights[which, :, k],
        cosines,
        lambda i: f"cos(2π · {numeral(waves[i])} x + {_bracketed(phases[i])})",
        bias,
    )
    return found | {"formula": "y = Σ v cos(2π w x + b) + c"}


def _explain_average(members: Sequence[float]) -> Explanation:
    outputs = np.array(members)
    return _sum(np.full(len(outputs), 1 / len(outputs)), outputs, lambda i: f"network {i + 1}", None)


def _explain_dropout(_: Module, x: Array, neuron: int, _names: Names) -> Explanation:
    return {"formula": "y = x; it drops values in training only", "numbers": numeral(x.flat[neuron])}


def _explain_other(_: Module, _x: Array, _neuron: int, _names: Names) -> Explanation:
    return {"numbers": ""}


_HANDLERS: dict[type[Module], Callable[[Any, Array, int, Names], Explanation]] = {
    Linear: _explain_linear,
    Conv2D: _explain_conv,
    MaxPool2D: _explain_pool,
    AveragePool2D: _explain_pool,
    Gather: _explain_gather,
    Flatten: _explain_flatten,
    Activation: _explain_activation,
    Softmax: _explain_softmax,
    LayerNorm: _explain_layer_norm,
    BatchNorm: _explain_batch_norm,
    FeatureScale: _explain_scale,
    ParametricActivation: _explain_parametric,
    Clip: _explain_clip,
    ConstantInputs: _explain_constant,
    Embedding: _explain_embedding,
    PeriodicEmbedding: _explain_embedding,
    Dropout: _explain_dropout,
}
