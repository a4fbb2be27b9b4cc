"""The dense layer: every output is a weighted sum of every input, plus a bias."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from model_store.nn.batch_invariant import block_rows, multiply_in_blocks
from model_store.nn.config_fields import POSITIVE_INT
from model_store.nn.initializers import initial_parameters
from model_store.nn.module import Shape, as_rows
from model_store.nn.parametrized import ArrayAttribute, ParametrizedModule
from model_store.nn.tape import (
    FEW_FEATURES,
    FEW_ROWS,
    Array,
    Backward,
    Line,
    by_features,
    by_rows,
    product,
    with_ones,
)

# Up to so many outputs, writing the bias out for every row and adding alike arrays is faster than broadcasting it:
# 0.6 against 0.95 µs for 4 rows of 3.
_SMALL = 2048


class Linear(ParametrizedModule):
    """`Y = X Wᵀ + b`; X (batch, inputs), W (outputs, inputs), b (outputs,), Y (batch, outputs).

    Randomness comes from `rng`; without one, from fresh entropy. `initializer` is a name of `INITIALIZERS`;
    the bias starts standard normal with "normal", as in the article, and at zero with the others.
    """

    config_fields: ClassVar = {"input_size": POSITIVE_INT, "output_size": POSITIVE_INT}
    batch_invariant = True  # rows are multiplied in blocks of one size in inference
    by_features = True

    weights, bias = ArrayAttribute(), ArrayAttribute()
    _weights: Array
    _bias: Array
    weights_grad: Array
    bias_grad: Array

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        dtype: npt.DTypeLike = np.float32,
        rng: np.random.Generator | None = None,
        initializer: str = "normal",
        arrays: Mapping[str, Array] | None = None,
    ) -> None:
        self.input_size, self.output_size = input_size, output_size
        self._check_fields()
        self._column = False
        if arrays is not None:
            self.adopt_read_only(dtype, arrays)
            return
        rng = np.random.default_rng() if rng is None else rng
        shape = self.shapes()["weights"]
        weights, bias = initial_parameters(initializer, rng, shape, self.input_size, self.output_size)
        self.initialize(dtype, weights=np.asfortranarray(weights) if self._few else weights, bias=bias)

    def shapes(self) -> dict[str, Shape]:
        return {"weights": (self.output_size, self.input_size), "bias": (self.output_size,)}

    @property
    def _few(self) -> bool:
        """Whether the weights lie input after input, and the bias after them."""
        return max(self.input_size, self.output_size) <= FEW_FEATURES

    @property
    def input_shape(self) -> Shape:
        return (self.input_size,)

    def output_shape(self, input_shape: Shape | None) -> Shape:
        if input_shape is not None and len(input_shape) != 1:
            raise ValueError(f"input_size: expected a Flatten before it, for images of {input_shape}; found none")
        if input_shape not in (None, (self.input_size,)):
            raise ValueError(f"input_size: expected {input_shape[0]}, the width before it; found {self.input_size}")
        return (self.output_size,)

    def __call__(self, inputs: Array) -> Array:
        rows, column = as_rows(inputs, self.input_size, self.dtype, "Linear")
        outputs = multiply_in_blocks(
            rows, np.ascontiguousarray(self._weights).T, self.block_rows
        )  # in the order of artifacts
        outputs += self._bias
        return outputs.T if column else outputs

    @cached_property
    def block_rows(self) -> int:
        return block_rows(self.input_size, self.output_size, self.dtype)

    def __getstate__(self) -> dict[str, Any]:
        """Without the size of a block, which is this machine's: another's BLAS may treat that one unevenly."""
        return {name: value for name, value in vars(self).items() if name != "block_rows"}

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
        joined, joined_grad = _joined(self._weights, self._bias), _joined(self.weights_grad, self.bias_grad)
        if self._few and len(inputs) <= FEW_ROWS and joined is not None and joined_grad is not None:
            return self._record_joined(inputs, joined, joined_grad)
        inputs, entered = by_rows(inputs)
        outputs = np.empty((len(inputs), self.output_size), self.dtype)
        ones = np.ones((len(inputs), 1), self.dtype)  # ones·D is the sum over the batch, by the BLAS

        def backward(output_grad: Array, expected: bool) -> tuple[Array, list[Line]]:
            if by_features(self.weights_grad):
                lines = product(inputs.T, output_grad, self.weights_grad.T)
            else:
                lines = product(output_grad.T, inputs, self.weights_grad)
            lines.append((ones[:, 0].dot, (output_grad, self.bias_grad)))
            input_grad = np.empty_like(inputs)
            if expected:
                lines += product(output_grad, self._weights, input_grad)
            return input_grad, lines

        if outputs.size > _SMALL:
            added: Line = (np.add, (outputs, self._bias, outputs))
            return outputs, [*entered, *product(inputs, self._weights.T, outputs), added], backward
        weighted = np.empty_like(outputs)  # in place, one number takes NumPy 0.6 µs; from array to array, 0.2
        forward = [*entered, *product(inputs, self._weights.T, weighted)]
        biases: Array = np.empty_like(outputs)
        if self.output_size == 1:
            biases = self._bias.reshape(())
        elif len(inputs) == 1:
            biases = self._bias.reshape(1, -1)
        else:
            forward.append((ones.dot, (self._bias.reshape(1, -1), biases)))
        return outputs, [*forward, (np.add, (weighted, biases, outputs))], backward

    def _record_joined(self, inputs: Array, joined: Array, joined_grad: Array) -> tuple[Array, list[Line], Backward]:
        """Of a small layer: `Y = [X 1] [Wᵀ; b]`, one product, and one for both gradients."""
        forward: list[Line] = []
        whole = with_ones(inputs)
        if whole is None:
            whole = np.ones((len(inputs), self.input_size + 1), self.dtype)
            forward.append((np.copyto, (whole[:, :-1], inputs)))
        outputs = np.empty((self.output_size, len(inputs)), self.dtype).T
        forward.append((joined.T.dot, (whole.T, outputs.T)))

        def backward(output_grad: Array, expected: bool) -> tuple[Array, list[Line]]:
            lines: list[Line] = [(whole.T.dot, (output_grad, joined_grad))]
            input_grad = np.empty_like(inputs)
            if expected and by_features(input_grad):
                lines.append((joined[:-1].dot, (output_grad.T, input_grad.T)))
            elif expected:
                lines.append((output_grad.dot, (joined[:-1].T, input_grad)))
            return input_grad, lines

        return outputs, forward, backward


def _joined(weights: Array, bias: Array) -> Array | None:
    """`[Wᵀ; b]`, (inputs + 1, outputs), where the one lies after the other: as a network's vector has small layers."""
    together = weights.base is not None and weights.base is bias.base
    if not together or not by_features(weights) or weights.ctypes.data + weights.nbytes != bias.ctypes.data:
        return None
    return as_strided(weights.T, (weights.shape[1] + 1, weights.shape[0]))
