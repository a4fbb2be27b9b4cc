"""Every row of a block gets the same bits, with every OpenBLAS kernel for this processor."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from model_store.nn import batch_invariant
from model_store.nn.batch_invariant import BLOCK_SIZES, block_rows, multiply_in_blocks, pad_rows

KERNELS = {"Nehalem": "sse4_2", "Sandybridge": "avx", "Haswell": "avx2", "Zen": "avx2", "SkylakeX": "avx512f"}

# Rows in a random company, at random places: how many of the shapes give one of them other bits.
COUNT_UNSTEADY = """
import numpy as np
from model_store.nn import batch_invariant
{defence_taken_out}
rng = np.random.default_rng(1)
unsteady = 0
for dtype in (np.float32, np.float64):
    for inputs, outputs in ((2, 3), (30, 64), (64, 10), (784, 256), (900, 1), (17, 33), (700, 1500)):
        matrix = rng.standard_normal((outputs, inputs)).astype(dtype).T
        rows = rng.standard_normal((50, inputs)).astype(dtype)
        size = batch_invariant.block_rows(inputs, outputs, dtype)
        alone = np.concatenate([batch_invariant.multiply_in_blocks(row[None], matrix, size) for row in rows])
        order = rng.permutation(50)
        unsteady += (batch_invariant.multiply_in_blocks(rows[order], matrix, size) != alone[order]).any()
print(unsteady)
"""


def unsteady_shapes(kernel: str, defence_taken_out: str = "") -> int:
    flags = Path("/proc/cpuinfo").read_text().split() if Path("/proc/cpuinfo").exists() else []
    if platform.machine() != "x86_64" or KERNELS[kernel] not in flags:
        pytest.skip(f"this processor cannot run OpenBLAS's kernel for {kernel}")
    code = COUNT_UNSTEADY.format(defence_taken_out=defence_taken_out)
    # With the size of a cache, since OpenBLAS 0.3.34 crashes in these kernels on virtual machines that report none.
    environ = {**os.environ, "OPENBLAS_CORETYPE": kernel, "OPENBLAS_NUM_THREADS": "1", "OPENBLAS_L2_SIZE": "512"}
    found = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    return int(found.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_row_has_the_same_bits_at_every_position_of_a_block(kernel: str) -> None:
    assert unsteady_shapes(kernel) == 0


def test_without_tested_sizes_a_row_at_another_position_gets_other_bits() -> None:
    """The control: Haswell's kernel treats twelve of sixteen rows differently from the other four."""
    blocks_of_any_size = "batch_invariant.is_row_position_invariant = lambda *_: True"
    assert unsteady_shapes("Haswell", f"{blocks_of_any_size}; batch_invariant.HAS_UNPACKED_PRODUCTS = True") > 0


def test_small_products_use_small_blocks_and_large_products_large_ones() -> None:
    for dtype in (np.float32, np.float64):
        assert block_rows(784, 256, dtype) <= 4
        assert block_rows(256, 128, dtype) in {1, 8}
        assert block_rows(10_000, 10_000, dtype) in {1, *BLOCK_SIZES}


def test_kernels_that_pack_weights_multiply_row_by_row_unless_the_weights_are_few_or_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batch_invariant, "HAS_UNPACKED_PRODUCTS", False)
    assert block_rows(784, 256, np.float32) == block_rows(256, 128, np.float32) == 1
    assert block_rows(2, 3, np.float64) in {1, *BLOCK_SIZES}
    assert block_rows(10_000, 10_000, np.float32) in {1, *BLOCK_SIZES}


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 40])
def test_any_number_of_rows_is_multiplied(count: int) -> None:
    rng = np.random.default_rng(0)
    rows, matrix = rng.standard_normal((count, 5)), rng.standard_normal((5, 3))
    np.testing.assert_allclose(multiply_in_blocks(rows, matrix, 8), rows @ matrix, rtol=1e-12)
    assert len(pad_rows(rows, 8)) % 8 == 0
