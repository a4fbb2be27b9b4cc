"""The layers of a network as the page /models/<name>/network draws them: formulas, shapes, parameters, weights.

An artifact may have any number of layers and weights, so what a page gets is bounded: large arrays are reduced to the
weight of largest size in each block, and a response has at most `MAX_VALUES` of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from model_store.nn import Array, Conv2D, Gather, Sequential
from model_store.nn.average import Average
from model_store.nn.layers.embeddings import Embedding, PeriodicEmbedding
from model_store.nn.module import Module, Shape
from model_store.schema.columns import ArrayColumn, CategoryColumn, NumberColumn
from model_store.schema.signature import RegressionOutput, Signature

MAX_LAYERS = 100
MAX_VALUES = 50_000  # of a response
MAX_NAMES = 256  # of the features of a layer
_MAX_LINES = 1_024  # weights of a layer that are drawn as lines
_MAX_UNITS = 48  # on either side of them
_MAX_CELLS = 64  # rows and columns of a heat map
_MAX_KERNELS = 64
_LARGEST = 10  # weights of a heat map that are listed
_RGB = ("red", "green", "blue")
_FORMULA = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Layer:
    """A layer of a network, or of one member of an ensemble: its module, and the shapes of a sample."""

    module: Module
    before: Shape | None
    after: Shape | None
    member: int | None = None


def layers_of(network: Sequential, member: int = 0) -> Iterator[Layer]:
    """Yield the layers in order. Of an `Average` come first those of one of its members, then itself."""
    for module, (before, after) in zip(network.modules, network.shapes(), strict=True):
        if isinstance(module, Average):
            chosen = module.members[member]
            shapes = chosen.shapes(before)
            for inner, (inner_before, inner_after) in zip(chosen.modules, shapes, strict=True):
                yield Layer(inner, inner_before, inner_after, member)
        yield Layer(module, before, after)


def count_members(network: Sequential) -> int:
    """Return the number of networks of an ensemble, of the smallest if there are several; 1 for a single network."""
    return min((len(module.members) for module in network.modules if isinstance(module, Average)), default=1)


def describe_network(network: Sequential, signature: Signature, member: int = 0) -> dict[str, Any]:
    """Return the layers as JSON values."""
    layers = list(layers_of(network, member))
    names = layer_names(layers[:MAX_LAYERS], signature)
    budget = Budget(MAX_VALUES)
    shown = [
        {
            "type": type(layer.module).__name__,
            "formula": formula_of(layer.module),
            "member": layer.member,
            "input_shape": layer.before,
            "output_shape": layer.after,
            "parameters": _count_parameters(layer.module),
            "names": _listed(own_names),
            "arrays": [] if isinstance(layer.module, Average) else _describe_arrays(layer.module, budget),
        }
        for layer, own_names in zip(layers, names[1:], strict=False)
    ]
    return {
        "dtype": str(network.dtype),
        "parameters": _count_parameters(network),
        "members": count_members(network),
        "member": member,
        "input_shape": network.input_shape,
        "input_names": _listed(names[0]),
        "image_shape": _image_shape(signature),
        "layers": shown,
        "hidden_layers": len(layers) - len(shown),
    }


def _listed(names: Sequence[str] | None) -> list[str] | None:
    return None if names is None or len(names) > MAX_NAMES else list(names)


def formula_of(module: Module) -> str:
    """Return the formula of a layer, the first of its docstring; without one, the first sentence."""
    text = type(module).__doc__ or ""
    found = _FORMULA.search(text)
    return found[1] if found else text.partition(". ")[0].partition("\n")[0]


class Budget:
    """Counts the values of a response, up to a limit."""

    def __init__(self, values: int) -> None:
        self._left = values

    def take(self, values: int) -> bool:
        """Return True if so many more fit."""
        if values > self._left:
            return False
        self._left -= values
        return True


class PixelNames(Sequence[str]):
    """The names of an image's values in C order: "pixel (3, 5)", counted from 1, with "red" and so on in RGB."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape

    def __len__(self) -> int:
        return math.prod(self._shape)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        row, column, *channel = (int(i) for i in np.unravel_index(index, self._shape))
        channels = self._shape[2] if channel else 1
        colour = "" if channels == 1 else f" {_RGB[channel[0]] if channels == 3 else f'channel {channel[0] + 1}'}"
        return f"pixel ({row + 1}, {column + 1}){colour}"


def layer_names(layers: Sequence[Layer], signature: Signature) -> list[Sequence[str] | None]:
    """Return names of the features before the first layer and after each one, None where they have none.

    The inputs keep the names of their columns until a layer mixes them; the last values have those of the labels.
    """
    names: list[Sequence[str] | None] = [_feature_names(signature)]
    for layer in layers:
        names.append(_names_after(layer, names[-1]))
    output = signature.output
    labels = list(output.names if isinstance(output, RegressionOutput) else map(str, output.labels))
    for i in range(len(layers), 0, -1):
        if layers[i - 1].after != (len(labels),) or len(labels) > MAX_NAMES:
            break
        names[i] = labels
        if layers[i - 1].module.parameters() or isinstance(layers[i - 1].module, Average):
            break
    return names


def _feature_names(signature: Signature) -> Sequence[str] | None:
    if (image := _image_shape(signature)) is not None:
        return PixelNames(image)
    if signature.width > MAX_NAMES:
        return None
    names: list[str] = []
    for column in signature.inputs:
        if column.width == 1:
            names.append(column.name)
        elif isinstance(column, CategoryColumn):
            more = ["(unknown)"] if column.unknown == "bucket" else []
            names += [f"{column.name} = {category}" for category in [*column.categories, *more]]
        elif isinstance(column, NumberColumn):
            names += [column.name, f"{column.name} is missing"]
        else:
            names += [f"{column.name} {i + 1}" for i in range(column.width)]
    return names


def _names_after(layer: Layer, names: Sequence[str] | None) -> Sequence[str] | None:
    module = layer.module
    if names is None or layer.before is None or layer.after is None:
        return None
    if isinstance(module, Embedding | PeriodicEmbedding):
        if module.output_size > MAX_NAMES:
            return None
        others = [name for name, kept in zip(names, module.is_other(), strict=True) if kept]
        return others + [f"{names[i]} · {k + 1}" for i in module.positions for k in range(module.embedded_size)]
    if isinstance(module, Gather):
        return [names[int(i)] for i in module.index] if module.index.size <= MAX_NAMES else None
    mixes = any(len(shape) > 1 for shape in _array_shapes(module)) or layer.before != layer.after
    return None if mixes else names


def _image_shape(signature: Signature) -> Shape | None:
    """Return the (height, width, channels) in which the encoded row is a picture, None if it is none."""
    column = signature.inputs[0]
    if not isinstance(column, ArrayColumn) or not column.is_whole_row or not 2 <= len(column.shape) <= 3:
        return None
    return (*column.shape, 1) if len(column.shape) == 2 else column.shape


def _array_shapes(module: Module) -> list[Shape]:
    return [array.shape for array in module.arrays().values()]


def _count_parameters(module: Module) -> int:
    return sum(array.size for array in module.parameters())


def _describe_arrays(module: Module, budget: Budget) -> list[dict[str, Any]]:
    return [
        {"name": name, "shape": array.shape, **_draw(module, name, array, budget)}
        for name, array in module.arrays().items()
    ]


def _draw(module: Module, name: str, array: Array, budget: Budget) -> dict[str, Any]:
    """Return the form in which the page draws an array, with the values: "lines", "kernels", "map" or "none"."""
    if isinstance(module, Conv2D) and name == "weights":
        kernels = array[: max(1, min(_MAX_KERNELS, 8_192 // math.prod(array.shape[1:])))]
        return {"form": "kernels", "values": _rounded(kernels)} if budget.take(kernels.size) else {"form": "none"}
    matrix = array.reshape(len(array), -1) if array.ndim > 1 else array[None]
    if array.ndim == 2 and name == "weights" and max(array.shape) <= _MAX_UNITS and array.size <= _MAX_LINES:
        return {"form": "lines", "values": _rounded(matrix)} if budget.take(array.size) else {"form": "none"}
    cells = [min(_MAX_CELLS, size) for size in matrix.shape]
    if not budget.take(math.prod(cells)):
        return {"form": "none"}
    reduced, block = _largest_of_blocks(matrix)
    found = {"form": "map", "values": _rounded(reduced), "block": block}
    if array.ndim > 1:
        found["largest"] = _largest(matrix, reduced, block)
    return found


def _largest_of_blocks(matrix: Array) -> tuple[Array, list[int]]:
    """Return the value of largest size in each block of rows and columns, and the sides of a block."""
    block = [-(-size // _MAX_CELLS) for size in matrix.shape]
    if block == [1, 1]:
        return matrix, block
    starts = [np.arange(0, size, side) for size, side in zip(matrix.shape, block, strict=True)]
    extremes = [matrix, matrix]
    for axis in (0, 1):
        extremes = [
            reduce.reduceat(values, starts[axis], axis=axis)
            for reduce, values in zip((np.maximum, np.minimum), extremes, strict=True)
        ]
    high, low = extremes
    return np.where(high >= -low, high, low), block


def _largest(matrix: Array, reduced: Array, block: list[int]) -> list[list[Any]]:
    """Return [row, column, value] of the values of largest size, which are in the blocks with the largest ones."""
    sizes = np.abs(reduced).ravel()
    count = min(_LARGEST, sizes.size)
    blocks = np.argpartition(-sizes, count - 1)[:count]
    found: list[list[Any]] = []
    for i, j in zip(*(index.tolist() for index in np.unravel_index(blocks, reduced.shape)), strict=True):
        top, left = i * block[0], j * block[1]
        inside = np.abs(matrix[top : top + block[0], left : left + block[1]])
        for flat in np.argsort(-inside, axis=None, kind="stable")[:_LARGEST].tolist():
            row, column = top + flat // inside.shape[1], left + flat % inside.shape[1]
            found.append([row, column, float(matrix[row, column])])
    return sorted(found, key=lambda one: -abs(one[2]))[:_LARGEST]


def _rounded(values: Array) -> Any:
    """Return values as lists of numbers with four digits, enough for a drawing."""
    with np.errstate(all="ignore"):
        power = 10.0 ** (3 - np.floor(np.log10(np.maximum(np.abs(values.astype(np.float64)), 1e-30))))
        return (np.round(values * power) / power).tolist()
