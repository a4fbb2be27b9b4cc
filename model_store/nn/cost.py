"""The cost of inference, from the shapes of a network's layers alone.

A file of a few hundred bytes can describe layers that need gigabytes or hours for a row. So a network runs in batches
of as many rows as fit into `MAX_BATCH_VALUES`, and `build` rejects one whose row costs more than `MAX_ROW_OPERATIONS`.

An operation takes as long as a multiply-add of a dense layer with many rows, about 0.05 ns on the machine where these
numbers were measured (benchmarks/layer_cost.py). A call of NumPy takes as long as 15,000 of them. A loop over a few
neighbouring values, such as the channels of a pixel, takes longer than the values themselves. A dense layer multiplies
one row as a block of at least 4 and at most 32 (batch_invariant.py); that a large one then reads its weights for few
rows is not counted, as a file has no more weights than bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from model_store.nn.layers import activations as a
from model_store.nn.layers.conv import Conv2D, Flatten, MaxPool2D
from model_store.nn.layers.dropout import Dropout
from model_store.nn.layers.embeddings import Embedding, PeriodicEmbedding
from model_store.nn.layers.feature_layers import Clip, ConstantInputs, FeatureScale, ParametricActivation
from model_store.nn.layers.linear import Linear
from model_store.nn.layers.normalization import BatchNorm, LayerNorm
from model_store.nn.module import Module, Shape

MAX_BATCH_VALUES = 2**24  # in one array of a forward pass: 64 MB in float32
MAX_ROW_OPERATIONS = 2**33  # half a second on one core
LAYER_OPERATIONS = 2_000  # to call a layer
CALL_OPERATIONS = 15_000  # to call a function of NumPy


class RowCost(NamedTuple):
    """The largest number of values that a row takes in an array, its operations, and those of a pass of any rows."""

    values: int
    operations: int
    pass_operations: int = 0

    @property
    def one_row_operations(self) -> int:
        """The operations of a forward pass of one row."""
        return self.operations + self.pass_operations

    def max_rows(self, operations: int) -> int:
        """Return how many rows need at most so many operations, perhaps in several batches; 0 if even one needs more.

        A pass costs the same for one row as for a batch.
        """
        batch = max(1, MAX_BATCH_VALUES // self.values)
        return max(0, (operations - self.pass_operations) // (self.operations + self.pass_operations // batch))


class LayerCost(NamedTuple):
    """The cost of a layer: calls of NumPy, and operations of each value and of each vector along the last axis.

    A vector of one value counts as none.
    """

    calls: int
    value: int = 0
    vector: int = 0


# Of the layers whose cost depends on nothing else. A value is one of the input or of the output, of the larger one.
LAYER_COSTS: dict[type[Module], LayerCost] = {
    a.Identity: LayerCost(0),
    a.Tanh: LayerCost(1, 8),
    a.ReLU: LayerCost(1, 8),
    a.Exp: LayerCost(1, 10),
    a.LeakyReLU: LayerCost(2, 10),
    a.SmoothClip: LayerCost(3, 95),
    a.Sigmoid: LayerCost(4, 20),
    a.SELU: LayerCost(5, 35),
    a.Mish: LayerCost(5, 40),
    a.GELU: LayerCost(6, 40),
    a.Softmax: LayerCost(6, 25, 1_100),
    BatchNorm: LayerCost(5, 15, 300),
    LayerNorm: LayerCost(17, 35, 1_100),
    ConstantInputs: LayerCost(3, 14, 200),
    FeatureScale: LayerCost(1, 8, 100),
    Clip: LayerCost(2, 15, 200),
    Dropout: LayerCost(0),
    Flatten: LayerCost(1),
}
_OTHER_COST = LayerCost(6, 40, 1_100)  # of a layer that no model file has


def row_cost(modules: Iterable[Module], shapes: Iterable[tuple[Shape | None, Shape | None]]) -> RowCost:
    """Return the cost of a row in `modules`, whose input and output `shapes` are those of `Sequential.shapes`.

    A layer of unknown shape counts as one of no values.
    """
    values, operations, pass_operations = 1, 1, 0
    for module, (before, after) in zip(modules, shapes, strict=True):
        found = layer_cost(module, before or (0,), after or (0,))
        values, operations = max(values, found.values), operations + found.operations
        pass_operations += found.pass_operations
    return RowCost(values, operations, pass_operations)


def layer_cost(module: Module, before: Shape, after: Shape) -> RowCost:
    """Return the cost of a layer with this input and output shape."""
    if isinstance(nested := getattr(module, "row_cost", None), RowCost):
        return nested
    values = max(math.prod(before), math.prod(after))
    vectors = 0 if before[-1] == 1 else math.prod(before[:-1])
    if isinstance(module, Linear):
        products, loads = module.input_size * module.output_size, 3 * module.input_size + 15 * module.output_size
        found = _cost(values, products + loads, 5)
        return found._replace(pass_operations=found.pass_operations + 3 * products + 31 * loads)
    if isinstance(module, Conv2D):
        return _convolution_cost(module, values)
    if isinstance(module, MaxPool2D):
        return _pooling_cost(module, values)
    if isinstance(module, Embedding):
        embeddings = len(module.positions)
        return _cost(values, 50 * module.input_size + embeddings * (80 + 25 * module.size), 12)
    if isinstance(module, PeriodicEmbedding):
        waves, numbers = len(module.positions) * module.waves, module.size - 1
        loop = 500 if numbers > 1 else 10
        operations = 400 + 50 * module.input_size + 150 * len(module.positions) + waves * (loop + 20 * numbers)
        return _cost(max(values, waves * module.size), operations, 16)
    if isinstance(module, ParametricActivation):
        function = LAYER_COSTS[type(module.function)]
        return _cost(values, (function.value + 10) * values + 100 * vectors, function.calls + 2)
    layer = next((LAYER_COSTS[kind] for kind in type(module).__mro__ if kind in LAYER_COSTS), _OTHER_COST)
    return _cost(values, layer.value * values + layer.vector * vectors, layer.calls)


def average_cost(members: Sequence[RowCost], outputs: int) -> RowCost:
    """Return the cost of the mean of networks with so many outputs each."""
    return RowCost(
        max(member.values for member in members),
        sum(member.operations for member in members) + 8 * outputs * len(members),
        sum(member.pass_operations + LAYER_OPERATIONS + CALL_OPERATIONS for member in members),
    )


def _cost(values: int, operations: int, calls: int) -> RowCost:
    return RowCost(values, operations, LAYER_OPERATIONS + CALL_OPERATIONS * calls)


def _convolution_cost(layer: Conv2D, values: int) -> RowCost:
    """Return the cost of a convolution: padding, copies of the windows, a product for each image, and the bias."""
    window = layer.window
    padded = window.height * window.width * window.channels
    in_window = window.size**2 * window.channels
    covered, outputs = window.positions * in_window, window.positions * layer.filters
    # See `Window.empty_patches`: runs of neighbouring values that are copied at once.
    runs = window.rows * window.size**2 if window.channels == 1 else window.positions * window.size
    operations = 2 * CALL_OPERATIONS + 2 * padded + 80 * runs + 5 * covered
    operations += covered * layer.filters + 8 * in_window * layer.filters + 10 * outputs
    return _cost(max(values, padded, covered), operations, 20)


def _pooling_cost(layer: MaxPool2D, values: int) -> RowCost:
    """Return the cost of a pooling: two calls for each place in a window, and loops over the values of all windows."""
    window = layer.window
    places = window.size**2
    loops = places * (window.rows if window.channels == 1 else window.positions)
    return _cost(values, 12 * window.positions * places * window.channels + 30 * loops, 2 * places)
