"""The values of an ONNX graph while it is read, and an operation with its inputs and attributes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from model_store.errors import ModelImportError
from model_store.importing.budget import Budget
from model_store.importing.features import Features
from model_store.importing.layers import Layers
from model_store.nn import Array

FLOAT, INT32, INT64, STRING, DOUBLE = 1, 6, 7, 8, 11  # types of tensors
NUMBERS: dict[int, Any] = {FLOAT: np.float32, INT32: np.int32, INT64: np.int64, DOUBLE: np.float64}
BATCH = -(2**40)  # the size of a batch in the value of Shape


@dataclass(frozen=True)
class Complement:
    """1 minus a probability."""

    value: Layers


@dataclass(frozen=True)
class BothProbabilities:
    """A probability's complement and the probability, side by side."""

    value: Layers


@dataclass(frozen=True)
class LogProbabilities:
    """The logarithms of probabilities."""

    value: Layers


@dataclass(frozen=True)
class LargestIndex:
    """The index of the largest value."""

    value: Any


@dataclass(frozen=True)
class PredictedLabel:
    """One of the labels for each row."""

    labels: tuple[str | int, ...]


@dataclass(frozen=True)
class LabelledProbabilities:
    """Probabilities as a sequence of maps, the result of ZipMap."""

    value: Any
    labels: tuple[str | int, ...]


Value = Any  # Array (a constant), Features, Layers, or one of the classes above


class UnsupportedOperationError(ValueError):
    """A node uses an operator in a way that cannot be imported."""


class OverBatchError(UnsupportedOperationError):
    """An operator mixes, moves or cuts the first axis, the rows of a batch, or treats each of them otherwise."""


class TrainingModeError(UnsupportedOperationError):
    """An operator computes what it does in training."""


class NoValuesError(UnsupportedOperationError):
    """An operator leaves no value."""


@dataclass(frozen=True)
class Operation:
    """A node with the values of its inputs, None for one that is left out."""

    node: Any
    inputs: Sequence[Value | None]
    attributes: dict[str, Any]
    dtype: np.dtype[Any]  # of the network
    opset: int
    batch: int | None  # the declared size of a batch, if it is fixed
    budget: Budget

    def refuse(self, problem: str, kind: type[UnsupportedOperationError] = UnsupportedOperationError) -> NoReturn:
        raise kind(problem)

    def attribute(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)

    def has(self, position: int) -> bool:
        return position < len(self.inputs) and self.inputs[position] is not None

    def constant(self, position: int, default: Any = None) -> Array:
        """Return an input that is a constant; `default` if it is left out."""
        if not self.has(position):
            if default is None:
                self.refuse(f"input {position}: expected a constant, found none")
            return np.asarray(default)
        value = self.inputs[position]
        if not isinstance(value, np.ndarray):
            self.refuse(f"input {position}: expected a constant, found a computed value")
        return value

    def numbers(self, position: int, default: Any = None) -> list[int]:
        """Return an input of whole numbers as a list."""
        return [int(one) for one in self.constant(position, default).ravel().tolist()]

    def value(self, position: int = 0) -> Features | Layers:
        """Return an input that is computed from a row."""
        value = self.inputs[position] if position < len(self.inputs) else None
        if not isinstance(value, Features | Layers):
            found = "a constant" if isinstance(value, np.ndarray) else type(value).__name__
            self.refuse(f"input {position}: expected numbers computed from a row, found {found}")
        return value

    def one_value_and_constant(self) -> tuple[Features | Layers, Array, bool]:
        """Return the two inputs, the computed one first, and whether they were swapped."""
        if len(self.inputs) != 2:
            self.refuse(f"expected two inputs, found {len(self.inputs)}")
        swapped = isinstance(self.inputs[0], np.ndarray)
        return self.value(int(swapped)), self.constant(1 - int(swapped)), swapped


def fail(file: str, node: Any, position: int, problem: str) -> ModelImportError:
    """Return the error of a node: its name, or its position if it has none, and its operator."""
    name = repr(node.name) if node.name else f"{position}"
    operator = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    return ModelImportError(f"{file}: node {name} ({operator}): {problem}")
