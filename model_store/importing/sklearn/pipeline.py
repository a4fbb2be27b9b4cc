"""scikit-learn: an MLPClassifier or MLPRegressor, alone or at the end of a pipeline.

A pickle (`.joblib`, `.pkl`) runs code when it is read, so the caller must trust it; `.skops` does not.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from model_store.errors import ModelImportError
from model_store.importing.budget import STEP_VALUES, Budget, BudgetError, shape_values, value_cost
from model_store.importing.features import (
    CategoryFeature,
    Feature,
    Features,
    NumberFeature,
    UnsupportedColumnError,
)
from model_store.importing.files import describe_source, missing_package, read_file
from model_store.importing.imported_model import Answers, ImportedModel
from model_store.importing.layers import Layers, UnsupportedLayerError, linear
from model_store.importing.sklearn.skops_file import load_skops
from model_store.importing.sklearn.transformers import (
    ENCODERS,
    TRANSFORMERS,
    Encoder,
    as_array,
    as_categories,
    category_names,
    is_missing,
    per_feature,
)
from model_store.nn import Array, Exp, Module, ReLU, Sigmoid, Softmax, Tanh
from model_store.utils.values import list_names

_MAX_DEPTH = 20
_MAX_LAYERS = 1000
_NO_CATEGORY = -(10**9)  # a number that stands for an unknown one where categories are numbers
_ACTIVATIONS: dict[str, Callable[[], Module] | None] = {
    "identity": None,
    "logistic": Sigmoid,
    "tanh": Tanh,
    "relu": ReLU,
    "softmax": Softmax,
    "exp": Exp,
}


def read_sklearn(path: Path, *, trust: bool) -> ImportedModel:
    """Return the model of a fitted pipeline. ModelImportError names the step that our columns or layers cannot do."""
    data = read_file(path)
    budget = Budget.of(len(data))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimator = (
            load_skops(path, data, budget) if path.suffix.lower() == ".skops" else _load_pickle(path, data, trust=trust)
        )
    try:
        import sklearn  # noqa: PLC0415
    except ImportError as error:
        raise missing_package(path, "scikit-learn", "sklearn") from error
    reader = _PipelineReader(str(path), budget)
    _run_in_one_process(estimator)
    try:
        features = _input_features(estimator, budget)
        value = reader.layers(estimator, features)
    except BudgetError as error:
        raise ModelImportError(f"{path} ({type(estimator).__name__}): {error}") from error
    except (TypeError, ValueError, LookupError, ArithmeticError) as error:  # of attributes of any type
        problem = f"expected an estimator as scikit-learn fits it; {type(error).__name__}: {error}"
        raise ModelImportError(f"{path} ({type(estimator).__name__}): {problem}") from error
    notes = sorted({f"scikit-learn warns: {one.message}" for one in caught if "ersion" in one.category.__name__})
    answers, answered_by = _answers(estimator, features, value, reader)
    if answers is None:
        notes.append("The answers were not compared with those of scikit-learn: names of columns need pandas.")
    source = describe_source("scikit-learn", path, data, f"scikit-learn {_version(estimator, sklearn.__version__)}")
    return ImportedModel.of(
        source,
        value,
        labels=reader.labels,
        is_multi_label=reader.is_multi_label,
        answers=answers,
        answered_by=f"{answered_by} {sklearn.__version__}",
        notes=tuple(note[:1000] for note in notes),
    )


def _load_pickle(path: Path, data: bytes, *, trust: bool) -> Any:
    if not trust:
        raise ModelImportError(
            f"{path}: expected --trust, because reading a pickle runs the code in it; trust only a file whose author "
            "you trust, or save the pipeline with skops.io.dump and import the .skops file"
        )
    try:
        import joblib  # noqa: PLC0415
    except ImportError as error:
        raise missing_package(path, "scikit-learn", "sklearn") from error
    try:
        return joblib.load(BytesIO(data))
    except Exception as error:  # a pickle may raise anything
        raise ModelImportError(f"{path}: expected a pickle that this Python can read; {error}") from error


def _run_in_one_process(estimator: Any) -> None:
    """Let no estimator start the processes that its file asks for, nor print, also those inside others."""
    rest, seen = [estimator], set()
    while rest:
        one = rest.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, list | tuple | dict):
            rest += one.values() if isinstance(one, dict) else one
        elif type(one).__module__.startswith("sklearn."):
            for name, value in (("n_jobs", None), ("verbose", False)):
                if hasattr(one, name):
                    setattr(one, name, value)
            rest += getattr(one, "__dict__", {}).values()


def _version(estimator: Any, default: str) -> str:
    state = estimator.__getstate__() if hasattr(estimator, "__getstate__") else None
    return str(state.get("_sklearn_version", default))[:50] if isinstance(state, dict) else default


def _input_features(estimator: Any, budget: Budget) -> Features:
    """Return the columns of a row: the names that the estimator was fitted with, else x0, x1, ..."""
    names = getattr(estimator, "feature_names_in_", None)
    if names is not None:
        budget.spend_columns(len(names))
        columns = tuple(map(str, names))
        return Features(tuple(NumberFeature(name) for name in columns), columns)
    count = getattr(estimator, "n_features_in_", None)
    if not isinstance(count, int | np.integer):
        fix = "fit it before you save it"
        raise ModelImportError(f"{type(estimator).__name__}: expected a fitted estimator, found another; {fix}")
    if count < 1:
        raise ModelImportError(f"{type(estimator).__name__}: expected at least one column, found {count}")
    budget.spend_columns(int(count))
    columns = tuple(f"x{i}" for i in range(int(count)))
    return Features(tuple(NumberFeature(name) for name in columns), columns, is_named=False)


class _PipelineReader:
    """Turns estimators into features and layers; each method names the step in its errors."""

    def __init__(self, location: str, budget: Budget) -> None:
        self.file = location
        self.budget = budget
        self.labels: list[str | int] | None = None
        self.is_multi_label = False
        self.is_binary = False  # True if the network has one output: the probability of the second label
        self.originals: dict[str, dict[str, Any]] = {}  # the categories of each column as scikit-learn has them

    def layers(self, estimator: Any, features: Features, location: str = "", depth: int = 0) -> Layers:
        """Return the network of an MLP, or of a pipeline that ends with one."""
        kind = self._kind(estimator, location)
        try:
            if kind == "Pipeline" and depth < _MAX_DEPTH:
                *steps, (name, last) = estimator.steps
                for step, transformer in steps:
                    features = self.transform(transformer, features, f"{location}{step}", depth + 1)
                return self.layers(last, features, f"{location}{name}.", depth + 1)
            if kind in {"MLPClassifier", "MLPRegressor"}:
                return self._network(estimator, features)
        except (UnsupportedColumnError, UnsupportedLayerError, BudgetError) as error:
            raise self._error(location, kind, str(error)) from error
        except AttributeError as error:
            raise self._error(location, kind, f"expected a fitted estimator, found none; {error}") from error
        fix = "end the pipeline with an MLPClassifier or an MLPRegressor"
        raise self._error(location, kind, f"expected an MLPClassifier or MLPRegressor; {fix}")

    def transform(self, estimator: Any, features: Features, location: str, depth: int = 0) -> Features:
        """Return what a transformer makes of the features, which the budget has before they are made."""
        self.budget.spend(value_cost(features))
        if estimator is None or (isinstance(estimator, str) and estimator == "passthrough"):
            return features
        kind = self._kind(estimator, location)
        try:
            if kind == "Pipeline" and depth < _MAX_DEPTH:
                for step, transformer in estimator.steps:
                    features = self.transform(transformer, features, f"{location}.{step}", depth + 1)
                return features
            if kind == "ColumnTransformer" and depth < _MAX_DEPTH:
                return self._column_transformer(estimator, features, location, depth)
            if kind in TRANSFORMERS:
                return TRANSFORMERS[kind](estimator, features)
            if kind in ENCODERS:
                return self._encoded(estimator, features, ENCODERS[kind])
            if hasattr(estimator, "get_support"):
                chosen = np.flatnonzero(per_feature(estimator.get_support(), features))
                return features.select(chosen.tolist())
        except (UnsupportedColumnError, BudgetError) as error:
            raise self._error(location, kind, str(error)) from error
        except AttributeError as error:
            raise self._error(location, kind, f"expected a fitted transformer, found none; {error}") from error
        known = list_names(sorted([*TRANSFORMERS, *ENCODERS, "ColumnTransformer", "Pipeline"]), 20)
        raise self._error(location, kind, f"expected one of {known}; replace it, or apply it before the model")

    def _kind(self, estimator: Any, location: str) -> str:
        kind = type(estimator)
        if not f"{kind.__module__}.".startswith("sklearn."):
            problem = f"expected an estimator of scikit-learn, found one of {kind.__module__}"
            raise self._error(location, kind.__name__, problem)
        return kind.__name__

    def _error(self, location: str, kind: str, problem: str) -> ModelImportError:
        step = location.rstrip(".")
        return ModelImportError(f"{self.file}: {f'step {step!r} ' if step else ''}({kind}): {problem}")

    def _column_transformer(self, estimator: Any, features: Features, location: str, depth: int) -> Features:
        parts: list[Features] = []
        names = [str(name) for name in getattr(estimator, "feature_names_in_", ())]
        positions = {name: position for position, name in reversed([*enumerate(names)])}
        for name, transformer, columns in estimator.transformers_:
            if isinstance(transformer, str) and transformer == "drop":
                continue
            self.budget.spend_features(len(features.items) if isinstance(columns, slice) else len(columns))
            chosen = features.select(_positions(columns, positions, len(features.items)))
            self.budget.spend(value_cost(chosen))
            if chosen.items:
                parts.append(self.transform(transformer, chosen, f"{location}.{name}", depth + 1))
        return parts[0].join(*parts[1:]) if parts else features.select([])

    def _encoded(self, estimator: Any, features: Features, encode: Encoder) -> Features:
        parts: list[Feature] = []
        for position, item in enumerate(features.items):
            categories = as_array(estimator.categories_[position])
            self.budget.spend_features(3 * shape_values(categories.shape))  # names, indicators and their weights
            originals, names = category_names(item, categories)
            self.originals.setdefault(item.column, {}).update(originals)
            parts += encode(estimator, position, as_categories(item, names))
        return Features(tuple(parts), features.names, features.is_named)

    def _network(self, estimator: Any, features: Features) -> Layers:
        value: Any = features
        dtype = estimator.coefs_[0].dtype
        dtype = dtype if dtype in (np.float32, np.float64) else np.dtype(np.float64)
        last = len(estimator.coefs_) - 1
        if last >= _MAX_LAYERS:
            raise UnsupportedLayerError(f"expected {_MAX_LAYERS} layers at most, found {last + 1}")
        self.budget.spend(STEP_VALUES * as_array(estimator.coefs_[0]).shape[-1] * _terms(features))
        for i, (weights, bias) in enumerate(zip(estimator.coefs_, estimator.intercepts_, strict=True)):
            weights = as_array(weights)
            self.budget.spend(2 * shape_values(weights.shape))  # of float64 before they are of the layer's type
            value = linear(value, weights.T, as_array(bias), dtype)
            name = estimator.out_activation_ if i == last else estimator.activation
            if name not in _ACTIVATIONS:
                raise UnsupportedLayerError(f"expected one of {list_names(list(_ACTIVATIONS))}; found {name!r}")
            activation = _ACTIVATIONS[name]
            value = value if activation is None else value.then(activation())
        layers: Layers = value
        if type(estimator).__name__ == "MLPClassifier":
            self.budget.spend_features(as_array(estimator.classes_).size)
            self.labels = [_plain_label(label) for label in as_array(estimator.classes_).tolist()]
            self.is_multi_label = estimator.out_activation_ == "logistic" and estimator.n_outputs_ > 1
            self.is_binary = estimator.n_outputs_ == 1
        return layers


def _terms(features: Features) -> int:
    """Return the encoded features and weights of the features at most: what each output of the first layer has."""
    found = [item for item in features.items if isinstance(item, CategoryFeature)]
    categories = {id(item.categories): len(item.categories) + 1 for item in found}
    return len(features.items) + sum(len(item.weights) for item in found) + sum(categories.values())


def _plain_label(label: Any) -> str | int:
    if isinstance(label, float) and label.is_integer():
        return int(label)
    return label if type(label) in (str, int) else str(label)


def _positions(columns: Any, names: Mapping[str, int], count: int) -> list[int]:
    """Return the positions of a transformer's columns: names, numbers, a slice or a mask."""
    if isinstance(columns, str):
        raise UnsupportedColumnError(f"expected a list of columns, found {columns!r}; write [{columns!r}]")
    if isinstance(columns, slice):
        if isinstance(columns.start, str) or isinstance(columns.stop, str):
            raise UnsupportedColumnError("expected a list of columns, found a slice of names; list them")
        return list(range(count))[columns]
    chosen = list(columns)
    if chosen and all(isinstance(one, bool | np.bool_) for one in chosen):
        return [position for position, one in enumerate(chosen) if one]
    return [names[one] if isinstance(one, str) else int(one) % count for one in chosen]


def _answers(estimator: Any, features: Features, value: Layers, reader: _PipelineReader) -> tuple[Answers | None, str]:
    """Return scikit-learn's own answers for rows; None if the estimator wants names and pandas is missing."""
    method = "predict_proba" if reader.labels is not None else "predict"
    answered_by = f"{type(estimator).__name__}.{method} of scikit-learn"
    if features.is_named:
        try:
            import pandas as pd  # noqa: PLC0415
        except ImportError:
            return None, answered_by
    positions = {column.name: position for position, column in enumerate(value.inputs)}

    def answers(rows: list[Any], encoded: Array) -> Array:
        table: Any
        if value.plain:  # other columns, such as scaled ones, may have been given; the network gets their encoding
            table = encoded if not features.is_named else pd.DataFrame(dict(zip(positions, encoded.T, strict=True)))
        else:
            columns = {
                name: [_source_value(row[positions[name]], reader.originals.get(name)) for row in rows]
                if name in positions
                else [math.nan] * len(rows)
                for name in features.names
            }
            dtype = object if reader.originals else np.float64
            table = pd.DataFrame(columns) if features.is_named else np.array(list(columns.values()), dtype).T
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of unknown categories
            found = np.asarray(getattr(estimator, method)(table))
        return found[:, 1:] if reader.is_binary else found

    return answers, answered_by


def _source_value(value: Any, originals: Mapping[str, Any] | None) -> Any:
    """Return a value of a row as scikit-learn has it."""
    if value is None:
        return math.nan
    if originals is None or value in originals:
        return value if originals is None else originals[value]
    are_numbers = any(isinstance(one, int | float) and not is_missing(one) for one in originals.values())
    return _NO_CATEGORY if are_numbers else value
