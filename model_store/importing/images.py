"""The layers of images: convolutions and pooling of any size, stride and padding, also of one and three dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from model_store.importing.features import Features
from model_store.importing.layers import (
    Layers,
    UnsupportedLayerError,
    affine,
    check_selection,
    enter,
    gathered,
    linear,
    places_of,
)
from model_store.nn import Array, AveragePool2D, Conv2D, MaxPool2D, Module
from model_store.nn.config_fields import MAX_SAMPLE_VALUES, MAX_WINDOW_SIZE


def as_image(value: Features | Layers, dtype: np.dtype[Any]) -> Layers:
    """Return an image (channels, height, width), stored as (height, width, channels)."""
    value = enter(value, dtype)
    if value.is_channels_first:
        return value
    if len(value.shape) != 3:
        raise UnsupportedLayerError(f"expected images (channels, height, width), found samples of {value.shape}")
    channels, height, width = value.shape
    stored = (height, width, channels)
    places = value.index.transpose(1, 2, 0)
    if value.modules or not np.array_equal(places, places_of(stored)) or value.index.size < math.prod(value.stored):
        value = gathered(value, places, stored, stored)
    # A row of pixels as it comes from the caller needs no layer to become an image.
    return replace(value, stored=stored, index=places_of(stored).transpose(2, 0, 1))


@dataclass(frozen=True)
class ConvolutionSpec:
    """The settings of a convolution or a pooling: one for each axis; pads are those before each axis, then after it."""

    strides: tuple[int, ...] = (1, 1)
    pads: tuple[int, ...] = (0, 0, 0, 0)
    dilations: tuple[int, ...] = (1, 1)
    groups: int = 1

    def of_axis(self, axis: int) -> ConvolutionSpec:
        """Return the settings of one axis for images that are one pixel high."""
        before, after = self.pads[axis], self.pads[axis + len(self.strides)]
        return replace(
            self, strides=(1, self.strides[axis]), pads=(0, before, 0, after), dilations=(1, self.dilations[axis])
        )


def same_padding(
    shape: Sequence[int],
    sizes: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    *,
    at_end: bool = True,
) -> list[int]:
    """Return the padding before each axis, then after it, for an output of the input's size over the stride."""
    before, after = [], []
    for length, size, stride, dilation in zip(shape, sizes, strides, dilations, strict=True):
        total = max(0, (-(-length // stride) - 1) * stride + dilation * (size - 1) + 1 - length)
        small, large = total // 2, total - total // 2
        before.append(small if at_end else large)
        after.append(large if at_end else small)
    return [*before, *after]


def whole_windows(shape: Sequence[int], sizes: Sequence[int], spec: ConvolutionSpec) -> ConvolutionSpec:
    """Return the settings with as much padding after each axis as the last window needs, if it begins before that."""
    pads = list(spec.pads)
    for axis, length in enumerate(shape):
        extent, stride = spec.dilations[axis] * (sizes[axis] - 1) + 1, spec.strides[axis]
        before, after = pads[axis], pads[axis + len(shape)]
        last = -(-(length + before + after - extent) // stride) * stride  # where the last window begins
        last -= stride if last >= length + before else 0
        pads[axis + len(shape)] = max(after, last + extent - length - before)
    return replace(spec, pads=tuple(pads))


def convolution(value: Layers, weights: Array, bias: Array, spec: ConvolutionSpec) -> Layers:
    """Return the convolution of an image with weights (filters, channels / groups, height, width), or of a row.

    A row is (channels, length), its weights (filters, channels / groups, width). Dilation and groups become zeros in
    the kernel.
    """
    if weights.ndim == 3:
        if len(value.shape) != 2:
            raise UnsupportedLayerError(f"expected samples (channels, length), found {value.shape}")
        image = replace(value, index=value.index[:, None])
        found = convolution(image, weights[:, :, None], bias, spec.of_axis(0))
        return replace(found, index=found.index[:, 0])
    if weights.ndim != 4:
        raise UnsupportedLayerError(f"expected a convolution of images, found weights of {weights.shape}")
    value = as_image(value, value.dtype)
    channels, height, width = value.shape
    if not weights.size:
        raise UnsupportedLayerError(f"expected weights, found none of shape {weights.shape}")
    filters, per_group = weights.shape[:2]
    if spec.groups < 1 or filters % spec.groups or per_group * spec.groups != channels:
        raise UnsupportedLayerError(f"expected weights of {channels} channels, found {weights.shape}")
    if min(spec.dilations) < 1 or min(spec.pads) < 0:
        raise UnsupportedLayerError(f"expected padding of at least 0, found {list(spec.pads)}")
    kernel = tuple(1 + step * (size - 1) for size, step in zip(weights.shape[2:], spec.dilations, strict=True))
    if filters * channels * math.prod(kernel) > MAX_SAMPLE_VALUES:
        raise UnsupportedLayerError(f"expected at most {MAX_SAMPLE_VALUES} weights, found {weights.shape}")
    dense = np.zeros((filters, *kernel, channels), np.float64)
    down, across = spec.dilations
    for group in range(spec.groups):
        own = slice(group * filters // spec.groups, (group + 1) * filters // spec.groups)
        inputs = slice(group * per_group, (group + 1) * per_group)
        dense[own, ::down, ::across, inputs] = weights[own].transpose(0, 2, 3, 1)
    arrays = {"weights": value.array(dense), "bias": value.array(np.broadcast_to(bias, (filters,)))}
    sizes = (kernel, spec.strides, spec.pads)
    return _image_after(value, Conv2D((height, width, channels), filters, *sizes, dtype=value.dtype, arrays=arrays))


def max_pool(value: Layers, sizes: Sequence[int], spec: ConvolutionSpec) -> Layers:
    """Return the largest value of each window; a window has a size for each axis after the channels."""
    return _pool(value, sizes, spec, MaxPool2D, {})


def average_pool(value: Layers, sizes: Sequence[int], spec: ConvolutionSpec, counted: Sequence[int] = ()) -> Layers:
    """Return the mean of each window: of its values in the image, or also of zeros in a border of `counted` pixels.

    Counted are the pads before each axis, then after it. A window may reach beyond them, as `whole_windows` makes it.
    """
    if not any(counted):
        return _pool(value, sizes, spec, AveragePool2D, {})
    shape = value.shape[1:]
    found = _pool(value, sizes, spec, AveragePool2D, {"include_padding": True})
    factors = np.ones(found.shape)
    for axis, length in enumerate(shape):
        starts = np.arange(found.shape[axis + 1]) * spec.strides[axis]  # in the padded image
        places = starts[:, None] + spec.dilations[axis] * np.arange(sizes[axis])
        count = (places < spec.pads[axis] + length + counted[axis + len(shape)]).sum(axis=1)
        factors *= (sizes[axis] / count).reshape(-1, *[1] * (len(shape) - 1 - axis))
    return enter(affine(found, factors, 0.0), value.dtype)


def mean(value: Layers, axes: Sequence[int]) -> Layers:
    """Return the mean over axes of a sample, which keep the size 1: of an image as a pooling, else as a dense layer."""
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(value.shape))
    others = [axis for axis in range(len(kept)) if axis not in axes]
    image = value.index.transpose(*others, *sorted(axes))
    if image.ndim == 3 and len(axes) == 2 and max(image.shape[1:]) <= MAX_WINDOW_SIZE:
        averaged = average_pool(replace(value, index=image), image.shape[1:], ConvolutionSpec())
        return replace(averaged, index=averaged.index.reshape(kept))
    size, count = math.prod(value.shape), math.prod(kept)
    check_selection(count, size)
    group = np.broadcast_to(np.arange(count).reshape(kept), value.shape).ravel()
    weights = (group == np.arange(count)[:, None]) * (count / size)
    averaged = linear(replace(value, index=value.index.reshape(-1)), weights, np.zeros(count), value.dtype)
    return replace(averaged, index=averaged.index.reshape(kept))


def _pool(
    value: Layers, sizes: Sequence[int], spec: ConvolutionSpec, kind: type[MaxPool2D | AveragePool2D], options: Any
) -> Layers:
    """Return a pooling: that of an image, or one axis after the other, for the largest of the largest is the same."""
    axes = len(value.shape) - 1
    if axes < 1 or len(sizes) != axes:
        expected = "expected samples (channels, sizes...) and a window with a size for each"
        raise UnsupportedLayerError(f"{expected}, found samples of {value.shape} and a window of {list(sizes)}")
    if max(sizes) > MAX_WINDOW_SIZE:
        raise UnsupportedLayerError(f"expected windows of at most {MAX_WINDOW_SIZE}, found {list(sizes)}")
    if axes == 2:
        image = as_image(value, value.dtype)
        channels, height, width = image.shape
        settings = (tuple(sizes), spec.strides, spec.pads, spec.dilations)
        return _image_after(image, kind((height, width, channels), *settings, **options))
    for axis, size in enumerate(sizes):
        turned = np.moveaxis(value.index, axis + 1, -1)
        row = replace(value, index=turned.reshape(-1, 1, turned.shape[-1]))
        pooled = _pool(row, [1, size], spec.of_axis(axis), kind, options)
        value = replace(pooled, index=np.moveaxis(pooled.index.reshape(*turned.shape[:-1], -1), -1, axis + 1))
    return value


def _image_after(value: Layers, module: Module) -> Layers:
    stored = module.output_shape(module.input_shape) or ()
    if math.prod(stored) > MAX_SAMPLE_VALUES:
        raise UnsupportedLayerError(f"expected at most {MAX_SAMPLE_VALUES} values a row, found {stored}")
    index = places_of(stored).transpose(2, 0, 1)
    return replace(value, modules=(*value.modules, module), stored=stored, index=index)
