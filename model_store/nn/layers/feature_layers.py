"""Layers that treat each feature by itself: hold it constant, scale it, bend it, limit it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from model_store.nn.arrays import Array
from model_store.nn.config_fields import POSITIVE_INT, Field
from model_store.nn.layers.activations import ACTIVATIONS
from model_store.nn.module import Shape
from model_store.nn.parametrized import ArrayAttribute, ParametrizedModule


class _FeatureLayer(ParametrizedModule):
    """The base: X (batch, size), or images of `size` values; Y like X; each array (size,), first all 0 or all 1."""

    config_fields: ClassVar = {"size": POSITIVE_INT}
    build_options = ("dtype", "arrays")
    batch_invariant = True
    initial: ClassVar[Mapping[str, float]]  # the first value of each array

    def __init__(
        self, size: int, *, dtype: npt.DTypeLike = np.float32, arrays: Mapping[str, Array] | None = None
    ) -> None:
        self.size = size
        self._check_fields()
        if arrays is None:
            self.initialize(dtype, **{name: np.full(self.size, value) for name, value in self.initial.items()})
        else:
            self.load_read_only(dtype, arrays)

    def shapes(self) -> dict[str, Shape]:
        return dict.fromkeys(self.initial, (self.size,))

    def output_shape(self, input_shape: Shape | None) -> Shape | None:
        if input_shape is not None and np.prod(input_shape) != self.size:
            raise ValueError(f"size: expected the number of values of {input_shape}; found {self.size}")
        return input_shape


class ConstantInputs(_FeatureLayer):
    """`yⱼ = valuesⱼ if constantⱼ else xⱼ`; X (batch, size) or images of `size` values, constant and values (size,).

    The first layer of a network whose training rows all had the same value of a feature: nothing was learned about
    others, so they must not change the answer. It has no parameters; `∂E/∂X` is 0 for constant features.
    """

    parameter_names = ()
    buffers = ("constant", "values")
    initial: ClassVar = {"constant": 0, "values": 0}

    constant, values = ArrayAttribute(), ArrayAttribute()
    _constant: Array
    _values: Array

    def __init__(
        self, size: int, *, dtype: npt.DTypeLike = np.float32, arrays: Mapping[str, Array] | None = None
    ) -> None:
        super().__init__(size, dtype=dtype, arrays=arrays)
        if not np.isin(self._constant, (0, 1)).all():
            raise ValueError("constant: expected only 0 and 1, found another number")

    def __call__(self, inputs: Array) -> Array:
        return np.where(self._constant != 0, self._values, self._flat(inputs)).reshape(inputs.shape)

    def forward(self, inputs: Array) -> Array:
        return self(inputs)

    def backward(self, output_grad: Array) -> Array:
        return np.where(self._constant != 0, 0, self._flat(output_grad)).reshape(output_grad.shape)

    def _flat(self, values: Array) -> Array:
        return values.reshape(len(values), self.size)


class FeatureScale(_FeatureLayer):
    """`Y = X ⊙ s`; X and Y (batch, size), s (size,), first 1: a learned importance of each feature.

    `∂E/∂s += Σ ∂E/∂Y ⊙ X` over the batch, `∂E/∂X = ∂E/∂Y ⊙ s`. It stands before the first dense layer, and its learning
    rate is higher than that of others; Holzmüller, Grinsztajn & Steinwart 2024, section 3.
    """

    parameter_names = ("scale",)
    initial: ClassVar = {"scale": 1}

    scale = ArrayAttribute()
    _scale: Array
    scale_grad: Array

    def __call__(self, inputs: Array) -> Array:
        outputs: Array = inputs * self._scale
        return outputs

    def forward(self, inputs: Array) -> Array:
        self.inputs = inputs
        return self(inputs)

    def backward(self, output_grad: Array) -> Array:
        if self.learns:
            self.scale_grad += (output_grad * self.inputs).sum(axis=0)
        input_grad: Array = output_grad * self._scale
        return input_grad


class ParametricActivation(_FeatureLayer):
    """`Y = X + α ⊙ (f(X) - X)`, f an element-wise activation; X and Y (batch, size), α (size,), first 1.

    Each unit learns how much of the activation it applies: 0 is the identity, 1 all of it.
    `∂E/∂α += Σ ∂E/∂Y ⊙ (f(X) - X)` over the batch, `∂E/∂X = ∂E/∂Y ⊙ (1 + α ⊙ (f'(X) - 1))`; Holzmüller, Grinsztajn &
    Steinwart 2024, appendix A.
    """

    config_fields: ClassVar = {
        "size": POSITIVE_INT,
        "activation": Field(f"one of {', '.join(ACTIVATIONS)}", lambda name: name in ACTIVATIONS),
    }
    parameter_names = ("alpha",)
    initial: ClassVar = {"alpha": 1}

    alpha = ArrayAttribute()
    _alpha: Array
    alpha_grad: Array

    def __init__(
        self,
        size: int,
        activation: str = "selu",
        *,
        dtype: npt.DTypeLike = np.float32,
        arrays: Mapping[str, Array] | None = None,
    ) -> None:
        self.activation = activation
        super().__init__(size, dtype=dtype, arrays=arrays)
        self.function = ACTIVATIONS[activation]()

    def __call__(self, inputs: Array) -> Array:
        outputs: Array = self.function(inputs) - inputs
        outputs *= self._alpha
        outputs += inputs
        return outputs

    def forward(self, inputs: Array) -> Array:
        self.inputs = inputs
        self.difference = self.function.activation(inputs) - inputs
        outputs: Array = inputs + self._alpha * self.difference
        return outputs

    def backward(self, output_grad: Array) -> Array:
        if self.learns:
            self.alpha_grad += (output_grad * self.difference).sum(axis=0)
        prime: Array = 1 + self._alpha * (self.function.activation_prime(self.inputs) - 1)
        return output_grad * prime


class Clip(_FeatureLayer):
    """`yⱼ = min(max(xⱼ, lowⱼ), highⱼ)` in inference, `Y = X` in training; X and Y (batch, size), low and high (size,).

    The last layer of a regression: no prediction leaves the range of the training targets, while training still learns
    from outputs beyond it.
    """

    parameter_names = ()
    buffers = ("low", "high")
    initial: ClassVar = {"low": 0, "high": 0}

    low, high = ArrayAttribute(), ArrayAttribute()
    _low: Array
    _high: Array

    def __init__(
        self, size: int, *, dtype: npt.DTypeLike = np.float32, arrays: Mapping[str, Array] | None = None
    ) -> None:
        super().__init__(size, dtype=dtype, arrays=arrays)
        if (self._low > self._high).any():
            raise ValueError("low: expected numbers of at most high, found a larger one")

    def __call__(self, inputs: Array) -> Array:
        outputs: Array = np.minimum(np.maximum(inputs, self._low), self._high)
        return outputs

    def forward(self, inputs: Array) -> Array:
        return inputs

    def backward(self, output_grad: Array) -> Array:
        return output_grad
