"""Columns of numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
from marshmallow import fields

from model_store.nn import Array
from model_store.schema.column import Bins, Column, FaultCollector, FormField, RowLocations, finite_numbers
from model_store.schema.scaled_numbers import (
    check_scale,
    describe_range,
    describe_summary,
    finite_number_field,
    numbers_from_tensor,
    scaled_bins,
    scaled_range_warnings,
)
from model_store.utils.values import (
    describe_value,
    exact_unit,
    integral_floats_to_ints,
    is_finite_number,
    parse_finite_number,
)


@dataclass(frozen=True)
class NumberColumn(Column):
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
    in_number_table = True
    tensor_datatype = "FP64"
    _MISSING_FIX = "send a number; the column is required"

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
            parsed[i] = np.nan if value is None else self._parse_value(value, locations[i], faults)
        return parsed

    def _parse_value(self, value: Any, location: str, faults: FaultCollector) -> float:
        """Return the number; add a fault and return 0 if it is not finite or not a number."""
        if is_finite_number(value):
            return float(value)
        if isinstance(value, str):
            quoted = parse_finite_number(value) is not None
            fix = self.missing_text_fix(value) or ("send it without quotes" if quoted else "send a number")
        elif isinstance(value, bool):
            fix = "send 0 or 1"
        else:
            fix = "send a finite number"
        faults.add(f"{location}.{self.name}", f"expected a number, found {describe_value(value)}", fix)
        return 0.0

    def encode(self, values: Array, locations: RowLocations, faults: FaultCollector) -> Array:
        """Return parsed values as features (n, 1)."""
        missing = np.isnan(values)
        if missing.any():
            if self.fill is None:
                for i in np.flatnonzero(missing):
                    faults.add(f"{locations[int(i)]}.{self.name}", "expected a number, found none", self._MISSING_FIX)
            else:
                self.note_filled(np.flatnonzero(missing).tolist(), locations, faults)
                values = np.where(missing, self.fill, values)
        return ((values - self.offset) / self.scale).reshape(-1, 1)

    def missing_values(self, count: int) -> Array:
        return np.full(count, np.nan)

    def count_missing(self, values: Array) -> int:
        return int(np.isnan(values).sum())

    def _parse_text(self, text: str) -> Any:
        value = parse_finite_number(text)
        return text if value is None else value

    @classmethod
    def json_fields(cls) -> dict[str, fields.Field[Any]]:
        return {
            "offset": finite_number_field(required=True),
            "scale": finite_number_field(check_scale, required=True),
            "fill": finite_number_field(required=True, allow_none=True),
        }

    def value_schemas(self) -> list[dict[str, Any]]:
        missing, known = self.fill is not None, self.training_range()
        notes = [f"{known['min']:g} to {known['max']:g} in training."] if {"min", "max"} <= known.keys() else []
        notes += [f"null is replaced by {self.fill}."] if missing else []
        return [{"type": ["number", "null"] if missing else "number", "description": " ".join(notes)}]

    def public_details(self) -> dict[str, Any]:
        return super().public_details() | {"seen": self.training_range()}

    def form_field(self) -> FormField:
        text = describe_range(self.training_range(), "{:g}".format)
        note, fill = "in training" if text else "", "" if self.fill is None else f"{self.fill:g}"
        return FormField("number", text or "any number", note, fill=fill)

    @classmethod
    def from_public_details(cls, details: Mapping[str, Any]) -> Self:
        return cls(details["name"], fill=details.get("fill"))

    def describe(self, format_value: Callable[[Any], str]) -> str:
        return describe_range(self.statistics, format_value)

    def describe_statistics(self, statistics: Mapping[str, Any], shorten: Callable[[str], str]) -> str:
        del shorten
        return ", ".join(describe_summary(statistics))

    def summarize(self, format_number: Callable[[float], str]) -> str:
        low, high, mean = (format_number(self.statistics[key]) for key in ("min", "max", "mean"))
        return f"{low} to {high}, mean {mean}"

    @property
    def is_constant(self) -> bool:
        return bool(self.statistics["std"] == 0)

    def from_tensor(self, tensor: Array, datatype: str, location: str, faults: FaultCollector) -> Array | None:
        numbers = numbers_from_tensor(self, tensor, datatype, location, faults)
        return None if numbers is None else numbers.ravel()

    def typical_value(self) -> Any:
        known = self.training_range()
        spread = known.get("max", 0.0) - known.get("min", 0.0)
        return _round(float(known.get("mean") or self.offset), spread, integral=False)

    def draw_values(self, count: int, rng: np.random.Generator) -> list[Any]:
        """Return the median, and numbers between the deciles, rounded to a hundredth of the range or to integers."""
        deciles = np.array(finite_numbers(self.statistics.get("deciles")) or [self.offset], np.float64)
        unit = exact_unit(deciles)
        places = np.linspace(0, 1, len(deciles))
        drawn = np.interp([0.5, *rng.random(count - 1)], places, deciles / unit) * unit
        spread, integral = float(deciles[-1] - deciles[0]), bool((deciles == np.rint(deciles)).all())
        return integral_floats_to_ints([_round(value, spread, integral=integral) for value in drawn.tolist()])

    def repairs(self, value: Any) -> list[Any]:
        try:
            return [value, integral_floats_to_ints([float(value)])[0]]
        except (TypeError, ValueError, OverflowError):
            return [value]  # without None, which would be valid for a column that allows missing values

    def bins(self, dtype: Any) -> Bins | None:
        return scaled_bins(self, self.statistics, dtype)

    def range_warnings(self, features: Array) -> list[tuple[int, str]]:
        return scaled_range_warnings(self, features)


def _round(value: float, spread: float, *, integral: bool) -> float:
    """Return a number rounded to two digits of the `spread`, or to an integer."""
    if not 0 < spread < 1e300 or abs(value) > 1e300:
        return value
    digits = 2 - math.floor(math.log10(spread))
    return round(value, min(digits, 0) if integral else digits)
