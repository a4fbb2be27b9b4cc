"""The tape: a training step written out as NumPy calls on arrays that never move.

For a network of a few small layers most of a step is Python finding methods and NumPy finding memory. A tape finds
both once: `record` asks every module for the calls of its forward and backward pass, all operands fixed, and the
training loop makes them one after the other. What they compute is what `forward` and `backward` say.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Line = tuple[Callable[..., Any], tuple[Any, ...]]
Backward = Callable[[Array, bool], tuple[Array, list[Line]]]

# OpenBLAS multiplies without packing its operands while m·n·k ≤ 10⁶. Few rows by a large matrix are faster in blocks
# that stay below: 32 x 784 by 784 x 100 takes 87 µs as one product, 50 µs in blocks of 12 rows.
_UNPACKED = 1_000_000
_FEW_ROWS = 256
_LEAST_ROWS = 4

_CACHE_LINE = 64  # bytes

# With so many features and rows at most, calls take longer than their arithmetic, and saving some is worth another
# order in memory. 30-64-32-1 and 32 rows take 12.9 µs so, 15.3 otherwise; with 1024 rows it would be 300 and 215.
FEW_FEATURES, FEW_ROWS = 64, 128


def product(a: Array, b: Array, out: Array) -> list[Line]:
    """The calls of `out = a b`. Small products go to `ndarray.dot`, which has half the overhead of `matmul`."""
    rows, inner = a.shape
    size = inner * b.shape[1]
    if rows * size > _UNPACKED and rows <= _FEW_ROWS and a.flags.c_contiguous and out.flags.c_contiguous:
        block = min(rows, _UNPACKED // size)
        if block >= _LEAST_ROWS:
            count = -(-rows // block)
            block = -(-rows // count)
            return [(a[i : i + block].dot, (b, out[i : i + block])) for i in range(0, rows, block)]
    return [(a.dot, (b, out))]


def aligned_zeros(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """Zeros that begin where a cache line does, as NumPy's own seldom do: of a vector register no load then takes two.

    SGD's three passes over 84,060 float32 take 9.5 µs so, and 13 from 16 bytes further on.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.zeros(size + _CACHE_LINE, np.uint8)
    start = -room.ctypes.data % _CACHE_LINE
    return room[start : start + size].view(dtype).reshape(shape)


def beside_ones(like: Array) -> Array:
    """Memory for an array like this one, its features one after the other, and ones after the last of them.

    They are what the bias of the next layer is a weight of (see linear.py). Features lie one after the other because a
    ufunc takes 0.2 µs for a small array in one piece, and 0.6 for rows with something between them.
    """
    whole = np.ones((like.shape[1] + 1, len(like)), like.dtype)
    return whole[:-1].T


def outputs_like(inputs: Array) -> Array:
    """Memory for outputs shaped like the inputs, in the same order: beside ones where feature lies after feature."""
    return beside_ones(inputs) if by_features(inputs) else np.empty_like(inputs)


def with_ones(x: Array) -> Array | None:
    """An array made by `beside_ones` and its ones, (batch, features + 1); None for any other."""
    whole = x.base
    if not isinstance(whole, np.ndarray) or whole.shape != (x.shape[1] + 1, len(x)) or whole.dtype != x.dtype:
        return None
    return whole.T if whole.ctypes.data == x.ctypes.data and by_features(x) and (whole[-1] == 1).all() else None


def by_features(x: Array) -> bool:
    """Whether the features of this batch lie one after the other."""
    return x.ndim == 2 and x.T.flags.c_contiguous


def by_rows(x: Array) -> tuple[Array, list[Line]]:
    """The batch with its rows one after the other, and the calls that copy it, where they do not lie so already."""
    if x.flags.c_contiguous:
        return x, []
    rows = np.empty(x.shape, x.dtype)
    return rows, [(np.copyto, (rows, x))]


def copied(function: Callable[..., Any], *operands: Any, out: Array) -> Line:
    """A call whose answer goes to `out`: how a module without a tape of its own joins one."""

    def call() -> None:
        out[...] = function(*operands)

    return call, ()


def unless_changed(kind: type, base: type, passes: set[str], recorded: set[str]) -> None:
    """Has a class that changes one of the `passes` recorded as `base` is, by those passes. For `__init_subclass__`.

    What it inherits of `recorded` would go by the passes of the class above it.
    """

    def depth(names: set[str]) -> int:
        return next(i for i, above in enumerate(kind.__mro__) if names & vars(above).keys())

    for name in recorded:
        if depth(passes) < depth({name}):
            setattr(kind, name, vars(base)[name])


def scalar(value: float, like: Array) -> Array:
    """A constant as an operand: a 0-d array saves NumPy the conversion at every call."""
    return np.array(value, like.dtype)
