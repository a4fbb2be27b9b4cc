"""Training statistics of a column. Artifacts are untrusted, so a value that is not a number counts as missing."""

from __future__ import annotations

from typing import Any

from model_store.schema.signature import InputColumn


def column_range(column: InputColumn) -> dict[str, float]:
    """Return the minimum, mean and maximum in training, as far as they are recorded."""
    recorded: dict[str, Any] = {key: column.statistics.get(key) for key in ("min", "mean", "max")}
    return {key: value for key, value in recorded.items() if type(value) in (int, float) and abs(value) < 1e300}
