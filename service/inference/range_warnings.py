"""Warn of values outside the range of training, for which predictions are extrapolated."""

from __future__ import annotations

from itertools import accumulate

import numpy as np

from model_store.artifact.model import Model
from model_store.errors import Fault, InputError
from model_store.nn import Array as NDArray
from model_store.schema.columns import CategoryColumn
from service.registry.column_stats import column_range

_FIX = "the prediction is extrapolated; check the value and its unit"


def range_warnings(model: Model, inputs: NDArray) -> list[Fault]:
    """Return the first 100 values of encoded rows (n, features) that are outside the training range."""
    found = []
    columns = model.signature.inputs
    for column, stop in zip(columns, accumulate(column.width for column in columns), strict=True):
        values = inputs[:, stop - column.width : stop]
        if isinstance(column, CategoryColumn):
            if column.unknown == "bucket":
                problem = "a category that is not in the training data"
                found += [(i, column.name, problem) for i in np.flatnonzero(values[:, -1])]
            continue
        known = column_range(column)
        low, high = known.get("min", -np.inf), known.get("max", np.inf)
        with np.errstate(over="ignore"):
            limits = ((np.array([low, high]) - column.offset) / column.scale).astype(values.dtype)
        outside = (values < limits[0]) | (values > limits[1])
        for i in np.flatnonzero(outside.any(axis=1))[: InputError.MAX_FAULTS]:
            value = float(values[i][outside[i]][0]) * column.scale + column.offset
            value = float(f"{value:.4g}")  # float32 has little more precision far from the mean
            found.append((i, column.name, f"{value:g} is outside the training range, {low:g} to {high:g}"))
    found.sort(key=lambda warning: warning[0])
    return [Fault(f"instances.{i}.{name}", problem, _FIX) for i, name, problem in found[: InputError.MAX_FAULTS]]
