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

from model_store.nn.arrays import Array
from model_store.nn.config_fields import Field

Shape = tuple[int, ...]  # of one sample: (features,), or of an image (height, width, channels)

_REQUIRED = object()


class Module:
    """A differentiable function of a batch.

    `forward` remembers what `backward` needs, so it belongs to one training loop at a time. Calling the module,
    `module(x)`, remembers nothing: any number of threads may share it.
    """

    config_fields: ClassVar[Mapping[str, Field]] = {}  # the keys of `config` besides the type; attributes too
    newer_fields: ClassVar[Mapping[str, Any]] = {}  # those that `config` leaves out if they have this value
    build_options: ClassVar[tuple[str, ...]] = ()  # arguments from `build`: of "dtype", "rng", "initializer", "arrays"
    batch_invariant: ClassVar[bool] = False  # True if inference for a row has the same bits whatever the other rows

    inputs: Array

    @property
    def block_rows(self) -> int:
        """The number of rows that inference computes in the time of one."""
        return 1

    @property
    def input_shape(self) -> Shape | None:
        """The shape of a sample; None if any shape is accepted."""
        return None

    def output_shape(self, input_shape: Shape | None) -> Shape | None:
        """Return the shape of a sample's output; None if it is not known. ValueError if `input_shape` does not fit."""
        return None

    def forward(self, inputs: Array) -> Array:
        """Compute `Y = f(X)`, (batch, inputs) to (batch, outputs), and remember what `backward` needs."""
        raise NotImplementedError(f"{type(self).__name__} has no forward()")

    def backward(self, output_grad: Array) -> Array:
        """Given `∂E/∂Y`, shaped like Y, add to `gradients()` (`+=`) and return `∂E/∂X`, shaped like X."""
        raise NotImplementedError(f"{type(self).__name__} has no backward()")

    def __call__(self, inputs: Array) -> Array:
        """Compute `Y = f(X)` for inference, without remembering anything.

        By default, `forward` of a copy. A module that contains others whose inference differs from training, such as
        Dropout or BatchNorm, must override this to call them.
        """
        return _inference_copy(self).forward(inputs)

    def parameters(self) -> list[Array]:
        """Return the arrays that training changes in place."""
        return []

    def gradients(self) -> list[Array]:
        """Return the accumulated gradient of each of `parameters()`, in the same order and shapes."""
        return []

    def arrays(self) -> dict[str, Array]:
        """Return the arrays that an artifact saves, by name."""
        return {}

    def config(self) -> dict[str, Any]:
        """Return what rebuilds this module except its arrays: the type's name and the sizes, as JSON values."""
        values = {name: getattr(self, name) for name in self.config_fields}
        values = {name: value for name, value in values.items() if value != self.newer_fields.get(name, _REQUIRED)}
        shown = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        return {"type": type(self).__name__, **shown}

    def __repr__(self) -> str:
        """Return the module as source code: `Linear(input_size=2, output_size=3)`."""
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
        """Move parameters and gradients into the given arrays, which are views of a network's vector.

        Return False and change nothing for a module that keeps them elsewhere than in its own attributes.
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
    """Return a copy whose `forward` leaves the original unchanged, nested modules included; arrays are shared."""
    twin = copy.copy(module)
    for name, value in vars(module).items():
        if isinstance(value, Module):
            vars(twin)[name] = _inference_copy(value)
        elif isinstance(value, (list, tuple)) and any(isinstance(inner, Module) for inner in value):
            vars(twin)[name] = [_inference_copy(inner) if isinstance(inner, Module) else inner for inner in value]
    return twin


def as_rows(inputs: npt.ArrayLike, size: int | None, dtype: npt.DTypeLike, location: str) -> tuple[Array, bool]:
    """Return `inputs` as a C-contiguous (batch, size) batch of `dtype`, and whether it was one column vector (size, 1).

    The article passes single samples as columns. The shape tells a column from a batch; (1, 1) is read as a row.
    """
    rows = np.ascontiguousarray(inputs, dtype)
    if rows.ndim == 2:
        if size is None or rows.shape[1] == size:
            return rows, False
        if rows.shape == (size, 1):
            return rows.reshape(1, size), True
    raise ValueError(f"{location}: expected inputs of shape (batch, {size}), found {np.shape(inputs)}")
