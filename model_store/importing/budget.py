"""The budget of an import: the values that a file may make of its bytes, in all of its steps together.

A limit of each step is none of a file, which may have thousands of steps. An honest file holds the numbers of its
weights, so what it may cost follows from its size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from model_store.importing.features import CategoryFeature, Features
from model_store.importing.layers import Layers

FREE_VALUES = 2**25  # of any file: 256 MB in float64
VALUES_PER_BYTE = 4  # a weight of 2 or 4 bytes is read, converted, transposed and copied into a layer
FEATURE_VALUES = 64  # a feature is an object of some hundred bytes, made in microseconds
COLUMN_VALUES = 1024  # an input column is an object of the signature, of its JSON and of the report, with some 2 kB
ROW_VALUES = 8  # of each value of an array: in lists of Python it takes some 80 bytes
STEP_VALUES = 4  # of each value that a layer gets: it compares places, and broadcasts factors and constants


class BudgetError(ValueError):
    """A file would make more values than its size allows."""


@dataclass
class Budget:
    """The values that are left of a file's budget."""

    left: int

    @classmethod
    def of(cls, file_bytes: int) -> Budget:
        return cls(FREE_VALUES + VALUES_PER_BYTE * file_bytes)

    def spend(self, values: int) -> None:
        """Take values from the budget. BudgetError if fewer are left, before they are allocated."""
        if values > self.left:
            expected = f"expected at most {self.left} more values of a file of this size"
            raise BudgetError(f"{expected}, found {values}")
        self.left -= values

    def spend_features(self, count: int) -> None:
        """Take features from the budget. BudgetError as of `spend`."""
        self.spend(FEATURE_VALUES * count)

    def spend_columns(self, count: int) -> None:
        """Take input columns from the budget. BudgetError as of `spend`."""
        self.spend(COLUMN_VALUES * count)

    def spend_row(self, shape: Sequence[int]) -> None:
        """Take an input that is one array from the budget: its rows are made up as numbers of Python."""
        self.spend(ROW_VALUES * shape_values(shape))

    def step(self, value: Features | Layers, compute: Callable[[], Features | Layers]) -> Features | Layers:
        """Return what a step computes from a value, and take both from the budget: the value before the step."""
        self.spend(STEP_VALUES * value_cost(value))
        found = compute()
        self.spend(value_cost(found) + layer_cost([value], found))
        return found


def shape_values(shape: Any) -> int:
    """Return the values of an array. An empty dimension counts as one of 1: others, such as 2³⁰, become sizes later."""
    return math.prod(max(1, size) for size in shape)


def value_cost(value: Any) -> int:
    """Return the values of an array, of features or of a sample of layers."""
    if isinstance(value, np.ndarray):
        return shape_values(value.shape) * (1 if value.dtype.kind in "biuf" else FEATURE_VALUES)
    if isinstance(value, Features):
        weights = sum(len(item.weights) for item in value.items if isinstance(item, CategoryFeature))
        return FEATURE_VALUES * (len(value.items) + weights)
    if isinstance(value, Layers):
        return int(value.index.size)
    return value_cost(value.value) if hasattr(value, "value") else 1


def layer_cost(before: list[Any], after: Any) -> int:
    """Return the parameters of the layers at the end of a value that its inputs did not have."""
    if not isinstance(after, Layers):
        return 0
    known = {id(module) for value in before if isinstance(value, Layers) for module in value.modules[-4:]}
    new = [module for module in after.modules[-4:] if id(module) not in known]
    return sum(array.size for module in new for array in module.arrays().values())
