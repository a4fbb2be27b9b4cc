"""JSON in the canonical form of RFC 8785 (JSON Canonicalization Scheme): equal data have equal bytes.

Programs in any language can hash what they parsed: a number has the digits that ECMAScript's `JSON.stringify` gives its
double, the keys of an object are in the order of their UTF-16 code units, and there is no whitespace.
"""

from __future__ import annotations

import math
from functools import lru_cache
from json.encoder import encode_basestring
from typing import Any

_MAX_EXACT_INTEGER = 2**53  # JSON parsers of many languages read a larger integer as the nearest double


def canonical_json(value: Any) -> str:
    """Return JSON data in its canonical form. ValueError for a number that is not finite or a lone surrogate.

    As in RFC 8785, an integer is the nearest double, and -0 is 0.
    """
    kind = type(value)
    if kind is float:
        return _number(value)
    if kind is str:
        return encode_basestring(value)
    if kind is dict:
        return "{" + ",".join([f"{name}:{canonical_json(value[key])}" for key, name in _names(tuple(value))]) + "}"
    if kind is list:
        return "[" + ",".join(map(canonical_json, value)) + "]"
    if value is None:
        return "null"
    if kind is bool:
        return "true" if value else "false"
    if kind is int:
        return str(value) if abs(value) <= _MAX_EXACT_INTEGER else _number(float(value))
    raise TypeError(f"expected JSON data, found {kind.__name__}")


def _number(value: float) -> str:
    """Return the digits of a double as ECMAScript's Number::toString does (ECMA-262, section 6.1.6.1.20).

    The shortest digits that identify a double are those of `repr`. ECMAScript writes an exponent below 1e-6 and from
    1e21 on, Python below 1e-4 and from 1e16 on.
    """
    text = repr(value)
    if "e" not in text:
        if not math.isfinite(value):
            raise ValueError(f"expected a finite number, found {text}")
        text = text.removesuffix(".0")
        return "0" if text == "-0" else text
    mantissa, _, power = text.partition("e")
    sign = "-" if mantissa.startswith("-") else ""
    digits, exponent = mantissa.lstrip("-").replace(".", ""), int(power)
    if -7 < exponent < 0:
        return f"{sign}0.{'0' * (-exponent - 1)}{digits}"
    if 0 < exponent < 21:
        return f"{sign}{digits.ljust(exponent + 1, '0')}"
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{fraction}e{exponent:+d}"


@lru_cache(maxsize=8)  # the probabilities of all rows have the same keys
def _names(keys: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return an object's keys in canonical order, each with its JSON."""
    return [(key, encode_basestring(key)) for key in sorted(keys, key=lambda key: key.encode("utf-16-be"))]
