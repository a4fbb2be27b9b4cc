"""Rows at the edges of what a signature accepts, for the tests of all export targets. The same rows at every run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from model_store.artifact.model import Model
from model_store.errors import InputError
from model_store.nn import Array
from model_store.schema.columns import ArrayColumn, CategoryColumn, Column, DateColumn, NumberColumn, TextColumn
from model_store.schema.columns.base import MISSING_CELLS
from model_store.schema.columns.date_text import MAX_SECONDS, MIN_SECONDS

TEXTS = (
    "",
    "x",
    "ä",
    "🐧 penguin",
    "日本語",
    "İstanbul",
    "ﬁ",
    "e\u0301",
    "a\tb",
    'quote " and \\',
    "x" * 500,
    "0",
    "-1",
)


def edge_rows(model: Model, count: int = 1000, seed: int = 0) -> tuple[list[Any], Array]:
    """Return rows that the model accepts, and its network's raw outputs (count, outputs).

    First each edge value of each column in a row of typical values, then rows that mix edge and typical values.
    Array values are float32 numbers.
    """
    rows, outputs = [], []
    for row in _drawn_rows(model, seed):
        try:
            output = model.network(model.encode([row]))
            model.signature.decode_arrays(output)
        except InputError:  # a number overflows, a category is refused, or the prediction is not finite
            continue
        rows.append(row)
        outputs.append(output)
        if len(rows) == count:
            return rows, np.concatenate(outputs)
    raise AssertionError(f"expected {count} rows that the model accepts, found {len(rows)}")


def refused_rows(model: Model, count: int = 100, seed: int = 0) -> list[Any]:
    """Return up to so many edge rows of valid types that the model refuses, such as those with unknown categories."""
    rows = []
    for row, _ in zip(_drawn_rows(model, seed), range(20 * count), strict=False):
        try:
            model.encode([row])
        except InputError:
            rows.append(row)
    return rows[:count]


def _drawn_rows(model: Model, seed: int) -> Iterator[Any]:
    rng = np.random.default_rng(seed)
    columns = model.signature.inputs
    edges = [edge_values(column, rng) for column in columns]
    typical = [column.draw_values(50, rng) for column in columns]
    only = columns[0].is_whole_row
    for i, values in enumerate(edges):
        for value in values:
            row = [some[0] for some in typical]
            row[i] = value
            yield row[0] if only else row
    for _ in range(100_000):
        share = rng.choice([0.1, 0.5, 1.0])  # of edge values
        row = [
            found[int(rng.integers(len(found)))]
            for some, values in zip(typical, edges, strict=True)
            for found in [values if rng.random() < share else some]
        ]
        if only:
            yield _float32(rng.permutation(np.ravel(row[0])).reshape(np.shape(row[0])))
        else:
            yield row if rng.random() < 0.5 else dict(zip(model.signature.names, row, strict=True))


def edge_values(column: Column, rng: np.random.Generator) -> list[Any]:
    """Return values of the column at its edges, with some that the model may refuse."""
    missing = [None, *sorted(MISSING_CELLS), "NaN"] if column.fill is not None else [None]
    if isinstance(column, NumberColumn):
        return [*([None] if column.fill is not None else []), *_numbers(column)]
    if isinstance(column, DateColumn):
        return [*([None] if column.fill is not None else []), *map(column.format.to_text, _times(column))]
    if isinstance(column, CategoryColumn):
        spellings = [text for one in column.categories[:50] for text in (one.lower(), one.upper(), f"{one}x", one[:-1])]
        return [*column.categories[:300], *column.code_by_text, *spellings, *missing, *TEXTS]
    if isinstance(column, TextColumn):
        return [*missing, *TEXTS, "Two words", "two  words, twice: two words!", "ÀÉÎ àéî", "x_1 x-1 x.1", "w w w"]
    assert isinstance(column, ArrayColumn), column
    return _arrays(column, rng)


def _numbers(column: NumberColumn) -> list[float]:
    known = column.training_range()
    low, high = known.get("min", column.from_feature(-3.0)), known.get("max", column.from_feature(3.0))
    width = (high - low) or 1.0
    ends = [low, high, column.offset, column.from_feature(0.0), column.from_feature(1.0)]
    near = [math.nextafter(end, way) for end in ends for way in (-math.inf, math.inf)]
    far = [low - 10 * width, high + 10 * width, low - 1000 * width, high + 1000 * width]
    tiny = [0.0, -0.0, 5e-324, -5e-324, 2.2e-308, 1e-45, 1.2e-38, -1e-30, 1e-7]
    large = [sign * size for sign in (1, -1) for size in (1, 2**24 + 1, 2**53, 1e9 + 0.123456, 1e15, 1e30, 1e38)]
    return [*ends, *near, *far, *tiny, *large, 1e300, -1e300, 1.7e308, 7, -7, 2**63]


def _times(column: DateColumn) -> list[float]:
    known = column.training_range()
    times = [MIN_SECONDS, MAX_SECONDS, 0, -1, 1, 951_782_400, 4_107_542_399, column.offset]  # leap day of 2000, 2100
    times += [known.get("min", 0), known.get("max", 0), known.get("max", 0) + 1e9, 43_200, 86_399, 0.5, 1e9 + 0.25]
    return [min(max(time, MIN_SECONDS), MAX_SECONDS) for time in times]


def _arrays(column: ArrayColumn, rng: np.random.Generator) -> list[Any]:
    known = column.training_range()
    low = column.low if column.low is not None else known.get("min", -3.0)
    high = column.high if column.high is not None else known.get("max", 3.0)
    flat = [np.full(column.shape, value) for value in (low, high, (low + high) / 2, column.offset, 0.0, -0.0)]
    beyond = [np.full(column.shape, value) for value in (high + 10 * (high - low), 1e-45, 1e-38)]
    random = [rng.uniform(low, high, column.shape) for _ in range(20)]
    edges = [np.where(rng.random(column.shape) < 0.5, low, high) for _ in range(20)]
    single = np.full(column.shape, low)
    single.flat[-1] = high
    return [_float32(array) for array in (*flat, *beyond, *random, *edges, single)]


def _float32(array: Array) -> Any:
    return array.astype(np.float32).astype(np.float64).tolist()
