"""The forward pass of a network that no longer changes, as a list of functions with everything worked out before.

`network(inputs)` finds shapes, blocks and the order of the weights anew for each call. For a network of a few neurons
that takes five times the instructions of its products.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from model_store.nn.arrays import Array
from model_store.nn.batch_invariant import multiply_in_blocks
from model_store.nn.layers.activations import Activation
from model_store.nn.layers.linear import Linear
from model_store.nn.module import Module
from model_store.nn.sequential import Sequential, infer

_Step = Callable[[Array], Array]


class ForwardPass:
    """`network(rows)` with the same bits; rows (n, width), C-contiguous and of the network's type. Thread-safe.

    The arrays of the network must not change any more. More rows than `network.padded_rows` run as `network(rows)`.
    """

    def __init__(self, network: Sequential) -> None:
        self._network = network
        self._padded_rows = size = network.padded_rows
        self._no_rows = np.zeros((size, network.input_size or 0), network.dtype)
        self._steps = [_step(module, size) for module in network.modules]

    def __call__(self, rows: Array) -> Array:
        count, size = len(rows), self._padded_rows
        if count > size:
            return self._network(rows)
        if count < size:
            padded = self._no_rows.copy()
            padded[:count] = rows
            rows = padded
        for step in self._steps:
            rows = step(rows)
        return rows if count == size else rows[:count]


def _step(module: Module, count: int) -> _Step:
    """Return the inference of one module for `count` rows."""
    if type(module) is Linear:
        return _linear(module, count)
    if isinstance(module, Activation) and type(module).__call__ is Activation.__call__:
        return module.activation
    return lambda rows: infer(module, rows)


def _linear(layer: Linear, count: int) -> _Step:
    """Return `Y = X Wᵀ + b` for `count` rows. NumPy adds arrays of one shape in a third of the instructions."""
    matrix = np.ascontiguousarray(layer.weights).T
    biases = np.tile(layer.bias, (count, 1))
    size, add = layer.block_rows, np.add

    def multiply(rows: Array) -> Array:
        outputs = rows.dot(matrix) if count == size else multiply_in_blocks(rows, matrix, size)
        add(outputs, biases, outputs)
        return outputs

    return multiply
