"""The network: a composition of modules; the output of each is the input of the next."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

from model_store.nn.arrays import SMALL_FEATURES, Array, aligned_zeros, enclosing_vector
from model_store.nn.batch_invariant import BLOCK_SIZES, pad_rows
from model_store.nn.cost import row_cost
from model_store.nn.layers.linear import Linear
from model_store.nn.module import Module, Shape, as_rows

_MAX_PADDED_ROWS = 8  # that all layers compute for one row
_MAX_PADDED_BYTES = 2**14  # of the largest array of more rows: most of such a layer is the call of NumPy


class Sequential(Module):
    """`Y = fₙ(… f₂(f₁(X)))`.

    `input_shape` is that of the first module that has one: (features,), or (height, width, channels) of an image.
    Images may also be passed as flat rows (batch, height · width · channels). `input_size` and `output_size` count the
    values of a row, if known. ValueError if a module does not fit the output shape of the one before it.

    All parameters are views of one contiguous vector, `parameter_vector`, and all gradients of another,
    `gradient_vector`; an optimizer's step is a few operations on those two. Both are None if the arrays are read-only
    or a module cannot move its arrays (see `Module.bind`).

    A module occurs once in a network, because it remembers one forward pass. It may belong to several networks, which
    then share its parameters. A network made of consecutive modules of another leaves them in that one's vectors;
    otherwise its modules move into the vectors of the network made last, and the earlier one has no vectors any more.

    `network(x)` has the same bits for a row regardless of the other rows (see batch_invariant.py), and runs as many
    rows at once as fit into bounded memory (see cost.py). `forward` is for training and multiplies the whole batch.
    """

    def __init__(self, modules: Sequence[Module]) -> None:
        self.modules = list(modules)
        self._column = False
        self._check_distinct()
        self._flatten()
        self._input_shape = next((m.input_shape for m in self.modules if m.input_shape is not None), None)
        shapes = self.shapes()
        output_shape = shapes[-1][1] if shapes else self._input_shape
        self.input_size = None if self._input_shape is None else math.prod(self._input_shape)
        self.output_size = output_shape[0] if output_shape is not None and len(output_shape) == 1 else None
        self.dtype = next((array.dtype for array in self.arrays().values()), np.dtype(np.float32))
        self.row_cost = row_cost(self.modules, shapes, self.dtype)
        self._is_batch_invariant = all(module.batch_invariant for module in self.modules)

    @property
    def input_shape(self) -> Shape | None:
        return self._input_shape

    def output_shape(self, input_shape: Shape | None) -> Shape | None:
        return self.shapes(input_shape)[-1][1] if self.modules else input_shape

    def shapes(self, input_shape: Shape | None = None) -> list[tuple[Shape | None, Shape | None]]:
        """Return the input and output shape of each module, as far as known, given the input shape of the first."""
        shape = self._input_shape if input_shape is None else input_shape
        found = []
        for i, module in enumerate(self.modules):
            before = shape
            try:
                shape = module.output_shape(before)
            except ValueError as error:
                raise ValueError(f"modules.{i}.{error}") from error
            found.append((before, shape))
        return found

    def forward(self, inputs: Array) -> Array:
        outputs, self._column = self.as_batch(inputs)
        self._batch_shape = np.shape(inputs)
        for module in self.modules:
            outputs = module.forward(outputs)
        return outputs.T if self._column else outputs

    def backward(self, output_grad: Array) -> Array:
        grad = output_grad.T if self._column else output_grad
        for module in reversed(self.modules):
            grad = module.backward(grad)
        return grad.reshape(self._batch_shape)

    def __call__(self, inputs: Array) -> Array:
        rows, column = self.as_batch(inputs)
        batch = self.row_cost.batch_rows
        if len(rows) <= batch:
            outputs = self._infer(rows)
        else:
            outputs = np.concatenate([self._infer(rows[i : i + batch]) for i in range(0, len(rows), batch)])
        return outputs.T if column else outputs

    def _infer(self, rows: Array) -> Array:
        count = len(rows)
        if count < (size := self.padded_rows):
            rows = pad_rows(rows, size)  # else each dense layer would pad them again
        for module in self.modules:
            rows = infer(module, rows)
        return rows if len(rows) == count else rows[:count]

    @property
    def padded_rows(self) -> int:
        """The number of rows to which fewer ones are padded once, for all layers; 0 if each layer pads them."""
        if not isinstance(next(iter(self.modules), None), Linear) or not self._is_batch_invariant:
            return 0
        size = min(module.block_rows for module in self.modules if isinstance(module, Linear))
        return size if size <= _MAX_PADDED_ROWS or size * self.row_cost.bytes <= _MAX_PADDED_BYTES else 0

    @property
    def block_rows(self) -> int:
        """The rows of the largest block that a dense layer multiplies at once."""
        return max((module.block_rows for module in self.modules), default=1)

    def as_batch(self, inputs: Array) -> tuple[Array, bool]:
        """Return `inputs` as (batch, *input_shape) of `dtype`, and whether it was the article's one column vector."""
        if self.input_shape is None and np.ndim(inputs) > 2:
            return np.ascontiguousarray(inputs, self.dtype), False
        if self.input_shape is None or len(self.input_shape) == 1:
            return as_rows(inputs, self.input_size, self.dtype, "Sequential")
        images = np.ascontiguousarray(inputs, self.dtype)
        if images.shape[1:] not in (self.input_shape, (self.input_size,)):
            expected = f"(batch, {', '.join(map(str, self.input_shape))}) or (batch, {self.input_size})"
            raise ValueError(f"Sequential: expected images of shape {expected}, found {np.shape(inputs)}")
        return images.reshape(-1, *self.input_shape), False

    def without_last(self) -> Sequential:
        """Return this network without its last module; modules and vectors are shared."""
        shorter = copy.copy(self)
        shorter.modules = self.modules[:-1]
        return shorter

    def parameters(self) -> list[Array]:
        return [array for module in self.modules for array in module.parameters()]

    def gradients(self) -> list[Array]:
        return [array for module in self.modules for array in module.gradients()]

    def arrays(self) -> dict[str, Array]:
        """Return every array by its location: `modules.0.weights`, `modules.0.bias`, `modules.2.weights`, ..."""
        return {
            f"modules.{i}.{name}": array
            for i, module in enumerate(self.modules)
            for name, array in module.arrays().items()
        }

    def config(self) -> list[dict[str, Any]]:  # type: ignore[override]  # a list: one for each module
        return [module.config() for module in self.modules]

    def __repr__(self) -> str:
        lines = "".join(f"    {line}\n" for module in self.modules for line in f"{module!r},".splitlines())
        return f"{type(self).__name__}([\n{lines}])"

    def bind(self, parameters: Sequence[Array], gradients: Sequence[Array]) -> bool:
        moved = True
        for module in self.modules:
            count = len(module.parameters())
            moved &= module.bind(parameters[:count], gradients[:count])
            parameters, gradients = parameters[count:], gradients[count:]
        return moved

    @property
    def parameter_vector(self) -> Array | None:
        return enclosing_vector(self.parameters())

    @property
    def gradient_vector(self) -> Array | None:
        return enclosing_vector(self.gradients())

    def _flatten(self) -> None:
        """Move all parameters into one vector and all gradients into another, and leave views in their place."""
        parameters = self.parameters()
        if not parameters or len({array.dtype for array in parameters}) > 1:
            return
        if not all(array.flags.writeable for array in parameters):
            return
        if self.parameter_vector is not None and self.gradient_vector is not None:  # in the vectors of a larger network
            return
        size = sum(array.size for array in parameters)
        vectors = [aligned_zeros((size,), parameters[0].dtype) for _ in range(2)]
        views: list[list[Array]] = [[], []]
        start = 0
        for array in parameters:
            for vector, into in zip(vectors, views, strict=True):
                small = array.ndim == 2 and max(array.shape) <= SMALL_FEATURES
                order: Literal["C", "F"] = "F" if small else "C"  # see SMALL_FEATURES
                into.append(vector[start : start + array.size].reshape(array.shape, order=order))
            start += array.size
        self.bind(*views)

    def _check_distinct(self) -> None:
        locations: dict[int, str] = {}
        for location, module in _named_modules(self):
            before = locations.setdefault(id(module), location)
            if before != location:
                raise ValueError(f"{location}: expected a module of its own, found that of {before}: make another")

    # A deep copy or an unpickled network has new arrays, so these are moved into vectors again.
    def __copy__(self) -> Sequential:
        twin = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._flatten()


def _named_modules(network: Sequential, location: str = "modules") -> Iterator[tuple[str, Module]]:
    """Yield every module with its location, those of nested networks included."""
    for i, module in enumerate(network.modules):
        yield f"{location}.{i}", module
        if isinstance(module, Sequential):
            yield from _named_modules(module, f"{location}.{i}.modules")


def infer(module: Module, rows: Array) -> Array:
    """Return the outputs of one module as inference computes them: those of a row do not depend on other rows.

    Called for one module after the other, from `as_batch` on, it gives the bits of `network(inputs)`.
    """
    return module(rows) if module.batch_invariant else _in_padded_blocks(module, rows)


def _in_padded_blocks(module: Module, rows: Array) -> Array:
    """Call a module that is not batch-invariant with the same number of rows every time."""
    whole = pad_rows(rows, BLOCK_SIZES[0])
    starts = range(0, max(len(whole), 1), BLOCK_SIZES[0])
    return np.concatenate([module(whole[start : start + BLOCK_SIZES[0]]) for start in starts])[: len(rows)]
