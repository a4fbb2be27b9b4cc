"""Small networks with known outputs, for the tests of the evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.nn import Linear, Module, Sequential


def line(*weights: float) -> Sequential:
    """Return a network with one output, the weighted sum of its inputs."""
    layer = Linear(len(weights), 1, dtype=np.float64)
    layer.weights, layer.bias = np.array([weights]), np.zeros(1)
    return Sequential([layer])


def last(logits: list[list[float]], activation: Module, dtype: str = "float32") -> tuple[Sequential, NDArray[Any]]:
    """Return a network that ends in `activation`, and rows for which it has these logits."""
    x = np.array(logits, dtype)
    layer = Linear(x.shape[1], x.shape[1], dtype=x.dtype)
    layer.weights, layer.bias = np.eye(x.shape[1], dtype=dtype), np.zeros(x.shape[1], dtype)
    return Sequential([layer, activation]), x
