"""Activations: functions applied to every element, each beside its derivative; and the softmax.

An element-wise function `y = f(x)` passes gradients back as `∂E/∂X = ∂E/∂Y ⊙ f'(X)`. Shapes stay as they are.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import numpy as np

from model_store.nn.config_fields import FINITE_FLOAT
from model_store.nn.module import Module, Shape
from model_store.nn.tape import Array, Backward, Line, copied, outputs_like, scalar, unless_changed


class Activation(Module):
    """`Y = f(X)`, element by element. A subclass gives `activation` (f) and `activation_prime` (f')."""

    batch_invariant = True
    by_features = True

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        unless_changed(cls, Activation, {"activation", "activation_prime"}, {"lines", "chain"})

    def output_shape(self, input_shape: Shape | None) -> Shape | None:
        return input_shape

    def activation(self, inputs: Array) -> Array:
        raise NotImplementedError(f"{type(self).__name__} has no activation()")

    def activation_prime(self, inputs: Array) -> Array:
        raise NotImplementedError(f"{type(self).__name__} has no activation_prime()")

    def __call__(self, inputs: Array) -> Array:
        return self.activation(inputs)

    def forward(self, inputs: Array) -> Array:
        self.inputs = inputs
        return self.activation(inputs)

    def backward(self, output_grad: Array) -> Array:
        return output_grad * self.activation_prime(self.inputs)

    def record(self, inputs: Array) -> tuple[Array, list[Line], Backward]:
        outputs = outputs_like(inputs)

        def backward(output_grad: Array, expected: bool) -> tuple[Array, list[Line]]:
            return output_grad, self.chain(inputs, outputs, output_grad) if expected else []

        return outputs, self.lines(inputs, outputs), backward

    def lines(self, x: Array, y: Array) -> list[Line]:
        """The calls of `y = f(x)`. To be overridden, as `chain`, where calls save time."""
        return [copied(self.activation, x, out=y)]

    def chain(self, x: Array, y: Array, dy: Array) -> list[Line]:
        """The calls that turn `dy`, `∂E/∂Y`, into `∂E/∂X`: `dy ← dy ⊙ f'(x)`; y is still `f(x)`."""
        prime = np.empty_like(x)
        return [copied(self.activation_prime, x, out=prime), (np.multiply, (dy, prime, dy))]


class Identity(Activation):
    """`f(x) = x`, `f'(x) = 1`."""

    def activation(self, inputs: Array) -> Array:
        return inputs

    def activation_prime(self, inputs: Array) -> Array:
        return np.ones_like(inputs)


class Tanh(Activation):
    """`f(x) = tanh x`, `f'(x) = 1 - tanh² x`."""

    def activation(self, inputs: Array) -> Array:
        return np.tanh(inputs)

    def activation_prime(self, inputs: Array) -> Array:
        y = np.tanh(inputs)
        return 1 - y * y

    def lines(self, x: Array, y: Array) -> list[Line]:
        return [(np.tanh, (x, y))]

    def chain(self, x: Array, y: Array, dy: Array) -> list[Line]:
        prime = np.empty_like(x)
        return [
            (np.square, (y, prime)),
            (np.subtract, (scalar(1, x), prime, prime)),
            (np.multiply, (dy, prime, dy)),
        ]


class Sigmoid(Activation):
    """`f(x) = 1 / (1 + e⁻ˣ)`, `f'(x) = f(x) f(-x)`."""

    def activation(self, inputs: Array) -> Array:
        with np.errstate(over="ignore"):  # e⁻ˣ may be infinite: 1 / (1 + inf) is the right 0
            y: Array = 1 / (1 + np.exp(-inputs))
        return y

    def activation_prime(self, inputs: Array) -> Array:
        prime: Array = self.activation(inputs) * self.activation(-inputs)
        return prime

    def lines(self, x: Array, y: Array) -> list[Line]:
        """`f(x) = (1 + tanh x/2) / 2`, in which nothing overflows."""
        half = scalar(0.5, x)
        return [(np.multiply, (x, half, y)), (np.tanh, (y, y)), (np.multiply, (y, half, y)), (np.add, (y, half, y))]

    def chain(self, x: Array, y: Array, dy: Array) -> list[Line]:
        prime = np.empty_like(x)
        return [
            (np.subtract, (scalar(1, x), y, prime)),
            (np.multiply, (prime, y, prime)),
            (np.multiply, (dy, prime, dy)),
        ]


class ReLU(Activation):
    """`f(x) = max(0, x)`, `f'(x) = 1 if x > 0 else 0`."""

    def activation(self, inputs: Array) -> Array:
        y: Array = np.maximum(inputs, 0)
        return y

    def activation_prime(self, inputs: Array) -> Array:
        prime: Array = (inputs > 0).astype(inputs.dtype)
        return prime

    def lines(self, x: Array, y: Array) -> list[Line]:
        zeros = np.zeros_like(x)  # against an array, NumPy's maximum takes its vector path
        return [(partial(np.maximum, out=y), (x, zeros))]

    def chain(self, x: Array, y: Array, dy: Array) -> list[Line]:
        """By bits, so that no number changes its type: those of y are an integer above 0, or 0.

        Its sign is 1 or 0, and times that the bits of dy stay or are cleared. 256 x 64 take 2.1 µs, where a comparison
        that becomes numbers takes 4.2.
        """
        integer = np.dtype(f"i{x.itemsize}")
        sign, bits = np.empty_like(x, integer), dy.view(integer)
        return [(np.sign, (y.view(integer), sign)), (np.multiply, (bits, sign, bits))]


class LeakyReLU(Activation):
    """`f(x) = x if x > 0 else slope·x`, `f'(x) = 1 if x > 0 else slope`; 0 ≤ slope < 1."""

    config_fields: ClassVar = {"slope": FINITE_FLOAT}

    def __init__(self, slope: float = 0.01) -> None:
        self.slope = slope
        self._check_fields()
        if not 0 <= slope < 1:
            raise ValueError(f"LeakyReLU.slope: expected a number in [0, 1), found {slope}")

    def activation(self, inputs: Array) -> Array:
        y: Array = np.maximum(inputs, inputs * inputs.dtype.type(self.slope))
        return y

    def activation_prime(self, inputs: Array) -> Array:
        one, slope = inputs.dtype.type(1), inputs.dtype.type(self.slope)
        prime: Array = np.where(inputs > 0, one, slope)
        return prime

    def lines(self, x: Array, y: Array) -> list[Line]:
        return [(np.multiply, (x, scalar(self.slope, x), y)), (partial(np.maximum, out=y), (x, y))]

    def chain(self, x: Array, y: Array, dy: Array) -> list[Line]:
        prime, zeros = np.empty_like(x), np.zeros_like(x)
        return [
            (np.greater, (x, zeros, prime)),
            (partial(np.maximum, out=prime), (prime, np.full_like(x, self.slope))),
            (np.multiply, (dy, prime, dy)),
        ]


class GELU(Activation):
    """`f(x) = x/2 (1 + tanh u)`, `u = √(2/π) (x + 0.044715 x³)`; Hendrycks & Gimpel 2016, the tanh form.

    `f'(x) = (1 + tanh u)/2 + x/2 (1 - tanh² u) u'`, `u' = √(2/π) (1 + 3·0.044715 x²)`.
    """

    _ROOT = float(np.sqrt(2 / np.pi))
    _CUBIC = 0.044715

    def _tanh_u(self, x: Array) -> Array:
        t: Array = np.tanh(self._ROOT * (x + self._CUBIC * x * x * x))
        return t

    def activation(self, inputs: Array) -> Array:
        y: Array = 0.5 * inputs * (1 + self._tanh_u(inputs))
        return y

    def activation_prime(self, inputs: Array) -> Array:
        t = self._tanh_u(inputs)
        du = self._ROOT * (1 + 3 * self._CUBIC * inputs * inputs)
        prime: Array = 0.5 * (1 + t) + 0.5 * inputs * (1 - t * t) * du
        return prime

    def lines(self, x: Array, y: Array) -> list[Line]:
        one, half = scalar(1, x), scalar(0.5, x)
        return [*self._tanh_lines(x, y), (np.add, (y, one, y)), (np.multiply, (y, x, y)), (np.multiply, (y, half, y))]

    def chain(self, x: Array, y: Array, dy: Array) -> list[Line]:
        t, u, s = (np.empty_like(x) for _ in range(3))
        one, half = scalar(1, x), scalar(0.5, x)
        return [
            *self._tanh_lines(x, t),
            (np.square, (x, u)),  # u becomes x/2 u'
            (np.multiply, (u, scalar(1.5 * self._CUBIC * self._ROOT, x), u)),
            (np.add, (u, scalar(0.5 * self._ROOT, x), u)),
            (np.multiply, (u, x, u)),
            (np.square, (t, s)),
            (np.subtract, (one, s, s)),
            (np.multiply, (s, u, s)),
            (np.add, (t, one, t)),
            (np.multiply, (t, half, t)),
            (np.add, (t, s, t)),
            (np.multiply, (dy, t, dy)),
        ]

    def _tanh_lines(self, x: Array, t: Array) -> list[Line]:
        return [
            (np.square, (x, t)),
            (np.multiply, (t, scalar(self._CUBIC * self._ROOT, x), t)),
            (np.add, (t, scalar(self._ROOT, x), t)),
            (np.multiply, (t, x, t)),
            (np.tanh, (t, t)),
        ]


class Softmax(Module):
    """`yᵢ = e^(xᵢ - max x) / Σⱼ e^(xⱼ - max x)` over each row: class probabilities that sum to 1.

    `∂E/∂xᵢ = yᵢ (∂E/∂yᵢ - Σⱼ ∂E/∂yⱼ yⱼ)`. Taking the maximum off changes nothing but keeps e from overflowing.
    One class alone means nothing, so an (n, 1) input is read as the article's column vector.
    """

    batch_invariant = True
    outputs: Array

    def output_shape(self, input_shape: Shape | None) -> Shape | None:
        if input_shape is not None and input_shape[-1] == 1:
            raise ValueError("inputs: expected two values a row or more for a Softmax, found 1; a Sigmoid is for one")
        return input_shape

    def __call__(self, inputs: Array) -> Array:
        axis = self._axis(inputs)
        y: Array = np.exp(inputs - inputs.max(axis=axis, keepdims=True))
        y /= y.sum(axis=axis, keepdims=True)
        return y

    def forward(self, inputs: Array) -> Array:
        y = self(inputs)
        # Where a probability underflows to 0, cross-entropy's -1/y would be lost against it in `backward`.
        # Remembering the smallest normal number instead keeps their product, -1, at any logits.
        self.outputs = np.maximum(y, np.finfo(y.dtype).tiny)
        return y

    def backward(self, output_grad: Array) -> Array:
        y = self.outputs
        dx: Array = y * (output_grad - (output_grad * y).sum(axis=self._axis(y), keepdims=True))
        return dx

    @staticmethod
    def _axis(x: Array) -> int:
        return -2 if x.ndim >= 2 and x.shape[-1] == 1 else -1
