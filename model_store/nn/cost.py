"""The cost of inference for one row, from the shapes of a network's layers alone.

A file of a few hundred bytes can describe layers that need gigabytes or hours for a row. So a network runs in batches
of as many rows as fit into `MAX_BATCH_VALUES`, and `build` rejects one whose row costs more than `MAX_ROW_OPERATIONS`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from model_store.nn.layers.conv import Conv2D
from model_store.nn.layers.embeddings import PeriodicEmbedding
from model_store.nn.layers.linear import Linear
from model_store.nn.module import Module, Shape

MAX_BATCH_VALUES = 2**24  # in one array of a forward pass: 64 MB in float32
MAX_ROW_OPERATIONS = 2**33  # a few seconds on one core
_VALUE_OPERATIONS = 16  # of an element-wise function, exponentials included
_CALL_OPERATIONS = 10_000  # in the time of a call of NumPy; pooling has one for each place in a window


class RowCost(NamedTuple):
    """The largest number of values that one row takes in an array, and its multiply-adds."""

    values: int
    operations: int


def row_cost(modules: Iterable[Module], shapes: Iterable[tuple[Shape | None, Shape | None]]) -> RowCost:
    """Return the cost of a row in `modules`, whose input and output `shapes` are those of `Sequential.shapes`.

    A layer of unknown shape counts as nothing.
    """
    values, operations = 1, 1
    for module, (before, after) in zip(modules, shapes, strict=True):
        found = _layer_cost(module, before or (0,), after or (0,))
        values, operations = max(values, found.values), operations + found.operations
    return RowCost(values, operations)


def _layer_cost(module: Module, before: Shape, after: Shape) -> RowCost:
    values = max(math.prod(before), math.prod(after))
    if isinstance(module, Linear):
        return RowCost(values, module.input_size * module.output_size + _VALUE_OPERATIONS * module.output_size)
    if isinstance(module, PeriodicEmbedding):
        products = len(module.positions) * module.waves * module.size
        return RowCost(max(values, products), products + _VALUE_OPERATIONS * (products + math.prod(after)))
    if isinstance(nested := getattr(module, "row_cost", None), RowCost):
        return nested
    window = getattr(module, "window", None)
    if window is None:
        return RowCost(values, _VALUE_OPERATIONS * values)
    padded = window.height * window.width * window.channels
    covered = window.positions * window.size**2 * window.channels
    if isinstance(module, Conv2D):
        return RowCost(max(values, padded, covered), padded + covered * module.filters)
    return RowCost(max(values, padded), padded + covered + _CALL_OPERATIONS * window.size**2)
