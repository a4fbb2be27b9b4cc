"""Layers of images: convolution, pooling, and the way back to rows. A batch is (batch, height, width, channels).

A window slides over the image; what it covers at each place becomes one value of the output. Such a layer names the
shape of the images that it takes, as `Linear` names its inputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import product as pairs
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from model_store.nn.config_fields import IMAGE_SHAPE, MAX_SAMPLE_VALUES, NON_NEGATIVE_INT, POSITIVE_INT, WINDOW_SIZE
from model_store.nn.initializers import initial_parameters
from model_store.nn.module import Module, Shape
from model_store.nn.parametrized import ArrayAttribute, ParametrizedModule
from model_store.nn.tape import Array, Backward, Line, product


class _Window:
    """Where a window of `size` by `size` comes to lie on images: `rows` by `columns` places, `stride` apart."""

    def __init__(self, layer: str, shape: Shape, size: int, stride: int, padding: int = 0) -> None:
        height, width, self.channels = shape
        self.size, self.stride, self.padding = size, stride, padding
        self.height, self.width = height + 2 * padding, width + 2 * padding
        if size > min(self.height, self.width):
            raise ValueError(f"{layer}: expected a window within {self.height} x {self.width}, found {size} x {size}")
        self.rows, self.columns = (self.height - size) // stride + 1, (self.width - size) // stride + 1
        self.locations = self.rows * self.columns

    @property
    def offsets(self) -> Iterable[tuple[int, int]]:
        """Of every pixel of the window."""
        return pairs(range(self.size), range(self.size))

    def seen(self, images: Array, u: int, v: int) -> Array:
        """The pixels at (u, v) of every window: a view (batch, rows, columns, channels)."""
        below, right = u + self.stride * (self.rows - 1) + 1, v + self.stride * (self.columns - 1) + 1
        return images[:, u : below : self.stride, v : right : self.stride]

    def all(self, images: Array) -> Array:
        """Every window: a view (batch, rows, columns, size, size, channels)."""
        windows = sliding_window_view(images, (self.size, self.size), (1, 2))
        return windows[:, :: self.stride, :: self.stride].transpose(0, 1, 2, 4, 5, 3)

    def inner(self, images: Array) -> Array:
        """Padded images without the padding: a view."""
        p = self.padding
        return images[:, p : self.height - p, p : self.width - p]

    def blank(self, batch: int, dtype: npt.DTypeLike) -> Array:
        """Padded images of zeros."""
        return np.zeros((batch, self.height, self.width, self.channels), dtype)

    def room(self, batch: int, dtype: npt.DTypeLike) -> tuple[Array, Array]:
        """Memory for every window, and the same as a matrix with a row a window.

        The windows of one channel overlap in runs too short to copy fast, so their matrix lies transposed: 64 images
        of 28 x 28, kernel 3, take 0.1 ms rather than 0.7. With more channels rows are faster: 0.2 against 1.0 ms.
        """
        count, values = batch * self.locations, self.size * self.size * self.channels
        shape = (batch, self.rows, self.columns, self.size, self.size, self.channels)
        if self.channels > 1:
            rows = np.empty((count, values), dtype)
            return rows.reshape(shape), rows
        columns = np.empty((values, count), dtype)
        return columns.reshape(*shape[3:], *shape[:3]).transpose(3, 4, 5, 0, 1, 2), columns.T


class Conv2D(ParametrizedModule):
    """`Y[s,i,j,f] = b[f] + Σ W[f,u,v,c] X[s, i·stride + u, j·stride + v, c]` over u, v and c; LeCun et al. 1989.

    X (batch, height, width, channels), with `padding` zeros put around it, W (filters, kernel, kernel, channels),
    b (filters,), Y (batch, rows, columns, filters). With every window written out as a row of P it is one matrix
    product, `Y = P Wᵀ + b` (Chellapilla et al. 2006).
    """

    config_fields: ClassVar = {
        "input_shape": IMAGE_SHAPE,
        "filters": POSITIVE_INT,
        "kernel": WINDOW_SIZE,
        "stride": POSITIVE_INT,
        "padding": NON_NEGATIVE_INT,
    }
    batch_invariant = True  # each image has a product of its own in inference

    weights, bias = ArrayAttribute(), ArrayAttribute()
    _weights: Array
    _bias: Array
    weights_grad: Array
    bias_grad: Array

    def __init__(
        self,
        input_shape: Sequence[int],
        filters: int,
        kernel: int = 3,
        stride: int = 1,
        padding: int = 0,
        *,
        dtype: npt.DTypeLike = np.float32,
        rng: np.random.Generator | None = None,
        initializer: str = "normal",
        arrays: Mapping[str, Array] | None = None,
    ) -> None:
        self._input_shape = _image_shape(input_shape, "Conv2D")
        self.filters, self.kernel, self.stride, self.padding = filters, kernel, stride, padding
        self._check_fields()
        self.window = window = _Window("Conv2D.kernel", self._input_shape, self.kernel, self.stride, self.padding)
        self.fan_in = self.kernel**2 * window.channels
        padded = window.height * window.width * window.channels
        if max(padded, window.locations * max(self.fan_in, self.filters)) > MAX_SAMPLE_VALUES:
            found = f"{padded}, and {window.locations} windows of {self.fan_in} for {self.filters} filters"
            raise ValueError(f"Conv2D.input_shape: expected {MAX_SAMPLE_VALUES} values an image at most, found {found}")
        if arrays is not None:
            self.adopt_read_only(dtype, arrays)
            return
        rng = np.random.default_rng() if rng is None else rng
        shape = self.shapes()["weights"]
        weights, bias = initial_parameters(initializer, rng, shape, self.fan_in, self.kernel**2 * self.filters)
        self.initialize(dtype, weights=weights, bias=bias)

    def shapes(self) -> dict[str, Shape]:
        return {"weights": (self.filters, self.kernel, self.kernel, self.window.channels), "bias": (self.filters,)}

    @property
    def input_shape(self) -> Shape:
        return self._input_shape

    def output_shape(self, input_shape: Shape | None) -> Shape:
        _check_shape(self._input_shape, input_shape)
        return (self.window.rows, self.window.columns, self.filters)

    def __call__(self, inputs: Array) -> Array:
        """Image by image: little memory, and products of one shape, whose bits no other image can change."""
        windows = self.window.all(self._padded(inputs))
        room, patches = self.window.room(1, self.dtype)
        outputs = np.empty((len(inputs), self.window.locations, self.filters), self.dtype)
        for seen, output in zip(windows, outputs, strict=True):
            np.copyto(room[0], seen)
            patches.dot(self._matrix.T, output)
        outputs += self._bias
        return self._as_images(outputs)

    def forward(self, inputs: Array) -> Array:
        room, self._patches = self.window.room(len(inputs), self.dtype)
        np.copyto(room, self.window.all(self._padded(inputs)))
        outputs: Array = self._patches @ self._matrix.T
        outputs += self._bias
        return self._as_images(outputs)

    def backward(self, output_grad: Array) -> Array:
        """`∂E/∂W += (∂E/∂Y)ᵀ P`, `∂E/∂b += Σ ∂E/∂Y`; each weight hands `∂E/∂Y W` on to the pixels that it saw."""
        dy = output_grad.reshape(-1, self.filters)
        self.weights_grad += (dy.T @ self._patches).reshape(self._weights.shape)
        self.bias_grad += dy.sum(axis=0)
        input_grad = self.window.blank(len(output_grad), self.dtype)
        for u, v in self.window.offsets:
            seen = self.window.seen(input_grad, u, v)
            seen += (dy @ self._weights[:, u, v]).reshape(seen.shape)
        return self.window.inner(input_grad)

    def record(self, inputs: Array) -> tuple[Array, list[Line], Backward]:
        if inputs.dtype != self.dtype:
            return super().record(inputs)
        window, batch = self.window, len(inputs)
        padded = window.blank(batch, self.dtype) if self.padding else inputs
        room, patches = window.room(batch, self.dtype)
        outputs = np.empty((batch * window.locations, self.filters), self.dtype)
        biases = np.empty((window.locations, self.filters), self.dtype)  # of one image: long runs are added faster

        def backward(output_grad: Array, expected: bool) -> tuple[Array, list[Line]]:
            dy, ones = output_grad.reshape(-1, self.filters), np.ones(len(patches), self.dtype)
            lines = product(dy.T, patches, self.weights_grad.reshape(self.filters, -1))
            lines.append((ones.dot, (dy, self.bias_grad)))
            if not expected:
                return inputs, lines
            input_grad = window.blank(batch, self.dtype)
            handed = np.empty((len(patches), window.channels), self.dtype)
            lines.append((input_grad.fill, (0,)))
            for u, v in window.offsets:
                seen = window.seen(input_grad, u, v)
                lines += product(dy, self._weights[:, u, v], handed)
                lines.append((np.add, (seen, handed.reshape(seen.shape), seen)))
            if self.padding:
                whole, input_grad = input_grad, np.empty_like(inputs)
                lines.append((np.copyto, (input_grad, window.inner(whole))))
            return input_grad, lines

        rows = outputs.reshape(batch, -1)
        forward: list[Line] = [(np.copyto, (window.inner(padded), inputs))] if self.padding else []
        forward.append((np.copyto, (room, window.all(padded))))
        forward += product(patches, self._matrix.T, outputs)
        forward += [(np.copyto, (biases, self._bias)), (np.add, (rows, biases.reshape(-1), rows))]
        return self._as_images(outputs), forward, backward

    @property
    def _matrix(self) -> Array:
        return self._weights.reshape(self.filters, -1)

    def _padded(self, inputs: Array) -> Array:
        if not self.padding:
            return inputs
        images = self.window.blank(len(inputs), self.dtype)
        self.window.inner(images)[...] = inputs
        return images

    def _as_images(self, outputs: Array) -> Array:
        return outputs.reshape(-1, self.window.rows, self.window.columns, self.filters)


class MaxPool2D(Module):
    """The largest value of each window, channel by channel; X (batch, height, width, channels).

    The gradient goes to the pixel that was the largest, the first of equals. What is left over at the right and at
    the bottom, where no whole window fits, is seen by none. `stride` is `size` unless given.
    """

    config_fields: ClassVar = {"input_shape": IMAGE_SHAPE, "size": WINDOW_SIZE, "stride": POSITIVE_INT}
    batch_invariant = True

    def __init__(self, input_shape: Sequence[int], size: int = 2, stride: int | None = None) -> None:
        self._input_shape = _image_shape(input_shape, "MaxPool2D")
        self.size, self.stride = size, size if stride is None else stride
        self._check_fields()
        self.window = _Window("MaxPool2D.size", self._input_shape, self.size, self.stride)
        self._numbers = np.min_scalar_type(self.size**2 - 1)

    @property
    def input_shape(self) -> Shape:
        return self._input_shape

    def output_shape(self, input_shape: Shape | None) -> Shape:
        _check_shape(self._input_shape, input_shape)
        return (self.window.rows, self.window.columns, self.window.channels)

    def _seen(self, images: Array) -> list[Array]:
        return [self.window.seen(images, u, v) for u, v in self.window.offsets]

    def __call__(self, inputs: Array) -> Array:
        first, *others = self._seen(inputs)
        outputs = first.copy()
        for seen in others:
            np.maximum(outputs, seen, out=outputs)
        return outputs

    def forward(self, inputs: Array) -> Array:
        first, *others = self._seen(inputs)
        outputs, self._largest = first.copy(), np.zeros(first.shape, self._numbers)
        for number, seen in enumerate(others, 1):
            self._largest[seen > outputs] = number
            np.maximum(outputs, seen, out=outputs)
        return outputs

    def backward(self, output_grad: Array) -> Array:
        input_grad = np.zeros((len(output_grad), *self._input_shape), output_grad.dtype)
        for number, seen in enumerate(self._seen(input_grad)):
            seen += output_grad * (self._largest == number)
        return input_grad

    def record(self, inputs: Array) -> tuple[Array, list[Line], Backward]:
        first, *others = self._seen(inputs)
        outputs, mask = np.empty(first.shape, inputs.dtype), np.empty(first.shape, np.bool_)
        largest, found = (np.empty(first.shape, self._numbers) for _ in range(2))

        def backward(output_grad: Array, expected: bool) -> tuple[Array, list[Line]]:
            input_grad, share = np.empty_like(inputs), np.empty_like(output_grad)
            lines: list[Line] = [(input_grad.fill, (0,))]
            for number, seen in enumerate(self._seen(input_grad)):
                lines.append((np.equal, (largest, np.array(number, self._numbers), mask)))
                if self.stride >= self.size:  # windows apart: no pixel is in two
                    lines.append((np.multiply, (output_grad, mask, seen)))
                else:
                    lines += [(np.multiply, (output_grad, mask, share)), (np.add, (seen, share, seen))]
            return input_grad, lines if expected else []

        forward: list[Line] = [(np.copyto, (outputs, first)), (largest.fill, (0,))]
        for number, seen in enumerate(others, 1):
            forward += [
                (np.greater, (seen, outputs, mask)),
                (np.multiply, (mask, np.array(number, self._numbers), found)),  # which no number before exceeds
                (partial(np.maximum, out=largest), (largest, found)),
                (partial(np.maximum, out=outputs), (outputs, seen)),
            ]
        return outputs, forward, backward


class Flatten(Module):
    """Images as rows: (batch, height, width, channels) to (batch, height · width · channels). Nothing is computed."""

    config_fields: ClassVar = {"input_shape": IMAGE_SHAPE}
    batch_invariant = True

    def __init__(self, input_shape: Sequence[int]) -> None:
        self._input_shape = _image_shape(input_shape, "Flatten")

    @property
    def input_shape(self) -> Shape:
        return self._input_shape

    def output_shape(self, input_shape: Shape | None) -> Shape:
        _check_shape(self._input_shape, input_shape)
        return (math.prod(self._input_shape),)

    def __call__(self, inputs: Array) -> Array:
        return inputs.reshape(len(inputs), math.prod(self._input_shape))

    def forward(self, inputs: Array) -> Array:
        return self(inputs)

    def backward(self, output_grad: Array) -> Array:
        return output_grad.reshape(-1, *self._input_shape)

    def record(self, inputs: Array) -> tuple[Array, list[Line], Backward]:
        return self(inputs), [], lambda output_grad, _: (self.backward(output_grad), [])


def _image_shape(shape: Sequence[int], layer: str) -> Shape:
    found = [size.item() if isinstance(size, np.generic) else size for size in shape]
    if not IMAGE_SHAPE.accepts(found):
        raise ValueError(f"{layer}.input_shape: expected {IMAGE_SHAPE.expected}; found {shape!r}")
    return tuple(found)


def _check_shape(expected: Shape, found: Shape | None) -> None:
    if found not in (None, expected):
        raise ValueError(f"input_shape: expected {found}, the shape before it; found {expected}")
