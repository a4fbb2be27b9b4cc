"""Decide whether requests should share a forward pass, from the measured time per row alone and batched."""

from __future__ import annotations

import math

_MAX_BATCHED_RATIO = 0.8  # batch only if a batched row takes at most this share of a single row's time
_MIN_BATCHED_PASSES = 32  # before batching may end, which ends these measurements: some are delayed on a busy machine


class BatchingPolicy:
    """Estimates the latency per row of one version's network: the minimum over all passes.

    A network computes in blocks of `block_rows` rows. With dense layers a pass of one row takes as long as a whole
    block, so sharing a block is free. With convolutions each row takes its own time, and sharing only delays the first.
    """

    def __init__(self, block_rows: int) -> None:
        self._block_rows = block_rows
        self._single_row_seconds = self._batched_row_seconds = math.inf
        self._batched_passes = 0
        self.target_batch_rows = block_rows  # rows to collect for one pass: a block, or 1

    def record_pass(self, rows: int, seconds: float) -> None:
        """Record that a pass of `rows` rows took `seconds`."""
        if rows == 1:
            if seconds >= self._single_row_seconds:
                return
            self._single_row_seconds = seconds
        elif 2 * rows < self._block_rows:
            return
        else:
            self._batched_passes += 1
            if seconds < rows * self._batched_row_seconds:
                self._batched_row_seconds = seconds / rows
            elif self._batched_passes != _MIN_BATCHED_PASSES:
                return
        known = math.isfinite(self._single_row_seconds) and self._batched_passes >= _MIN_BATCHED_PASSES
        slow = known and self._batched_row_seconds > _MAX_BATCHED_RATIO * self._single_row_seconds
        self.target_batch_rows = 1 if slow else self._block_rows
