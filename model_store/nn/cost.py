"""The cost of inference, from the shapes of a network's layers alone.

A file of a few hundred bytes can describe layers that need gigabytes or hours for a row. So a network runs in batches
whose arrays stay in the cache, and `build` rejects one whose row costs more than `MAX_ROW_OPERATIONS` or has an array
of more than `MAX_ARRAY_BYTES`.

An operation takes as long as a multiply-add of a dense layer with many rows, about 0.05 ns on the machine where these
numbers were measured (benchmarks/layer_cost.py); other layers count at their
slowest arguments, as e⁻⁷¹³, a subnormal float64, takes 70 ns and e⁻¹ 0.8, and with the arrays of a row out of the
cache. A call of NumPy takes as long as 15,000 of them. A loop over a few
neighbouring values, such as the channels of a pixel, takes longer than the values themselves. A dense layer multiplies
one row as a block of at least 4 and at most 32 (batch_invariant.py); that a large one then reads its weights for few
rows is not counted, as a file has no more weights than bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from model_store.nn.layers import activations as a
from model_store.nn.layers.conv import Conv2D, Flatten
from model_store.nn.layers.dropout import Dropout
from model_store.nn.layers.embeddings import Embedding, PeriodicEmbedding
from model_store.nn.layers.feature_layers import Clip, ConstantInputs, FeatureScale, ParametricActivation
from model_store.nn.layers.gather import Gather
from model_store.nn.layers.linear import Linear
from model_store.nn.layers.normalization import BatchNorm, LayerNorm
from model_store.nn.layers.pooling import AveragePool2D, MaxPool2D
from model_store.nn.module import Module, Shape

MAX_ARRAY_BYTES = 2**26  # of one array of a forward pass; a layer has about four at a time
_BATCH_BYTES, _MIN_BATCH_ROWS = 2**20, 32  # arrays that stay in the cache, but rows for a whole block of a dense layer
MAX_ROW_OPERATIONS = 2**33  # half a second on one core
LAYER_OPERATIONS = 2_000  # to call a layer
CALL_OPERATIONS = 15_000  # to call a function of NumPy


class RowCost(NamedTuple):
    """The most bytes that a row takes in an array, its operations, and those of a pass of any rows."""

    bytes: int
    operations: int
    pass_operations: int = 0

    @property
    def one_row_operations(self) -> int:
        """The operations of a forward pass of one row."""
        return self.operations + self.pass_operations

    @property
    def batch_rows(self) -> int:
        """The rows of a forward pass."""
        rows = max(_BATCH_BYTES // self.bytes, _MIN_BATCH_ROWS)
        return max(1, min(rows, MAX_ARRAY_BYTES // self.bytes))

    def max_rows(self, operations: int) -> int:
        """Return how many rows need at most so many operations, perhaps in several batches; 0 if even one needs more.

        A pass costs the same for one row as for a batch.
        """
        each = self.operations + self.pass_operations // self.batch_rows
        return max(0, (operations - self.pass_operations) // each)


class LayerCost(NamedTuple):
    """The cost of a layer: calls of NumPy, and operations of each value and of each vector along the last axis.

    A value of float64 costs more, a vector of one value counts as none.
    """

    calls: int
    float32: int = 0
    float64: int = 0
    vector: int = 0

    def value(self, dtype: np.dtype[Any]) -> int:
        """The operations of a value."""
        return self.float32 if dtype == np.float32 else self.float64


# Of the layers whose cost depends on nothing else. A value is one of the input or of the output, of the larger one.
LAYER_COSTS: dict[type[Module], LayerCost] = {
    a.Identity: LayerCost(0),
    a.Tanh: LayerCost(1, 16, 50),
    a.ReLU: LayerCost(1, 16, 32),
    a.Exp: LayerCost(1, 16, 1_000),
    a.LeakyReLU: LayerCost(2, 20, 36),
    a.SmoothClip: LayerCost(3, 100, 220),
    a.Sigmoid: LayerCost(4, 32, 1_000),
    a.SELU: LayerCost(5, 50, 80),
    a.Mish: LayerCost(5, 50, 1_000),
    a.GELU: LayerCost(6, 50, 90),
    a.SiLU: LayerCost(5, 40, 1_000),
    a.ELU: LayerCost(5, 50, 80),
    a.Softplus: LayerCost(6, 60, 1_000),
    a.ExactGELU: LayerCost(60, 180, 1_400),
    a.Softmax: LayerCost(6, 60, 1_000, 1_100),
    BatchNorm: LayerCost(5, 45, 80, 300),
    LayerNorm: LayerCost(17, 60, 120, 1_100),
    ConstantInputs: LayerCost(3, 24, 40, 200),
    FeatureScale: LayerCost(1, 16, 32, 100),
    Clip: LayerCost(2, 28, 50, 200),
    Dropout: LayerCost(0),
    Flatten: LayerCost(1),
    Gather: LayerCost(3, 240, 270),
}
_OTHER_COST = LayerCost(6, 60, 1_000, 1_100)  # of a layer that no model file has


def row_cost(
    modules: Iterable[Module], shapes: Iterable[tuple[Shape | None, Shape | None]], dtype: np.dtype[Any]
) -> RowCost:
    """Return the cost of a row in `modules`, whose input and output `shapes` are those of `Sequential.shapes`.

    A layer of unknown shape counts as one of no values.
    """
    most, operations, pass_operations = 1, 1, 0
    for module, (before, after) in zip(modules, shapes, strict=True):
        found = layer_cost(module, before or (0,), after or (0,), dtype)
        most, operations = max(most, found.bytes), operations + found.operations
        pass_operations += found.pass_operations
    return RowCost(most, operations, pass_operations)


def layer_cost(module: Module, before: Shape, after: Shape, dtype: np.dtype[Any]) -> RowCost:
    """Return the cost of a layer with this input and output shape, computed in `dtype`.

    Unless `LAYER_COSTS` has one for it, a value of float64 costs twice as much as one of float32.
    """
    if isinstance(nested := getattr(module, "row_cost", None), RowCost):
        return nested
    values = max(math.prod(before), math.prod(after))
    vectors = 0 if before[-1] == 1 else math.prod(before[:-1])
    if isinstance(module, ParametricActivation):
        each = LAYER_COSTS[type(module.function)].value(dtype) + 20 * _width(dtype)
        calls = LAYER_COSTS[type(module.function)].calls + 2
        return _cost(values * dtype.itemsize, each * values + 100 * vectors, calls)
    if isinstance(module, PeriodicEmbedding):
        return _periodic_cost(module, values, dtype)
    if isinstance(module, Linear | Conv2D | MaxPool2D | AveragePool2D | Embedding):
        most, operations, calls, block = _shape_cost(module, values)
        found = _cost(most * dtype.itemsize, operations * _width(dtype), calls)
        return found._replace(pass_operations=found.pass_operations + block * _width(dtype))
    layer = next((LAYER_COSTS[kind] for kind in type(module).__mro__ if kind in LAYER_COSTS), _OTHER_COST)
    return _cost(values * dtype.itemsize, layer.value(dtype) * values + layer.vector * vectors, layer.calls)


def average_cost(members: Sequence[RowCost], outputs: int) -> RowCost:
    """Return the cost of the mean of networks with so many outputs each."""
    return RowCost(
        max(member.bytes for member in members),
        sum(member.operations for member in members) + 8 * outputs * len(members),
        sum(member.pass_operations + LAYER_OPERATIONS + CALL_OPERATIONS for member in members),
    )


def _cost(most: int, operations: int, calls: int) -> RowCost:
    return RowCost(most, operations, LAYER_OPERATIONS + CALL_OPERATIONS * calls)


def _width(dtype: np.dtype[Any]) -> int:
    return 1 if dtype == np.float32 else 2


def _shape_cost(
    layer: Linear | Conv2D | MaxPool2D | AveragePool2D | Embedding, values: int
) -> tuple[int, int, int, int]:
    """Return the values of the largest array, operations in float32 and calls; last the operations to fill a block."""
    if isinstance(layer, Linear):
        products, loads = layer.input_size * layer.output_size, 3 * layer.input_size + 15 * layer.output_size
        return values, products + loads, 5, 3 * products + 31 * loads
    if isinstance(layer, Embedding):
        return values, 80 * layer.input_size + len(layer.positions) * (80 + 25 * layer.size), 12, 0
    return (*_convolution_cost(layer, values), 0) if isinstance(layer, Conv2D) else (*_pooling_cost(layer, values), 0)


def _convolution_cost(layer: Conv2D, values: int) -> tuple[int, int, int]:
    """Return the cost of a convolution: padding, copies of the windows, a product for each image, and the bias.

    A product with few filters or small windows takes as long as to read every value of the windows and to write every
    output.
    """
    window = layer.window
    padded = window.height * window.width * window.channels
    in_window = window.places * window.channels
    covered, outputs = window.positions * in_window, window.positions * layer.filters
    # See `Window.empty_patches`: runs of neighbouring values that are copied at once.
    runs = window.rows * window.places if window.channels == 1 else window.positions * window.size[0]
    operations = 2 * CALL_OPERATIONS + 4 * padded + 80 * runs + 13 * covered
    operations += covered * layer.filters + 8 * in_window * layer.filters + 24 * outputs
    if layer.filters > 1:
        operations += 150 * window.positions  # to add the bias, a loop over few values
    return max(values, padded, covered), operations, 20


def _pooling_cost(layer: MaxPool2D | AveragePool2D, values: int) -> tuple[int, int, int]:
    """Return the cost of a pooling: two calls for each place in a window, and loops over the values of all windows.

    Padding is a copy of the image. A mean is divided by two counts, as if the window had two places more.
    """
    window = layer.window
    places = window.places + (2 if isinstance(layer, AveragePool2D) else 0)
    loops = places * (window.rows if window.channels == 1 else window.positions)
    operations, calls = 16 * window.positions * places * window.channels + 30 * loops, 2 * places
    if isinstance(layer, AveragePool2D):
        calls += 12
    if not any(window.padding):
        return values, operations, calls
    padded = window.height * window.width * window.channels
    return max(values, padded), operations + 40 * padded, calls + 3


def _periodic_cost(layer: PeriodicEmbedding, values: int, dtype: np.dtype[Any]) -> RowCost:
    """Return the cost of waves: a cosine of a large angle takes 5 ns in float32 and 45 in float64."""
    waves, numbers = len(layer.positions) * layer.waves, layer.size - 1
    cosine = 120 if dtype == np.float32 else 1_000
    each = cosine + (500 if numbers > 1 else 0) + 20 * _width(dtype) * numbers
    operations = 400 + _width(dtype) * (50 * layer.input_size + 150 * len(layer.positions)) + waves * each
    return _cost(max(values, waves * layer.size) * dtype.itemsize, operations, 16)
