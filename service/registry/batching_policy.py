"""The pace: what a row takes alone and what it takes in company, and so whether requests should share a pass."""

from __future__ import annotations

import math

_MAX_BATCHED_RATIO = 0.8  # of the time alone: what a row in company must stay under


class BatchingPolicy:
    """Of one version's network, as it is seen at work: the least that a pass has ever taken.

    A network computes in blocks of `block_rows` rows, so a pass of one row takes as long as one of a whole block where
    dense layers do the work. Rows then share a block for nothing. Where each row is computed by itself, as
    convolutions are, sharing would only make the first of them wait for the last.
    """

    def __init__(self, block_rows: int) -> None:
        self._block_rows = block_rows
        self._single_row_seconds = self._batched_row_seconds = math.inf  # seconds a row
        self.target_batch_rows = block_rows  # rows to answer at once: as many as share a block, or 1

    def record_pass(self, rows: int, seconds: float) -> None:
        """A pass of `rows` rows has taken so long."""
        if rows == 1:
            if seconds >= self._single_row_seconds:
                return
            self._single_row_seconds = seconds
        else:
            if 2 * rows < self._block_rows or seconds >= rows * self._batched_row_seconds:
                return
            self._batched_row_seconds = seconds / rows
        known = math.isfinite(self._single_row_seconds) and math.isfinite(self._batched_row_seconds)
        self.target_batch_rows = (
            1
            if known and self._batched_row_seconds > _MAX_BATCHED_RATIO * self._single_row_seconds
            else self._block_rows
        )
