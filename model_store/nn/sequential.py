"""The network: a composition of modules, the output of each the input of the next."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

from model_store.nn.batch_invariant import BLOCK_SIZES, pad_rows
from model_store.nn.module import Module, Shape, as_rows
from model_store.nn.tape import Array, Backward, Line, aligned_zeros, by_rows


class Sequential(Module):
    """`Y = fₙ(… f₂(f₁(X)))`.

    `input_shape` is what the first module that knows takes: (features,), or (height, width, channels) of an image.
    Images may come as such or as flat rows (batch, height · width · channels). `input_size` and `output_size` count
    the values of a row, where those are known. ValueError where a module does not fit what comes out before it.

    All parameters are views into one contiguous vector, `parameter_vector`, and all gradients into another,
    `gradient_vector`; an optimizer's step is a few operations on those two. Both are None for a network whose
    arrays are read-only or which holds a module that cannot give its arrays up (see `Module.bind`).

    A module comes once in a network, since it remembers one forward pass. It may be in several networks, which then
    share what it learns: a run of another network's modules stays in that one's vectors, and other modules move into
    those of the network that was made last, which leaves the one before without.

    `network(x)` has the same bits for a row whoever shares its batch (see blocks.py). `forward` is for training, and
    takes the batch as one.
    """

    by_features = True

    def __init__(self, modules: Sequence[Module]) -> None:
        self.modules = list(modules)
        self._column = False
        self._check_places()
        self._flatten()
        self._input_shape = next((m.input_shape for m in self.modules if m.input_shape is not None), None)
        output_shape = self.output_shape(self._input_shape)
        self.input_size = None if self._input_shape is None else math.prod(self._input_shape)
        self.output_size = output_shape[0] if output_shape is not None and len(output_shape) == 1 else None
        self.dtype = next((array.dtype for array in self.arrays().values()), np.dtype(np.float32))

    @property
    def input_shape(self) -> Shape | None:
        return self._input_shape

    def output_shape(self, input_shape: Shape | None) -> Shape | None:
        return self.shapes(input_shape)[-1][1] if self.modules else input_shape

    def shapes(self, input_shape: Shape | None = None) -> list[tuple[Shape | None, Shape | None]]:
        """What goes into each module and what comes out, as far as known; `input_shape` goes into the first."""
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
        outputs, self._column = self._entered(inputs)
        self._found_shape = np.shape(inputs)
        for module in self.modules:
            outputs = module.forward(outputs)
        return outputs.T if self._column else outputs

    def backward(self, output_grad: Array) -> Array:
        grad = output_grad.T if self._column else output_grad
        for module in reversed(self.modules):
            grad = module.backward(grad)
        return grad.reshape(self._found_shape)

    def record(self, inputs: Array) -> tuple[Array, list[Line], Backward]:
        outputs, forward, tapes = inputs, [], []
        if self.input_shape is not None and len(self.input_shape) > 1:
            outputs = inputs.reshape(-1, *self.input_shape)
        for module in self.modules:
            if not module.by_features:
                outputs, lines = by_rows(outputs)
                forward += lines
            outputs, lines, tape = module.record(outputs)
            forward += lines
            tapes.append(tape)
        outputs, lines = by_rows(outputs)
        forward += lines
        learns = [bool(module.parameters()) for module in self.modules]

        def backward(output_grad: Array, expected: bool) -> tuple[Array, list[Line]]:
            """Nothing is derived by the input of the first module that learns, unless it is expected."""
            grad, every = output_grad, []
            for i in reversed(range(len(tapes))):
                if not expected and not any(learns[: i + 1]):
                    break
                grad, lines = tapes[i](grad, expected or any(learns[:i]))
                every += lines
            return grad.reshape(inputs.shape) if expected else inputs, every

        return outputs, forward, backward

    def __call__(self, inputs: Array) -> Array:
        rows, column = self._entered(inputs)
        for module in self.modules:
            rows = module(rows) if module.batch_invariant else _by_blocks(module, rows)
        return rows.T if column else rows

    @property
    def block_rows(self) -> int:
        """Rows of the largest block that a dense layer computes at once."""
        return max((module.block_rows for module in self.modules), default=1)

    def _entered(self, inputs: Array) -> tuple[Array, bool]:
        """`inputs` as (batch, *input_shape) of `dtype`, and whether it was the article's one column vector."""
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
        """This very network, modules and vectors shared, short of its last module."""
        shorter = copy.copy(self)
        shorter.modules = self.modules[:-1]
        return shorter

    def parameters(self) -> list[Array]:
        return [array for module in self.modules for array in module.parameters()]

    def gradients(self) -> list[Array]:
        return [array for module in self.modules for array in module.gradients()]

    def arrays(self) -> dict[str, Array]:
        """Every array by its place: `modules.0.weights`, `modules.0.bias`, `modules.2.weights`, ..."""
        return {
            f"modules.{i}.{name}": array
            for i, module in enumerate(self.modules)
            for name, array in module.arrays().items()
        }

    def config(self) -> list[dict[str, Any]]:  # type: ignore[override]  # a list of its modules', not one
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
        return _vector_of(self.parameters())

    @property
    def gradient_vector(self) -> Array | None:
        return _vector_of(self.gradients())

    def _flatten(self) -> None:
        """Gathers all parameters into one vector and all gradients into another, and leaves views in their place."""
        parameters = self.parameters()
        if not parameters or len({array.dtype for array in parameters}) > 1:
            return
        if not all(array.flags.writeable for array in parameters):
            return
        if self.parameter_vector is not None and self.gradient_vector is not None:  # of a network these are a part of
            return
        size = sum(array.size for array in parameters)
        vectors = [aligned_zeros((size,), parameters[0].dtype) for _ in range(2)]
        views: list[list[Array]] = [[], []]
        start = 0
        for array in parameters:
            for vector, into in zip(vectors, views, strict=True):
                order: Literal["C", "F"] = "C" if array.flags.c_contiguous else "F"
                into.append(vector[start : start + array.size].reshape(array.shape, order=order))
            start += array.size
        self.bind(*views)

    def _check_places(self) -> None:
        locations: dict[int, str] = {}
        for location, module in _walked(self):
            before = locations.setdefault(id(module), location)
            if before != location:
                raise ValueError(f"{location}: expected a module of its own, found that of {before}: make another")

    # A deep copy or an unpickled network has arrays of its own, so it gathers them anew.
    def __copy__(self) -> Sequential:
        twin = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._flatten()


def _walked(network: Sequential, location: str = "modules") -> Iterator[tuple[str, Module]]:
    """Every module and its place, those of networks within included."""
    for i, module in enumerate(network.modules):
        yield f"{location}.{i}", module
        if isinstance(module, Sequential):
            yield from _walked(module, f"{location}.{i}.modules")


def _vector_of(arrays: Sequence[Array]) -> Array | None:
    """The vector whose pieces these arrays are, one after the other; None where they are no such pieces."""
    room = arrays[0].base if arrays else None
    if not isinstance(room, np.ndarray) or room.dtype != np.uint8 or room.ndim != 1:  # see `aligned_zeros`
        return None
    first = start = arrays[0].ctypes.data - room.ctypes.data
    for array in arrays:
        if array.base is not room or array.ctypes.data - room.ctypes.data != start or not array.flags.writeable:
            return None
        start += array.nbytes
    return room[first:start].view(arrays[0].dtype)


def _by_blocks(module: Module, rows: Array) -> Array:
    """The answers of a module that is not known to answer each row alone: it always sees as many rows."""
    whole = pad_rows(rows, BLOCK_SIZES[0])
    starts = range(0, max(len(whole), 1), BLOCK_SIZES[0])
    return np.concatenate([module(whole[start : start + BLOCK_SIZES[0]]) for start in starts])[: len(rows)]
