"""The dense layer: every output is a weighted sum of every input, plus a bias."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from model_store.nn.arrays import Array
from model_store.nn.batch_invariant import block_rows, multiply_in_blocks
from model_store.nn.config_fields import POSITIVE_INT
from model_store.nn.initializers import DEFAULT_INITIALIZER, initial_parameters
from model_store.nn.module import Shape, as_rows
from model_store.nn.parametrized import ArrayAttribute, ParametrizedModule


class Linear(ParametrizedModule):
    """`Y = X Wᵀ + b`; X (batch, inputs), W (outputs, inputs), b (outputs,), Y (batch, outputs).

    `rng` draws the initial parameters; without one, fresh entropy does. `initializer` is a name of `INITIALIZERS`;
    the bias starts at zero, or standard normal with "normal", the article's.
    """

    config_fields: ClassVar = {"input_size": POSITIVE_INT, "output_size": POSITIVE_INT}
    batch_invariant = True  # inference multiplies rows in blocks of one size

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
        initializer: str = DEFAULT_INITIALIZER,
        arrays: Mapping[str, Array] | None = None,
    ) -> None:
        self.input_size, self.output_size = input_size, output_size
        self._check_fields()
        self._column = False
        if arrays is not None:
            self.load_read_only(dtype, arrays)
            return
        rng = np.random.default_rng() if rng is None else rng
        shape = (self.output_size, self.input_size)
        weights, bias = initial_parameters(initializer, rng, shape, self.input_size, self.output_size)
        self.initialize(dtype, weights=weights, bias=bias)

    def forward(self, inputs: Array) -> Array:
        self.inputs, self._column = as_rows(inputs, self.input_size, self.dtype, "Linear")
        outputs: Array = self.inputs @ self._weights.T
        outputs += self._bias
        return outputs.T if self._column else outputs

    def backward(self, output_grad: Array) -> Array:
        """`∂E/∂W += (∂E/∂Y)ᵀ X`, `∂E/∂b += Σ ∂E/∂Y` over the batch, `∂E/∂X = ∂E/∂Y W`."""
        dy = output_grad.T if self._column else output_grad
        if self.learns:
            self.weights_grad += dy.T @ self.inputs
            self.bias_grad += dy.sum(axis=0)
        input_grad: Array = dy @ self._weights
        return input_grad.T if self._column else input_grad

    def __call__(self, inputs: Array) -> Array:
        rows, column = as_rows(inputs, self.input_size, self.dtype, "Linear")
        # Row-major weights, as artifacts have them: their order in memory decides the last bits of a product.
        outputs = multiply_in_blocks(rows, np.ascontiguousarray(self._weights).T, self.block_rows)
        outputs += self._bias
        return outputs.T if column else outputs

    @cached_property
    def block_rows(self) -> int:
        return block_rows(self.input_size, self.output_size, self.dtype)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the block size, which depends on this machine's BLAS."""
        return {name: value for name, value in vars(self).items() if name != "block_rows"}

    def shapes(self) -> dict[str, Shape]:
        return {"weights": (self.output_size, self.input_size), "bias": (self.output_size,)}

    @property
    def input_shape(self) -> Shape:
        return (self.input_size,)

    def output_shape(self, input_shape: Shape | None) -> Shape:
        if input_shape is not None and len(input_shape) != 1:
            raise ValueError(f"input_size: expected a Flatten before it, for images of {input_shape}; found none")
        if input_shape not in (None, (self.input_size,)):
            raise ValueError(f"input_size: expected {input_shape[0]}, the width before it; found {self.input_size}")
        return (self.output_size,)
