"""The rows of `fit` in an order that depends on nothing but the rows, and each as often as its weight says.

Training splits and shuffles rows by their places. In this order, the same rows give the same model, bit for bit,
however they were arranged; and a row of weight 3 is the same as three equal rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAX_COPIES = 10  # of a row on average: larger whole numbers are weights of the loss


@dataclass(frozen=True)
class OrderedRows:
    """`rows` (m,) indexes the given rows. `weights` (m,) multiply their losses, None if all count alike.

    `sha256` is a digest of the rows, the same in any order.
    """

    rows: NDArray[np.intp]
    weights: NDArray[np.float64] | None
    sha256: str


def order_rows(
    columns: Sequence[NDArray[Any]], targets: NDArray[Any], weights: NDArray[np.float64] | None = None
) -> OrderedRows:
    """Return the rows in their order: sorted by a digest of their values and targets.

    weights: (n,) of at least 0. Rows of weight 0 are left out. Whole numbers are copies of a row, unless they are more
    than ten a row on average; others are weights of the loss.
    """
    copies = None
    if weights is not None:
        if (weights == np.round(weights)).all() and weights.sum() <= _MAX_COPIES * len(weights):
            copies, weights = weights.astype(np.intp), None
        elif (weights == weights[0]).all():
            weights = None
    parts = [_as_words(column) for column in (*columns, *targets.reshape(len(targets), -1).T)]
    if weights is not None:
        parts.append(_as_words(weights))
    table = np.ascontiguousarray(np.column_stack(parts))
    digests = [hashlib.blake2b(row, digest_size=16).digest() for row in table]
    high, low = np.frombuffer(b"".join(digests), ">u8").reshape(-1, 2).T
    rows = np.lexsort((low, high))
    if copies is not None:
        rows = np.repeat(rows, copies[rows])
    elif weights is not None:
        rows = rows[weights[rows] > 0]
    content = hashlib.sha256()
    for row in rows.tolist():
        content.update(digests[row])
    return OrderedRows(rows, None if weights is None else weights[rows], content.hexdigest())


def _as_words(values: NDArray[Any]) -> NDArray[np.uint64]:
    """Return values as 64-bit words: equal for equal values, missing ones too."""
    if values.dtype.kind == "O":
        words: dict[Any, int] = {None: 0}
        for text in set(values.tolist()) - {None}:
            digest = hashlib.blake2b(str(text).encode("utf-8", "surrogatepass"), digest_size=8).digest()
            words[text] = int.from_bytes(digest, "big")
        return np.fromiter(map(words.__getitem__, values.tolist()), np.uint64, len(values))
    plain = values.astype(np.float64) + 0.0  # -0.0 is 0.0
    plain[np.isnan(plain)] = np.nan
    return plain.view(np.uint64)
