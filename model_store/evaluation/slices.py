"""Slices of rows in words: "island Torgersen", "bill_length_mm 30 to 35.9"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from model_store.schema.columns import Column, DateColumn
from model_store.utils.number_format import format_number, format_percent


def describe_slice(part: Mapping[str, Any], column: Column | None = None) -> str:
    """Return the values of a validated slice in words, those of a date column as dates."""
    show = column.format_time if isinstance(column, DateColumn) else format_number
    if part["missing"]:
        return "missing"
    if part["others"]:
        return "1 other" if part["others"] == 1 else f"{format_number(part['others'])} others"
    if part["low"] is not None and part["high"] is not None:
        return f"{show(part['low'])} to {show(part['high'])}"
    return part["value"] if isinstance(part["value"], str) else show(part["value"])


def describe_spot(spot: Mapping[str, Any], columns: Sequence[Column]) -> str:
    """Return where a weak spot is, in words."""
    known = {column.name: column for column in columns}
    return " and ".join(f"{part['column']} {describe_slice(part, known.get(part['column']))}" for part in spot["where"])


def format_error(value: float, measure: str) -> str:
    """Return the error of a weak spot: a share of the rows, or a number."""
    return format_percent(value) if measure == "error_rate" else format_number(value, 3)


def format_p(p: float) -> str:
    """Return a p-value with at most two digits."""
    return "below 0.0001" if p < 0.0001 else format_number(p, 2)
