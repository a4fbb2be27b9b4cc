"""Read a table of numbers from a JSON body with simdjson, without a Python object for each number.

Most requests are `{"instances": [[1.5, 2, ...], ...]}` with only numbers. simdjson copies the numbers of a body into
one array: 784 numbers take 8 µs, with orjson and the schema 50 µs; 32 times as many take 250 instead of 1,060 µs. The
brackets and commas of a small body say at once whether it is such a table: 32 rows of two numbers take 30,000
instructions, with orjson 85,000 and by looking at each row with simdjson 190,000.

For any other body (rows as objects, text, null, another key, an error) the result is None, and the caller uses the
schema, which also reports errors. The same holds if simdjson is not installed.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from model_store.nn import Array

try:
    import simdjson
except ImportError:  # it has no wheels for Python 3.14 yet
    simdjson = None

MAX_REUSED_PARSER_BYTES = 1 << 20  # a larger body gets its own parser, so that its memory is freed
MAX_OUTLINE_BYTES = 1 << 11  # of a larger body, looking at each row takes less
_OUTLINE_AROUND_ROWS = len(b'{"":[]}') - 1  # each row has a comma but for one
_NOT_IN_OUTLINE = bytes(set(range(256)) - set(b'[]{},:"'))
_KEY_SETS = ({"instances"}, {"model", "instances"}, {"version", "instances"}, {"model", "version", "instances"})
_BRACKET = ord("[")
_SIMDJSON_ERRORS = (ValueError, TypeError, KeyError, RuntimeError)


class SimdjsonReader:
    """Parse bodies for one thread. The parser's memory, several times that of the largest body, is reused."""

    def __init__(self) -> None:
        self._parser = simdjson.Parser() if simdjson else None

    def parse(self, body: bytes) -> SimdjsonBody | None:
        """Return the body if it is an object with the keys of a predict request; release it before the next call."""
        if self._parser is None or not body.startswith(b"{"):  # simdjson would skip a byte order mark
            return None
        parser = self._parser if len(body) <= MAX_REUSED_PARSER_BYTES else simdjson.Parser()
        try:
            document = parser.parse(body)
            keys = list(document.keys()) if len(document) <= len(_KEY_SETS[-1]) else []
        except _SIMDJSON_ERRORS:
            return None
        if set(keys) not in _KEY_SETS or len(set(keys)) < len(keys):
            return None
        model, version = (document[key] if key in keys else None for key in ("model", "version"))
        return SimdjsonBody(body, document, model, version)

    def outline(self, body: bytes) -> bytes:
        """Return the characters `[]{},:"` of a small body if it seems to have only rows of numbers, else nothing."""
        if self._parser is None or len(body) > MAX_OUTLINE_BYTES or not body.startswith(b"{"):
            return b""
        outline = body.translate(None, _NOT_IN_OUTLINE)
        return outline if outline.startswith((b'{"":[[,', b'{"":[[]')) and outline.endswith(b"]]}") else b""

    def small_table(self, body: bytes, outline: bytes, width: int, max_rows: int) -> Array | None:
        """Return 1 to `max_rows` instances of `width` numbers as (n, width) float64; None for others."""
        count = (len(outline) - _OUTLINE_AROUND_ROWS) // (width + 2)
        if self._parser is None or not 1 <= count <= max_rows or outline != _outline_of_table(count, width):
            return None
        try:
            numbers = self._parser.parse(body)["instances"].as_buffer(of_type="d")
        except _SIMDJSON_ERRORS:
            return None
        return np.frombuffer(numbers, np.float64).reshape(count, width)


class SimdjsonBody:
    """A body with the right keys. `model` and `version` are as sent, None if they were not sent."""

    def __init__(self, body: bytes, document: Any, model: Any, version: Any) -> None:
        self._body, self._document, self.model, self.version = body, document, model, version

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


@lru_cache
def _outline_of_table(count: int, width: int) -> bytes:
    """Return the outline of a body of only `count` rows of `width` numbers. A key with a quotation mark has another."""
    row = b"[" + b"," * (width - 1) + b"]"
    return b'{"":[' + (row + b",") * (count - 1) + row + b"]}"


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
    """Count the brackets with which JSON writes one array of this shape."""
    return 1 + sum(math.prod(shape[:i]) for i in range(1, len(shape)))


def _has_shape(array: Any, shape: tuple[int, ...]) -> bool:
    if len(array) != shape[0]:
        return False
    return len(shape) == 1 or all(isinstance(inner, simdjson.Array) and _has_shape(inner, shape[1:]) for inner in array)
