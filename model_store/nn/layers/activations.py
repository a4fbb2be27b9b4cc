"""Activations: element-wise functions, each with its derivative, and the softmax.

An element-wise function `y = f(x)` passes gradients back as `∂E/∂X = ∂E/∂Y ⊙ f'(X)`. Shapes do not change.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from model_store.nn.arrays import Array, apply_in_pieces, ignoring_overflow
from model_store.nn.config_fields import FINITE_FLOAT
from model_store.nn.module import Module, Shape
from model_store.nn.normal_distribution import normal_cdf, normal_density


class Activation(Module):
    """`Y = f(X)`, element by element. A subclass defines `activation` (f) and `activation_prime` (f')."""

    batch_invariant = True

    def output_shape(self, input_shape: Shape | None) -> Shape | None:
        return input_shape

    def activation(self, inputs: Array) -> Array:
        raise NotImplementedError(f"{type(self).__name__} has no activation()")

    def activation_prime(self, inputs: Array) -> Array:
        raise NotImplementedError(f"{type(self).__name__} has no activation_prime()")

    def __call__(self, inputs: Array) -> Array:
        return apply_in_pieces(self.activation, inputs)

    def forward(self, inputs: Array) -> Array:
        self.inputs = inputs
        return self.activation(inputs)

    def backward(self, output_grad: Array) -> Array:
        return output_grad * self.activation_prime(self.inputs)


class Identity(Activation):
    """`f(x) = x`, `f'(x) = 1`."""

    def __call__(self, inputs: Array) -> Array:
        return inputs

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


def sigmoid(x: Array) -> Array:
    """Return `σ(x) = 1 / (1 + e⁻ˣ)`, element by element."""
    e: Array = ignoring_overflow(np.exp, -x)  # it may be infinite: 1 / (1 + inf) is 0, as it should be
    y: Array = 1 / (1 + e)
    return y


class Sigmoid(Activation):
    """`f(x) = 1 / (1 + e⁻ˣ)`, `f'(x) = f(x) (1 - f(x))`."""

    def activation(self, inputs: Array) -> Array:
        return sigmoid(inputs)

    def activation_prime(self, inputs: Array) -> Array:
        y = self.activation(inputs)
        prime: Array = y * (1 - y)
        return prime


class ReLU(Activation):
    """`f(x) = max(0, x)`, `f'(x) = 1 if x > 0 else 0`."""

    def activation(self, inputs: Array) -> Array:
        y: Array = np.maximum(inputs, 0)
        return y

    def activation_prime(self, inputs: Array) -> Array:
        prime: Array = (inputs > 0).astype(inputs.dtype)
        return prime


class LeakyReLU(Activation):
    """`f(x) = x if x > 0 else slope·x`, `f'(x) = 1 if x > 0 else slope`; 0 ≤ slope < 1."""

    config_fields: ClassVar = {"slope": FINITE_FLOAT}

    def __init__(self, slope: float = 0.01) -> None:
        self.slope = slope
        self._check_fields()
        if not 0 <= slope < 1:
            raise ValueError(f"LeakyReLU.slope: expected a number in [0, 1), found {slope}")

    def activation(self, inputs: Array) -> Array:
        y: Array = np.maximum(inputs, self.slope * inputs)
        return y

    def activation_prime(self, inputs: Array) -> Array:
        prime: Array = np.maximum((inputs > 0).astype(inputs.dtype), self.slope)
        return prime


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


class ExactGELU(Activation):
    """`f(x) = x Φ(x) = x/2 (1 + erf(x/√2))`, `f'(x) = Φ(x) + x φ(x)`; Hendrycks & Gimpel 2016.

    The default GELU of PyTorch and Keras. Φ and φ are the distribution function and the density of the standard normal
    distribution. The error of f is at most 1 unit of rounding of max(1, |x|).
    """

    def activation(self, inputs: Array) -> Array:
        y: Array = inputs * normal_cdf(inputs)
        return y

    def activation_prime(self, inputs: Array) -> Array:
        prime: Array = normal_cdf(inputs) + inputs * normal_density(inputs)
        return prime


class SiLU(Activation):
    """`f(x) = x σ(x)`, `f'(x) = σ(x) (1 + x (1 - σ(x)))`, σ the sigmoid; Elfwing, Uchibe & Doya 2018, also Swish."""

    def activation(self, inputs: Array) -> Array:
        y: Array = inputs * sigmoid(inputs)
        return y

    def activation_prime(self, inputs: Array) -> Array:
        s = sigmoid(inputs)
        prime: Array = s * (1 + inputs * (1 - s))
        return prime


class ELU(Activation):
    """`f(x) = x if x > 0 else α (eˣ - 1)`, `f'(x) = 1 if x > 0 else α eˣ`; Clevert, Unterthiner & Hochreiter 2016."""

    config_fields: ClassVar = {"alpha": FINITE_FLOAT}

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha
        self._check_fields()

    def activation(self, inputs: Array) -> Array:
        y: Array = np.maximum(inputs, 0) + self.alpha * _expm1_below_zero(inputs)
        return y

    def activation_prime(self, inputs: Array) -> Array:
        positive = (inputs > 0).astype(inputs.dtype)
        prime: Array = self.alpha * (_expm1_below_zero(inputs) + 1) + (1 - self.alpha) * positive
        return prime


class Softplus(Activation):
    """`f(x) = ln(1 + eˣ) = max(0, x) + ln(1 + e^-|x|)`, `f'(x) = σ(x)`, the sigmoid; Dugas et al. 2001."""

    def activation(self, inputs: Array) -> Array:
        y: Array = np.maximum(inputs, 0) + np.log1p(np.exp(-np.abs(inputs)))
        return y

    def activation_prime(self, inputs: Array) -> Array:
        return sigmoid(inputs)


def _expm1_below_zero(x: Array) -> Array:
    """Return `eˣ - 1` for x ≤ 0, else 0."""
    y: Array = np.expm1(np.minimum(x, 0))
    return y


class SELU(Activation):
    """`f(x) = λ x if x > 0 else λ α (eˣ - 1)`, α = 1.6733, λ = 1.0507; Klambauer et al. 2017.

    `f'(x) = λ if x > 0 else λ α eˣ`. With weights of variance 1/inputs, mean 0 and variance 1 are its fixed point.
    """

    _ALPHA = 1.6732632423543772
    _LAMBDA = 1.0507009873554805

    def activation(self, inputs: Array) -> Array:
        y: Array = self._LAMBDA * (np.maximum(inputs, 0) + self._ALPHA * _expm1_below_zero(inputs))
        return y

    def activation_prime(self, inputs: Array) -> Array:
        positive = (inputs > 0).astype(inputs.dtype)
        prime: Array = self._LAMBDA * (self._ALPHA * (_expm1_below_zero(inputs) + 1) + (1 - self._ALPHA) * positive)
        return prime


class Mish(Activation):
    """`f(x) = x tanh(ln(1 + eˣ))`; Misra 2019.

    With `n = eˣ` and `p = n (n + 2)`: `f(x) = x p / (p + 2)`, `f'(x) = (p + 4 x n (n + 1) / (p + 2)) / (p + 2)`.
    Above a limit, where `p / (p + 2)` rounds to 1, n is held.
    """

    @staticmethod
    def _exp(x: Array) -> Array:
        n: Array = np.exp(np.minimum(x, 5 if x.dtype == np.float16 else 20))
        return n

    def activation(self, inputs: Array) -> Array:
        n = self._exp(inputs)
        p = n * (n + 2)
        y: Array = inputs * (p / (p + 2))
        return y

    def activation_prime(self, inputs: Array) -> Array:
        n = self._exp(inputs)
        p = n * (n + 2)
        prime: Array = (p + 4 * inputs * (n * (n + 1) / (p + 2))) / (p + 2)
        return prime


class SmoothClip(Activation):
    """`f(x) = x / h`, `h = √(1 + (x/3)²)`, `f'(x) = 1 / h³`: near x for small values, between -3 and 3 for all.

    For outliers of scaled numbers; Holzmüller, Grinsztajn & Steinwart 2024, section 3.
    """

    _LIMIT = 3

    def _inverse(self, x: Array) -> Array:
        q: Array = 1 / np.hypot(x / self._LIMIT, 1)
        return q

    def activation(self, inputs: Array) -> Array:
        y: Array = inputs * self._inverse(inputs)
        return y

    def activation_prime(self, inputs: Array) -> Array:
        q = self._inverse(inputs)
        return q * q * q


class Exp(Activation):
    """`f(x) = f'(x) = eˣ`: a positive output, for losses of counts and amounts."""

    def activation(self, inputs: Array) -> Array:
        y: Array = np.exp(inputs)
        return y

    def activation_prime(self, inputs: Array) -> Array:
        return self.activation(inputs)


# The element-wise activations by their names in a job file. A new one needs only its class, a line here and its export.
ACTIVATIONS: dict[str, type[Activation]] = {
    "tanh": Tanh,
    "relu": ReLU,
    "leaky_relu": LeakyReLU,
    "sigmoid": Sigmoid,
    "gelu": GELU,
    "exact_gelu": ExactGELU,
    "silu": SiLU,
    "elu": ELU,
    "softplus": Softplus,
    "selu": SELU,
    "mish": Mish,
    "smooth_clip": SmoothClip,
    "identity": Identity,
}


class Softmax(Module):
    """`yᵢ = e^(xᵢ - max x) / Σⱼ e^(xⱼ - max x)` over each row: class probabilities that sum to 1.

    `∂E/∂xᵢ = yᵢ (∂E/∂yᵢ - Σⱼ ∂E/∂yⱼ yⱼ)`. Subtracting the maximum changes nothing but keeps e from overflowing.
    A single class is meaningless, so an (n, 1) input is read as the article's column vector.
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
