"""Gathering: values of a row in another order and shape, or some of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from model_store.nn.arrays import Array
from model_store.nn.config_fields import POSITIVE_INT, SHAPE
from model_store.nn.module import Shape
from model_store.nn.parametrized import ArrayAttribute, ParametrizedModule


class Gather(ParametrizedModule):
    """`yᵢ = x[indexᵢ]`; X (batch, input_size), or images of as many values; Y (batch, *shape).

    Index (size of the output,) holds whole numbers from 0 to `input_size` - 1 as floats, the type of all arrays of a
    network; float32 has each up to 2²⁴. So a value is transposed, reshaped, cut or repeated. `∂E/∂x += ∂E/∂y` for each
    y that is x. It has no parameters.
    """

    config_fields: ClassVar = {"input_size": POSITIVE_INT, "shape": SHAPE}
    parameter_names = ()
    buffers = ("index",)
    build_options = ("dtype", "arrays")
    batch_invariant = True

    index = ArrayAttribute()
    _index: Array

    def __init__(
        self,
        input_size: int,
        shape: Sequence[int],
        *,
        dtype: npt.DTypeLike = np.float32,
        arrays: Mapping[str, Array] | None = None,
    ) -> None:
        self.input_size = input_size
        self.shape = tuple(size.item() if isinstance(size, np.generic) else size for size in shape)
        self._check_fields()
        if arrays is None:
            self.initialize(dtype, index=np.arange(math.prod(self.shape)) % self.input_size)
            return
        self.load_read_only(dtype, arrays)
        index = self._index
        if not ((index >= 0) & (index < self.input_size) & (index == np.floor(index))).all():
            raise ValueError(f"index: expected whole numbers from 0 to {self.input_size - 1}, found another number")

    def shapes(self) -> dict[str, Shape]:
        return {"index": (math.prod(self.shape),)}

    @property
    def input_shape(self) -> Shape:
        return (self.input_size,)

    def output_shape(self, input_shape: Shape | None) -> Shape:
        if input_shape is not None and math.prod(input_shape) != self.input_size:
            found = f"the number of values of {input_shape}; found {self.input_size}"
            raise ValueError(f"input_size: expected {found}")
        return self.shape

    def __call__(self, inputs: Array) -> Array:
        rows = inputs.reshape(len(inputs), self.input_size)
        return rows.take(self._index.astype(np.intp), axis=1).reshape(-1, *self.shape)

    def forward(self, inputs: Array) -> Array:
        self._sample_shape = inputs.shape[1:]
        return self(inputs)

    def backward(self, output_grad: Array) -> Array:
        input_grad = np.zeros((self.input_size, len(output_grad)), output_grad.dtype)
        np.add.at(input_grad, self._index.astype(np.intp), output_grad.reshape(len(output_grad), -1).T)
        return input_grad.T.reshape(-1, *self._sample_shape)
