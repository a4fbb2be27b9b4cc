"""What training saw of a column. An artifact may say anything, so what is no number counts as not recorded."""

from __future__ import annotations

from typing import Any

from model_store.schema.signature import InputColumn


def column_range(column: InputColumn) -> dict[str, float]:
    """The least, the mean and the greatest value, as far as they are known."""
    recorded: dict[str, Any] = {key: column.statistics.get(key) for key in ("min", "mean", "max")}
    return {key: value for key, value in recorded.items() if type(value) in (int, float) and abs(value) < 1e300}
