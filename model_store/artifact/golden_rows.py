"""The golden rows of a model: how many it holds, and rows made up from the statistics in its signature.

`training/pipeline/golden_rows.py` chooses them for a job, `model_store/publishing.py` for a network of one's own.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from model_store.schema.signature import Signature

_MAX_ROWS = 8
_MAX_VALUES = 100_000  # in all golden rows, so that large images do not fill the manifest


def golden_count(width: int) -> int:
    """Return how many rows of so many values a model holds."""
    return max(1, min(_MAX_ROWS, _MAX_VALUES // max(1, width)))


def make_up_rows(signature: Signature, rng: np.random.Generator) -> list[Any]:
    """Return rows as a client sends them, drawn column by column from the statistics that the model has anyway."""
    columns = [column.draw_values(golden_count(signature.width), rng) for column in signature.inputs]
    return columns[0] if signature.inputs[0].is_whole_row else [list(row) for row in zip(*columns, strict=True)]
