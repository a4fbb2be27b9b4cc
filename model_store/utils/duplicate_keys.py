"""Duplicate keys in the objects of a JSON text, of which parsers keep the last value.

parsed = orjson.loads(body)
if has_duplicate_keys(body, parsed):
    raise InputError(duplicate_key_faults(body))
"""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np

from model_store.errors import Fault, InputError

_COLON = ord(":")
_BYTE_COUNT_LIMIT = 4096  # `bytes.count` is the faster one for shorter texts
_UNLOCATED = Fault("body", "expected each key once, found one several times", "remove the duplicate key")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_MAX_LOCATION = 200  # characters
_MAX_LOCATED_BYTES = 1 << 16  # of a text whose faults are located: a megabyte of objects took a second


def has_duplicate_keys(body: bytes, parsed: Any) -> bool:
    """True if an object of the valid JSON text `body` has a key twice; `parsed` is what a parser made of it.

    Every key is followed by a colon: if the text has no more colons than the parsed objects have keys, then no key was
    dropped. Strings may contain colons too, and are looked at only then.
    """
    colons, keys = body.count(b":") if len(body) < _BYTE_COUNT_LIMIT else _count_colons(body), 0
    values = [parsed]
    for value in values:  # level by level: the objects of a request come before its long lists of numbers
        if type(value) is dict:
            keys += len(value)
            if keys == colons:
                return False
            values.extend(value.values())
        elif type(value) is list:
            values.extend(value)
    return keys != _count_colons(_STRING.sub(b"", body))


def duplicate_key_faults(body: bytes) -> list[Fault]:
    """Return a fault for each duplicate key of a JSON text, up to `InputError.MAX_FAULTS`, with its location.

    A long text has one fault without a location, since its compressed form may be short.
    """
    if len(body) > _MAX_LOCATED_BYTES:
        return [_UNLOCATED]
    try:
        # Numbers stay text: Python would refuse an integer of thousands of digits.
        document = json.loads(body, object_pairs_hook=_parse_object, parse_int=str, parse_float=str)
    except RecursionError:
        return [_UNLOCATED]
    faults: list[Fault] = []
    level: list[tuple[str, Any]] = [("", document)] if isinstance(document, (dict, list)) else []
    while level:
        for path, value in level:
            if isinstance(value, _ObjectWithDuplicates):
                faults += (_fault(f"{path}{key}"[:_MAX_LOCATION], count) for key, count in value.counts.items())
                if len(faults) >= InputError.MAX_FAULTS:
                    return faults[: InputError.MAX_FAULTS]
        level = [
            (f"{path}{name}."[:_MAX_LOCATION], child)
            for path, value in level
            for name, child in (value.items() if isinstance(value, dict) else enumerate(value))
            if isinstance(child, (dict, list))
        ]
    return faults


class _ObjectWithDuplicates(dict[str, Any]):
    """A JSON object that had keys several times; `counts` has how often."""

    counts: dict[str, int]


def _parse_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    made = _ObjectWithDuplicates(found)
    counts: dict[str, int] = {}
    for key, _ in pairs:
        counts[key] = counts.get(key, 0) + 1
    made.counts = {key: count for key, count in counts.items() if count > 1}
    return made


def _fault(location: str, count: int) -> Fault:
    return Fault(location, f"expected each key once, found this one {count} times", "remove all but one of them")


def _count_colons(text: bytes) -> int:
    return int(np.count_nonzero(np.frombuffer(text, np.uint8) == _COLON))
