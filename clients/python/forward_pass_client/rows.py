"""Rows as JSON: plain values of Python as they are, and those of NumPy and others as the values that they stand for."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from forward_pass_client.errors import Fault, InputError

_MAX_FAULTS = 100


def encode_rows(rows: Any, more: Mapping[str, Any] = MappingProxyType({})) -> bytes:
    """Return the body of a request with `more` keys. InputError with every value that JSON lacks.

    NaN is a missing value, as None is.
    """
    body = {"instances": rows, **more}
    try:
        return json.dumps(body, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):  # rows of plain values need no further look
        pass
    faults: list[Fault] = []
    try:
        plain = {key: _plain_value(value, key, faults) for key, value in body.items()}
    except RecursionError:
        faults = [
            Fault("instances", "expected rows, found lists nested too deeply, or in themselves", "send flat rows")
        ]
    if faults:
        raise InputError(faults[:_MAX_FAULTS])
    return json.dumps(plain, allow_nan=False).encode()


def _plain_value(value: Any, location: str, faults: list[Fault]) -> Any:
    """Return what JSON has for a value; add a fault and return None if it has nothing."""
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, (int, float)):
        return _plain_number(value, location, faults)
    if isinstance(value, Mapping):
        return {
            _plain_key(key, location, faults): _plain_value(value[key], f"{location}.{key}", faults) for key in value
        }
    if isinstance(value, (list, tuple)):
        return [_plain_value(each, f"{location}.{i}", faults) for i, each in enumerate(value)]
    plain = value.tolist() if hasattr(value, "tolist") else value  # scalars and arrays of NumPy
    if type(plain) is not type(value):
        return _plain_value(plain, location, faults)
    if hasattr(value, "__float__"):  # decimal.Decimal, fractions.Fraction, numpy.longdouble
        return _plain_number(float(value), location, faults)
    problem = f"expected a number, text, true, false or None, found {type(value).__name__}"
    faults.append(Fault(location, problem, "convert it; None is a missing value"))
    return None


def _plain_number(value: float, location: str, faults: list[Fault]) -> float | None:
    try:
        if math.isfinite(value):
            return value
    except OverflowError:  # an integer beyond float64
        value = math.inf
    if not math.isnan(value):
        faults.append(Fault(location, "expected a finite number, found an infinite one", "None is a missing value"))
    return None


def _plain_key(key: Any, location: str, faults: list[Fault]) -> str:
    if not isinstance(key, str):
        problem = f"expected names of columns, found {type(key).__name__} {str(key)[:100]!r}"
        faults.append(Fault(location, problem, "use text as keys, or send a list in column order"))
    return str(key)
