"""Image layers: convolution and flattening. A batch is (batch, height, width, channels).

A window slides over the image; the pixels that it covers at each position become one value of the output. Such a layer
states the shape of its images, as `Linear` states its inputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from model_store.nn.arrays import Array
from model_store.nn.config_fields import (
    IMAGE_SHAPE,
    MAX_SAMPLE_VALUES,
    PADDING,
    POSITIVE_INT,
    STRIDE,
    WINDOW_SIZE,
)
from model_store.nn.initializers import DEFAULT_INITIALIZER, initial_parameters
from model_store.nn.layers.window import Sizes, Window, shortest
from model_store.nn.module import Module, Shape
from model_store.nn.parametrized import ArrayAttribute, ParametrizedModule


class Conv2D(ParametrizedModule):
    """`Y[s,i,j,f] = b[f] + Σ W[f,u,v,c] X[s, i·stride + u, j·stride + v, c]` over u, v and c; LeCun et al. 1989.

    X (batch, height, width, channels) with a border of `padding` zeros, W (filters, kernel, kernel, channels),
    b (filters,), Y (batch, rows, columns, filters). With every window as a row of P this is one matrix product,
    `Y = P Wᵀ + b` (Chellapilla et al. 2006). Kernel and stride are ints, or (height, width); padding is an int, or
    (top, left, bottom, right).
    """

    config_fields: ClassVar = {
        "input_shape": IMAGE_SHAPE,
        "filters": POSITIVE_INT,
        "kernel": WINDOW_SIZE,
        "stride": STRIDE,
        "padding": PADDING,
    }
    batch_invariant = True  # inference multiplies image by image

    weights, bias = ArrayAttribute(), ArrayAttribute()
    _weights: Array
    _bias: Array
    weights_grad: Array
    bias_grad: Array

    def __init__(
        self,
        input_shape: Sequence[int],
        filters: int,
        kernel: Sizes = 3,
        stride: Sizes = 1,
        padding: Sizes = 0,
        *,
        dtype: npt.DTypeLike = np.float32,
        rng: np.random.Generator | None = None,
        initializer: str = DEFAULT_INITIALIZER,
        arrays: Mapping[str, Array] | None = None,
    ) -> None:
        self._input_shape = image_shape(input_shape, "Conv2D")
        self.filters = filters
        self.kernel, self.stride, self.padding = (shortest(sizes) for sizes in (kernel, stride, padding))
        self._check_fields()
        self.window = window = Window("Conv2D.kernel", self._input_shape, self.kernel, self.stride, self.padding)
        self.fan_in = window.places * window.channels
        padded = window.height * window.width * window.channels
        if max(padded, window.positions * max(self.fan_in, self.filters)) > MAX_SAMPLE_VALUES:
            found = f"{padded}, and {window.positions} windows of {self.fan_in} for {self.filters} filters"
            raise ValueError(f"Conv2D.input_shape: expected {MAX_SAMPLE_VALUES} values an image at most, found {found}")
        if arrays is not None:
            self.load_read_only(dtype, arrays)
            return
        rng = np.random.default_rng() if rng is None else rng
        shape = self.shapes()["weights"]
        weights, bias = initial_parameters(initializer, rng, shape, self.fan_in, window.places * self.filters)
        self.initialize(dtype, weights=weights, bias=bias)

    def shapes(self) -> dict[str, Shape]:
        return {"weights": (self.filters, *self.window.size, self.window.channels), "bias": (self.filters,)}

    @property
    def input_shape(self) -> Shape:
        return self._input_shape

    def output_shape(self, input_shape: Shape | None) -> Shape:
        check_shape(self._input_shape, input_shape)
        return (self.window.rows, self.window.columns, self.filters)

    def __call__(self, inputs: Array) -> Array:
        """Multiply image by image: little memory, and products of one shape, so other images cannot change the bits."""
        windows = self.window.patches(self.window.pad(inputs))
        buffer, patches = self.window.empty_patches(1, self.dtype)
        outputs = np.empty((len(inputs), self.window.positions, self.filters), self.dtype)
        for window, output in zip(windows, outputs, strict=True):
            np.copyto(buffer[0], window)
            patches.dot(self._weight_matrix.T, output)
        outputs += self._bias
        return self._as_images(outputs)

    def forward(self, inputs: Array) -> Array:
        buffer, self._patches = self.window.empty_patches(len(inputs), self.dtype)
        np.copyto(buffer, self.window.patches(self.window.pad(inputs)))
        outputs: Array = self._patches @ self._weight_matrix.T
        outputs += self._bias
        return self._as_images(outputs)

    def backward(self, output_grad: Array) -> Array:
        """`∂E/∂W += (∂E/∂Y)ᵀ P`, `∂E/∂b += Σ ∂E/∂Y`; each weight adds its `∂E/∂Y W` to the pixels that it covered."""
        dy = output_grad.reshape(-1, self.filters)
        if self.learns:
            self.weights_grad += (dy.T @ self._patches).reshape(self._weights.shape)
            self.bias_grad += dy.sum(axis=0)
        input_grad = self.window.padded(len(output_grad), self.dtype)
        for u, v in self.window.offsets:
            pixels = self.window.pixels(input_grad, u, v)
            pixels += (dy @ self._weights[:, u, v]).reshape(pixels.shape)
        return self.window.without_padding(input_grad)

    @property
    def _weight_matrix(self) -> Array:
        return self._weights.reshape(self.filters, -1)

    def _as_images(self, outputs: Array) -> Array:
        return outputs.reshape(-1, self.window.rows, self.window.columns, self.filters)


class Flatten(Module):
    """Reshape images to rows: (batch, height, width, channels) to (batch, height · width · channels)."""

    config_fields: ClassVar = {"input_shape": IMAGE_SHAPE}
    batch_invariant = True

    def __init__(self, input_shape: Sequence[int]) -> None:
        self._input_shape = image_shape(input_shape, "Flatten")

    @property
    def input_shape(self) -> Shape:
        return self._input_shape

    def output_shape(self, input_shape: Shape | None) -> Shape:
        check_shape(self._input_shape, input_shape)
        return (math.prod(self._input_shape),)

    def __call__(self, inputs: Array) -> Array:
        return inputs.reshape(len(inputs), math.prod(self._input_shape))

    def forward(self, inputs: Array) -> Array:
        return self(inputs)

    def backward(self, output_grad: Array) -> Array:
        return output_grad.reshape(-1, *self._input_shape)


def image_shape(shape: Sequence[int], layer: str) -> Shape:
    found = [size.item() if isinstance(size, np.generic) else size for size in shape]
    if not IMAGE_SHAPE.accepts(found):
        raise ValueError(f"{layer}.input_shape: expected {IMAGE_SHAPE.expected}; found {shape!r}")
    return tuple(found)


def check_shape(expected: Shape, found: Shape | None) -> None:
    if found not in (None, expected):
        raise ValueError(f"input_shape: expected {found}, the shape before it; found {expected}")
