"""The dense layer: every output is a weighted sum of every input, plus a bias."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from model_store.nn.module import Module, as_rows
from model_store.nn.tape import Array, Backward, Line, product

# name -> weights (outputs, inputs) drawn from rng
INITIALIZERS: dict[str, Callable[[np.random.Generator, int, int], Array]] = {
    # The article's: standard normal, whatever the size.
    "normal": lambda rng, inputs, outputs: rng.standard_normal((outputs, inputs)),
    # Glorot & Bengio 2010, equation 16: keeps the variance through tanh and sigmoid layers.
    "glorot_uniform": lambda rng, inputs, outputs: (
        rng.uniform(-1, 1, (outputs, inputs)) * np.sqrt(6 / (inputs + outputs))
    ),
    # He et al. 2015, equation 10: keeps the variance through ReLU layers.
    "he_normal": lambda rng, inputs, outputs: rng.standard_normal((outputs, inputs)) * np.sqrt(2 / inputs),
    "zeros": lambda _, inputs, outputs: np.zeros((outputs, inputs)),
}

# Up to so many outputs, writing the bias out for every row and adding alike arrays is faster than broadcasting it:
# 0.6 against 0.95 µs for 4 rows of 3.
_SMALL = 2048


class Linear(Module):
    """`Y = X Wᵀ + b`; X (batch, inputs), W (outputs, inputs), b (outputs,), Y (batch, outputs).

    Randomness comes from `rng`; without one, from fresh entropy. `initializer` is a name of `INITIALIZERS`;
    the bias starts standard normal with "normal", as in the article, and at zero with the others.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        dtype: npt.DTypeLike = np.float32,
        rng: np.random.Generator | None = None,
        initializer: str = "normal",
    ) -> None:
        if initializer not in INITIALIZERS:
            raise ValueError(f"initializer: wanted one of {', '.join(INITIALIZERS)}; found {initializer!r}")
        rng = np.random.default_rng() if rng is None else rng
        bias = rng.standard_normal(output_size) if initializer == "normal" else np.zeros(output_size)
        self._weights: Array = INITIALIZERS[initializer](rng, input_size, output_size).astype(dtype)
        self._bias: Array = bias.astype(dtype)
        self.weights_grad: Array = np.zeros_like(self._weights)
        self.bias_grad: Array = np.zeros_like(self._bias)
        self._column = False

    @classmethod
    def from_arrays(cls, weights: Array, bias: Array) -> Linear:
        """A layer for inference on these very arrays, uncopied: a read-only memory map stays one.

        Its gradients are read-only zeros that take no memory, so training it by mistake is a ValueError.
        """
        layer = cls.__new__(cls)
        layer._weights, layer._bias, layer._column = _read_only(weights), _read_only(bias), False
        zero = weights.dtype.type(0)
        layer.weights_grad, layer.bias_grad = (np.broadcast_to(zero, a.shape) for a in (weights, bias))
        return layer

    # Assigning copies into the array that is there, so that views into a network's one vector survive.
    @property
    def weights(self) -> Array:
        return self._weights

    @weights.setter
    def weights(self, value: npt.ArrayLike) -> None:
        self._assign(self._weights, value, "weights")

    @property
    def bias(self) -> Array:
        return self._bias

    @bias.setter
    def bias(self, value: npt.ArrayLike) -> None:
        self._assign(self._bias, value, "bias")

    def _assign(self, array: Array, value: npt.ArrayLike, name: str) -> None:
        if value is array:  # `layer.weights -= step` has already changed it in place
            return
        found = np.asarray(value)
        if name == "bias" and found.shape == (self.output_size, 1):  # the article's column
            found = found[:, 0]
        if found.shape != array.shape:
            raise ValueError(f"Linear.{name}: wanted shape {array.shape}, found {found.shape}")
        array[...] = found

    @property
    def input_size(self) -> int:
        return int(self._weights.shape[1])

    @property
    def output_size(self) -> int:
        return int(self._weights.shape[0])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._weights.dtype

    def __call__(self, inputs: Array) -> Array:
        rows, column = as_rows(inputs, self.input_size, self.dtype, "Linear")
        outputs: Array = rows @ self._weights.T
        outputs += self._bias
        return outputs.T if column else outputs

    def forward(self, inputs: Array) -> Array:
        self.inputs, self._column = as_rows(inputs, self.input_size, self.dtype, "Linear")
        outputs: Array = self.inputs @ self._weights.T
        outputs += self._bias
        return outputs.T if self._column else outputs

    def backward(self, output_grad: Array) -> Array:
        """`∂E/∂W += (∂E/∂Y)ᵀ X`, `∂E/∂b += Σ ∂E/∂Y` over the batch, `∂E/∂X = ∂E/∂Y W`."""
        dy = output_grad.T if self._column else output_grad
        self.weights_grad += dy.T @ self.inputs
        self.bias_grad += dy.sum(axis=0)
        input_grad: Array = dy @ self._weights
        return input_grad.T if self._column else input_grad

    def record(self, inputs: Array) -> tuple[Array, list[Line], Backward]:
        if inputs.dtype != self.dtype:  # a network of mixed precision converts as it goes
            return super().record(inputs)
        outputs = np.empty((len(inputs), self.output_size), self.dtype)
        ones = np.ones((len(inputs), 1), self.dtype)  # ones·D is the sum over the batch, by the BLAS

        def backward(output_grad: Array, wanted: bool) -> tuple[Array, list[Line]]:
            lines = product(output_grad.T, inputs, self.weights_grad)
            lines.append((ones[:, 0].dot, (output_grad, self.bias_grad)))
            input_grad = np.empty_like(inputs)
            if wanted:
                lines += product(output_grad, self._weights, input_grad)
            return input_grad, lines

        forward = product(inputs, self._weights.T, outputs)
        if outputs.size <= _SMALL:
            biases = np.empty_like(outputs)
            forward += [(ones.dot, (self._bias.reshape(1, -1), biases)), (np.add, (outputs, biases, outputs))]
        else:
            forward.append((np.add, (outputs, self._bias, outputs)))
        return outputs, forward, backward

    def parameters(self) -> list[Array]:
        return [self._weights, self._bias]

    def gradients(self) -> list[Array]:
        return [self.weights_grad, self.bias_grad]

    def arrays(self) -> dict[str, Array]:
        return {"weights": self._weights, "bias": self._bias}

    def config(self) -> dict[str, Any]:
        return {"type": "Linear", "input_size": self.input_size, "output_size": self.output_size}


def _read_only(array: Array) -> Array:
    view = array.view()
    view.flags.writeable = False
    return view
