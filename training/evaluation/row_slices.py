"""Slices of rows by one column: a value, a range of numbers, all rarer values, or none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.schema.columns import Column
from model_store.schema.columns.base import finite_numbers

_MAX_VALUES = 5  # of a column of numbers, that get a slice each


@dataclass(frozen=True)
class ColumnSlices:
    """The slices of a column: `words` describes each as JSON, and `codes` (n,) has the index of each row's slice."""

    column: str
    words: list[dict[str, Any]]
    codes: NDArray[np.int64]

    def masks(self) -> Iterator[tuple[dict[str, Any], NDArray[np.bool_]]]:
        """Yield the words of each slice, and which rows it has."""
        for code, words in enumerate(self.words):
            yield words, self.codes == code


def cut_column(
    values: NDArray[Any], column: Column, *, ranges: int, categories: int, min_rows: int = 0
) -> ColumnSlices | None:
    """Return the slices of a column's parsed values (n,); None if it has none, as an array.

    The `categories` most frequent texts with at least `min_rows` rows are a slice each, all others together are one.
    Numbers are cut into so many `ranges` with equal shares of the training rows, or by value if they are few. Limits
    are between the deciles of the signature, so that no other value of a row is recorded. Rows without a value are
    a slice.
    """
    if values.ndim > 1:
        return None
    if values.dtype.kind == "O":
        return _cut_texts(values, column.name, categories, min_rows)
    return _cut_numbers(values, column, ranges)


def _cut_texts(values: NDArray[Any], name: str, categories: int, min_rows: int) -> ColumnSlices:
    texts = [None if value is None else str(value) for value in values]
    counts = Counter(text for text in texts if text is not None)
    frequent = [text for text in counts if counts[text] >= min_rows]
    largest = sorted(frequent, key=lambda text: (-counts[text], text))[:categories]
    words: list[dict[str, Any]] = [{"value": text} for text in largest]
    if others := len(counts) - len(largest):
        words.append({"others": others})
    # Codes, not an array of texts: each would take the memory of the longest.
    codes: dict[str | None, int] = {None: len(words), **{text: code for code, text in enumerate(largest)}}
    of_row = np.fromiter((codes.get(text, len(largest)) for text in texts), np.int64, len(texts))
    return ColumnSlices(name, [*words, {"missing": True}], of_row)


def _cut_numbers(values: NDArray[Any], column: Column, ranges: int) -> ColumnSlices | None:
    missing = np.isnan(values)
    distinct = np.unique(values[~missing])
    deciles = np.array(finite_numbers(column.statistics.get("deciles")))
    if len(distinct) <= _MAX_VALUES and set(distinct.tolist()) <= set(deciles.tolist()):
        words: list[dict[str, Any]] = [{"value": value} for value in distinct.tolist()]
        codes = np.searchsorted(distinct, values)
    else:
        if len(deciles) < 2:
            return None
        positions = np.linspace(0, len(deciles) - 1, ranges + 1)
        edges = np.unique(np.interp(positions, np.arange(len(deciles)), deciles))
        if len(edges) < 2 or not np.isfinite(edges).all():
            return None
        words = [{"low": low, "high": high} for low, high in pairwise(edges.tolist())]
        codes = np.searchsorted(edges[1:-1], values, side="right")  # beyond the training rows: the outer slices
    codes[missing] = len(words)
    return ColumnSlices(column.name, [*words, {"missing": True}], codes)
