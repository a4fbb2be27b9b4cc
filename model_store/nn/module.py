"""The module: a function with parameters that knows its own derivative.

Given `∂E/∂Y`, the gradient of the error with respect to its output, a module accumulates the gradient of its
parameters and returns `∂E/∂X`, which is the `∂E/∂Y` of the module before it. That is all of backpropagation.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from model_store.nn.config_fields import Field
from model_store.nn.tape import Array, Backward, Line, copied, unless_changed

Shape = tuple[int, ...]  # of one sample: (features,), or of an image (height, width, channels)


class Module:
    """A differentiable function of a batch.

    `forward` remembers what `backward` needs, so it belongs to one training loop at a time. Calling the module,
    `module(x)`, remembers nothing: any number of threads may share it.
    """

    config_fields: ClassVar[
        Mapping[str, Field]
    ] = {}  # what `config` holds beside the type, attributes and arguments alike
    build_options: ClassVar[tuple[str, ...]] = ()  # what `build` passes on: of "dtype", "rng", "initializer", "arrays"
    batch_invariant: ClassVar[bool] = False  # whether a row's answer has the same bits whoever shares its batch
    by_features: ClassVar[bool] = False  # whether `record` takes inputs whose features lie one after the other

    inputs: Array

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        unless_changed(cls, Module, {"forward", "backward"}, {"record"})

    @property
    def block_rows(self) -> int:
        """Rows that inference computes in the time of one."""
        return 1

    @property
    def input_shape(self) -> Shape | None:
        """What a sample must look like; None where that is not known, or all the same."""
        return None

    def output_shape(self, input_shape: Shape | None) -> Shape | None:
        """What a sample of that shape becomes; None where that is not known. ValueError where it does not fit."""
        return None

    def forward(self, inputs: Array) -> Array:
        """`Y = f(X)`: maps (batch, inputs) to (batch, outputs) and remembers what `backward` needs."""
        raise NotImplementedError(f"{type(self).__name__} has no forward()")

    def backward(self, output_grad: Array) -> Array:
        """Takes `∂E/∂Y`, adds to `gradients()` (`+=`) and returns `∂E/∂X`, both shaped like what they derive by."""
        raise NotImplementedError(f"{type(self).__name__} has no backward()")

    def __call__(self, inputs: Array) -> Array:
        """The forward pass of inference. A copy does the remembering, so a module with only `forward` is pure too.

        One that has modules in its attributes and whose inference is not its training, since a Dropout or a BatchNorm
        is among them, calls them here.
        """
        return _inference_copy(self).forward(inputs)

    def record(self, inputs: Array) -> tuple[Array, list[Line], Backward]:
        """This module's part of a tape (see tape.py), for a batch that will always lie in `inputs`.

        Returns the array that the outputs will lie in, the calls of the forward pass, and what records the backward
        pass: given the array of `∂E/∂Y` and whether `∂E/∂X` is expected, the array of the latter and the calls. They
        set the gradients rather than add to them, and may use up `∂E/∂Y`.
        """
        # A copy is asked what comes out: `inputs` is not filled yet, and this module is to learn nothing.
        outputs = copy.deepcopy(self).forward(np.zeros_like(inputs)).copy()

        def backward(output_grad: Array, _: bool) -> tuple[Array, list[Line]]:
            input_grad = np.zeros_like(inputs)
            zeroed: list[Line] = [(gradient.fill, (0,)) for gradient in self.gradients()]
            return input_grad, [*zeroed, copied(self.backward, output_grad, out=input_grad)]

        return outputs, [copied(self.forward, inputs, out=outputs)], backward

    def parameters(self) -> list[Array]:
        """The arrays that training changes, in place."""
        return []

    def gradients(self) -> list[Array]:
        """The accumulated gradient of each of `parameters()`, in the same order and shapes."""
        return []

    def arrays(self) -> dict[str, Array]:
        """What is saved of this module, by name."""
        return {}

    def config(self) -> dict[str, Any]:
        """What rebuilds this module, arrays apart: its type's name and its sizes, as JSON knows them."""
        values = {name: getattr(self, name) for name in self.config_fields}
        shown = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        return {"type": type(self).__name__, **shown}

    def __repr__(self) -> str:
        """As it is written in a program: `Linear(input_size=2, output_size=3)`."""
        kind, *sizes = self.config().items()
        return f"{kind[1]}({', '.join(f'{name}={value!r}' for name, value in sizes)})"

    def _check_fields(self) -> None:
        """Raise ValueError for an attribute that its `config_fields` entry rejects; unwrap NumPy scalars."""
        for name, field in self.config_fields.items():
            value = getattr(self, name)
            if isinstance(value, np.generic):
                value = value.item()
                setattr(self, name, value)
            if not field.accepts(list(value) if isinstance(value, tuple) else value):
                raise ValueError(f"{type(self).__name__}.{name}: expected {field.expected}, found {value!r}")

    def bind(self, parameters: Sequence[Array], gradients: Sequence[Array]) -> bool:
        """Moves parameters and gradients into the given arrays: views of a network's one vector.

        Works for every module that keeps them in attributes of its own. False, and nothing moved, for others.
        """
        locations = {id(value): name for name, value in vars(self).items()}
        mine = [*self.parameters(), *self.gradients()]
        if any(id(array) not in locations for array in mine):
            return False
        for old, new in zip(mine, [*parameters, *gradients], strict=True):
            new[...] = old
            setattr(self, locations[id(old)], new)
        return True


def _inference_copy(module: Module) -> Module:
    """A copy that remembers things for itself, as the modules in its attributes do; arrays are shared."""
    twin = copy.copy(module)
    for name, value in vars(module).items():
        if isinstance(value, Module):
            vars(twin)[name] = _inference_copy(value)
        elif isinstance(value, (list, tuple)) and any(isinstance(inner, Module) for inner in value):
            vars(twin)[name] = [_inference_copy(inner) if isinstance(inner, Module) else inner for inner in value]
    return twin


def as_rows(inputs: npt.ArrayLike, size: int | None, dtype: npt.DTypeLike, location: str) -> tuple[Array, bool]:
    """`inputs` as a C-contiguous (batch, size) batch of `dtype`, and whether it was one column vector (size, 1).

    The article feeds single samples as columns. A column is told from a batch by its shape; where both fit,
    which is only (1, 1), rows win.
    """
    rows = np.ascontiguousarray(inputs, dtype)
    if rows.ndim == 2:
        if size is None or rows.shape[1] == size:
            return rows, False
        if rows.shape == (size, 1):
            return rows.reshape(1, size), True
    raise ValueError(f"{location}: expected inputs of shape (batch, {size}), found {np.shape(inputs)}")
