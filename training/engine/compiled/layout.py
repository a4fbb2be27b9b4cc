"""The layout of batches in memory: row-major, or feature by feature with a row of ones for the next layer's bias."""

from __future__ import annotations

import numpy as np

from model_store.nn import Array
from training.tracer import Call

# Up to this many rows, with at most SMALL_FEATURES features, a step's calls take longer than their arithmetic, and
# fewer calls are worth another layout. 30-64-32-1 with 32 rows takes 12.9 µs, not 15.3; with 1024 rows it would take
# 300 µs, not 215.
SMALL_BATCH = 128

# OpenBLAS multiplies without packing its operands while m·n·k ≤ 10⁶. Few rows by a large matrix are faster in blocks
# that stay below: 32 x 784 by 784 x 100 takes 87 µs as one product, 50 µs in blocks of 12 rows.
_MAX_UNPACKED_SIZE = 1_000_000
_MAX_BLOCKED_ROWS = 256
_MIN_BLOCK_ROWS = 4
# Without packing, a product with transposed weights is slow unless its sums are long: 256 x 256 by 256 x 256 takes 346
# µs as one product, 919 in blocks of 15 rows.
_MIN_TRANSPOSED_INNER = 700


def matmul_calls(a: Array, b: Array, out: Array) -> list[Call]:
    """Return the calls of `out = a b`. `ndarray.dot` has half the overhead of `matmul`."""
    rows, inner = a.shape
    size = inner * b.shape[1]
    contiguous = a.flags.c_contiguous and out.flags.c_contiguous
    contiguous = contiguous and (b.flags.c_contiguous or inner >= _MIN_TRANSPOSED_INNER)
    if rows * size > _MAX_UNPACKED_SIZE and rows <= _MAX_BLOCKED_ROWS and contiguous:
        block = min(rows, _MAX_UNPACKED_SIZE // size)
        if block >= _MIN_BLOCK_ROWS:
            count = -(-rows // block)
            block = -(-rows // count)
            return [(a[i : i + block].dot, (b, out[i : i + block])) for i in range(0, rows, block)]
    return [(a.dot, (b, out))]


def empty_bias_augmented(like: Array) -> Array:
    """Return an array like this batch, stored feature by feature and followed in memory by a row of ones.

    The bias of the next layer is the weight of these ones (see linear.py). A ufunc takes 0.2 µs for a small contiguous
    array and 0.6 for rows with gaps, hence feature by feature.
    """
    augmented = np.ones((like.shape[1] + 1, len(like)), like.dtype)
    return augmented[:-1].T


def bias_augmented(x: Array) -> Array | None:
    """Return an array made by `empty_bias_augmented` with its ones, (batch, features + 1); None for any other."""
    augmented = x.base
    shape = (x.shape[1] + 1, len(x))
    if not isinstance(augmented, np.ndarray) or augmented.shape != shape or augmented.dtype != x.dtype:
        return None
    at_start = augmented.ctypes.data == x.ctypes.data
    return augmented.T if at_start and is_feature_major(x) and (augmented[-1] == 1).all() else None


def empty_outputs(inputs: Array) -> Array:
    """Return an array for outputs shaped like the inputs, in the same layout."""
    return empty_bias_augmented(inputs) if is_feature_major(inputs) else np.empty_like(inputs)


def is_feature_major(x: Array) -> bool:
    """Return whether this batch is stored feature by feature."""
    return x.ndim == 2 and x.T.flags.c_contiguous


def row_major(x: Array) -> tuple[Array, list[Call]]:
    """Return a row-major array for this batch, and the calls that copy it; none if it is row-major already."""
    if x.flags.c_contiguous:
        return x, []
    rows = np.empty(x.shape, x.dtype)
    return rows, [(np.copyto, (rows, x))]
