"""Plain bodies: tables of numbers, read without making a Python object of every number.

Most requests are `{"instances": [[1.5, 2, ...], ...]}`, of numbers alone. simdjson lays those of a whole body into one
array: 784 of them in 8 µs, where orjson and the schema take 50; 32 times as many in 250 instead of 1,060.

What is not that plain (an object by column, text, null, one more key, a fault of any kind) is None here, and left to
the schema, which also says what is wrong. So is everything where simdjson is not installed.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from model_store.nn import Array

try:
    import simdjson
except ImportError:  # there are no wheels for Python 3.14 yet
    simdjson = None

MAX_REUSED_PARSER_BYTES = 1 << 20  # a larger body has a parser of its own, whose memory goes with it
_KEY_SETS = ({"instances"}, {"model", "instances"}, {"version", "instances"}, {"model", "version", "instances"})
_BRACKET = ord("[")
_SIMDJSON_ERRORS = (ValueError, TypeError, KeyError, RuntimeError)  # what simdjson raises


class SimdjsonReader:
    """Belongs to one thread: its memory, several times that of the largest body, is used again for the next."""

    def __init__(self) -> None:
        self._parser = simdjson.Parser() if simdjson else None

    def parse(self, body: bytes) -> SimdjsonBody | None:
        """The body, where it is an object with the keys of a request for predictions; let it go before the next."""
        if self._parser is None or not body.startswith(b"{"):  # simdjson would pass over a byte order mark
            return None
        parser = self._parser if len(body) <= MAX_REUSED_PARSER_BYTES else simdjson.Parser()
        try:
            document = parser.parse(body)
            keys = list(document.keys()) if len(document) <= len(_KEY_SETS[-1]) else []
        except _SIMDJSON_ERRORS:
            return None
        return SimdjsonBody(body, document, keys) if set(keys) in _KEY_SETS and len(set(keys)) == len(keys) else None


class SimdjsonBody:
    """A body whose keys are in order. `model` and `version` are as they were sent, None where they were not."""

    def __init__(self, body: bytes, document: Any, keys: list[str]) -> None:
        self._body, self._document = body, document
        self.model = document["model"] if "model" in keys else None
        self.version = document["version"] if "version" in keys else None

    def table(self, shape: tuple[int, ...], max_rows: int) -> Array | None:
        """Return 1 to `max_rows` instances of `shape`, or flat, as (n, math.prod(shape)) float64; None for others.

        Each nested array has a bracket. If there are exactly as many as the shape needs, and every array has the right
        length, then the innermost arrays hold only numbers; simdjson rejects anything else.
        """
        try:
            rows = self._document["instances"]
            if not isinstance(rows, simdjson.Array) or not 1 <= len(rows) <= max_rows:
                return None
            width = math.prod(shape)
            brackets = _count_brackets(self._body, 2 * len(rows))
            found = (width,) if brackets == 1 + len(rows) else shape
            if brackets != 1 + len(rows) * _brackets_of_shape(found) or not _has_shape(rows, (len(rows), *found)):
                return None
            return np.frombuffer(rows.as_buffer(of_type="d"), np.float64).reshape(len(rows), width)
        except _SIMDJSON_ERRORS:
            return None


def _count_brackets(body: bytes, max_scanned: int) -> int:
    """Count the `[` in a body.

    In 500 kB with few of them, searching for the next takes 6 µs, comparing all bytes 21 and `bytes.count` 120; so more
    than `max_scanned` are counted by comparison.
    """
    count, location = 0, body.find(b"[")
    while location >= 0 and count <= max_scanned:
        count, location = count + 1, body.find(b"[", location + 1)
    return count if location < 0 else int(np.count_nonzero(np.frombuffer(body, np.uint8) == _BRACKET))


def _brackets_of_shape(shape: tuple[int, ...]) -> int:
    """Arrays that an array of that shape is written with, itself counted."""
    return 1 + sum(math.prod(shape[:i]) for i in range(1, len(shape)))


def _has_shape(array: Any, shape: tuple[int, ...]) -> bool:
    if len(array) != shape[0]:
        return False
    return len(shape) == 1 or all(isinstance(inner, simdjson.Array) and _has_shape(inner, shape[1:]) for inner in array)
