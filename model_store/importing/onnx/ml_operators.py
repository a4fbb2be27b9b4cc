"""The operators of the domain ai.onnx.ml that can be imported: scalers, imputers and encoders of skl2onnx."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from model_store.importing.features import CategoryFeature, Feature, Features, NumberFeature, TextFeature
from model_store.importing.onnx.shape_operators import predicted_label
from model_store.importing.onnx.values import (
    LabelledProbabilities,
    LargestIndex,
    Operation,
    PredictedLabel,
    Value,
)
from model_store.nn import Array


def _features(op: Operation) -> Features:
    value = op.value()
    if not isinstance(value, Features):
        op.refuse("expected it before the first layer, found it after one")
    return value


def _for_each(op: Operation, name: str, count: int, default: float) -> Array:
    """Return an attribute of one number for each feature, or one for all."""
    numbers = np.asarray(op.attribute(name) or [default], np.float64)
    if len(numbers) not in (1, count):
        op.refuse(f"{name}: expected {count} numbers, found {len(numbers)}")
    return np.broadcast_to(numbers, (count,))


def _scaler(op: Operation) -> Value:
    features = _features(op)
    count = len(features.items)
    offset, scale = _for_each(op, "offset", count, 0), _for_each(op, "scale", count, 1)
    return features.affine(scale, -offset * scale)


def _imputer(op: Operation) -> Value:
    features = _features(op)
    if not math.isnan(op.attribute("replaced_value_float", 0.0)):
        op.refuse("expected replaced_value_float to be nan, found a number; replace it before the model")
    fills = _for_each(op, "imputed_value_floats", len(features.items), math.nan).tolist()
    items: list[Feature] = []
    for item, fill in zip(features.items, fills, strict=True):
        if not isinstance(item, NumberFeature) or (item.factor, item.constant) != (1, 0) or math.isnan(fill):
            op.refuse(f"column {item.column!r}: expected unscaled numbers and a number for missing ones")
        items.append(replace(item, fill=fill))
    return replace(features, items=tuple(items))


def _categories(op: Operation, item: Feature, names: Sequence[Any]) -> CategoryFeature:
    is_plain = isinstance(item, NumberFeature) and (item.factor, item.constant, item.fill) == (1, 0, None)
    if not isinstance(item, TextFeature) and not is_plain:
        op.refuse(f"column {item.column!r}: expected it before other encodings, found it after one")
    texts = _texts(names)
    if not texts or len(set(texts)) < len(texts):
        op.refuse(f"column {item.column!r}: expected different categories, found {texts[:10]}")
    if isinstance(item, TextFeature) and item.fill is not None:
        return CategoryFeature(item.column, tuple(texts), fill=item.fill)
    missing = next((text for text in texts if text.lower() == "nan"), None)  # as skl2onnx writes a missing value
    return CategoryFeature(item.column, tuple(texts), fill=missing)


def _texts(names: Sequence[Any]) -> list[str]:
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _one_hot_encoder(op: Operation) -> Value:
    features = _features(op)
    names = op.attribute("cats_strings") or op.attribute("cats_int64s") or ()
    op.budget.spend_features(len(names) * len(features.items))
    items: list[Feature] = []
    for item in features.items:
        category = replace(_categories(op, item, names), accepts_unknown=bool(op.attribute("zeros", 1)))
        items += [replace(category, weights={i: 1.0}) for i in range(len(names))]
    return replace(features, items=tuple(items))


def _first(op: Operation, name: str, *kinds: str) -> list[Any]:
    """Return the attribute of the first kind that is given, such as keys_strings."""
    return next((list(found) for kind in kinds if (found := op.attribute(f"{name}_{kind}"))), [])


def _label_encoder(op: Operation) -> Value:
    keys, values = _first(op, "keys", "strings", "int64s"), _first(op, "values", "floats", "int64s", "strings")
    if len(keys) != len(values) or not keys:
        op.refuse("expected keys of texts or whole numbers and as many values, found others")
    if isinstance(op.inputs[0], np.ndarray):
        return _mapped_constant(op, keys, values)
    if isinstance(op.inputs[0], PredictedLabel):
        labels = predicted_label(np.array(values, object))
        known = dict(zip(predicted_label(np.array(keys, object)).labels, labels.labels, strict=True))
        if set(op.inputs[0].labels) - known.keys():
            op.refuse("expected a value for each label, found one without")
        return PredictedLabel(tuple(known[label] for label in op.inputs[0].labels))
    if isinstance(values[0], bytes):
        op.refuse("expected numbers as values, found texts")
    features = _features(op)
    kind = "int64" if isinstance(values[0], int) else "float"
    default = float(op.attribute(f"default_{kind}", -1 if kind == "int64" else 0.0))
    if math.isnan(default):
        op.refuse("expected a number for unknown categories, found nan")
    op.budget.spend_features(len(keys) * len(features.items))
    weights = {i: float(value) for i, value in enumerate(values)} | {len(keys): default}
    items = [replace(_categories(op, item, keys), accepts_unknown=True, weights=weights) for item in features.items]
    return replace(features, items=tuple(items))


def _mapped_constant(op: Operation, keys: list[Any], values: list[Any]) -> Array:
    """Return texts for a constant, as skl2onnx writes what replaces missing texts."""
    known = dict(zip(_texts(keys), _texts(values), strict=True))
    found = _texts(op.constant(0).ravel().tolist())
    if not isinstance(values[0], bytes) or set(found) - known.keys():
        op.refuse("expected a text for each value of the constant, found one without")
    return np.array([known[one] for one in found], object)


def _array_feature_extractor(op: Operation) -> Value:
    if isinstance(op.inputs[0], np.ndarray) and isinstance(op.inputs[1], LargestIndex):
        return predicted_label(op.constant(0))
    features = _features(op)
    op.budget.spend_features(op.constant(1).size)
    return features.select([position % len(features.items) for position in op.numbers(1)])


def _feature_vectorizer(op: Operation) -> Value:
    first, *others = [_features(replace(op, inputs=[value])) for value in op.inputs]
    return first.join(*others)


def _zip_map(op: Operation) -> Value:
    labels = op.attribute("classlabels_strings") or op.attribute("classlabels_int64s") or ()
    return LabelledProbabilities(op.inputs[0], predicted_label(np.array(list(labels), object)).labels)


ML_OPERATORS: dict[str, Callable[[Operation], Value]] = {
    "ArrayFeatureExtractor": _array_feature_extractor,
    "FeatureVectorizer": _feature_vectorizer,
    "Imputer": _imputer,
    "LabelEncoder": _label_encoder,
    "OneHotEncoder": _one_hot_encoder,
    "Scaler": _scaler,
    "ZipMap": _zip_map,
}
