"""Deciles of numbers, and the values between them: what reports, drift and made-up rows know of a column."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.utils.values import exact_unit


def decile_statistics(values: NDArray[np.float64]) -> dict[str, Any]:
    """Return the `deciles` of numbers, and the `counts` of values up to each distinct decile.

    The first count is of values equal to the minimum, and a frequent value has its own count.
    """
    deciles = compute_deciles(values)
    ends = np.unique(deciles)
    at = np.minimum(np.searchsorted(ends, values), len(ends) - 1)  # a quantile may be rounded below the maximum
    return {"deciles": deciles, "counts": np.bincount(at, minlength=len(ends)).tolist()}


def compute_deciles(values: NDArray[np.float64]) -> list[float]:
    """Return the minimum, the nine deciles and the maximum."""
    unit = exact_unit(values)
    return [float(value) * unit for value in np.quantile(values / unit, np.arange(11) / 10)]
