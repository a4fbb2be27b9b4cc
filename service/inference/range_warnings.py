"""Warn of values outside the range of training, for which predictions are extrapolated."""

from __future__ import annotations

from itertools import accumulate

from model_store.artifact.model import Model
from model_store.errors import Fault, InputError
from model_store.nn import Array as NDArray

_FIX = "the prediction is extrapolated; check the value and its unit"


def range_warnings(model: Model, inputs: NDArray) -> list[Fault]:
    """Return the first 100 values of encoded rows (n, features) that are outside the training range."""
    found: list[tuple[int, str, str]] = []
    columns = model.signature.inputs
    for column, stop in zip(columns, accumulate(column.width for column in columns), strict=True):
        features = inputs[:, stop - column.width : stop]
        found += [(row, column.name, problem) for row, problem in column.range_warnings(features)]
    found.sort(key=lambda warning: warning[0])
    return [Fault(f"instances.{i}.{name}", problem, _FIX) for i, name, problem in found[: InputError.MAX_FAULTS]]
