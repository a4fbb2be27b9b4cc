"""What columns of scaled numbers share: numbers and arrays, whose features are `(value - offset) / scale`.

Numbers that span orders of magnitude, such as prices, are compressed before that: `asinh(value / w)` is about linear up
to the linear width w, and about logarithmic above: `asinh(x) ≈ ln 2x`. It is defined for 0 and below.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from marshmallow import ValidationError, fields

from model_store.nn import Array
from model_store.schema.columns.base import Bins, Column, FaultCollector, finite_numbers, missing_count
from model_store.utils.number_format import format_number
from model_store.utils.values import is_finite_number

_LARGEST = np.finfo(np.float64).max
_MAX_BINS = 100  # of statistics in an artifact, which training writes in ten: each is a cell of the metrics


def compress(values: Array, linear_width: Array | float) -> Array:
    """Return `asinh(value / linear_width)`, which ascends and is finite, up to 711, for all finite numbers."""
    with np.errstate(over="ignore"):
        quotients = values / linear_width
    compressed: Array = np.arcsinh(np.clip(quotients, -_LARGEST, _LARGEST))
    return compressed


def decompress(compressed: float, linear_width: float) -> float:
    """Return the number that `compress` maps to `compressed`, up to rounding; infinite if it overflows."""
    with np.errstate(over="ignore"):
        return float(np.sinh(np.float64(compressed)) * linear_width)


def scaled_range_limits(column: Column) -> tuple[float, float]:
    """Return `Column.range_limits` of scaled numbers."""
    known = column.training_range()
    ends = np.array([known.get("min", -math.inf), known.get("max", math.inf)])
    with np.errstate(over="ignore"):
        low, high = column.to_feature(ends).tolist()
    return low, high


def scaled_range_problem(column: Column, feature: float) -> str:
    """Return `Column.range_problem` of a scaled number."""
    known = column.training_range()
    value = float(f"{column.from_feature(feature):.4g}")  # float32 has little more precision far off
    low, high = known.get("min", -math.inf), known.get("max", math.inf)
    return f"{value:g} is outside the training range, {low:g} to {high:g}"


def scaled_bins(column: Column, statistics: Any, dtype: Any, margin: float = 0.0) -> Bins | None:
    """Return the bins of scaled numbers: one up to each decile and one above the maximum.

    Deciles that `dtype` cannot tell apart share a bin. `margin` is the rounding error of scaled numbers that are not
    rounded as the deciles are.
    """
    if not isinstance(statistics, Mapping):
        return None
    edges = np.array(sorted(set(finite_numbers(statistics.get("deciles")))), np.float64)  # np.unique imports numpy.ma
    counts = finite_numbers(statistics.get("counts"))
    if not 0 < len(edges) == len(counts) <= _MAX_BINS or min(counts) < 0 or not sum(counts):
        return None
    expected = np.array([*counts, 0], np.float64)
    if column.fill is not None:  # the network's input for a missing value
        expected[np.searchsorted(edges, column.fill)] += missing_count(statistics)
    with np.errstate(over="ignore"):
        scaled = column.to_feature(edges).astype(dtype)
    last = np.flatnonzero([*(scaled[1:] > scaled[:-1] + margin), True])  # of the deciles that share a bin
    first = [0, *(last + 1)]
    return Bins(np.add.reduceat(expected, first), (scaled[last] + margin).astype(dtype), None)


def finite_number_field(validate: Callable[[Any], None] | None = None, **options: Any) -> fields.Field[Any]:
    """Return a field for a finite JSON number; text and booleans are invalid."""
    return fields.Raw(validate=validate or _check_number, **options)


def check_scale(value: Any) -> None:
    """Raise ValidationError unless the value is a finite number above 0."""
    _check_number(value)
    if value <= 0:
        raise ValidationError("expected a number above 0")


def _check_number(value: Any) -> None:
    if not is_finite_number(value):
        raise ValidationError("expected a finite number")


def numbers_from_tensor(
    column: Column, tensor: Array, datatype: str, location: str, faults: FaultCollector
) -> Array | None:
    """Return a numeric tensor as float64; add a fault and return None if it has strings."""
    del datatype
    if tensor.dtype == object:
        fix = f"send numbers, as {column.tensor_datatype} or another numeric datatype"
        faults.add(location, "expected a number in each row, found text (BYTES)", fix)
        return None
    numbers: Array = tensor.astype(np.float64)
    return numbers


def describe_range(statistics: Mapping[str, Any], format_value: Callable[[Any], str]) -> str:
    """Return minimum and maximum, or nothing if one is unknown."""
    low, high = statistics.get("min"), statistics.get("max")
    return "" if low is None or high is None else f"{format_value(low)} to {format_value(high)}"


def describe_summary(statistics: Mapping[str, Any]) -> list[str]:
    """Return range, mean and deviation as far as they are known; nothing without a range."""
    words = [described] if (described := describe_range(statistics, format_number)) else []
    if words and statistics["mean"] is not None and statistics["std"] is not None:
        words.append(f"mean {format_number(statistics['mean'])} ± {format_number(statistics['std'], 3)}")
    return words
