"""Encoded rows in a compact form: a code for each category instead of its features, expanded a piece at a time.

One-hot features are nearly all zeros: a column of 834 categories takes 3.3 KB a row as float32, and 2 bytes as a code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from model_store.artifact.mean_row import MeanRow
from model_store.schema.signature import Signature

T = TypeVar("T", bound=NDArray[Any])
PIECE_VALUES = 1 << 18  # expanded at a time: a megabyte, still in the cache when the network works on it


@dataclass(frozen=True)
class FeatureGroup:
    """Neighbouring features, in the columns `span`: the `values` (n, features) of the rows themselves."""

    span: slice
    values: NDArray[Any]

    @property
    def nbytes(self) -> int:
        return self.values.nbytes

    @property
    def is_finite(self) -> bool:
        return bool(np.isfinite(self.values).all())

    def expand(self, rows: Any, x: NDArray[Any]) -> None:
        """Write the features of rows into their columns of `x`."""
        x[:, self.span] = self.values[rows]

    def constant(self) -> NDArray[np.bool_]:
        """Return which features have one value in all rows."""
        return np.asarray((self.values == self.values[0]).all(axis=0))


@dataclass(frozen=True)
class CodedGroup(FeatureGroup):
    """Features that are the rows of `table` (codes, features) which `values` (n,) index."""

    table: NDArray[Any]

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + self.table.nbytes

    @property
    def is_finite(self) -> bool:
        return bool(np.isfinite(self.table).all())

    def expand(self, rows: Any, x: NDArray[Any]) -> None:
        x[:, self.span] = self.table.take(self.values[rows], axis=0)

    def constant(self) -> NDArray[np.bool_]:
        used = self.table[np.unique(self.values)]
        return np.asarray((used == used[0]).all(axis=0))


@dataclass(frozen=True)
class OneHotGroup(FeatureGroup):
    """Features of which one is 1: the one that `values` (n,) says, or none if that is -1."""

    def expand(self, rows: Any, x: NDArray[Any]) -> None:
        features, hot = x[:, self.span], self.values[rows]
        features[...] = 0
        present = np.flatnonzero(hot >= 0)
        features[present, hot[present]] = 1

    def constant(self) -> NDArray[np.bool_]:
        used = np.unique(self.values)
        found = np.ones(self.span.stop - self.span.start, bool)
        if len(used) > 1:
            found[used[used >= 0]] = False
        return found


@dataclass(frozen=True)
class CompactRows:
    """Rows (n, width) as groups of features. An index selects rows, which stay compact; `np.asarray` expands them.

    `held` replaces features that had one value in training: a mask and the values; see `hold_constant_features`.
    """

    groups: Sequence[FeatureGroup]
    count: int
    width: int
    dtype: np.dtype[Any]
    held: tuple[NDArray[np.bool_], NDArray[Any]] | None = None

    def __len__(self) -> int:
        return self.count

    @property
    def shape(self) -> tuple[int, int]:
        return self.count, self.width

    @property
    def nbytes(self) -> int:
        return sum(group.nbytes for group in self.groups)

    def __getitem__(self, rows: Any) -> CompactRows:
        groups = [replace(group, values=group.values[rows]) for group in self.groups]
        return replace(self, groups=groups, count=len(groups[0].values))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:  # NumPy's protocol
        del copy  # it is always one
        return self.expand(slice(None)).astype(dtype or self.dtype, copy=False)

    def expand(self, rows: Any, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Return rows as the network takes them, (rows, width), in the first rows of `out` if it is given."""
        count = len(self.groups[0].values[rows])
        x = np.empty((count, self.width), self.dtype) if out is None else out[:count]
        for group in self.groups:
            group.expand(rows, x)
        if self.held is not None:
            mask, values = self.held
            x[:, mask] = values[mask]
        return x

    def pieces(self) -> Iterator[NDArray[Any]]:
        """Yield all rows in pieces. A piece is valid until the next one is requested."""
        size = max(1, PIECE_VALUES // self.width)
        buffer = np.empty((size, self.width), self.dtype)
        for start in range(0, self.count, size):
            yield self.expand(slice(start, start + size), buffer)

    @property
    def constant_features(self) -> NDArray[np.bool_]:
        """Which features have one value in all rows."""
        return np.concatenate([group.constant() for group in self.groups])


EncodedRows = NDArray[Any] | CompactRows


def apply_in_pieces(function: Callable[[NDArray[Any]], T], x: EncodedRows) -> T:
    """Return `function(x)`, (n, ...), for a function of each row; of compact rows one piece after the other."""
    if isinstance(x, CompactRows) and len(x):
        return np.concatenate([function(piece) for piece in x.pieces()])  # type: ignore[return-value]
    return function(np.asarray(x))


def hold_features(x: EncodedRows, mask: NDArray[np.bool_], values: NDArray[Any]) -> EncodedRows:
    """Return rows with the `values` of the features in `mask`."""
    return replace(x, held=(mask, values)) if isinstance(x, CompactRows) else np.where(mask, values, x)


def mean_row(x: EncodedRows, signature: Signature) -> MeanRow:
    """Return the mean of rows in memory."""
    mean = MeanRow(signature)
    size = max(1, PIECE_VALUES // x.shape[1])
    for piece in x.pieces() if isinstance(x, CompactRows) else (x[i : i + size] for i in range(0, len(x), size)):
        mean.add(piece)
    return mean
