"""Pooling layers: the largest value or the mean of each window. A batch is (batch, height, width, channels)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from model_store.nn.arrays import Array
from model_store.nn.config_fields import BOOL, IMAGE_SHAPE, MAX_SAMPLE_VALUES, PADDING, STRIDE, WINDOW_SIZE
from model_store.nn.layers.conv import check_shape, image_shape
from model_store.nn.layers.window import Sizes, Window, shortest
from model_store.nn.module import Module, Shape


class _Pool2D(Module):
    """The base: windows of `size` pixels, `stride` apart, which defaults to `size`; their pixels `dilation` apart.

    Size, stride and dilation are ints, or (height, width); padding is an int, or (top, left, bottom, right). Padding is
    smaller than the window, so that each window has a pixel of the image. Pixels at the right and the bottom where no
    whole window fits are ignored.
    """

    config_fields: ClassVar = {
        "input_shape": IMAGE_SHAPE,
        "size": WINDOW_SIZE,
        "stride": STRIDE,
        "padding": PADDING,
        "dilation": WINDOW_SIZE,
    }
    newer_fields: ClassVar = {"padding": 0, "dilation": 1}
    batch_invariant = True

    def __init__(
        self,
        input_shape: Sequence[int],
        size: Sizes = 2,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        dilation: Sizes = 1,
    ) -> None:
        name = type(self).__name__
        self._input_shape = image_shape(input_shape, name)
        self.size, self.stride = shortest(size), shortest(size if stride is None else stride)
        self.padding, self.dilation = shortest(padding), shortest(dilation)
        self._check_fields()
        window = Window(f"{name}.size", self._input_shape, self.size, self.stride, self.padding, self.dilation)
        self.window = window
        for axis, length in enumerate(self._input_shape[:2]):
            largest = max(window.padding[axis], window.padding[axis + 2])
            limit = window.dilation[axis] * (window.size[axis] - 1)
            if largest > limit or (largest and window.dilation[axis] > length):
                raise ValueError(f"{name}.padding: expected a pixel of the image in each window, found {self.padding}")
        if (padded := window.height * window.width * window.channels) > MAX_SAMPLE_VALUES:
            raise ValueError(f"{name}.padding: expected {MAX_SAMPLE_VALUES} values an image at most, found {padded}")

    @property
    def input_shape(self) -> Shape:
        return self._input_shape

    def output_shape(self, input_shape: Shape | None) -> Shape:
        check_shape(self._input_shape, input_shape)
        return (self.window.rows, self.window.columns, self.window.channels)


class MaxPool2D(_Pool2D):
    """The largest value of each window, channel by channel; X (batch, height, width, channels).

    The gradient goes to the largest pixel, the first of equals. A border of `padding` pixels is never the largest.
    """

    @property
    def index_dtype(self) -> np.dtype[Any]:
        """The smallest type that numbers the pixels of a window."""
        return np.min_scalar_type(self.window.places - 1)

    def pixels_by_offset(self, images: Array) -> list[Array]:
        return [self.window.pixels(images, u, v) for u, v in self.window.offsets]

    def __call__(self, inputs: Array) -> Array:
        first, *others = self.pixels_by_offset(self.window.pad(inputs, -np.inf))
        outputs = first.copy()
        for pixels in others:
            np.maximum(outputs, pixels, out=outputs)
        return outputs

    def forward(self, inputs: Array) -> Array:
        first, *others = self.pixels_by_offset(self.window.pad(inputs, -np.inf))
        outputs, self.largest = first.copy(), np.zeros(first.shape, self.index_dtype)
        for number, pixels in enumerate(others, 1):
            self.largest[pixels > outputs] = number
            np.maximum(outputs, pixels, out=outputs)
        return outputs

    def backward(self, output_grad: Array) -> Array:
        input_grad = self.window.padded(len(output_grad), output_grad.dtype)
        for number, pixels in enumerate(self.pixels_by_offset(input_grad)):
            pixels += output_grad * (self.largest == number)
        return self.window.without_padding(input_grad)


class AveragePool2D(_Pool2D):
    """The mean of each window, channel by channel; X (batch, height, width, channels).

    A mean is that of the pixels in the image; with `include_padding`, the border counts as zeros. The gradient goes to
    all of them in equal parts: `∂E/∂x += Σ ∂E/∂y / n` over the windows with x, n the pixels that count.
    """

    config_fields: ClassVar = {**_Pool2D.config_fields, "include_padding": BOOL}
    newer_fields: ClassVar = {**_Pool2D.newer_fields, "include_padding": False}

    def __init__(
        self,
        input_shape: Sequence[int],
        size: Sizes = 2,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        dilation: Sizes = 1,
        *,
        include_padding: bool = False,
    ) -> None:
        self.include_padding = include_padding
        super().__init__(input_shape, size, stride, padding, dilation)

    def __call__(self, inputs: Array) -> Array:
        images = self.window.pad(inputs)
        outputs = np.zeros((len(inputs), *self.output_shape(None)), inputs.dtype)
        for u, v in self.window.offsets:
            outputs += self.window.pixels(images, u, v)
        return self._divide(outputs)

    def forward(self, inputs: Array) -> Array:
        return self(inputs)

    def backward(self, output_grad: Array) -> Array:
        share = self._divide(output_grad.copy())
        input_grad = self.window.padded(len(output_grad), output_grad.dtype)
        for u, v in self.window.offsets:
            pixels = self.window.pixels(input_grad, u, v)
            pixels += share
        return self.window.without_padding(input_grad)

    def _divide(self, sums: Array) -> Array:
        """Divide in place by the pixels that count in each window."""
        if self.include_padding or not any(self.window.padding):
            sums /= self.window.places
            return sums
        for count in self.window.counts():
            sums /= count.astype(sums.dtype)
        return sums
