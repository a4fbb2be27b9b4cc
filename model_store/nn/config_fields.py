"""The fields of a layer's configuration, checked before the layer is created."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# The limit of values in a sample, 64 MB in float32: a few bytes of a manifest must not be able to fill the memory.
MAX_SAMPLE_VALUES = 2**24
# The limit of a window's height and width: pooling loops over its pixels, and allocates nothing that would limit them.
MAX_WINDOW_SIZE = 255


@dataclass(frozen=True)
class Field:
    expected: str
    accepts: Callable[[Any], bool]


def _is_integer_in_range(value: Any, low: int, high: int = 2**31) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_image_shape(value: Any) -> bool:
    is_shape = isinstance(value, list) and len(value) == 3 and all(_is_integer_in_range(size, 1) for size in value)
    return is_shape and math.prod(value) <= MAX_SAMPLE_VALUES


def _is_shape(value: Any) -> bool:
    is_shape = isinstance(value, list) and len(value) in (1, 3) and all(_is_integer_in_range(one, 1) for one in value)
    return is_shape and math.prod(value) <= MAX_SAMPLE_VALUES


def _is_index_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(_is_integer_in_range(index, 0) for index in value)


POSITIVE_INT = Field("a positive int", lambda value: _is_integer_in_range(value, 1))
NON_NEGATIVE_INT = Field("an int of at least 0", lambda value: _is_integer_in_range(value, 0))
BOOL = Field("true or false", lambda value: isinstance(value, bool))
FINITE_FLOAT = Field("a finite float", _is_number)
IMAGE_SHAPE = Field(f"a list of height, width and channels, {MAX_SAMPLE_VALUES} values at most", _is_image_shape)
SHAPE = Field(f"a list of one size, or of height, width and channels, {MAX_SAMPLE_VALUES} values at most", _is_shape)
INDEX_LIST = Field("a list of ints of at least 0", _is_index_list)


def _each_axis(low: int, high: int, *, sides: bool = False) -> Field:
    """Return a field of a window: an int, or a list of two for height and width, of four for the sides of an image."""
    count, names = (4, "top, left, bottom, right") if sides else (2, "height, width")
    bounds = f"from {low} to {high}" if high < 2**31 else f"of at least {low}" if low != 1 else "above 0"

    def accepts(value: Any) -> bool:
        ints = value if isinstance(value, list) and len(value) == count else [value]
        return all(_is_integer_in_range(one, low, high) for one in ints)

    return Field(f"an int {bounds} or a list of {count} ({names})", accepts)


WINDOW_SIZE = _each_axis(1, MAX_WINDOW_SIZE)
STRIDE = _each_axis(1, 2**31)
PADDING = _each_axis(0, 2**31, sides=True)
