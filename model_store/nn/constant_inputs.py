"""Constant inputs: features that had one value in training, held at that value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from model_store.nn.arrays import Array
from model_store.nn.config_fields import POSITIVE_INT
from model_store.nn.module import Shape
from model_store.nn.parametrized import ArrayAttribute, ParametrizedModule


class ConstantInputs(ParametrizedModule):
    """`yⱼ = valuesⱼ if constantⱼ else xⱼ`; X (batch, size) or images of `size` values, constant and values (size,).

    The first layer of a network whose training rows all had the same value of a feature: nothing was learned about
    others, so they must not change the answer. It has no parameters; `∂E/∂X` is 0 for constant features.
    """

    config_fields: ClassVar = {"size": POSITIVE_INT}
    parameter_names = ()
    buffers = ("constant", "values")
    build_options = ("dtype", "arrays")
    batch_invariant = True

    constant, values = ArrayAttribute(), ArrayAttribute()
    _constant: Array
    _values: Array

    def __init__(
        self, size: int, *, dtype: npt.DTypeLike = np.float32, arrays: Mapping[str, Array] | None = None
    ) -> None:
        self.size = size
        self._check_fields()
        if arrays is None:
            self.initialize(dtype, constant=np.zeros(self.size), values=np.zeros(self.size))
            return
        self.load_read_only(dtype, arrays)
        if not np.isin(self._constant, (0, 1)).all():
            raise ValueError("constant: expected only 0 and 1, found another number")

    def shapes(self) -> dict[str, Shape]:
        return {"constant": (self.size,), "values": (self.size,)}

    def output_shape(self, input_shape: Shape | None) -> Shape | None:
        if input_shape is not None and np.prod(input_shape) != self.size:
            raise ValueError(f"size: expected the number of values of {input_shape}; found {self.size}")
        return input_shape

    def __call__(self, inputs: Array) -> Array:
        return np.where(self._constant != 0, self._values, self._flat(inputs)).reshape(inputs.shape)

    def forward(self, inputs: Array) -> Array:
        return self(inputs)

    def backward(self, output_grad: Array) -> Array:
        return np.where(self._constant != 0, 0, self._flat(output_grad)).reshape(output_grad.shape)

    def _flat(self, values: Array) -> Array:
        return values.reshape(len(values), self.size)
