"""The columns of a signature: each parses untrusted values and encodes them as features of the network.

A column handles all rows at once. It adds faults to a `FaultCollector` and continues, so that one response reports
every fault of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain
from typing import Any, Literal

import numpy as np

from model_store.errors import Fault, InputError, did_you_mean
from model_store.nn import Array
from model_store.utils.values import describe_value, is_finite_number, list_names, parse_finite_number

_ALREADY_REPORTED = "already reported"  # stands for a value whose fault `parse` has added


class FaultCollector:
    """Counts all faults and keeps the first `InputError.MAX_FAULTS`. A costly fix is computed only for those."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.total = 0

    def add(self, location: str, problem: str, fix: str | Callable[[], str]) -> None:
        self.total += 1
        if len(self.faults) < InputError.MAX_FAULTS:
            self.faults.append(Fault(location, problem, fix if isinstance(fix, str) else fix()))

    def raise_if_any(self) -> None:
        """Raise InputError if there are faults, sorted by row."""
        if self.total:
            raise InputError(sorted(self.faults, key=_row), self.total)


def _row(fault: Fault) -> int:
    """Return the row number in a location such as `instances.7.island`, -1 if there is none."""
    return next((int(part) for part in fault.location.split(".") if part.isascii() and part.isdigit()), -1)


@dataclass(frozen=True)
class NumberColumn:
    """A column of numbers, encoded as one feature: `(value - offset) / scale`.

    `fill` replaces a missing value; without it a missing value is rejected.
    """

    name: str
    offset: float = 0.0
    scale: float = 1.0
    fill: float | None = None
    statistics: Mapping[str, Any] = field(default_factory=dict)
    kind: Literal["number"] = "number"
    width = 1
    _MISSING_FIX = "send a number; this model does not accept missing values"

    def parse(self, values: list[Any], locations: RowLocations, faults: FaultCollector) -> Array:
        """Return untrusted values as (n,) float64, NaN for missing ones."""
        if set(map(type, values)) <= {int, float}:
            try:
                parsed = np.array(values, np.float64)
            except OverflowError:  # an integer beyond float64
                parsed = np.array([np.inf])
            if np.isfinite(parsed).all():
                return parsed
        parsed = np.empty(len(values))
        for i, value in enumerate(values):
            parsed[i] = np.nan if value is None else _parse_number(value, locations[i], self.name, faults)
        return parsed

    def encode(self, values: Array, locations: RowLocations, faults: FaultCollector) -> Array:
        """Return parsed values as features (n, 1)."""
        missing = np.isnan(values)
        if missing.any():
            if self.fill is None:
                for i in np.flatnonzero(missing):
                    faults.add(f"{locations[int(i)]}.{self.name}", "expected a number, found none", self._MISSING_FIX)
            else:
                values = np.where(missing, self.fill, values)
        return ((values - self.offset) / self.scale).reshape(-1, 1)


@dataclass(frozen=True)
class CategoryColumn:
    """A column of categories, encoded one-hot. `unknown="bucket"` adds one feature for all unknown categories."""

    name: str
    categories: tuple[str, ...]
    unknown: Literal["refuse", "bucket"] = "refuse"
    fill: str | None = None
    statistics: Mapping[str, Any] = field(default_factory=dict)
    kind: Literal["category"] = "category"

    @property
    def width(self) -> int:
        return len(self.categories) + (self.unknown == "bucket")

    @cached_property
    def _feature_by_category(self) -> dict[str, int]:
        return {category: feature for feature, category in enumerate(self.categories)}

    def parse(self, values: list[Any], locations: RowLocations, faults: FaultCollector) -> Array:
        """Return untrusted values as (n,) objects, text or None. An integer is read as its digits."""
        parsed = np.empty(len(values), object)
        for i, value in enumerate(values):
            if value is None or type(value) is str:
                parsed[i] = value
            elif type(value) is int and abs(value) < 2**63:
                parsed[i] = str(value)
            else:
                parsed[i] = _ALREADY_REPORTED
                faults.add(
                    f"{locations[i]}.{self.name}",
                    f"expected text, found {describe_value(value)}",
                    partial(self._fix, value),
                )
        return parsed

    def encode(self, values: Array, locations: RowLocations, faults: FaultCollector) -> Array:
        """Return parsed values as features (n, width)."""
        encoded = np.zeros((len(values), self.width))
        for i, value in enumerate(values):
            value = self.fill if value is None else value
            feature = self._feature_by_category.get(value) if value is not None else None
            if feature is None and value is not None and self.unknown == "bucket":
                feature = len(self.categories)
            if feature is not None:
                encoded[i, feature] = 1
            elif value is not _ALREADY_REPORTED:
                found = "none" if value is None else describe_value(value)
                known = list_names(self.categories)
                faults.add(
                    f"{locations[i]}.{self.name}", f"expected one of {known}; found {found}", partial(self._fix, value)
                )
        return encoded

    def _fix(self, value: Any) -> str:
        return did_you_mean(value, self.categories) or "send one of the training data's categories"


@dataclass(frozen=True)
class ArrayColumn:
    """One array for each row, such as an image, encoded as `(value - offset) / scale`, flattened in C order.

    Values outside `low` to `high`, if given, are rejected: they have another scale.
    """

    name: str
    shape: tuple[int, ...]
    offset: float = 0.0
    scale: float = 1.0
    low: float | None = None
    high: float | None = None
    statistics: Mapping[str, Any] = field(default_factory=dict)
    kind: Literal["array"] = "array"

    @property
    def width(self) -> int:
        return math.prod(self.shape)

    def parse(self, values: list[Any], locations: RowLocations, faults: FaultCollector) -> Array:
        """Return untrusted arrays, nested like `shape` or flat, as (n, width) float64."""
        parsed = self._stack(values)
        if parsed is None:
            parsed = np.zeros((len(values), self.width))
            for i, value in enumerate(values):
                one = self._stack([value])
                if one is None:
                    self._add_fault(value, locations[i], faults)
                else:
                    parsed[i] = one[0]
        return parsed

    def encode(self, values: Array, locations: RowLocations, faults: FaultCollector) -> Array:
        """Return parsed values as features (n, width)."""
        flat = np.asarray(values, np.float64).reshape(len(values), self.width)
        low = -np.inf if self.low is None else self.low
        high = np.inf if self.high is None else self.high
        if flat.size and not (flat.min() >= low and flat.max() <= high):
            outside = (flat < low) | (flat > high)
            for i in np.flatnonzero(outside.any(axis=1)):
                found = flat[i][outside[i]][0]
                expected = f"expected numbers from {low:g} to {high:g}, found {found:g}"
                faults.add(locations[int(i)], expected, "scale the values like the training data")
        return flat if self.offset == 0 and self.scale == 1 else (flat - self.offset) / self.scale

    def _stack(self, values: list[Any]) -> Array | None:
        """Return the batch as (n, width), None unless it consists of finite numbers in the right shape."""
        leaves: list[Any] = values
        for _ in self.shape if values and _nesting_depth(values[0]) > 1 else (1,):
            if not set(map(type, leaves)) <= {list, tuple}:
                return None
            leaves = list(chain.from_iterable(leaves))
        if not set(map(type, leaves)) <= {int, float} or len(leaves) != len(values) * self.width:
            return None
        try:
            stacked = np.array(values, np.float64)
        except (ValueError, OverflowError):  # ragged, or an integer beyond float64
            return None
        if stacked.shape[1:] not in {self.shape, (self.width,)} or not np.isfinite(stacked).all():
            return None
        return stacked.reshape(len(values), self.width)

    def _add_fault(self, value: Any, location: str, faults: FaultCollector) -> None:
        expected = f"expected an array of {self.width} finite numbers of shape {list(self.shape)}, or flat"
        sizes: list[int] = []
        inner: Any = value
        while isinstance(inner, (list, tuple)) and len(sizes) < 8:
            sizes.append(len(inner))
            inner = inner[0] if inner else None
        if not sizes:
            found = describe_value(value)
        elif sizes not in ([self.width], list(self.shape)):
            found = f"shape {sizes}"
        else:
            bad = [leaf for leaf in _flatten_leaves(value) if not is_finite_number(leaf)]
            found = describe_value(bad[0]) if bad else "rows of different lengths"
        faults.add(location, f"{expected}; found {found}", "send the rows of the array as nested lists of numbers")


class RowLocations(Sequence[str]):
    """The locations of rows, such as `instances.7`; each is formatted only when it is read."""

    def __init__(self, prefix: str, rows: Sequence[int]) -> None:
        self.prefix, self.rows = prefix, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: Any) -> Any:
        return f"{self.prefix}.{self.rows[i]}"


def _parse_number(value: Any, location: str, name: str, faults: FaultCollector) -> float:
    """Return the number; add a fault and return 0 if it is not finite or not a number."""
    if is_finite_number(value):
        return float(value)
    if isinstance(value, str):
        fix = "send a number" if parse_finite_number(value) is None else "send it without quotes"
    elif isinstance(value, bool):
        fix = "send 0 or 1"
    else:
        fix = "send a finite number"
    faults.add(f"{location}.{name}", f"expected a number, found {describe_value(value)}", fix)
    return 0.0


def _nesting_depth(value: Any) -> int:
    depth = 0
    while isinstance(value, (list, tuple)) and depth < 16:
        depth += 1
        value = value[0] if value else None
    return depth


def _flatten_leaves(value: Any) -> list[Any]:
    stack, leaves = [value], []
    while stack:
        item = stack.pop()
        if isinstance(item, (list, tuple)):
            stack.extend(item)
        else:
            leaves.append(item)
    return leaves
