"""Warn of values outside the range of training, for which predictions are extrapolated."""

from __future__ import annotations

from itertools import accumulate, product
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from model_store.errors import Fault, InputError
from model_store.nn import Array
from model_store.schema.signature import Signature
from service.registry.loaded_version import LoadedVersion

_FIX = "the prediction is extrapolated; check the value and its unit"
_BLOCK_VALUES = 2**17  # that are compared at once
_limits: WeakKeyDictionary[LoadedVersion, _RangeLimits] = WeakKeyDictionary()


class _RangeLimits(NamedTuple):
    """The training range of each feature, and the end of each column's features."""

    low: Array
    high: Array
    ends: Array


def range_warnings(served: LoadedVersion, inputs: Array) -> list[Fault]:
    """Return the first 100 values of encoded rows (n, features) that are outside the training range.

    They are found among the numbers of all columns, so no more than those are formatted: with 100 of each column, a
    request of 1 kB took 3 s of a model of 10,000 columns. A long row is compared in pieces: the positions of all values
    outside took 40 bytes each.
    """
    signature = served.model.signature
    limits = _limits.get(served)
    if limits is None:
        limits = _limits[served] = _range_limits(signature, inputs.dtype)
    found: list[Fault] = []
    step = max(1, _BLOCK_VALUES // inputs.shape[1])
    last = -1, -1  # the row and column of the last value that is outside
    for start, at in product(range(0, len(inputs), step), range(0, inputs.shape[1], _BLOCK_VALUES)):
        piece = slice(at, at + _BLOCK_VALUES)  # of a long row; others are whole
        block = inputs[start : start + step, piece]
        rows, features = np.nonzero((block < limits.low[piece]) | (block > limits.high[piece]))
        if not len(rows):
            continue
        columns = np.searchsorted(limits.ends, features + at, side="right")
        is_first = np.ones(len(rows), bool)  # of the features of a row and column that are outside
        is_first[0] = (start + int(rows[0]), int(columns[0])) != last
        is_first[1:] = (rows[1:] != rows[:-1]) | (columns[1:] != columns[:-1])
        last = start + int(rows[-1]), int(columns[-1])
        for i in np.flatnonzero(is_first)[: InputError.MAX_FAULTS - len(found)].tolist():
            column, row = signature.inputs[columns[i]], int(rows[i])
            problem = column.range_problem(float(block[row, features[i]]))
            found.append(Fault(f"instances.{start + row}.{column.name}", problem, _FIX))
        if len(found) == InputError.MAX_FAULTS:
            break
    return found


def _range_limits(signature: Signature, dtype: np.dtype[np.generic]) -> _RangeLimits:
    ends = np.array(list(accumulate(column.width for column in signature.inputs)))
    known = np.array([column.range_limits() for column in signature.inputs])
    with np.errstate(over="ignore"):
        low, high = known.T.astype(dtype)
    if signature.inputs[0].is_whole_row:
        low, high = np.broadcast_to(low, signature.width), np.broadcast_to(high, signature.width)
    else:
        firsts = np.array([0, *ends[:-1]])
        of_first = low, high
        low, high = np.full(signature.width, -np.inf, dtype), np.full(signature.width, np.inf, dtype)
        low[firsts], high[firsts] = of_first
    return _RangeLimits(low, high, ends)
