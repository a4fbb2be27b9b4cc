"""Which network predicts which rows: one network all rows, or each network of an ensemble the rows of its fold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.nn import Sequential
from training.encoded_rows import EncodedRows


@dataclass(frozen=True)
class Predictor:
    """Networks, and the index `of_row` (n,) of the network that predicts each row; without it, the first one does."""

    networks: Sequence[Sequential]
    of_row: NDArray[np.int64] | None = None

    def select(self, rows: NDArray[np.int64]) -> Predictor:
        """Return the predictor of the rows with these indices."""
        return self if self.of_row is None else replace(self, of_row=self.of_row[rows])

    def apply(self, function: Callable[[Sequential, EncodedRows], NDArray[Any]], x: EncodedRows) -> NDArray[Any]:
        """Return `function(network, x)`, (n, ...), of each row `x` with its network."""
        if self.of_row is None:
            return function(self.networks[0], x)
        parts = [np.flatnonzero(self.of_row == i) for i in range(len(self.networks))]
        found = [function(network, x[rows]) for network, rows in zip(self.networks, parts, strict=True) if len(rows)]
        return np.concatenate(found)[np.argsort(np.concatenate(parts))]
