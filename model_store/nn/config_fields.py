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


def _is_index_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(_is_integer_in_range(index, 0) for index in value)


POSITIVE_INT = Field("a positive int", lambda value: _is_integer_in_range(value, 1))
NON_NEGATIVE_INT = Field("an int of at least 0", lambda value: _is_integer_in_range(value, 0))
WINDOW_SIZE = Field(
    f"an int from 1 to {MAX_WINDOW_SIZE}", lambda value: _is_integer_in_range(value, 1, MAX_WINDOW_SIZE)
)
FINITE_FLOAT = Field("a finite float", _is_number)
IMAGE_SHAPE = Field(f"a list of height, width and channels, {MAX_SAMPLE_VALUES} values at most", _is_image_shape)
INDEX_LIST = Field("a list of ints of at least 0", _is_index_list)
