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

MAX_KEPT_BYTES = 1 << 20  # a larger body has a parser of its own, whose memory goes with it
_KEYS = ({"instances"}, {"model", "instances"}, {"version", "instances"}, {"model", "version", "instances"})
_BRACKET = ord("[")
_NOT_PLAIN = (ValueError, TypeError, KeyError, RuntimeError)  # what simdjson raises


class PlainReader:
    """Belongs to one thread: its memory, several times that of the largest body, is used again for the next."""

    def __init__(self) -> None:
        self._parser = simdjson.Parser() if simdjson else None

    def open(self, body: bytes) -> PlainBody | None:
        """The body, where it is an object with the keys of a request for predictions; let it go before the next."""
        if self._parser is None or not body.startswith(b"{"):  # simdjson would pass over a byte order mark
            return None
        parser = self._parser if len(body) <= MAX_KEPT_BYTES else simdjson.Parser()
        try:
            document = parser.parse(body)
            keys = list(document.keys()) if len(document) <= len(_KEYS[-1]) else []
        except _NOT_PLAIN:
            return None
        return PlainBody(body, document, keys) if set(keys) in _KEYS and len(set(keys)) == len(keys) else None


class PlainBody:
    """A body whose keys are in order. `model` and `version` are as they were sent, None where they were not."""

    def __init__(self, body: bytes, document: Any, keys: list[str]) -> None:
        self._body, self._document = body, document
        self.model = document["model"] if "model" in keys else None
        self.version = document["version"] if "version" in keys else None

    def table(self, shape: tuple[int, ...], most: int) -> Array | None:
        """1 to `most` instances of `shape`, or flat, as (n, math.prod(shape)) float64; None if they are anything else.

        An array within an array has a bracket. Where there are just as many as the shape needs, and all that should be
        arrays are, of the right length, everything within the innermost is a number, or refused by simdjson.
        """
        try:
            rows = self._document["instances"]
            if not isinstance(rows, simdjson.Array) or not 1 <= len(rows) <= most:
                return None
            width = math.prod(shape)
            brackets = _brackets_in(self._body, 2 * len(rows))
            found = (width,) if brackets == 1 + len(rows) else shape
            if brackets != 1 + len(rows) * _brackets(found) or not _fits(rows, (len(rows), *found)):
                return None
            return np.frombuffer(rows.as_buffer(of_type="d"), np.float64).reshape(len(rows), width)
        except _NOT_PLAIN:
            return None


def _brackets_in(body: bytes, few: int) -> int:
    """How many `[` there are. Of 500 kB with `few`, skipping from one to the next takes 6 µs, comparing all 21, and
    `bytes.count` 120."""
    count, location = 0, body.find(b"[")
    while location >= 0 and count <= few:
        count, location = count + 1, body.find(b"[", location + 1)
    return count if location < 0 else int(np.count_nonzero(np.frombuffer(body, np.uint8) == _BRACKET))


def _brackets(shape: tuple[int, ...]) -> int:
    """Arrays that an array of that shape is written with, itself counted."""
    return 1 + sum(math.prod(shape[:i]) for i in range(1, len(shape)))


def _fits(array: Any, shape: tuple[int, ...]) -> bool:
    if len(array) != shape[0]:
        return False
    return len(shape) == 1 or all(isinstance(inner, simdjson.Array) and _fits(inner, shape[1:]) for inner in array)
