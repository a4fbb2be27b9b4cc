"""The encoding of rows in memory: features as the network takes them, or compact if these are large."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.errors import InputError
from model_store.nn import Array
from model_store.schema.columns import Column, FaultCollector, RowLocations
from model_store.schema.signature import Signature
from training.encoded_rows import PIECE_VALUES, CodedGroup, CompactRows, EncodedRows, FeatureGroup, OneHotGroup
from training.engine.data_parallel import DataParallel
from training.engine.loop import Samples, TrainingState

MIN_COMPACT_BYTES = 4 << 20  # encoded rows of fewer bytes are not worth the work
_MIN_ROWS_PER_CODE = 4  # with fewer, the table of codes is not much smaller than the features


def encode_compactly(
    signature: Signature, inputs: Mapping[str, NDArray[Any]], rows: NDArray[np.int64], dtype: str
) -> CompactRows | None:
    """Return rows in compact form, or None if that takes more than half of what their features take.

    None also if a value cannot be encoded: encoding the features tells which.
    """
    count = len(rows)
    full = count * signature.width * np.dtype(dtype).itemsize
    if not count or full < MIN_COMPACT_BYTES or signature.inputs[0].is_whole_row:
        return None
    groups: list[FeatureGroup] = []
    at = used = 0
    for column in signature.inputs:
        try:
            group = _encode_column(column, slice(at, at + column.width), inputs[column.name][rows], dtype)
        except InputError:
            return None
        groups.append(group)
        at, used = at + column.width, used + group.nbytes
        if 2 * used > full or not group.is_finite:
            return None
    return CompactRows(groups, count, signature.width, np.dtype(dtype))


def _encode_column(column: Column, span: slice, values: NDArray[Any], dtype: str) -> FeatureGroup:
    """Return the features of a column: texts by codes if there are few. InputError if one cannot be encoded."""
    if values.dtype.kind == "O" and column.width > 1:
        index: dict[Any, int] = {}
        codes = np.array([index.setdefault(value, len(index)) for value in values.tolist()], np.int64)
        distinct = np.empty(len(index), object)
        distinct[:] = list(index)
        if (hot := _hot_features(column, distinct, dtype)) is not None:
            return OneHotGroup(span, hot.astype(np.min_scalar_type(-column.width))[codes])
        if len(index) <= len(values) // _MIN_ROWS_PER_CODE:
            table = np.concatenate(list(_encode_in_blocks(column, distinct, dtype)))
            return CodedGroup(span, codes.astype(np.min_scalar_type(len(index))), table)
    return FeatureGroup(span, np.concatenate(list(_encode_in_blocks(column, values, dtype))))


def _hot_features(column: Column, distinct: NDArray[Any], dtype: str) -> NDArray[np.int64] | None:
    """Return which feature of each value is 1, -1 for none; None if they are not one-hot."""
    hot = []
    for block in _encode_in_blocks(column, distinct, dtype):
        is_one = block == 1
        if (is_one | (block == 0)).all() and (is_one.sum(axis=1) <= 1).all():
            hot.append(np.where(is_one.any(axis=1), is_one.argmax(axis=1), -1))
        else:
            return None
    return np.concatenate(hot)


def _encode_in_blocks(column: Column, values: NDArray[Any], dtype: str) -> Iterator[NDArray[Any]]:
    """Yield the features of all values; each block passes through float64, in a few megabytes."""
    rows = max(1, PIECE_VALUES // column.width)
    for start in range(0, len(values), rows):
        block, faults = values[start : start + rows], FaultCollector()
        encoded = column.encode(block, RowLocations("", range(len(block))), faults)
        faults.raise_if_any()
        with np.errstate(over="ignore"):
            yield encoded.astype(dtype)


class CompactSamples(Samples):
    """Training rows in compact form: batches have the same rows and the same bits as those of `Samples`."""

    def __init__(self, rows: CompactRows, y: Array) -> None:
        self.rows, self.y = rows, y

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def constant_features(self) -> Array:
        return self.rows.constant_features

    @property
    def first_sample(self) -> Array:
        first: Array = self.rows.expand(slice(0, 1))[0]
        return first

    def epoch_blocks(
        self, state: TrainingState, batch_size: int, parallel: DataParallel | None = None
    ) -> Iterable[tuple[Array, Array, Array | None, int]]:
        order = np.arange(len(self))
        if state.rng is not None and batch_size < len(self):
            order = state.draw_order(lambda rng: rng.permutation(len(self)))
        size = batch_size * max(1, PIECE_VALUES // self.rows.width // batch_size)
        buffer = np.empty((min(size, len(self)), self.rows.width), self.rows.dtype)
        for start in range(state.steps * batch_size, len(self), size):
            block = order[start : start + size]
            if parallel is None:
                x = self.rows.expand(block, buffer)
            else:
                x, own = buffer[: len(block)], parallel.rows_of(parallel.own, len(block), batch_size)
                x[own] = self.rows.expand(block[own])
            yield x, self.y.take(block, axis=0), None, 0


def make_samples(x: EncodedRows, y: Array) -> Samples:
    """Return rows and their targets as training takes them."""
    return CompactSamples(x, y) if isinstance(x, CompactRows) else Samples(x, y)
