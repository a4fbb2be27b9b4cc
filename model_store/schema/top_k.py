"""The k largest values of each row of an array."""

from __future__ import annotations

import numpy as np

from model_store.nn import Array


def largest_columns(values: Array, k: int) -> Array:
    """Return the columns (n, k) of the k largest values in each row of `values` (n, m), the largest first.

    Equal values are in the order of their columns, so the first column is that of `argmax`. All m if k is larger.
    """
    count, width = values.shape
    k = min(k, width)
    # The smallest of the k largest. Sorted, since np.partition takes ten times as long if most values are equal.
    smallest = np.sort(values, axis=1)[:, width - k, np.newaxis]
    larger, equal = values > smallest, values == smallest
    missing = k - np.count_nonzero(larger, axis=1)  # of each row, to be filled with its first equal values
    before = np.cumsum(equal, axis=1, dtype=np.int32)
    columns = np.nonzero(larger | (equal & (before <= missing[:, np.newaxis])))[1].reshape(count, k)
    order = np.argsort(-np.take_along_axis(values, columns, axis=1), axis=1, kind="stable")
    found: Array = np.take_along_axis(columns, order, axis=1)
    return found
