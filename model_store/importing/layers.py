"""A value that an imported network computes: our layers so far, and where its elements are in their output.

Frameworks order the pixels of an image by channel, row, column; our layers by row, column, channel. So a value keeps
for each of its elements the place in the output of the last layer. Transposing, reshaping and selecting change only
these places, and the weights of the next dense layer are put in their order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from model_store.importing.features import EncodedFeatures, Features, encode_features
from model_store.nn import Array, BatchNorm, Conv2D, Flatten, Gather, LayerNorm, Linear, Module, Softmax
from model_store.nn.config_fields import MAX_SAMPLE_VALUES
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
        return len(self.stored) == 3 and np.array_equal(self.index, places_of(self.stored).transpose(2, 0, 1))

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


def places_of(shape: Sequence[int]) -> Array:
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
    check_selection(len(value.items), max(len(value.items), encoded.width))
    return linear(value, np.eye(len(value.items)), np.zeros(len(value.items)), dtype)


def _start(encoded: EncodedFeatures, dtype: np.dtype[Any], index: Array) -> Layers:
    return Layers(encoded.inputs, encoded.plain, dtype, (), (encoded.width,), index)


def check_selection(outputs: int, inputs: int) -> None:
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
            check_selection(outputs, max(encoded.width, len(encoded.rows)))
        weights, bias = encoded.fold(weights, bias)
        value = _start(encoded, dtype, np.arange(encoded.width))
    else:
        if value.shape != (weights.shape[1],):
            fix = "flatten it first" if len(value.shape) > 1 else "check the file"
            raise UnsupportedLayerError(f"expected a row of {weights.shape[1]} values, found {value.shape}; {fix}")
        value = flatten(value)
        if not value.is_stored_order:
            if value.stored[0] > weights.shape[1]:
                check_selection(outputs, value.stored[0])
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
    check_selection(len(value.index), max(len(value.index), value.stored[0]))
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


def layer_norm(value: Layers, scale: Array, shift: Array, epsilon: float, *, axes: int = 1) -> Layers:
    """Return a sample normalized over its last `axes`; scale and shift have one number, or one for each value there."""
    shape = value.shape
    size = math.prod(shape[len(shape) - axes :])
    given = [np.broadcast_to(np.ravel(one).astype(np.float64), (size,)) for one in (scale, shift)]
    if size == math.prod(shape) and value.has_each_place:  # in the order in which it is stored
        value = flatten(replace(value, index=value.index.reshape(-1)))
        given = [by_feature(value, one) for one in given]
    else:
        value = last_axis_stored(replace(value, index=value.index.reshape(-1, size)))
    arrays = {name: value.array(one) for name, one in zip(("scale", "shift"), given, strict=True)}
    normalized = value.then(LayerNorm(size, epsilon=epsilon, dtype=value.dtype, arrays=arrays))
    return replace(normalized, index=normalized.index.reshape(shape))


def softmax(value: Layers, axis: int) -> Layers:
    """Return the softmax along an axis of a sample."""
    if value.shape[axis] == 1:
        raise UnsupportedLayerError("expected two values a row or more for a softmax, found 1")
    if len(value.shape) == 1 and value.has_each_place:
        return flatten(value).then(Softmax())
    if value.is_channels_first and axis == 0:
        return value.then(Softmax())
    turned = last_axis_stored(replace(value, index=np.moveaxis(value.index, axis, -1))).then(Softmax())
    return replace(turned, index=np.moveaxis(turned.index, -1, axis))


def last_axis_stored(value: Layers) -> Layers:
    """Return a value whose last axis is the last one of the stored sample, too."""
    size = value.shape[-1]
    if value.is_stored_order and value.stored[-1] == size and value.index.size == math.prod(value.stored):
        return value
    stored = (value.index.size // size, 1, size) if value.index.size > size else (size,)
    return gathered(value, value.index, stored, value.shape)


def gathered(value: Layers, places: Array, stored: tuple[int, ...], shape: tuple[int, ...]) -> Layers:
    """Return some places of the value as a sample `stored`; the value's elements then have that order and `shape`."""
    if math.prod(stored) > MAX_SAMPLE_VALUES:
        raise UnsupportedLayerError(f"expected at most {MAX_SAMPLE_VALUES} values a row, found {stored}")
    arrays = {"index": value.array(places.ravel())}
    module = Gather(math.prod(value.stored), stored, dtype=value.dtype, arrays=arrays)
    return replace(value, modules=(*value.modules, module), stored=stored, index=places_of(stored).reshape(shape))


def mapped(value: Layers, function: Callable[[Array], Array]) -> Layers:
    """Return what a linear function of samples computes, as a dense layer. It takes samples (any number, *shape)."""
    size = value.index.size
    check_selection(size, size)
    units = function(np.eye(size).reshape(size, *value.shape))
    shape = units.shape[1:]
    check_selection(math.prod(shape), size)
    count = math.prod(shape)
    row = replace(value, index=value.index.reshape(-1))
    found = linear(row, units.reshape(size, count).T, np.zeros(count), value.dtype)
    return replace(found, index=found.index.reshape(shape))
