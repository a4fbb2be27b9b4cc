"""Columns of dates and times."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
from marshmallow import ValidationError, fields, validate

from model_store.nn import Array
from model_store.schema.columns.base import Bins, Column, FaultCollector, FormField, RowLocations, finite_numbers
from model_store.schema.columns.date_text import MAX_DATE_TEXT, MAX_SECONDS, MIN_SECONDS, ORDERS, DateFormat, to_iso
from model_store.schema.columns.number_text import PARSE_CHARACTERS, check_missing_words
from model_store.schema.columns.scaled_numbers import check_scale, finite_number_field, scaled_bins, scaled_range_limits
from model_store.utils.number_format import format_number
from model_store.utils.values import describe_value, is_finite_number, parse_texts

DAY = 86_400.0
CYCLES = {"day": DAY, "week": 7 * DAY, "year": 365.2425 * DAY}  # seconds


class _DateFormatField(fields.Field[DateFormat]):
    def _deserialize(self, value: Any, attr: str | None, data: Any, **_: Any) -> DateFormat:
        if not isinstance(value, dict) or not {"order"} <= value.keys() <= {"order", "missing"}:
            raise ValidationError("expected an object with order and, if there are such words, missing")
        if not isinstance(value["order"], str) or value["order"] not in ORDERS:
            raise ValidationError(f"expected in order one of {', '.join(ORDERS)}")
        check_missing_words(value.get("missing", []))
        return DateFormat.from_dict(value)


def _check_seconds(value: Any) -> None:
    if not is_finite_number(value) or not MIN_SECONDS <= value <= MAX_SECONDS:
        raise ValidationError("expected seconds of a year from 1 to 9999")


@dataclass(frozen=True)
class DateColumn(Column):
    """A column of dates or times, as seconds t since 1970 in UTC.

    The features are the trend `(t - offset) / scale`, and for each of `cycles` with its period p `sin(2π t/p)` and
    `cos(2π t/p)`: the time of day, the day of the week, the day of the year. `fill` replaces a missing
    value; without it a missing value is rejected. `indicator` adds a feature that is 1 for a missing value, else 0.
    """

    name: str
    offset: float = 0.0
    scale: float = 1.0
    fill: float | None = None
    statistics: Mapping[str, Any] = field(default_factory=dict)
    kind: Literal["date"] = "date"
    format: DateFormat = field(default_factory=DateFormat)
    cycles: tuple[str, ...] = ()
    indicator: bool = False
    newer_attributes = ("indicator",)
    tensor_datatype = "BYTES"

    @property
    def width(self) -> int:
        return 1 + 2 * len(self.cycles) + self.indicator

    def parse(self, values: list[Any], locations: RowLocations, faults: FaultCollector) -> Array:
        """Return untrusted values as (n,) float64 seconds since 1970, NaN for missing ones."""
        known = faults.known_texts(self.cell_key)
        parse_texts(self.format.parse, (value for value in values if type(value) is str), known)
        seconds = [known[value] if type(value) is str else None for value in values]
        parsed = np.array(seconds, np.float64)  # None becomes NaN
        rejected = [i for i, found in enumerate(seconds) if found is None and values[i] is not None]
        if rejected:
            faults.add_rows(rejected, locations, self.name, lambda i: self._rejected(values[i]))
            parsed[rejected] = self.offset
        return parsed

    def _rejected(self, value: Any) -> tuple[str, str]:
        """Return problem and fix of a value that is no date."""
        fix = "send ISO 8601, such as '2020-03-31' or '2020-03-31T18:00'"
        if self.format.order != "iso":
            fix += f", or a date such as {self.format.example!r}"
        if self.format.order == "time":
            fix = "send hours and minutes, such as '14:30'"
        return f"expected {self.format.noun}, found {describe_value(value)}", self.missing_text_fix(value) or fix

    def encode(self, values: Array, locations: RowLocations, faults: FaultCollector) -> Array:
        """Return parsed values as features (n, width)."""
        missing = np.isnan(values)
        if missing.any():
            if self.fill is None:
                noun = self.format.noun
                problem = f"expected {noun}, found none", f"send {noun}; the column is required"
                faults.add_rows(np.flatnonzero(missing).tolist(), locations, self.name, lambda _: problem)
            else:
                self.note_filled(np.flatnonzero(missing).tolist(), locations, faults)
                values = np.where(missing, self.fill, values)
        angles = [2 * np.pi * (values % CYCLES[cycle]) / CYCLES[cycle] for cycle in self.cycles]
        waves = [wave for angle in angles for wave in (np.sin(angle), np.cos(angle))]
        return np.column_stack([(values - self.offset) / self.scale, *waves, *([missing] if self.indicator else [])])

    def parse_characters(self, text: str) -> int:
        return PARSE_CHARACTERS + min(len(text), MAX_DATE_TEXT)

    def _parse_text(self, text: str) -> Any:
        return None if self.format.is_missing(text) else text

    def shown_fill(self) -> Any:
        return None if self.fill is None else self.format.to_text(self.fill)

    def to_json(self, values: Array) -> list[Any]:
        return [None if np.isnan(value) else self.format.to_text(value) for value in values.tolist()]

    @classmethod
    def json_fields(cls) -> dict[str, fields.Field[Any]]:
        return {
            "offset": fields.Raw(required=True, validate=_check_seconds),
            "scale": finite_number_field(check_scale, required=True),
            "fill": fields.Raw(required=True, allow_none=True, validate=_check_seconds),
            "format": _DateFormatField(required=True),
            "cycles": fields.List(fields.String(validate=validate.OneOf(list(CYCLES))), required=True),
            "indicator": fields.Raw(validate=validate.OneOf([True]), load_default=False),
        }

    def find_problem(self) -> str | None:
        if self.indicator and self.fill is None:
            return "fill: expected a time, as the column has an indicator"
        return "cycles: expected each cycle once" if len(set(self.cycles)) != len(self.cycles) else None

    def value_schemas(self) -> list[dict[str, Any]]:
        text = self._range_text()
        notes = [f"A date or time in ISO 8601{self._other_format()}; UTC without an offset."]
        if self.format.order == "time":
            notes = ["A time of day, such as 14:30 or 2:30 PM."]
        notes += [f"{text} in training."] if text else []
        notes += [f"null is replaced by {self.shown_fill()}."] if self.fill is not None else []
        types = ["string", "null"] if self.fill is not None else "string"
        return [{"type": types, "examples": [self.typical_value()], "description": " ".join(notes)}]

    def _other_format(self) -> str:
        return "" if self.format.order == "iso" else f", or like {self.format.example}"

    def public_details(self) -> dict[str, Any]:
        return super().public_details() | {"seen": self._iso_range(), "format": self.format.as_dict()}

    def form_field(self) -> FormField:
        text = self._range_text()
        return FormField("text", text or self.format.noun, "in training" if text else "", fill=self.shown_fill() or "")

    @classmethod
    def from_public_details(cls, details: Mapping[str, Any]) -> Self:
        fill = details.get("fill")
        written = DateFormat.from_dict(details["format"])
        return cls(details["name"], fill=None if fill is None else written.parse(fill), format=written)

    def format_time(self, seconds: float) -> str:
        """Return a time of this column for people: the date, and the minute if the training times have times of day."""
        if not MIN_SECONDS <= seconds <= MAX_SECONDS:
            return format_number(seconds)
        if self.format.order == "time":
            return self.format.to_text(seconds)
        return to_iso(seconds)[: 16 if "day" in self.cycles else 10].replace("T", " ")

    def _iso_range(self) -> dict[str, str]:
        known = self.training_range()
        return {key: self.format.to_text(value) for key, value in known.items() if MIN_SECONDS <= value <= MAX_SECONDS}

    def _range_text(self) -> str:
        known = self._iso_range()
        return f"{known['min']} to {known['max']}" if {"min", "max"} <= known.keys() else ""

    def describe(self, format_value: Callable[[Any], str]) -> str:
        del format_value
        return self._range_text()

    def describe_statistics(self, statistics: Mapping[str, Any], shorten: Callable[[str], str]) -> str:
        del statistics, shorten
        return self._range_text()

    def describe_acceptance(self, other: Column | None) -> list[str]:
        del other
        if self.format.order == "time":
            return ["times of day"]
        return ["dates", *([] if self.format.order == "iso" else [f"such as {self.format.example}"])]

    def summarize(self, format_number: Callable[[float], str]) -> str:
        del format_number
        return ", ".join([self._range_text(), *(f"cycle of a {cycle}" for cycle in self.cycles)])

    @property
    def is_constant(self) -> bool:
        return bool(self.statistics["std"] == 0) and not self.indicator

    def from_tensor(self, tensor: Array, datatype: str, location: str, faults: FaultCollector) -> Array | None:
        if tensor.dtype != object:
            faults.add(location, f"expected BYTES, found {datatype}", "send the dates as strings")
            return None
        rows = RowLocations("rows", range(tensor.size))
        return self.parse(self._parse_cells(tensor.ravel().tolist(), faults), rows, faults)

    def typical_value(self) -> Any:
        known = self.training_range()
        unit = 60.0 if self.format.order == "time" else DAY
        mean = min(max(float(known.get("mean") or self.offset), MIN_SECONDS), MAX_SECONDS)
        return self.format.to_text(np.floor(mean / unit) * unit)

    def draw_values(self, count: int, rng: np.random.Generator) -> list[Any]:
        """Return the median, and times between the deciles; whole days if the training times are."""
        deciles = np.array(finite_numbers(self.statistics.get("deciles")) or [self.offset], np.float64)
        deciles = np.clip(deciles, MIN_SECONDS, MAX_SECONDS)
        drawn = np.interp([0.5, *rng.random(count - 1)], np.linspace(0, 1, len(deciles)), deciles)
        unit = 60.0 if "day" in self.cycles else DAY
        return [self.format.to_text(value) for value in (np.floor(drawn / unit) * unit).tolist()]

    def repairs(self, value: Any) -> list[Any]:
        return [value]

    def bins(self, dtype: Any) -> Bins | None:
        """Return bins of the trend."""
        return scaled_bins(self, self.statistics, dtype)

    def range_limits(self) -> tuple[float, float]:
        """Return the limits of the trend."""
        known = self.training_range()
        if not all(key in known and MIN_SECONDS <= known[key] <= MAX_SECONDS for key in ("min", "max")):
            return super().range_limits()
        return scaled_range_limits(self)

    def range_problem(self, feature: float) -> str:
        del feature
        return f"the {self.format.noun.removeprefix('a ')} is outside the training period, {self._range_text()}"
