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
    smallest = np.partition(values, width - k, axis=1)[:, width - k, np.newaxis]  # of the k largest
    rows, columns = np.nonzero(values >= smallest)  # k or more of each row, with equal ones
    order = np.lexsort((-values[rows, columns], rows))  # is stable
    first = np.searchsorted(rows, np.arange(count))
    found: Array = columns[order[first[:, np.newaxis] + np.arange(k)]]
    return found
