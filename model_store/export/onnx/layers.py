"""Layers as ONNX operators, by exact type: a function for each takes the input's name and returns the output's.

Formulas are those of `model_store.nn` in the network's type. Images stay (batch, height, width, channels); Conv and
MaxPool, which want channels first, stand between two transpositions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from onnx import TensorProto

from model_store.export.onnx.graph import Graph, Value
from model_store.nn import (
    ELU,
    GELU,
    SELU,
    Average,
    AveragePool2D,
    BatchNorm,
    Clip,
    ConstantInputs,
    Conv2D,
    Dropout,
    Embedding,
    ExactGELU,
    Exp,
    FeatureScale,
    Flatten,
    Gather,
    Identity,
    LayerNorm,
    LeakyReLU,
    Linear,
    MaxPool2D,
    Mish,
    ParametricActivation,
    PeriodicEmbedding,
    ReLU,
    Sequential,
    Sigmoid,
    SiLU,
    SmoothClip,
    Softmax,
    Softplus,
    Tanh,
)
from model_store.nn.layers.window import Window
from model_store.nn.module import Shape

_FAR = 1e9  # √(1 + x²) is |x| there, in float64, too


class Layers:
    """The layers of a network of `dtype`, appended to a graph."""

    def __init__(self, graph: Graph, dtype: Any) -> None:
        self.graph, self.dtype = graph, np.dtype(dtype)

    def network(self, network: Sequential, x: str, prefix: str) -> str:
        """Append a network's layers to rows (batch, features)."""
        if network.input_shape is not None and len(network.input_shape) > 1:
            x = self.graph.op("Reshape", x, np.array([-1, *network.input_shape]))
        for i, (layer, (shape, _)) in enumerate(zip(network.modules, network.shapes(), strict=True)):
            self.graph.scope = f"{prefix}/{i}.{type(layer).__name__}"
            x = _LAYERS[type(layer)](self, layer, x, shape)
        return x

    def op(self, kind: str, *inputs: Value | float, **attributes: Any) -> str:
        """Append a node; numbers are constants of the network's type."""
        values = [self.dtype.type(value) if isinstance(value, int | float) else value for value in inputs]
        return self.graph.op(kind, *values, **attributes)

    # Dense layers and images ------------------------------------------------------------------------------------------

    def linear(self, layer: Linear, x: str, _: Shape | None) -> str:
        return self.op("Gemm", x, layer.weights, layer.bias, transB=1)

    def flatten(self, layer: Flatten, x: str, _: Shape | None) -> str:
        return self.op("Reshape", x, np.array([-1, int(np.prod(layer.input_shape or ()))]))

    def conv(self, layer: Conv2D, x: str, _: Shape | None) -> str:
        if self.dtype == np.float64:
            return self._conv_by_pixels(layer, x)
        x = self.op("Transpose", x, perm=[0, 3, 1, 2])
        weights = layer.weights.transpose(0, 3, 1, 2)
        x = self.op("Conv", x, weights, layer.bias, pads=layer.window.padding, strides=layer.window.stride)
        return self.op("Transpose", x, perm=[0, 2, 3, 1])

    def _conv_by_pixels(self, layer: Conv2D, x: str) -> str:
        """Append `b + Σ X[pixel (u, v) of every window] W[u, v]ᵀ`: onnxruntime has no Conv of float64."""
        total = ""
        for (u, v), pixels in self._pixels(layer.window, x):
            product = self.op("MatMul", pixels, layer.weights[:, u, v].T)
            total = self.op("Add", total, product) if total else product
        return self.op("Add", total, layer.bias)

    def _pixels(self, window: Window, x: str) -> Iterator[tuple[tuple[int, int], str]]:
        """Yield each offset in a window with the pixels there of all windows, of images with a border of zeros."""
        top, left, bottom, right = window.padding
        if any(window.padding):
            x = self.op("Pad", x, np.array([0, top, left, 0, 0, bottom, right, 0]))
        steps, counts = np.array(window.stride), np.array([window.rows, window.columns])
        for u, v in window.offsets:
            first = np.array([u, v]) * window.dilation
            yield (u, v), self.op("Slice", x, first, first + steps * (counts - 1) + 1, np.array([1, 2]), steps)

    def max_pool(self, layer: MaxPool2D, x: str, _: Shape | None) -> str:
        window = layer.window
        sizes = {"kernel_shape": window.size, "strides": window.stride, "pads": window.padding}
        x = self.op("Transpose", x, perm=[0, 3, 1, 2])
        x = self.op("MaxPool", x, **sizes, dilations=window.dilation)
        return self.op("Transpose", x, perm=[0, 2, 3, 1])

    def average_pool(self, layer: AveragePool2D, x: str, _: Shape | None) -> str:
        window = layer.window
        if self.dtype == np.float32 and layer.dilation == 1:
            sizes = {"kernel_shape": window.size, "strides": window.stride, "pads": window.padding}
            x = self.op("Transpose", x, perm=[0, 3, 1, 2])
            x = self.op("AveragePool", x, **sizes, count_include_pad=int(layer.include_padding))
            return self.op("Transpose", x, perm=[0, 2, 3, 1])
        total = ""  # onnxruntime has no AveragePool of float64, and this opset none with dilations
        for _offset, pixels in self._pixels(window, x):
            total = self.op("Add", total, pixels) if total else pixels
        if layer.include_padding:
            return self.op("Div", total, window.places)
        rows, columns = window.counts()
        return self.op("Div", total, (rows * columns).astype(self.dtype))

    def gather(self, layer: Gather, x: str, _: Shape | None) -> str:
        x = self.op("Reshape", x, np.array([-1, layer.input_size]))
        x = self.op("Gather", x, layer.index.astype(np.int64), axis=1)
        return x if len(layer.shape) == 1 else self.op("Reshape", x, np.array([-1, *layer.shape]))

    def batch_norm(self, layer: BatchNorm, x: str, _: Shape | None) -> str:
        factor = layer.scale / np.sqrt(layer.running_variance + layer.epsilon)
        x = self.op("Mul", self.op("Sub", x, layer.running_mean), factor)
        return self.op("Add", x, layer.shift)

    def layer_norm(self, layer: LayerNorm, x: str, _: Shape | None) -> str:
        """Append the differences to the first value, then to their mean, as the layer computes them."""
        x = self.op("Sub", x, self.op("Gather", x, np.array([0]), axis=-1))
        x = self.op("Sub", x, self.op("ReduceMean", x, axes=[-1], keepdims=1))
        variance = self.op("ReduceMean", self.op("Mul", x, x), axes=[-1], keepdims=1)
        x = self.op("Div", x, self.op("Sqrt", self.op("Add", variance, layer.epsilon)))
        return self.op("Add", self.op("Mul", x, layer.scale), layer.shift)

    # Features ---------------------------------------------------------------------------------------------------------

    def constant_inputs(self, layer: ConstantInputs, x: str, shape: Shape | None) -> str:
        shape = shape or (layer.size,)
        return self.op("Where", layer.constant.reshape(shape) != 0, layer.values.reshape(shape), x)

    def feature_scale(self, layer: FeatureScale, x: str, _: Shape | None) -> str:
        return self.op("Mul", x, layer.scale)

    def parametric(self, layer: ParametricActivation, x: str, shape: Shape | None) -> str:
        y = _LAYERS[type(layer.function)](self, layer.function, x, shape)
        return self.op("Add", self.op("Mul", self.op("Sub", y, x), layer.alpha), x)

    def clip(self, layer: Clip, x: str, _: Shape | None) -> str:
        return self.op("Min", self.op("Max", x, layer.low), layer.high)

    def embedding(self, layer: Embedding, x: str, _: Shape | None) -> str:
        codes = self.op("Round", self.op("Gather", x, layer.chosen, axis=1))
        codes = self.op("Max", self.op("Min", codes, layer.last_codes.astype(self.dtype)), 0)
        rows = self.op("Add", self.graph.cast(codes, np.int64), layer.offsets)
        size = len(layer.positions) * layer.size
        embedded = self.op("Reshape", self.op("Gather", layer.weights, rows, axis=0), np.array([-1, size]))
        return self._after_others(layer, x, embedded)

    def periodic(self, layer: PeriodicEmbedding, x: str, _: Shape | None) -> str:
        n = len(layer.positions)
        numbers = self.op("Transpose", self.op("Gather", x, layer.chosen, axis=1), perm=[1, 0])
        numbers = self.op("Unsqueeze", numbers, np.array([2]))  # (n, batch, 1)
        scaled = layer.frequencies * self.dtype.type(2 * np.pi)
        angles = self.op("Add", self.op("Mul", numbers, scaled[:, np.newaxis]), layer.phases[:, np.newaxis])
        waves = self.op("MatMul", self.graph.cos(angles, self.dtype), layer.weights)
        waves = self.op("Add", waves, layer.bias[:, np.newaxis])
        joined = self.op("Transpose", self.op("Concat", waves, numbers, axis=2), perm=[1, 0, 2])
        embedded = self.op("Reshape", joined, np.array([-1, n * layer.size]))
        return self._after_others(layer, x, embedded)

    def _after_others(self, layer: Embedding | PeriodicEmbedding, x: str, embedded: str) -> str:
        others = np.flatnonzero(layer.is_other())
        if not len(others):
            return embedded
        return self.op("Concat", self.op("Gather", x, others, axis=1), embedded, axis=1)

    # Activations ------------------------------------------------------------------------------------------------------

    def same(self, layer: Any, x: str, _: Shape | None) -> str:
        del layer
        return x

    def one_operator(self, layer: Any, x: str, _: Shape | None) -> str:
        """Append the operator with the name of the layer."""
        return self.op(_OPERATORS[type(layer)], x)

    def softmax(self, _layer: Softmax, x: str, _: Shape | None) -> str:
        return self.op("Softmax", x, axis=-1)

    def leaky_relu(self, layer: LeakyReLU, x: str, _: Shape | None) -> str:
        return self.op("Max", x, self.op("Mul", x, layer.slope))

    def gelu(self, layer: GELU, x: str, _: Shape | None) -> str:
        cube = self.op("Mul", self.op("Mul", self.op("Mul", x, layer._CUBIC), x), x)
        t = self.op("Tanh", self.op("Mul", self.op("Add", x, cube), layer._ROOT))
        return self.op("Mul", self.op("Mul", x, 0.5), self.op("Add", t, 1))

    def exact_gelu(self, _layer: ExactGELU, x: str, _: Shape | None) -> str:
        """Append `x/2 (1 + erf(x/√2))`; erf in float32, as runtimes have it."""
        z = self.op("Mul", x, float(np.sqrt(0.5)))
        if self.dtype == np.float32:
            erf = self.op("Erf", z)
        else:
            erf = self.op("Cast", self.op("Erf", self.op("Cast", z, to=TensorProto.FLOAT)), to=TensorProto.DOUBLE)
        return self.op("Mul", self.op("Mul", x, 0.5), self.op("Add", erf, 1))

    def silu(self, _layer: SiLU, x: str, _: Shape | None) -> str:
        return self.op("Mul", x, self.op("Sigmoid", x))

    def elu(self, layer: ELU, x: str, _: Shape | None) -> str:
        if self.dtype == np.float32:  # runtimes have no other
            return self.op("Elu", x, alpha=layer.alpha)
        below = self.op("Sub", self.op("Exp", self.op("Min", x, 0)), 1)
        return self.op("Add", self.op("Relu", x), self.op("Mul", below, layer.alpha))

    def softplus(self, _layer: Softplus, x: str, _: Shape | None) -> str:
        if self.dtype == np.float32:
            return self.op("Softplus", x)
        power = self.op("Exp", self.op("Neg", self.op("Abs", x)))
        return self.op("Add", self.op("Relu", x), self.op("Log", self.op("Add", power, 1)))

    def selu(self, layer: SELU, x: str, _: Shape | None) -> str:
        below = self.op("Sub", self.op("Exp", self.op("Min", x, 0)), 1)
        y = self.op("Add", self.op("Relu", x), self.op("Mul", below, layer._ALPHA))
        return self.op("Mul", y, layer._LAMBDA)

    def mish(self, _layer: Mish, x: str, _: Shape | None) -> str:
        n = self.op("Exp", self.op("Min", x, 20))
        p = self.op("Mul", n, self.op("Add", n, 2))
        return self.op("Mul", x, self.op("Div", p, self.op("Add", p, 2)))

    def smooth_clip(self, layer: SmoothClip, x: str, _: Shape | None) -> str:
        """Append `x / √(1 + (x/3)²)` of x within ±1e9, so that the square of a larger number does not overflow."""
        x = self.op("Min", self.op("Max", x, -_FAR), _FAR)
        third = self.op("Div", x, layer._LIMIT)
        return self.op("Div", x, self.op("Sqrt", self.op("Add", self.op("Mul", third, third), 1)))

    # Ensembles --------------------------------------------------------------------------------------------------------

    def average(self, layer: Average, x: str, _: Shape | None) -> str:
        scope, total = self.graph.scope, ""
        for k, member in enumerate(layer.members):
            y = self.network(member, x, f"{scope}/{k}")
            total = self.op("Add", total, y) if total else y
        return self.op("Div", total, len(layer.members))


_OPERATORS = {Tanh: "Tanh", Sigmoid: "Sigmoid", ReLU: "Relu", Exp: "Exp"}
_LAYERS: dict[type, Callable[[Layers, Any, str, Shape | None], str]] = {
    Linear: Layers.linear,
    Conv2D: Layers.conv,
    MaxPool2D: Layers.max_pool,
    AveragePool2D: Layers.average_pool,
    Gather: Layers.gather,
    Flatten: Layers.flatten,
    BatchNorm: Layers.batch_norm,
    LayerNorm: Layers.layer_norm,
    Dropout: Layers.same,
    Identity: Layers.same,
    ConstantInputs: Layers.constant_inputs,
    FeatureScale: Layers.feature_scale,
    ParametricActivation: Layers.parametric,
    Clip: Layers.clip,
    Embedding: Layers.embedding,
    PeriodicEmbedding: Layers.periodic,
    Softmax: Layers.softmax,
    LeakyReLU: Layers.leaky_relu,
    GELU: Layers.gelu,
    ExactGELU: Layers.exact_gelu,
    SiLU: Layers.silu,
    ELU: Layers.elu,
    Softplus: Layers.softplus,
    SELU: Layers.selu,
    Mish: Layers.mish,
    SmoothClip: Layers.smooth_clip,
    Average: Layers.average,
    **dict.fromkeys(_OPERATORS, Layers.one_operator),
}
