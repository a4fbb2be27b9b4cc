"""Normalisation: values brought to mean 0 and variance 1, then scaled and shifted by what is learned.

`x̂ = (x - mean) / σ`, `σ = √(variance + ε)`, `Y = x̂ ⊙ scale + shift`. The two layers differ in whose mean and variance
they take: a feature's over the batch, or a sample's over its features. With `D = ∂E/∂Y ⊙ scale`, and means over the
same values as those, the gradient that goes on is

    ∂E/∂X = (D - mean D - x̂ ⊙ mean(D ⊙ x̂)) / σ

since the mean and the variance depend on every x, too. The features lie in the last axis; of images, the channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from model_store.nn.config_fields import FINITE_FLOAT, POSITIVE_INT
from model_store.nn.module import Shape
from model_store.nn.parametrized import ArrayAttribute, ParametrizedModule
from model_store.nn.tape import Array, Backward, Line, scalar


class _Norm(ParametrizedModule):
    """What the two have in common: X (..., size), scale (size,), shift (size,), Y like X."""

    parameter_names = ("scale", "shift")
    build_options = ("dtype", "arrays")
    batch_invariant = True

    scale, shift = ArrayAttribute(), ArrayAttribute()
    _scale: Array
    _shift: Array
    scale_grad: Array
    shift_grad: Array
    normal: Array  # x̂, and σ, of the last forward pass
    sigma: Array

    def __init__(self, size: int, epsilon: float, dtype: npt.DTypeLike, arrays: Mapping[str, Array] | None) -> None:
        self.size, self.epsilon = size, epsilon
        self._check_fields()
        if not epsilon > 0:
            raise ValueError(f"{type(self).__name__}.epsilon: expected a number above 0, found {epsilon}")
        if arrays is not None:
            self.adopt_read_only(dtype, arrays)
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

    def _learn(self, output_grad: Array) -> None:
        """`∂E/∂scale += Σ ∂E/∂Y ⊙ x̂`, `∂E/∂shift += Σ ∂E/∂Y`, over all but the features."""
        over = tuple(range(output_grad.ndim - 1))
        self.scale_grad += (output_grad * self.normal).sum(over)
        self.shift_grad += output_grad.sum(over)

    def _learning(self, dy: Array, normal: Array, work: Array) -> list[Line]:
        """The same on a tape; all three (values, size)."""
        sums = np.ones(len(dy), self.dtype)
        return [
            (sums.dot, (dy, self.shift_grad)),
            (np.multiply, (dy, normal, work)),
            (sums.dot, (work, self.scale_grad)),
        ]


class LayerNorm(_Norm):
    """Mean and variance of each sample's features, of each pixel's channels; Ba, Kiros & Hinton 2016.

    A row's answer depends on the row alone, in training as in inference.
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

    def _standard(self, inputs: Array) -> tuple[Array, Array]:
        centred: Array = inputs - inputs.mean(-1, keepdims=True)
        sigma: Array = np.sqrt((centred * centred).mean(-1, keepdims=True) + self.epsilon)
        centred /= sigma
        return centred, sigma

    def __call__(self, inputs: Array) -> Array:
        return self._standard(inputs)[0] * self._scale + self._shift

    def forward(self, inputs: Array) -> Array:
        self.normal, self.sigma = self._standard(inputs)
        return self.normal * self._scale + self._shift

    def backward(self, output_grad: Array) -> Array:
        self._learn(output_grad)
        d = output_grad * self._scale
        means = d.mean(-1, keepdims=True), (d * self.normal).mean(-1, keepdims=True)
        input_grad: Array = (d - means[0] - self.normal * means[1]) / self.sigma
        return input_grad

    def record(self, inputs: Array) -> tuple[Array, list[Line], Backward]:
        if inputs.dtype != self.dtype:
            return super().record(inputs)
        spread, x = _Spread(inputs), inputs.reshape(-1, self.size)
        normal, outputs, work = (np.empty_like(x) for _ in range(3))
        sigma, mean = (np.empty((len(x), 1), self.dtype) for _ in range(2))
        shares = np.full(self.size, 1 / self.size, self.dtype)  # times these, a row sums up to its mean
        flat = [array.reshape(spread.rows.shape) for array in (normal, outputs)]

        def mean_of(rows: Array, out: Array) -> Line:
            return rows.dot, (shares, out[:, 0])

        def backward(output_grad: Array, expected: bool) -> tuple[Array, list[Line]]:
            dy = output_grad.reshape(x.shape)
            lines = self._learning(dy, normal, work)
            if expected:
                lines += [
                    *spread(np.multiply, output_grad.reshape(spread.rows.shape), self._scale),
                    (np.multiply, (dy, normal, work)),
                    mean_of(work, mean),
                    (np.multiply, (normal, mean, work)),
                    mean_of(dy, mean),
                    (np.subtract, (dy, mean, dy)),
                    (np.subtract, (dy, work, dy)),
                    (np.divide, (dy, sigma, dy)),
                ]
            return output_grad, lines

        forward: list[Line] = [
            mean_of(x, mean),
            (np.subtract, (x, mean, normal)),
            (np.multiply, (normal, normal, work)),
            mean_of(work, sigma),
            (np.add, (sigma, scalar(self.epsilon, sigma), sigma)),
            (np.sqrt, (sigma, sigma)),
            (np.divide, (normal, sigma, normal)),
            *spread(np.multiply, flat[0], self._scale, flat[1]),
            *spread(np.add, flat[1], self._shift),
        ]
        return outputs.reshape(inputs.shape), forward, backward


class BatchNorm(_Norm):
    """Mean and variance of each feature over the batch, of each channel over all pixels; Ioffe & Szegedy 2015.

    Training measures the batch and keeps running averages, `running ← (1 - momentum) running + momentum measured`
    (of the variance without bias, `n / (n - 1)`); inference, `module(x)`, normalises by those, so that an answer
    depends on its row alone. One value alone has no variance: a batch of one row is normalised by the running
    averages, which it leaves as they are.
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
        self.over, count = tuple(range(inputs.ndim - 1)), inputs.size // self.size
        self.measured = count > 1
        mean, variance = self._running_mean, self._running_variance
        if self.measured:
            mean, variance = inputs.mean(self.over), inputs.var(self.over)
            self._running_mean += self.momentum * (mean - self._running_mean)
            self._running_variance += self.momentum * (variance * (count / (count - 1)) - self._running_variance)
        self.sigma = np.sqrt(variance + self.epsilon)
        self.normal = (inputs - mean) / self.sigma
        return self.normal * self._scale + self._shift

    def backward(self, output_grad: Array) -> Array:
        self._learn(output_grad)
        d = output_grad * self._scale
        if self.measured:
            d = d - d.mean(self.over) - self.normal * (d * self.normal).mean(self.over)
        input_grad: Array = d / self.sigma
        return input_grad

    def record(self, inputs: Array) -> tuple[Array, list[Line], Backward]:
        count = inputs.size // self.size
        if inputs.dtype != self.dtype or count == 1:
            return super().record(inputs)
        sums, spread = np.ones(count, self.dtype), _Spread(inputs)
        normal, outputs, work = (np.empty_like(spread.rows) for _ in range(3))
        mean, variance, inverse, change = (np.empty(self.size, self.dtype) for _ in range(4))
        share, momentum = scalar(1 / count, mean), scalar(self.momentum, mean)

        def mean_of(array: Array, out: Array) -> list[Line]:
            return [(sums.dot, (array.reshape(count, self.size), out)), (np.multiply, (out, share, out))]

        def follow(running: Array, measured: Array) -> list[Line]:
            step: list[Line] = [(np.subtract, (measured, running, change)), (np.multiply, (change, momentum, change))]
            return [*step, (np.add, (running, change, running))]

        def backward(output_grad: Array, expected: bool) -> tuple[Array, list[Line]]:
            dy = output_grad.reshape(normal.shape)
            lines = self._learning(*(array.reshape(count, self.size) for array in (dy, normal, work)))
            if expected:  # (D - mean D - x̂ ⊙ mean(D ⊙ x̂)) / σ, the scale taken out of D
                lines += [
                    (np.multiply, (self.scale_grad, share, change)),
                    *spread(np.multiply, normal, change, work),
                    (np.subtract, (dy, work, dy)),
                    (np.multiply, (self.shift_grad, share, change)),
                    *spread(np.subtract, dy, change),
                    (np.multiply, (self._scale, inverse, change)),
                    *spread(np.multiply, dy, change),
                ]
            return output_grad, lines

        forward: list[Line] = [
            *mean_of(inputs, mean),
            *spread(np.subtract, spread.rows, mean, normal),
            (np.multiply, (normal, normal, work)),
            *mean_of(work, variance),
            *follow(self._running_mean, mean),
            (np.multiply, (variance, scalar(count / (count - 1), mean), inverse)),
            *follow(self._running_variance, inverse),
            (np.add, (variance, scalar(self.epsilon, mean), inverse)),
            (np.sqrt, (inverse, inverse)),
            (np.reciprocal, (inverse, inverse)),
            *spread(np.multiply, normal, inverse),
            *spread(np.multiply, normal, self._scale, outputs),
            *spread(np.add, outputs, self._shift),
        ]
        return outputs.reshape(inputs.shape), forward, backward


class _Spread:
    """Calls of a ufunc between a batch and a vector of its features, for a tape.

    A few channels are too short a run to broadcast fast, so the vector is written out for all pixels of an image.
    """

    def __init__(self, inputs: Array) -> None:
        self.rows = inputs.reshape(len(inputs), -1)
        self.written = np.empty((self.rows.shape[1] // inputs.shape[-1], inputs.shape[-1]), inputs.dtype)

    def __call__(self, function: np.ufunc, rows: Array, vector: Array, out: Array | None = None) -> list[Line]:
        """Into `out`, or `rows` themselves."""
        out = rows if out is None else out
        if len(self.written) == 1:
            return [(function, (rows, vector, out))]
        return [(np.copyto, (self.written, vector)), (function, (rows, self.written.reshape(-1), out))]
