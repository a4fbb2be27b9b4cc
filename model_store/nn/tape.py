"""The tape: a training step written out as NumPy calls on arrays that never move.

For a network of a few small layers most of a step is Python finding methods and NumPy finding memory. A tape finds
both once: `record` asks every module for the calls of its forward and backward pass, all operands fixed, and the
training loop makes them one after the other. What they compute is what `forward` and `backward` say.
"""

from __future__ import annotations

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


def copied(function: Callable[..., Any], *operands: Any, out: Array) -> Line:
    """A call whose answer goes to `out`: how a module without a tape of its own joins one."""

    def call() -> None:
        out[...] = function(*operands)

    return call, ()


def scalar(value: float, like: Array) -> Array:
    """A constant as an operand: a 0-d array saves NumPy the conversion at every call."""
    return np.array(value, like.dtype)
