"""Columns of an exported file: raw values as features. A column is its JSON in the signature.

Each function takes the values of one column and returns (n, width) float64. ValueError names row, column and value.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from model_store.nn.arrays import Array
from model_store.schema.columns.base import parse_text_cell
from model_store.schema.columns.date import CYCLES
from model_store.schema.columns.date_text import DateFormat
from model_store.schema.columns.number_text import NumberFormat
from model_store.schema.columns.scaled_numbers import compress
from model_store.schema.columns.text import MAX_HASHED_CHARACTERS
from model_store.utils.text_hashing import tokens
from model_store.utils.values import describe_value, is_finite_number

Column = Mapping[str, Any]


def rejected(row: int, column: Column, expected: str, value: Any) -> ValueError:
    """Return the error of a value."""
    return ValueError(f"rows.{row}.{column['name']}: expected {expected}, found {describe_value(value)}")


def rows_as_columns(rows: Sequence[Any], columns: Sequence[Column]) -> list[list[Any]]:
    """Return the values of each column: rows are lists in column order, or objects by column name."""
    names = {column["name"]: None for column in columns}  # in their order
    found: list[list[Any]] = [[] for _ in names]
    for i, row in enumerate(rows):
        if isinstance(row, Mapping):
            if unknown := [name for name in row if name not in names]:
                raise ValueError(f"rows.{i}.{unknown[0]}: unknown column; expected {', '.join(names)}")
            values = [row.get(name) for name in names]
        elif isinstance(row, (list, tuple, np.ndarray)) and len(row) == len(names):
            values = list(row)
        else:
            raise ValueError(f"rows.{i}: expected an object, or a list of {len(names)} values: {', '.join(names)}")
        for column, value in zip(found, values, strict=True):
            column.append(value)
    return found


def filled(column: Column, values: Array, kind: str) -> tuple[Array, list[Array]]:
    """Return the values with missing ones filled in, and the indicator's feature if the column has one."""
    missing = np.isnan(values)
    if column["fill"] is None:
        for i in np.flatnonzero(missing):
            raise rejected(int(i), column, kind, None)
    values = np.where(missing, np.nan if column["fill"] is None else column["fill"], values)
    return values, [missing] if column.get("indicator") else []


def encode_number(column: Column, values: Sequence[Any]) -> Array:
    """Return (value - offset) / scale; of asinh(value / w) if the column has a linear width w."""
    for i, value in enumerate(values):
        if value is not None and not is_finite_number(value):
            raise rejected(i, column, "a number", value)
    numbers = np.array([math.nan if value is None else float(value) for value in values])
    numbers, indicator = filled(column, numbers, "a number")
    if column.get("linear_width") is not None:
        numbers = compress(numbers, column["linear_width"])
    return np.column_stack([(numbers - column["offset"]) / column["scale"], *indicator])


def encode_number_text(column: Column, values: Sequence[Any]) -> Array:
    """Return what `encode_number` does, of numbers and of texts that spell them in the column's format."""
    if column.get("format") is None:
        return encode_number(column, values)
    written = NumberFormat.from_dict(column["format"])
    numbers = list(values)
    for i, value in enumerate(values):
        if isinstance(value, str) and parse_text_cell(value) is not None:
            number = written.parse(value)
            if number is not None:
                numbers[i] = None if math.isnan(number) else number
    return encode_number(column, numbers)


def encode_date(column: Column, values: Sequence[Any]) -> Array:
    """Return (t - offset) / scale of the seconds t since 1970, and sin(2π t/p) and cos(2π t/p) of each cycle."""
    written = DateFormat.from_dict(column["format"])
    parsed = np.full(len(values), np.nan)
    for i, value in enumerate(values):
        seconds = written.parse(value) if isinstance(value, str) else None
        if seconds is None and value is not None:
            raise rejected(i, column, "a date", value)
        parsed[i] = math.nan if seconds is None else seconds
    parsed, indicator = filled(column, parsed, "a date")
    angles = [2 * np.pi * (parsed % CYCLES[cycle]) / CYCLES[cycle] for cycle in column["cycles"]]
    waves = [wave for angle in angles for wave in (np.sin(angle), np.cos(angle))]
    return np.column_stack([(parsed - column["offset"]) / column["scale"], *waves, *indicator])


def encode_category(column: Column, values: Sequence[Any]) -> Array:
    """Return a feature for each category, or its index. `spellings` and `booleans` are other forms of categories."""
    categories = column["categories"]
    codes = {**{text: code for code, text in enumerate(categories)}, **column["spellings"]}
    found = np.zeros(len(values), np.intp)
    for i, value in enumerate(values):
        text = value
        if isinstance(value, (bool, np.bool_)):
            text = column["booleans"].get(str(bool(value)))
        elif isinstance(value, (int, np.integer)) and -(2**63) <= value < 2**64:
            text = str(value)
        if value is not None and not isinstance(text, str):
            raise rejected(i, column, "text", value)
        if text is not None and text not in codes:
            text = parse_text_cell(text)
        if text is None:
            text = column["fill"]
        code = codes.get(text, len(categories) if text is not None and column["unknown"] == "bucket" else -1)
        if code < 0:
            raise rejected(i, column, f"one of {', '.join(categories[:20])}", value)
        found[i] = code
    if column.get("encoding") == "code":
        return found.reshape(-1, 1).astype(np.float64)
    features = np.zeros((len(values), len(categories) + (column["unknown"] == "bucket")))
    features[np.arange(len(values)), found] = 1
    return features


def encode_text(column: Column, values: Sequence[Any]) -> Array:
    """Return the sums of the signs of the words and trigrams, hashed into features, divided by their norm."""
    counts = np.zeros((len(values), column["features"]))
    for i, value in enumerate(values):
        is_whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool) and -(2**63) <= value < 2**64
        text = str(value) if is_whole else value
        if value is not None and not isinstance(text, str):
            raise rejected(i, column, "text", value)
        text = None if text is None else text if is_whole else parse_text_cell(text)
        if text is None and column["fill"] is None:
            raise rejected(i, column, "text", value)
        for token in tokens((text or "")[:MAX_HASHED_CHARACTERS]):
            hashed = zlib.crc32(token.encode())
            counts[i, hashed % column["features"]] += -1.0 if hashed >> 31 else 1.0
    norms = np.sqrt(np.einsum("ij,ij->i", counts, counts))
    return np.asarray(counts / np.where(norms == 0, 1.0, norms)[:, np.newaxis])


def encode_array(column: Column, values: Sequence[Any]) -> Array:
    """Return (value - offset) / scale of arrays, nested like the column's shape or flat."""
    shape, size = tuple(column["shape"]), math.prod(column["shape"])
    low, high = (column[key] if column[key] is not None else sign * np.inf for key, sign in (("low", -1), ("high", 1)))
    parsed = np.empty((len(values), size))
    for i, value in enumerate(values):
        try:
            array = np.array(value)
        except ValueError:  # lists of different lengths
            array = np.array(None)
        if array.shape not in {shape, (size,)} or array.dtype.kind not in "iuf" or not np.isfinite(array).all():
            raise ValueError(f"rows.{i}: expected finite numbers of shape {list(shape)}, or flat")
        parsed[i] = array.reshape(-1)
        if parsed[i].min() < low or parsed[i].max() > high:
            raise ValueError(f"rows.{i}: expected numbers from {low:g} to {high:g}")
    return parsed if column["offset"] == 0 and column["scale"] == 1 else (parsed - column["offset"]) / column["scale"]


def join_features(blocks: Sequence[Array], dtype: Any) -> Array:
    """Return the features of all columns as (n, width) of `dtype`. ValueError if one is too large for it."""
    with np.errstate(over="ignore"):
        features = np.concatenate(blocks, axis=1).astype(dtype)
    for i in np.flatnonzero(~np.isfinite(features).all(axis=1)):
        raise ValueError(f"rows.{i}: expected numbers that fit {dtype}, found a larger one")
    return features
