"""The encoding of rows in memory: features as the network takes them, or compact if these are large."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.errors import InputError
from model_store.nn import Array
from model_store.schema.columns import Column, FaultCollector, RowLocations
from model_store.schema.signature import Signature
from training.encoded_rows import PIECE_VALUES, CodedGroup, CompactRows, EncodedRows, FeatureGroup, OneHotGroup
from training.engine.loop import Samples, TrainingState

MIN_COMPACT_BYTES = 16 << 20  # encoded rows of fewer bytes are not worth the work
_MIN_ROWS_PER_CODE = 4  # with fewer, the table of codes is not much smaller than the features
_BLOCK_ROWS = 4096  # rows encoded at a time, in float64


def encode_compactly(
    signature: Signature, inputs: Mapping[str, NDArray[Any]], rows: NDArray[np.int64], dtype: str
) -> CompactRows | None:
    """Return rows in compact form, or None if that takes more than half of what their features take.

    None also if a value cannot be encoded: encoding the features tells which.
    """
    count = len(rows)
    full = count * signature.width * np.dtype(dtype).itemsize
    if full < MIN_COMPACT_BYTES or signature.inputs[0].is_whole_row:
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
    faults, count = FaultCollector(), len(values)
    if values.dtype.kind == "O" and column.width > 1:
        index: dict[Any, int] = {}
        codes = [index.setdefault(value, len(index)) for value in values.tolist()]
        if len(index) <= count // _MIN_ROWS_PER_CODE:
            distinct = np.empty(len(index), object)
            distinct[:] = list(index)
            encoded = column.encode(distinct, RowLocations("", range(len(index))), faults)
            faults.raise_if_any()
            if ((encoded == 0) | (encoded == 1)).all() and (encoded.sum(axis=1) <= 1).all():
                hot = np.where(encoded.any(axis=1), encoded.argmax(axis=1), -1)
                return OneHotGroup(span, hot[codes].astype(np.min_scalar_type(-column.width)))
            with np.errstate(over="ignore"):
                return CodedGroup(span, np.array(codes, np.min_scalar_type(len(index))), encoded.astype(dtype))
    features = np.empty((count, column.width), dtype)
    with np.errstate(over="ignore"):
        for start in range(0, count, _BLOCK_ROWS):
            block = values[start : start + _BLOCK_ROWS]
            features[start : start + len(block)] = column.encode(block, RowLocations("", range(len(block))), faults)
    faults.raise_if_any()
    return FeatureGroup(span, features)


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

    def epoch_blocks(self, state: TrainingState, batch_size: int) -> Iterable[tuple[Array, Array, Array | None, int]]:
        order = np.arange(len(self))
        if state.rng is not None and batch_size < len(self):
            order = state.draw_order(lambda rng: rng.permutation(len(self)))
        size = batch_size * max(1, PIECE_VALUES // self.rows.width // batch_size)
        buffer = np.empty((min(size, len(self)), self.rows.width), self.rows.dtype)
        for start in range(state.steps * batch_size, len(self), size):
            block = order[start : start + size]
            yield self.rows.expand(block, buffer), self.y.take(block, axis=0), None, 0


def make_samples(x: EncodedRows, y: Array) -> Samples:
    """Return rows and their targets as training takes them."""
    return CompactSamples(x, y) if isinstance(x, CompactRows) else Samples(x, y)
