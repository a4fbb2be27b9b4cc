"""Blocks of rows: how a row's answer has the same bits whoever shares its batch.

A BLAS takes one path through a product of one row and another through one of a hundred, and each rounds in its own
way. So inference multiplies rows in blocks of one size, the last filled up with zeros: every product that is ever
computed has the same shape. The size must also be one at which all rows of a block are treated alike: OpenBLAS's
kernel for Haswell and Zen multiplies float32 rows by twelves, and the four that are left of sixteen otherwise; the one
for SkylakeX does something of the kind with float64 where a product is large. So a size is tried out before it is used.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from model_store.nn.arrays import Array

BLOCK_SIZES = (32, 16, 8, 4)
_UNPACKED = 1_000_000  # m·n·k up to which OpenBLAS multiplies without packing
_MAX_TESTED_INPUTS, _MAX_TESTED_WEIGHTS = (
    3000,
    1_500_000,
)  # that are tried out: more are multiplied as these are, piece by piece


def block_rows(inputs: int, outputs: int, dtype: npt.DTypeLike) -> int:
    """Rows of a block for a product with weights (inputs, outputs); 1 where the BLAS treats no size evenly.

    Without packing a product of few rows is several times faster, so 8 rows, or 4 where that keeps to it. Beyond, the
    packing has to pay: 32. Measured with the kernel for SkylakeX, in µs for one row and for 32:

    | inputs, outputs | by 4        | by 8        | by 16      | by 32      |
    | --------------- | ----------- | ----------- | ---------- | ---------- |
    | 784, 256        | 12, 72      | 111, 407    | 105, 220   | 138, 144   |
    | 256, 128        | 3.5, 11.3   | 4.6, 11.0   | 18, 33     | 23, 23     |
    | 2048, 4096      | 4200, 51000 | 8800, 19000 | 5000, 9600 | 7900, 6500 |
    """
    expected = next((rows for rows in (8, 4) if rows * inputs * outputs <= _UNPACKED), BLOCK_SIZES[0])
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
    """Whether this machine's BLAS, with the threads it has now, gives a row the same bits at every place of a block."""
    chance = np.sin(np.arange(997.0)).astype(dtype)
    matrix = np.resize(chance, (outputs, inputs)).T
    some = np.resize(chance, (1 + 32 // outputs, inputs))  # one value in a few may round alike by chance
    return all(
        (multiply_in_blocks(np.tile(row, (rows, 1)), matrix, rows) == multiply_in_blocks(row[None], matrix, rows)).all()
        for row in some
    )


def multiply_in_blocks(rows: Array, matrix: Array, size: int) -> Array:
    """`rows @ matrix`, in blocks of `size` rows; rows (batch, inputs), matrix (inputs, outputs)."""
    count, width = rows.shape
    rows = pad_rows(rows, size)
    outputs: Array
    if count <= size:  # the same product, without NumPy's loop over one of them
        outputs = rows @ matrix
        return outputs[:count]
    outputs = rows.reshape(len(rows) // size, size, width) @ matrix
    return outputs.reshape(len(rows), matrix.shape[1])[:count]


def pad_rows(rows: Array, size: int) -> Array:
    """The rows, with zeros after them up to a whole number of blocks."""
    short = -len(rows) % size
    if not short:
        return rows
    longer = np.zeros((len(rows) + short, *rows.shape[1:]), rows.dtype)
    longer[: len(rows)] = rows
    return longer
