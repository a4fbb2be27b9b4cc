"""A value that an imported network computes: our layers so far, and where its elements are in their output.

Frameworks order the pixels of an image by channel, row, column; our layers by row, column, channel. So a value keeps
for each of its elements the place in the output of the last layer. Transposing, reshaping and selecting change only
these places, and the weights of the next dense layer are put in their order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from model_store.importing.features import EncodedFeatures, Features, encode_features
from model_store.nn import Array, BatchNorm, Conv2D, Flatten, LayerNorm, Linear, MaxPool2D, Module, Softmax
from model_store.nn.config_fields import MAX_SAMPLE_VALUES, MAX_WINDOW_SIZE
from model_store.schema.columns import Column

_AFFINE_EPSILON = 1e-5
_MAX_SELECTION_WEIGHTS = 2**24


class UnsupportedLayerError(ValueError):
    """Our layers cannot compute a step of the network; the message says what was expected and found."""


@dataclass(frozen=True)
class Layers:
    """The output of `modules`, whose sample has the shape `stored`; element i of the value is place `index[i]` of it.

    `inputs` are the columns of the rows that the first module gets.
    """

    inputs: tuple[Column, ...]
    plain: bool  # True if the first module gets the numbers of a row as they are
    dtype: np.dtype[Any]
    modules: tuple[Module, ...]
    stored: tuple[int, ...]
    index: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a sample, in the order of the source framework."""
        return self.index.shape

    @property
    def is_channels_first(self) -> bool:
        """True if the value is an image (channels, height, width), stored as ours."""
        return len(self.stored) == 3 and np.array_equal(self.index, _places(self.stored).transpose(2, 0, 1))

    @property
    def is_stored_order(self) -> bool:
        return np.array_equal(self.index.ravel(), np.arange(math.prod(self.stored)))

    @property
    def has_each_place(self) -> bool:
        """True if each place of the stored sample is an element of the value."""
        found = np.zeros(math.prod(self.stored), bool)
        found[self.index] = True
        return bool(found.all())

    def then(self, *modules: Module) -> Layers:
        """Return the value after modules that keep its shape."""
        return replace(self, modules=(*self.modules, *modules))

    def array(self, values: Any) -> Array:
        """Return values as an array for a module."""
        return np.ascontiguousarray(values, self.dtype)


def _places(shape: Sequence[int]) -> Array:
    return np.arange(math.prod(shape)).reshape(shape)


def array_input(column: Column, stored: tuple[int, ...], index: Array, dtype: np.dtype[Any]) -> Layers:
    """Return the value of an input that is one array."""
    return Layers((column,), True, dtype, (), stored, index)


def enter(value: Features | Layers, dtype: np.dtype[Any]) -> Layers:
    """Return features as a value of layers: as they are, or by a dense layer that computes them."""
    if isinstance(value, Layers):
        return value
    encoded = encode_features(value)
    if encoded.order is not None:
        return _start(encoded, dtype, encoded.order)
    _check_selection(len(value.items), max(len(value.items), encoded.width))
    return linear(value, np.eye(len(value.items)), np.zeros(len(value.items)), dtype)


def _start(encoded: EncodedFeatures, dtype: np.dtype[Any], index: Array) -> Layers:
    return Layers(encoded.inputs, encoded.plain, dtype, (), (encoded.width,), index)


def _check_selection(outputs: int, inputs: int) -> None:
    if outputs * inputs > _MAX_SELECTION_WEIGHTS:
        found = f"{outputs} of {inputs}"
        raise UnsupportedLayerError(f"expected at most {_MAX_SELECTION_WEIGHTS} weights of a selection, found {found}")


def linear(value: Features | Layers, weights: Array, bias: Array, dtype: np.dtype[Any]) -> Layers:
    """Return `weights @ value + bias`; weights (outputs, inputs)."""
    outputs = len(weights)
    if not weights.size:
        raise UnsupportedLayerError(f"expected weights, found none of shape {weights.shape}")
    if isinstance(value, Features):
        if weights.shape[1] != len(value.items):
            raise UnsupportedLayerError(f"expected {weights.shape[1]} inputs, found {len(value.items)}")
        encoded = encode_features(value)
        if weights.size < max(encoded.width, len(encoded.rows)) * outputs:  # more than the file has
            _check_selection(outputs, max(encoded.width, len(encoded.rows)))
        weights, bias = encoded.fold(weights, bias)
        value = _start(encoded, dtype, np.arange(encoded.width))
    else:
        if value.shape != (weights.shape[1],):
            fix = "flatten it first" if len(value.shape) > 1 else "check the file"
            raise UnsupportedLayerError(f"expected a row of {weights.shape[1]} values, found {value.shape}; {fix}")
        value = flatten(value)
        if not value.is_stored_order:
            if value.stored[0] > weights.shape[1]:
                _check_selection(outputs, value.stored[0])
            ordered = np.zeros((value.stored[0], outputs), weights.dtype)
            np.add.at(ordered, value.index, weights.T)
            weights = ordered.T
    arrays = {"weights": value.array(weights), "bias": value.array(np.broadcast_to(bias, (outputs,)))}
    module = Linear(weights.shape[1], outputs, dtype=dtype, arrays=arrays)
    return replace(value, modules=(*value.modules, module), stored=(outputs,), index=np.arange(outputs))


def flatten(value: Layers) -> Layers:
    """Return an image stored as a row."""
    if len(value.stored) == 1:
        return value
    return replace(value, modules=(*value.modules, Flatten(value.stored)), stored=(math.prod(value.stored),))


def in_stored_order(value: Layers) -> Layers:
    """Return a row whose elements are stored in their order, each once: by a dense layer, if they are not."""
    if value.is_stored_order and len(value.stored) == 1:
        return value
    if len(value.shape) != 1:
        raise UnsupportedLayerError(f"expected a row of values, found {value.shape}; flatten it first")
    value = flatten(value)
    if value.is_stored_order:
        return value
    _check_selection(len(value.index), max(len(value.index), value.stored[0]))
    return linear(value, np.eye(len(value.index)), np.zeros(len(value.index)), value.dtype)


def affine(value: Features | Layers, factor: Array | float, constant: Array | float) -> Features | Layers:
    """Return `factor · value + constant`, which broadcast to a sample's shape."""
    if isinstance(value, Features):
        count = len(value.items)
        return value.affine(*(np.broadcast_to(one, (count,)).astype(np.float64) for one in (factor, constant)))
    try:
        given = np.asarray(factor, np.float64), np.asarray(constant, np.float64)
        factors, constants = (np.broadcast_to(one, value.shape) for one in given)
    except ValueError as error:
        raise UnsupportedLayerError(f"expected constants for samples of {value.shape}; {error}") from error
    if (given[0] == 1).all() and not given[1].any():
        return value
    try:
        a, b = by_feature(value, factors), by_feature(value, constants)
    except UnsupportedLayerError:  # an image's constants may differ for each pixel
        value = flatten(value) if len(value.shape) > 1 else in_stored_order(value)
        a, b = by_feature(value, factors), by_feature(value, constants)
    last = value.modules[-1] if value.modules else None
    if isinstance(last, Linear | Conv2D):
        weights = np.multiply(last.weights, a.reshape(-1, *[1] * (last.weights.ndim - 1)), dtype=np.float64)
        arrays = {"weights": value.array(weights), "bias": value.array(last.bias * a + b)}
        return replace(value, modules=(*value.modules[:-1], _with_arrays(last, value.dtype, arrays)))
    ones = np.ones(len(a))
    return value.then(_batch_norm(value, a, b, 0 * ones, ones - _AFFINE_EPSILON, _AFFINE_EPSILON))


def _with_arrays(layer: Linear | Conv2D, dtype: np.dtype[Any], arrays: dict[str, Array]) -> Module:
    settings = {name: getattr(layer, name) for name in layer.config_fields}
    return type(layer)(**settings, dtype=dtype, arrays=arrays)


def by_feature(value: Layers, values: Array) -> Array:
    """Return values of a sample's shape as one for each stored feature, of an image each channel."""
    if not value.has_each_place:
        raise UnsupportedLayerError("expected constants for a whole layer, found a selection of its values")
    if not any(values.strides):  # one number for all
        return np.full(value.stored[-1], values.flat[0])
    places = np.empty(math.prod(value.stored))
    places[value.index.ravel()] = values.ravel()
    pixels = places.reshape(-1, value.stored[-1])
    if (pixels != pixels[0]).any():
        raise UnsupportedLayerError("expected constants for each channel, found different ones for each pixel")
    found: Array = pixels[0]
    return found


def _batch_norm(value: Layers, scale: Array, shift: Array, mean: Array, variance: Array, epsilon: float) -> Module:
    named = {"scale": scale, "shift": shift, "running_mean": mean, "running_variance": variance}
    arrays = {name: value.array(array) for name, array in named.items()}
    return BatchNorm(len(arrays["scale"]), epsilon=epsilon, dtype=value.dtype, arrays=arrays)


def batch_norm(
    value: Layers, scale: Array, shift: Array, mean: Array, variance: Array, epsilon: float, *, axis: int = 0
) -> Layers:
    """Return `scale (value - mean) / √(variance + ε) + shift`; each parameter along `axis` of a sample."""
    size = value.shape[axis] if value.shape else 0
    given = [np.broadcast_to(np.asarray(one, np.float64), (size,)) for one in (scale, shift, mean, variance)]
    shape = [1] * len(value.shape)
    shape[axis] = size
    scale, shift, mean, variance = (by_feature(value, np.broadcast_to(o.reshape(shape), value.shape)) for o in given)
    return value.then(_batch_norm(value, scale, shift, mean, variance, epsilon))


def layer_norm(value: Layers, scale: Array, shift: Array, epsilon: float) -> Layers:
    """Return a sample's row, or each pixel's channels if they are the last axis, normalized."""
    if len(value.shape) == 1:
        value = flatten(value)
        if not value.has_each_place:
            value = in_stored_order(value)
    elif not (len(value.stored) == 3 and value.shape == value.stored and value.is_stored_order):
        expected = "expected a row of values, or images with the channels last"
        raise UnsupportedLayerError(f"{expected}; found samples of {value.shape}")
    size = value.shape[-1]
    given = (np.broadcast_to(np.asarray(one, np.float64), (size,)) for one in (scale, shift))
    if len(value.shape) == 1:
        scale, shift = (by_feature(value, one) for one in given)
    else:
        scale, shift = given
    arrays = {"scale": value.array(scale), "shift": value.array(shift)}
    return value.then(LayerNorm(size, epsilon=epsilon, dtype=value.dtype, arrays=arrays))


def softmax(value: Layers, axis: int) -> Layers:
    """Return the softmax along an axis of a sample: of a row, or of an image's channels."""
    if len(value.shape) == 1:
        value = flatten(value)
        if not value.has_each_place:
            value = in_stored_order(value)
    elif not (value.is_channels_first and axis == 0):
        raise UnsupportedLayerError(f"expected a softmax over a row, or an image's channels; found {value.shape}")
    if value.stored[-1] == 1:
        raise UnsupportedLayerError("expected two values a row or more for a softmax, found 1")
    return value.then(Softmax())


def as_image(value: Features | Layers, dtype: np.dtype[Any]) -> Layers:
    """Return an image (channels, height, width), stored as (height, width, channels)."""
    value = enter(value, dtype)
    if value.is_channels_first:
        return value
    if len(value.shape) != 3:
        raise UnsupportedLayerError(f"expected images (channels, height, width), found samples of {value.shape}")
    channels, height, width = value.shape
    stored = (height, width, channels)
    # A row of pixels as it comes from the caller needs no layer to become an image.
    if not value.modules and np.array_equal(value.index, _places(stored).transpose(2, 0, 1)):
        return replace(value, stored=stored)
    fix = "pass images (batch, channels, height, width) to the network"
    raise UnsupportedLayerError(f"expected images, found rows that were reshaped to {value.shape}; {fix}")


@dataclass(frozen=True)
class ConvolutionSpec:
    """The settings of a convolution: pads are top, left, bottom, right."""

    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)
    groups: int = 1


def same_padding(
    shape: tuple[int, ...],
    sizes: list[int],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    *,
    at_end: bool = True,
) -> list[int]:
    """Return top, left, bottom, right padding for an output of the input's size over the stride."""
    before, after = [], []
    for length, size, stride, dilation in zip(shape, sizes, strides, dilations, strict=True):
        total = max(0, (-(-length // stride) - 1) * stride + dilation * (size - 1) + 1 - length)
        small, large = total // 2, total - total // 2
        before.append(small if at_end else large)
        after.append(large if at_end else small)
    return [*before, *after]


def convolution(value: Layers, weights: Array, bias: Array, spec: ConvolutionSpec) -> Layers:
    """Return the convolution of an image with weights (filters, channels / groups, height, width).

    Dilation, groups and padding that differs between sides become zeros in a larger square kernel.
    """
    if weights.ndim != 4:
        raise UnsupportedLayerError(f"expected a convolution of images, found weights of {weights.shape}")
    channels, height, width = value.shape
    if not weights.size:
        raise UnsupportedLayerError(f"expected weights, found none of shape {weights.shape}")
    filters, per_group = weights.shape[:2]
    if spec.groups < 1 or filters % spec.groups or per_group * spec.groups != channels:
        raise UnsupportedLayerError(f"expected weights of {channels} channels, found {weights.shape}")
    kernel, stride, padding, offsets = _square_window(weights.shape[2:], spec)
    if filters * channels * kernel**2 > MAX_SAMPLE_VALUES:
        raise UnsupportedLayerError(f"expected at most {MAX_SAMPLE_VALUES} weights, found {weights.shape}")
    dense = np.zeros((filters, kernel, kernel, channels), np.float64)
    rows = offsets[0] + spec.dilations[0] * np.arange(weights.shape[2])
    columns = offsets[1] + spec.dilations[1] * np.arange(weights.shape[3])
    for group in range(spec.groups):
        own = np.arange(group * filters // spec.groups, (group + 1) * filters // spec.groups)
        inputs = np.arange(group * per_group, (group + 1) * per_group)
        dense[np.ix_(own, rows, columns, inputs)] = weights[own].transpose(0, 2, 3, 1)
    arrays = {"weights": value.array(dense), "bias": value.array(np.broadcast_to(bias, (filters,)))}
    shape = (height, width, channels)
    return _as_image_after(value, Conv2D(shape, filters, kernel, stride, padding, dtype=value.dtype, arrays=arrays))


def _square_window(sizes: Sequence[int], spec: ConvolutionSpec) -> tuple[int, int, int, tuple[int, int]]:
    """Return kernel, stride and padding of a square window, and where the given one is in it."""
    if spec.strides[0] != spec.strides[1]:
        raise UnsupportedLayerError(f"expected equal strides, found {list(spec.strides)}")
    top, left, bottom, right = spec.pads
    if min(spec.pads) < 0:
        raise UnsupportedLayerError(f"expected padding of at least 0, found {list(spec.pads)}")
    padding = max(spec.pads)
    rows, columns = (1 + dilation * (size - 1) for size, dilation in zip(sizes, spec.dilations, strict=True))
    kernels = {rows + 2 * padding - top - bottom, columns + 2 * padding - left - right}
    if len(kernels) > 1:
        found = f"{list(sizes)} with padding {list(spec.pads)}"
        raise UnsupportedLayerError(f"expected a square kernel, found {found}")
    return kernels.pop(), spec.strides[0], padding, (padding - top, padding - left)


def max_pool(value: Layers, sizes: Sequence[int], spec: ConvolutionSpec) -> Layers:
    """Return the largest value of each window, without padding."""
    if any(spec.pads) or len(set(sizes)) > 1 or set(spec.dilations) != {1} or len(set(spec.strides)) > 1:
        found = f"{list(sizes)}, strides {list(spec.strides)}, padding {list(spec.pads)}"
        raise UnsupportedLayerError(f"expected a square window without padding and dilation, found {found}")
    channels, height, width = value.shape
    if max(sizes) > MAX_WINDOW_SIZE:
        raise UnsupportedLayerError(f"expected windows of at most {MAX_WINDOW_SIZE}, found {list(sizes)}")
    return _as_image_after(value, MaxPool2D((height, width, channels), sizes[0], spec.strides[0]))


def average_pool(value: Layers, sizes: Sequence[int], spec: ConvolutionSpec) -> Layers:
    """Return the mean of each window, with zeros as padding, as a convolution of each channel."""
    channels = value.shape[0]
    if channels * channels * max(sizes) ** 2 > MAX_SAMPLE_VALUES:
        raise UnsupportedLayerError(f"expected at most {MAX_SAMPLE_VALUES} weights, found windows of {list(sizes)}")
    weights = np.full((channels, 1, *sizes), 1 / math.prod(sizes))
    return convolution(value, weights, np.zeros(channels), replace(spec, groups=channels))


def _as_image_after(value: Layers, module: Module) -> Layers:
    stored = module.output_shape(module.input_shape) or ()
    if math.prod(stored) > MAX_SAMPLE_VALUES:
        raise UnsupportedLayerError(f"expected at most {MAX_SAMPLE_VALUES} values a row, found {stored}")
    index = _places(stored).transpose(2, 0, 1)
    return replace(value, modules=(*value.modules, module), stored=stored, index=index)


def mean(value: Layers, axes: Sequence[int]) -> Layers:
    """Return the mean over axes of a sample, which keep the size 1, as a dense layer."""
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(value.shape))
    size, count = math.prod(value.shape), math.prod(kept)
    _check_selection(count, size)
    group = np.broadcast_to(np.arange(count).reshape(kept), value.shape).ravel()
    weights = (group == np.arange(count)[:, None]) * (count / size)
    averaged = linear(replace(value, index=value.index.reshape(-1)), weights, np.zeros(count), value.dtype)
    return replace(averaged, index=averaged.index.reshape(kept))
