"""Transformers of scikit-learn: what each makes of the features of a pipeline."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from model_store.importing.features import (
    CategoryFeature,
    Feature,
    Features,
    MissingFeature,
    NumberFeature,
    TextFeature,
    UnsupportedColumnError,
)
from model_store.nn import Array
from model_store.schema.columns.category import MISSING_CATEGORY
from model_store.utils.values import list_names


def as_array(values: Any) -> Array:
    """Return a parameter that is an array. UnsupportedColumnError for a list, which may become one of any size."""
    if not isinstance(values, np.ndarray):
        raise UnsupportedColumnError(f"expected an array, found {type(values).__name__}")
    return values


def is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def category_names(item: Feature, categories: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the categories by their names in the signature, and the names in the encoder's order."""
    texts = [_category_name(value) for value in np.asarray(categories).tolist()]
    if len(set(texts)) < len(texts):
        raise UnsupportedColumnError(
            f"column {item.column!r}: expected different categories, found {list_names(texts)}"
        )
    originals = dict(zip(texts, np.asarray(categories).tolist(), strict=True))
    return originals, tuple(texts)


def _category_name(value: Any) -> str:
    if is_missing(value):
        return MISSING_CATEGORY
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def as_categories(item: Feature, categories: tuple[str, ...]) -> CategoryFeature:
    """Return an unencoded column as one of categories."""
    if isinstance(item, TextFeature):
        fill = item.fill
    elif isinstance(item, NumberFeature) and (item.factor, item.constant) == (1, 0):
        fill = None if item.fill is None else _category_name(item.fill)
    else:
        raise UnsupportedColumnError(f"column {item.column!r}: expected it before other encodings, found it after one")
    if fill is None and MISSING_CATEGORY in categories:
        fill = MISSING_CATEGORY
    return CategoryFeature(item.column, categories, fill=fill)


Encoder = Callable[[Any, int, CategoryFeature], list[CategoryFeature]]


def _accepting(item: CategoryFeature) -> CategoryFeature:
    """Return the feature for which unknown categories, and missing ones among them, are one more."""
    return CategoryFeature(
        item.column, item.categories, item.weights, item.constant, True, item.fill or MISSING_CATEGORY
    )


def _one_hot(estimator: Any, position: int, item: CategoryFeature) -> list[CategoryFeature]:
    names = item.categories
    rare = estimator._infrequent_indices[position] if getattr(estimator, "_infrequent_enabled", False) else None
    if rare is not None and as_array(rare).size > len(names):
        raise UnsupportedColumnError(f"column {item.column!r}: expected infrequent categories once, found more often")
    infrequent = set() if rare is None else set(as_array(rare).tolist())
    dropped = None if estimator.drop_idx_ is None else estimator.drop_idx_[position]
    if infrequent and dropped is not None:
        raise UnsupportedColumnError(f"column {item.column!r}: expected drop or infrequent categories, found both")
    if estimator.handle_unknown != "error":
        item = _accepting(item)
    hot = [{i: 1.0} for i in range(len(names)) if i not in infrequent and i != dropped]
    if infrequent:
        together = {i: 1.0 for i in range(len(names)) if i in infrequent}
        if item.accepts_unknown and estimator.handle_unknown != "ignore":
            together[len(names)] = 1.0
        hot.append(together)
    if (found := estimator._n_features_outs[position]) != len(hot):  # scikit-learn makes an array of so many
        raise UnsupportedColumnError(f"column {item.column!r}: expected {len(hot)} indicators, found {found}")
    item = _without_unknown_fill(item)
    return [replace(item, weights=weights) for weights in hot]


def _ordinal(estimator: Any, position: int, item: CategoryFeature) -> list[CategoryFeature]:
    del position
    weights = {i: float(i) for i in range(len(item.categories))}
    if getattr(estimator, "_infrequent_enabled", False):
        raise UnsupportedColumnError(f"column {item.column!r}: expected no infrequent categories, found some")
    if MISSING_CATEGORY in item.categories and item.fill == MISSING_CATEGORY:
        weights[item.categories.index(MISSING_CATEGORY)] = float(estimator.encoded_missing_value)
    if estimator.handle_unknown == "use_encoded_value":
        item = _accepting(item)
        weights[len(item.categories)] = float(estimator.unknown_value)
    if any(math.isnan(weight) for weight in weights.values()):
        fix = "give missing and unknown categories a number"
        raise UnsupportedColumnError(f"column {item.column!r}: expected numbers, found nan; {fix}")
    return [replace(_without_unknown_fill(item), weights=weights)]


def _without_unknown_fill(item: CategoryFeature) -> CategoryFeature:
    """Return the feature; scikit-learn rejects a missing value whose replacement is an unknown category."""
    return item if item.accepts_unknown or item.fill in item.categories else replace(item, fill=None)


def per_feature(values: Any, features: Features) -> Array:
    """Return a parameter that has one value for each feature. UnsupportedColumnError for another number of them."""
    found = as_array(values)
    if found.shape != (len(features.items),):
        raise UnsupportedColumnError(f"expected a parameter of {len(features.items)} columns, found {found.shape}")
    return found


def _numbers(values: Any, default: float, features: Features) -> Array:
    if values is None:
        return np.full(len(features.items), default)
    return per_feature(values, features).astype(np.float64)


def _standard_scaler(estimator: Any, features: Features) -> Features:
    scale = _numbers(estimator.scale_, 1, features)
    mean = _numbers(estimator.mean_ if estimator.with_mean else None, 0, features)
    return features.affine(1 / scale, -mean / scale)


def _min_max_scaler(estimator: Any, features: Features) -> Features:
    if estimator.clip:
        raise UnsupportedColumnError("expected clip=False, found True")
    return features.affine(per_feature(estimator.scale_, features), per_feature(estimator.min_, features))


def _max_abs_scaler(estimator: Any, features: Features) -> Features:
    return features.affine(1 / per_feature(estimator.scale_, features), np.zeros(len(features.items)))


def _robust_scaler(estimator: Any, features: Features) -> Features:
    scale = _numbers(estimator.scale_ if estimator.with_scaling else None, 1, features)
    centre = _numbers(estimator.center_ if estimator.with_centering else None, 0, features)
    return features.affine(1 / scale, -centre / scale)


def _simple_imputer(estimator: Any, features: Features) -> Features:
    if not is_missing(estimator.missing_values):
        found = repr(estimator.missing_values)
        fix = "replace them before the model"
        raise UnsupportedColumnError(f"expected missing values to be nan, found {found}; {fix}")
    fills = per_feature(estimator.statistics_, features).tolist()
    items = [_imputed(item, fill) for item, fill in zip(features.items, fills, strict=True)]
    if estimator.indicator_ is not None:
        missing = as_array(estimator.indicator_.features_)
        if missing.size > len(items):
            raise UnsupportedColumnError(f"expected {len(items)} indicators at most, found {missing.size}")
        for position in missing.tolist():
            item = features.items[position]
            if not isinstance(items[position], NumberFeature):
                raise UnsupportedColumnError(
                    f"column {item.column!r}: expected an indicator of numbers, found of texts"
                )
            items.append(MissingFeature(item.column))
    return Features(tuple(items), features.names, features.is_named)


def _imputed(item: Feature, fill: Any) -> Feature:
    if isinstance(item, CategoryFeature | MissingFeature):
        return item  # has no missing values any more
    if is_missing(fill):
        fix = "remove it, since all of its values were missing"
        raise UnsupportedColumnError(f"column {item.column!r}: expected a value for missing ones, found none; {fix}")
    if item.fill is not None:
        return item
    if isinstance(fill, str):
        return TextFeature(item.column, fill)
    if isinstance(item, TextFeature):
        return TextFeature(item.column, _category_name(fill))
    return NumberFeature(item.column, item.factor, item.constant, (float(fill) - item.constant) / item.factor)


def _function_transformer(estimator: Any, features: Features) -> Features:
    if estimator.func is not None:
        raise UnsupportedColumnError("expected no function, found one, which a model file cannot hold")
    return features


TRANSFORMERS: dict[str, Callable[[Any, Features], Features]] = {
    "StandardScaler": _standard_scaler,
    "MinMaxScaler": _min_max_scaler,
    "MaxAbsScaler": _max_abs_scaler,
    "RobustScaler": _robust_scaler,
    "SimpleImputer": _simple_imputer,
    "FunctionTransformer": _function_transformer,
}
ENCODERS: dict[str, Encoder] = {"OneHotEncoder": _one_hot, "OrdinalEncoder": _ordinal}
