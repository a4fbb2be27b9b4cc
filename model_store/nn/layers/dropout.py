"""Dropout: regularization by setting random values to zero in training."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from model_store.nn.arrays import Array
from model_store.nn.config_fields import FINITE_FLOAT
from model_store.nn.module import Module, Shape


class Dropout(Module):
    """`Y = X ⊙ M`, each element of M 0 with probability `rate`, else 1/(1 - rate); Srivastava et al. 2014.

    `∂E/∂X = ∂E/∂Y ⊙ M`. The mean of M is 1, so inference, `module(x)`, is the identity. `rng` draws a new M for every
    batch, in the order in which X is laid out in memory. A schedule may change `scale`, by which training multiplies
    `rate`.
    """

    config_fields: ClassVar = {"rate": FINITE_FLOAT}
    build_options = ("rng",)
    batch_invariant = True

    mask: Array

    def __init__(self, rate: float = 0.5, *, rng: np.random.Generator | None = None) -> None:
        self.rate = rate
        self._check_fields()
        if not 0 <= rate < 1:
            raise ValueError(f"Dropout.rate: expected a number in [0, 1), found {rate}")
        self.scale = 1.0
        self.rng = np.random.default_rng() if rng is None else rng

    def output_shape(self, input_shape: Shape | None) -> Shape | None:
        return input_shape

    def __call__(self, inputs: Array) -> Array:
        return inputs

    def forward(self, inputs: Array) -> Array:
        rate = self.rate * self.scale
        keep = self.rng.random(inputs.shape, np.float32) >= np.float32(rate)
        self.mask = keep * inputs.dtype.type(1 / (1 - rate))
        outputs: Array = inputs * self.mask
        return outputs

    def backward(self, output_grad: Array) -> Array:
        input_grad: Array = output_grad * self.mask
        return input_grad
