"""Batch-invariant products: inference for a row is bit-identical regardless of the other rows in the batch.

A BLAS rounds differently in a product of one row and in one of a hundred. So inference multiplies rows in blocks of one
size, the last padded with zeros: every product has the same shape. The BLAS must also treat all rows of a block alike:
OpenBLAS's kernel for Haswell and Zen multiplies float32 rows by twelves, and the remaining four of sixteen differently;
the one for SkylakeX does something similar with float64 in large products. So each size is tested before it is used.
"""

from __future__ import annotations

import os
import platform
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from model_store.nn.arrays import Array

BLOCK_SIZES = (32, 16, 8, 4)
_MAX_TINY_WEIGHTS = 64  # of a product that takes 4,700 instructions for 8 rows and 5,700 for 32: most is the call
_MAX_UNPACKED_SIZE = 1_000_000  # m·n·k up to which OpenBLAS multiplies without packing, if its kernel can
_SINGLE_ROW_WEIGHTS = range(4_096, 500_001)  # of products by single rows, if its kernel cannot: they fit into a cache
_MAX_TESTED_INPUTS, _MAX_TESTED_WEIGHTS = (
    3000,
    1_500_000,
)  # larger products consist of pieces of these


def _has_unpacked_products() -> bool:
    """Return whether OpenBLAS multiplies few rows without packing the weights first: on x86 with AVX-512 only."""
    if kernel := os.environ.get("OPENBLAS_CORETYPE"):
        return kernel.upper() in {"SKYLAKEX", "COOPERLAKE", "SAPPHIRERAPIDS"}
    found = np.show_config(mode="dicts")["SIMD Extensions"]["found"]
    return platform.machine() != "x86_64" or not {"X86_V4", "AVX512_SKX"}.isdisjoint(found)


HAS_UNPACKED_PRODUCTS = _has_unpacked_products()


def block_rows(inputs: int, outputs: int, dtype: npt.DTypeLike) -> int:
    """Return the rows of a block for a product with weights (inputs, outputs); 1 if no size is invariant.

    A product of few rows is several times faster without packing: hence 8 rows, or 4 to stay below its limit. Above the
    limit 32 rows share the cost of packing, and with a few weights they share that of the call. Measured with the
    kernel for SkylakeX, in µs for one row and for 32:

    | inputs, outputs | by 4        | by 8        | by 16      | by 32      |
    | --------------- | ----------- | ----------- | ---------- | ---------- |
    | 784, 256        | 12, 72      | 111, 407    | 105, 220   | 138, 144   |
    | 256, 128        | 3.5, 11.3   | 4.6, 11.0   | 18, 33     | 23, 23     |
    | 2048, 4096      | 4200, 51000 | 8800, 19000 | 5000, 9600 | 7900, 6500 |

    Other kernels pack all weights for every block: with Haswell's, four rows of 784, 256 take 700,000 instructions, and
    one row as a product of matrix and vector 57,000. So they multiply row by row, unless the weights are few or large.
    """
    if not HAS_UNPACKED_PRODUCTS and inputs * outputs in _SINGLE_ROW_WEIGHTS:
        return 1
    expected = next((rows for rows in (8, 4) if rows * inputs * outputs <= _MAX_UNPACKED_SIZE), BLOCK_SIZES[0])
    if inputs * outputs <= _MAX_TINY_WEIGHTS:
        expected = BLOCK_SIZES[0]
    inputs = min(inputs, _MAX_TESTED_INPUTS)
    outputs = min(outputs, _MAX_TESTED_WEIGHTS // inputs)
    return next(
        (
            rows
            for rows in BLOCK_SIZES
            if rows <= expected and is_row_position_invariant(rows, inputs, outputs, np.dtype(dtype))
        ),
        1,
    )


@lru_cache
def is_row_position_invariant(rows: int, inputs: int, outputs: int, dtype: np.dtype[np.generic]) -> bool:
    """Return whether this BLAS, with its current threads, gives a row the same bits at every position of a block."""
    values = np.sin(np.arange(997.0)).astype(dtype)
    matrix = np.resize(values, (outputs, inputs)).T
    some = np.resize(values, (1 + 32 // outputs, inputs))  # a few values may round alike by chance
    return all(
        (multiply_in_blocks(np.tile(row, (rows, 1)), matrix, rows) == multiply_in_blocks(row[None], matrix, rows)).all()
        for row in some
    )


def multiply_in_blocks(rows: Array, matrix: Array, size: int) -> Array:
    """Return `rows @ matrix`, in blocks of `size` rows; rows (batch, inputs), matrix (inputs, outputs)."""
    count, width = rows.shape
    rows = pad_rows(rows, size)
    outputs: Array
    if count <= size:  # the same product, without NumPy's loop over blocks
        outputs = rows.dot(matrix)
        return outputs if len(rows) == count else outputs[:count]
    outputs = rows.reshape(len(rows) // size, size, width) @ matrix
    return outputs.reshape(len(rows), matrix.shape[1])[:count]


def pad_rows(rows: Array, size: int) -> Array:
    """Return the rows, padded with zeros to a whole number of blocks."""
    short = -len(rows) % size
    if not short:
        return rows
    longer = np.zeros((len(rows) + short, *rows.shape[1:]), rows.dtype)
    longer[: len(rows)] = rows
    return longer
