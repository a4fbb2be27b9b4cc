"""The columns of an imported pipeline, and what its preprocessing makes of them.

Each value that a pipeline computes from a row before its first layer is a linear function of features that a signature
can encode: of a scaled number, of the indicators of a category, of the indicator of a missing value. So scalers,
imputers, encoders and column transformers become the signature's columns, and what remains, such as another order,
becomes a part of the first layer's weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np

from model_store.nn import Array
from model_store.schema.columns import ArrayColumn, CategoryColumn, Column, NumberColumn

_MAX_NAMED_NUMBERS = 100  # of a file without names: more plain numbers are one array
ARRAY_NAME = "x"


class UnsupportedColumnError(ValueError):
    """A column is used in a way that a signature cannot encode."""


@dataclass(frozen=True)
class NumberFeature:
    """`factor · number + constant`; `fill` replaces a missing number."""

    column: str
    factor: float = 1.0
    constant: float = 0.0
    fill: float | None = None

    def affine(self, factor: float, constant: float) -> NumberFeature:
        return replace(self, factor=self.factor * factor, constant=self.constant * factor + constant)


@dataclass(frozen=True)
class TextFeature:
    """A text that is not encoded yet; `fill` replaces a missing one."""

    column: str
    fill: str | None = None


@dataclass(frozen=True)
class CategoryFeature:
    """`weights[k] + constant` for category k, `constant` without a weight; k = len(categories) are unknown ones."""

    column: str
    categories: tuple[str, ...]
    weights: Mapping[int, float] = field(default_factory=dict)
    constant: float = 0.0
    accepts_unknown: bool = False
    fill: str | None = None

    def affine(self, factor: float, constant: float) -> CategoryFeature:
        weights = {index: weight * factor for index, weight in self.weights.items()}
        return replace(self, weights=weights, constant=self.constant * factor + constant)


@dataclass(frozen=True)
class MissingFeature:
    """`factor + constant` for a missing number, `constant` for others."""

    column: str
    factor: float = 1.0
    constant: float = 0.0

    def affine(self, factor: float, constant: float) -> MissingFeature:
        return replace(self, factor=self.factor * factor, constant=self.constant * factor + constant)


Feature = NumberFeature | TextFeature | CategoryFeature | MissingFeature


@dataclass(frozen=True)
class Features:
    """A value of a pipeline before its first layer: one feature for each of its columns, (batch, len(items))."""

    items: tuple[Feature, ...]
    names: tuple[str, ...]  # of all columns of the pipeline, in the order of a row
    is_named: bool = True  # False if the file has no names of columns

    def select(self, positions: Sequence[int]) -> Features:
        return replace(self, items=tuple(self.items[position] for position in positions))

    def join(self, *others: Features) -> Features:
        return replace(self, items=tuple(chain(self.items, *(other.items for other in others))))

    def affine(self, factors: Array, constants: Array) -> Features:
        """Return the features times `factors` plus `constants`, (features,) each."""
        items = []
        for item, factor, constant in zip(self.items, factors.tolist(), constants.tolist(), strict=True):
            if isinstance(item, TextFeature):
                raise UnsupportedColumnError(f"expected numbers, found the texts of column {item.column!r}")
            items.append(item.affine(factor, constant))
        return replace(self, items=tuple(items))


@dataclass(frozen=True)
class EncodedFeatures:
    """The columns of a signature, and how features follow from their encoding.

    Feature `rows[i]` is the sum of `weights[i]` times the encoded feature `columns[i]`, plus `constants`.
    """

    inputs: tuple[Column, ...]
    width: int
    rows: Array
    columns: Array
    weights: Array
    constants: Array
    plain: bool  # True if the encoding of a row are its numbers

    @property
    def order(self) -> Array | None:
        """The encoded feature of each feature if each is one, and each once; else None."""
        count = len(self.constants)
        one_to_one = count == len(self.rows) == self.width and (np.sort(self.columns) == np.arange(count)).all()
        if one_to_one and (self.weights == 1).all() and not self.constants.any():
            return self.columns[np.argsort(self.rows)]
        return None

    def fold(self, weights: Array, bias: Array) -> tuple[Array, Array]:
        """Return weights (outputs, width) and bias of encoded features for those of features, (outputs, features)."""
        folded = np.zeros((self.width, len(weights)), np.float64)
        np.add.at(folded, self.columns, weights.T[self.rows].astype(np.float64) * self.weights[:, None])
        return folded.T, bias + weights.astype(np.float64) @ self.constants


def encode_features(features: Features) -> EncodedFeatures:
    """Return the columns that the features need, in the order of a row. UnsupportedColumnError names a column."""
    by_column: dict[str, list[tuple[int, Feature]]] = {}
    for row, item in enumerate(features.items):
        by_column.setdefault(item.column, []).append((row, item))
    inputs: list[Column] = []
    terms: list[tuple[int, int, float]] = []
    constants = np.zeros(len(features.items))
    width = 0
    for name in (name for name in features.names if name in by_column):
        rows, items = zip(*by_column[name], strict=True)
        is_category = all(isinstance(item, CategoryFeature) for item in items)
        column: Any = _category_column(name, items) if is_category else _number_column(name, items)
        for row, item in zip(rows, items, strict=True):
            added, constants[row] = _terms(column, item)
            terms += [(row, width + place, weight) for place, weight in added if weight]
        inputs.append(column)
        width += column.width
    table = np.array(terms, np.float64).reshape(len(terms), 3)
    plain = all(
        isinstance(column, NumberColumn) and (column.offset, column.scale, column.fill) == (0, 1, None)
        for column in inputs
    )
    if plain and not features.is_named and len(inputs) > _MAX_NAMED_NUMBERS and len(inputs) == len(features.names):
        inputs = [ArrayColumn(ARRAY_NAME, (len(inputs),))]
    places = table[:, :2].astype(np.intp)
    return EncodedFeatures(tuple(inputs), width, places[:, 0], places[:, 1], table[:, 2], constants, plain)


def _number_column(name: str, items: Sequence[Any]) -> NumberColumn:
    if any(not isinstance(item, NumberFeature | MissingFeature) for item in items):
        found = "texts that are not encoded" if any(isinstance(item, TextFeature) for item in items) else "both"
        raise UnsupportedColumnError(f"column {name!r}: expected a number or a category, found {found}")
    numbers = [item for item in items if isinstance(item, NumberFeature)]
    fills = {item.fill for item in numbers}
    if len(fills) > 1:
        raise UnsupportedColumnError(f"column {name!r}: expected one value for missing ones, found {fills}")
    indicator = len(numbers) < len(items)
    fill = fills.pop() if fills else 0.0
    if indicator and fill is None:
        fix = "impute its missing values, too"
        raise UnsupportedColumnError(f"column {name!r}: expected a value for missing ones, found none; {fix}")
    scaled = next((item for item in numbers if item.factor), None)
    if scaled is None:
        return NumberColumn(name, fill=fill, indicator=indicator)
    offset, scale = -scaled.constant / scaled.factor + 0.0, 1 / abs(scaled.factor)
    if not math.isfinite(offset) or not math.isfinite(scale):
        raise UnsupportedColumnError(f"column {name!r}: expected a finite offset and scale, found {offset}, {scale}")
    return NumberColumn(name, offset, scale, fill, indicator=indicator)


def _category_column(name: str, items: Sequence[Any]) -> CategoryColumn:
    encodings = {*{id(item.categories): item.categories for item in items}.values()}  # hashing one for each takes long
    ways = {(item.accepts_unknown, item.fill) for item in items}
    if len(ways) > 1 or len(encodings) > 1:
        raise UnsupportedColumnError(f"column {name!r}: expected one encoding of its categories, found several")
    (categories,), ((accepts_unknown, fill),) = encodings, ways
    if not accepts_unknown and fill is not None and fill not in categories:
        raise UnsupportedColumnError(
            f"column {name!r}: expected one of the categories for missing values, found {fill!r}"
        )
    return CategoryColumn(name, categories, "bucket" if accepts_unknown else "refuse", fill)


def _terms(column: Any, item: Any) -> tuple[list[tuple[int, float]], float]:
    """Return the weights of a feature by the place in its column's encoding, and its constant."""
    if isinstance(item, CategoryFeature):
        return list(item.weights.items()), item.constant
    if isinstance(item, MissingFeature):
        return [(1, item.factor)], item.constant
    factor = item.factor * column.scale
    if math.isclose(abs(factor), 1, rel_tol=1e-12) and math.isclose(
        -item.constant, item.factor * column.offset, rel_tol=1e-12
    ):
        return [(0, math.copysign(1.0, factor))], 0.0
    return [(0, factor)], item.factor * column.offset + item.constant
