"""Normalization layers: shift and scale values to mean 0 and variance 1, then by learned parameters.

`x̂ = (x - mean) / σ`, `σ = √(variance + ε)`, `Y = x̂ ⊙ scale + shift`. The two layers differ in what they average over:
BatchNorm each feature over the batch, LayerNorm each sample over its features. With `D = ∂E/∂Y ⊙ scale` and means over
the same values,

    ∂E/∂X = (D - mean D - x̂ ⊙ mean(D ⊙ x̂)) / σ

because the mean and the variance also depend on every x. Features are the last axis; of images, the channels.

Means and variances are those of the differences to one of the values, which are exact near it: in float32, a mean of
values around 1e8 is off by multiples of 8, so that equal ones would be normalized to ±1 (Chan, Golub & LeVeque 1983).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from model_store.nn.arrays import Array
from model_store.nn.config_fields import FINITE_FLOAT, POSITIVE_INT
from model_store.nn.module import Shape
from model_store.nn.parametrized import ArrayAttribute, ParametrizedModule


class _Norm(ParametrizedModule):
    """The base of both layers: X (..., size), scale (size,), shift (size,), Y like X."""

    parameter_names = ("scale", "shift")
    build_options = ("dtype", "arrays")
    batch_invariant = True

    scale, shift = ArrayAttribute(), ArrayAttribute()
    _scale: Array
    _shift: Array
    scale_grad: Array
    shift_grad: Array
    normalized: Array  # x̂, and σ, of the last forward pass
    sigma: Array

    def __init__(self, size: int, epsilon: float, dtype: npt.DTypeLike, arrays: Mapping[str, Array] | None) -> None:
        self.size, self.epsilon = size, epsilon
        self._check_fields()
        if not epsilon > 0:
            raise ValueError(f"{type(self).__name__}.epsilon: expected a number above 0, found {epsilon}")
        if arrays is not None:
            self.load_read_only(dtype, arrays)
        else:
            zeros, ones = np.zeros(self.size), np.ones(self.size)
            self.initialize(dtype, scale=ones, shift=zeros, running_mean=zeros, running_variance=ones)

    def shapes(self) -> dict[str, Shape]:
        return dict.fromkeys((*self.parameter_names, *self.buffers), (self.size,))

    def output_shape(self, input_shape: Shape | None) -> Shape | None:
        if input_shape is not None and input_shape[-1] != self.size:
            raise ValueError(
                f"size: expected {input_shape[-1]}, the last of {input_shape} before it; found {self.size}"
            )
        return input_shape

    def _accumulate(self, output_grad: Array) -> None:
        """`∂E/∂scale += Σ ∂E/∂Y ⊙ x̂`, `∂E/∂shift += Σ ∂E/∂Y`, over all but the features."""
        if not self.learns:
            return
        axes = tuple(range(output_grad.ndim - 1))
        self.scale_grad += (output_grad * self.normalized).sum(axes)
        self.shift_grad += output_grad.sum(axes)


class LayerNorm(_Norm):
    """Mean and variance of each sample's features, of each pixel's channels; Ba, Kiros & Hinton 2016.

    The output for a row depends on that row only, in training and in inference.
    """

    config_fields: ClassVar = {"size": POSITIVE_INT, "epsilon": FINITE_FLOAT}

    def __init__(
        self,
        size: int,
        epsilon: float = 1e-5,
        *,
        dtype: npt.DTypeLike = np.float32,
        arrays: Mapping[str, Array] | None = None,
    ) -> None:
        super().__init__(size, epsilon, dtype, arrays)

    def _normalize(self, inputs: Array) -> tuple[Array, Array]:
        centred: Array = inputs - inputs[..., :1]
        centred -= centred.mean(-1, keepdims=True)
        sigma: Array = np.sqrt((centred * centred).mean(-1, keepdims=True) + self.epsilon)
        centred /= sigma
        return centred, sigma

    def __call__(self, inputs: Array) -> Array:
        return self._normalize(inputs)[0] * self._scale + self._shift

    def forward(self, inputs: Array) -> Array:
        self.normalized, self.sigma = self._normalize(inputs)
        return self.normalized * self._scale + self._shift

    def backward(self, output_grad: Array) -> Array:
        self._accumulate(output_grad)
        d = output_grad * self._scale
        means = d.mean(-1, keepdims=True), (d * self.normalized).mean(-1, keepdims=True)
        input_grad: Array = (d - means[0] - self.normalized * means[1]) / self.sigma
        return input_grad


class BatchNorm(_Norm):
    """Mean and variance of each feature over the batch, of each channel over all pixels; Ioffe & Szegedy 2015.

    Training uses the statistics of the batch and updates running averages, `running ← (1 - momentum) running +
    momentum measured` (the variance without bias, `n / (n - 1)`). Inference, `module(x)`, uses the running averages, so
    the output for a row depends on that row only. A single value has no variance: a batch of one row is normalized by
    the running averages and does not change them.
    """

    config_fields: ClassVar = {"size": POSITIVE_INT, "momentum": FINITE_FLOAT, "epsilon": FINITE_FLOAT}
    buffers = ("running_mean", "running_variance")

    running_mean, running_variance = ArrayAttribute(), ArrayAttribute()
    _running_mean: Array
    _running_variance: Array

    def __init__(
        self,
        size: int,
        momentum: float = 0.1,
        epsilon: float = 1e-5,
        *,
        dtype: npt.DTypeLike = np.float32,
        arrays: Mapping[str, Array] | None = None,
    ) -> None:
        self.momentum = momentum
        super().__init__(size, epsilon, dtype, arrays)
        if not 0 < momentum <= 1:
            raise ValueError(f"BatchNorm.momentum: expected a number above 0 and at most 1, found {momentum}")
        if (self._running_variance < 0).any():
            raise ValueError("running_variance: expected no number below 0, found one")

    def __call__(self, inputs: Array) -> Array:
        factor = self._scale / np.sqrt(self._running_variance + self.epsilon)
        outputs: Array = (inputs - self._running_mean) * factor
        outputs += self._shift
        return outputs

    def forward(self, inputs: Array) -> Array:
        self.axes, count = tuple(range(inputs.ndim - 1)), inputs.size // self.size
        self.batch_statistics = count > 1
        reference, variance = self._running_mean, self._running_variance
        if self.batch_statistics:
            reference = inputs.reshape(-1, self.size)[0]
        centred = inputs - reference
        if self.batch_statistics:
            mean = centred.mean(self.axes)
            centred -= mean
            variance = (centred * centred).mean(self.axes)
            self._running_mean += self.momentum * ((reference + mean) - self._running_mean)
            self._running_variance += self.momentum * (variance * (count / (count - 1)) - self._running_variance)
        self.sigma = np.sqrt(variance + self.epsilon)
        self.normalized = centred / self.sigma
        return self.normalized * self._scale + self._shift

    def backward(self, output_grad: Array) -> Array:
        self._accumulate(output_grad)
        d = output_grad * self._scale
        if self.batch_statistics:
            d = d - d.mean(self.axes) - self.normalized * (d * self.normalized).mean(self.axes)
        input_grad: Array = d / self.sigma
        return input_grad
