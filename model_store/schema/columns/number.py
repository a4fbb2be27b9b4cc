"""Columns of numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, Literal, Self

import numpy as np
from marshmallow import fields, validate

from model_store.nn import Array
from model_store.schema.columns.base import (
    Bins,
    Column,
    FaultCollector,
    FormField,
    RowLocations,
    finite_numbers,
    parse_text_cell,
)
from model_store.schema.columns.number_text import MAX_NUMBER_TEXT, NumberFormat, NumberFormatField
from model_store.schema.columns.scaled_numbers import (
    check_scale,
    compress,
    decompress,
    describe_range,
    describe_summary,
    finite_number_field,
    numbers_from_tensor,
    scaled_bins,
    scaled_range_limits,
    scaled_range_problem,
)
from model_store.utils.values import (
    describe_value,
    exact_unit,
    integral_floats_to_ints,
    is_finite_number,
    parse_finite_number,
    parse_texts,
)

_NULL: dict[str, Any] = {"error_messages": {"null": "expected a number above 0"}}


@dataclass(frozen=True)
class NumberColumn(Column):
    """A column of numbers, encoded as one feature: `(value - offset) / scale`.

    With a `linear_width` w it is `(asinh(value / w) - offset) / scale`; see `scaled_numbers`.

    `fill` replaces a missing value; without it a missing value is rejected. `indicator` adds a feature that is 1 for a
    missing value, else 0. `format` is how texts spell numbers, None if texts are rejected.
    """

    name: str
    offset: float = 0.0
    scale: float = 1.0
    fill: float | None = None
    statistics: Mapping[str, Any] = field(default_factory=dict)
    kind: Literal["number"] = "number"
    format: NumberFormat | None = None
    indicator: bool = False
    linear_width: float | None = None
    in_number_table = True
    newer_attributes = ("format", "indicator", "linear_width")
    tensor_datatype = "FP64"
    _MISSING_FIX = "send a number; the column is required"

    @property
    def width(self) -> int:
        return 2 if self.indicator else 1

    def parse(self, values: list[Any], locations: RowLocations, faults: FaultCollector) -> Array:
        """Return untrusted values as (n,) float64, NaN for missing ones."""
        if set(map(type, values)) <= {int, float, NoneType}:
            try:
                parsed = np.array(values, np.float64)  # None becomes NaN
            except OverflowError:  # an integer beyond float64
                parsed = np.array([np.inf])
            finite = int(np.isfinite(parsed).sum())
            if finite == len(values) or finite + values.count(None) == len(values):
                return parsed
        known = faults.known_texts(self.cell_key)
        if self.format is not None:
            parse_texts(self._parse_formatted, (value for value in values if type(value) is str), known)
        numbers = [_finite(value) if type(value) is not str else known.get(value) for value in values]
        parsed = np.array(numbers, np.float64)
        rejected = [i for i, number in enumerate(numbers) if number is None and values[i] is not None]
        if rejected:
            faults.add_rows(rejected, locations, self.name, lambda i: self._rejected(values[i]))
            parsed[rejected] = 0.0
        return parsed

    def _rejected(self, value: Any) -> tuple[str, str]:
        """Return problem and fix of a value that is not a finite number."""
        if isinstance(value, str):
            quoted = parse_finite_number(value) is not None
            example = "" if self.format is None else self.format.example
            plain = f"send a number, or a text such as {example!r}" if example else "send a number"
            fix = self.missing_text_fix(value) or ("send it without quotes" if quoted else plain)
        elif isinstance(value, bool):
            fix = "send 0 or 1"
        else:
            fix = "send a finite number"
        return f"expected a number, found {describe_value(value)}", fix

    def _parse_formatted(self, text: str) -> float | None:
        """Return the number that a text spells in the column's format, NaN for a missing one, else None."""
        if self.format is None or parse_text_cell(text) is None:
            return None
        return self.format.parse(text)

    def encode(self, values: Array, locations: RowLocations, faults: FaultCollector) -> Array:
        """Return parsed values as features (n, width)."""
        missing = np.isnan(values)
        if missing.any():
            if self.fill is None:
                problem = "expected a number, found none", self._MISSING_FIX
                faults.add_rows(np.flatnonzero(missing).tolist(), locations, self.name, lambda _: problem)
            else:
                self.note_filled(np.flatnonzero(missing).tolist(), locations, faults)
                values = np.where(missing, self.fill, values)
        scaled = self.to_feature(values).reshape(-1, 1)
        return np.column_stack([scaled, missing]) if self.indicator else scaled

    def to_feature(self, values: Array) -> Array:
        return super().to_feature(values if self.linear_width is None else compress(values, self.linear_width))

    def from_feature(self, feature: float) -> float:
        value = super().from_feature(feature)
        return value if self.linear_width is None else decompress(value, self.linear_width)

    def parse_characters(self, text: str) -> int:
        return 0 if self.format is None else self.format.parse_characters(text)

    def _parse_text(self, text: str) -> Any:
        value = None if self.format is None else self.format.parse(text)
        if value is None and (self.format is None or (self.format.decimal, self.format.group) == (",", "")):
            value = parse_finite_number(text)  # also of a table whose reader replaced the commas
        if value is None:
            return text
        return None if math.isnan(value) else value

    @classmethod
    def json_fields(cls) -> dict[str, fields.Field[Any]]:
        return {
            "offset": finite_number_field(required=True),
            "scale": finite_number_field(check_scale, required=True),
            "fill": finite_number_field(required=True, allow_none=True),
            "format": NumberFormatField(load_default=None),
            "indicator": fields.Raw(validate=validate.OneOf([True]), load_default=False),
            "linear_width": finite_number_field(check_scale, load_default=None, allow_none=False, **_NULL),
        }

    def find_problem(self) -> str | None:
        return (
            "fill: expected a number, as the column has an indicator" if self.indicator and self.fill is None else None
        )

    def value_schemas(self) -> list[dict[str, Any]]:
        missing, known = self.fill is not None, self.training_range()
        notes = [f"{known['min']:g} to {known['max']:g} in training."] if {"min", "max"} <= known.keys() else []
        notes += [f"null is replaced by {self.fill}."] if missing else []
        if self.format is not None:
            notes.append(f"Text such as {self.format.example!r} is read as a number." if self.format.example else "")
            types = ["number", "string", *(["null"] if missing else [])]
            return [{"type": types, "maxLength": MAX_NUMBER_TEXT, "description": " ".join(filter(None, notes))}]
        return [{"type": ["number", "null"] if missing else "number", "description": " ".join(notes)}]

    def public_details(self) -> dict[str, Any]:
        details = super().public_details() | {"seen": self.training_range()}
        return details if self.format is None else details | {"format": self.format.as_dict()}

    def form_field(self) -> FormField:
        text = self._with_unit(describe_range(self.training_range(), "{:g}".format))
        note, fill = "in training" if text else "", "" if self.fill is None else f"{self.fill:g}"
        return FormField("number", text or "any number", note, fill=fill)

    @classmethod
    def from_public_details(cls, details: Mapping[str, Any]) -> Self:
        written = None if details.get("format") is None else NumberFormat.from_dict(details["format"])
        return cls(details["name"], fill=details.get("fill"), format=written)

    def describe(self, format_value: Callable[[Any], str]) -> str:
        return self._with_unit(describe_range(self.statistics, format_value))

    def _with_unit(self, text: str) -> str:
        return f"{text} {self.format.unit}" if text and self.format is not None and self.format.unit else text

    def describe_acceptance(self, other: Column | None) -> list[str]:
        del other
        return [] if self.format is None or not self.format.example else [f"text such as {self.format.example!r}"]

    def describe_statistics(self, statistics: Mapping[str, Any], shorten: Callable[[str], str]) -> str:
        del shorten
        words = describe_summary(statistics)
        return ", ".join([*words, *self._scale_words()] if words else [])

    def summarize(self, format_number: Callable[[float], str]) -> str:
        low, high, mean = (format_number(self.statistics[key]) for key in ("min", "max", "mean"))
        return ", ".join([self._with_unit(f"{low} to {high}, mean {mean}"), *self._scale_words()])

    def _scale_words(self) -> list[str]:
        return [] if self.linear_width is None else ["asinh scale"]

    @property
    def is_constant(self) -> bool:
        return bool(self.statistics["std"] == 0) and not self.indicator

    def from_tensor(self, tensor: Array, datatype: str, location: str, faults: FaultCollector) -> Array | None:
        if self.format is not None and tensor.dtype == object:
            rows = RowLocations("rows", range(tensor.size))
            return self.parse(self._parse_cells(tensor.ravel().tolist(), faults), rows, faults)
        numbers = numbers_from_tensor(self, tensor, datatype, location, faults)
        return None if numbers is None else numbers.ravel()

    def typical_value(self) -> Any:
        known = self.training_range()
        spread = known.get("max", 0.0) - known.get("min", 0.0)
        return _round(float(known.get("mean") or self.from_feature(0.0)), spread, integral=False)

    def draw_values(self, count: int, rng: np.random.Generator) -> list[Any]:
        """Return the median, and numbers between the deciles, rounded to a hundredth of the range or to integers."""
        deciles = np.array(finite_numbers(self.statistics.get("deciles")) or [self.from_feature(0.0)], np.float64)
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

    def range_limits(self) -> tuple[float, float]:
        return scaled_range_limits(self)

    def range_problem(self, feature: float) -> str:
        return scaled_range_problem(self, feature)


def _finite(value: Any) -> float | None:
    """Return a finite number, None for other values; written for speed."""
    if type(value) is float:
        return value if value - value == 0 else None
    return float(value) if is_finite_number(value) else None


def _round(value: float, spread: float, *, integral: bool) -> float:
    """Return a number rounded to two digits of the `spread`, or to an integer."""
    if not 0 < spread < 1e300 or abs(value) > 1e300:
        return value
    digits = 2 - math.floor(math.log10(spread))
    return round(value, min(digits, 0) if integral else digits)
