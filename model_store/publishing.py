"""Publishing a network of one's own: from arrays and a trained network to a version that the service answers with.

    signature = make_signature(x_train, columns=["length", "width"], labels=["rose", "lily"])
    version = publish(open_store("models"), "flowers", network, signature)

A model file holds the layers of the table in nn/from_config.py and no code, so layers of one's own are refused.
"""

from __future__ import annotations

import math
import operator
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from model_store.artifact.golden_rows import golden_count, make_up_rows
from model_store.artifact.mean_row import mean_of_rows
from model_store.artifact.model import Golden, Model
from model_store.errors import StoreError
from model_store.nn import LAYERS, Array, Module, Sequential, Sigmoid, Softmax
from model_store.registry.store import Store, Version, open_store
from model_store.report.page import render
from model_store.schema.columns.base import Column
from model_store.schema.columns.decile_statistics import decile_statistics
from model_store.schema.signature import (
    ArrayColumn,
    ClassificationOutput,
    MultiLabelOutput,
    NumberColumn,
    RegressionOutput,
    Signature,
)
from model_store.schema.target_transform import TargetTransform
from model_store.utils.values import describe_value

__all__ = ["make_signature", "open_store", "publish"]


def make_signature(
    x: npt.ArrayLike | None = None,
    *,
    shape: Sequence[int] | None = None,
    columns: Sequence[str] | None = None,
    offset: npt.ArrayLike = 0.0,
    scale: npt.ArrayLike = 1.0,
    labels: Sequence[str | int] | None = None,
    multi_label: bool = False,
    targets: str | Sequence[str] | None = None,
    target_offset: npt.ArrayLike = 0.0,
    target_scale: npt.ArrayLike = 1.0,
    target_transform: Literal["log", "log1p"] | None = None,
    name: str | None = None,
) -> Signature:
    """Return the signature of rows of numbers: what callers send, and what the network's outputs mean.

    x: training rows as callers send them, (rows, features) or (rows, height, width, channels), before any scaling. The
        signature keeps statistics of them, for warnings and drift, and no row. Without x, `shape` is that of one row.
    columns: a name for each feature. Without them the input is one array, such as an image.
    offset, scale: the network gets `(value - offset) / scale`: numbers, or with `columns` one for each of them.
    labels: the classes, in the order of the network's outputs; or for two classes of its only output, the probability
        of the second. `name` is that of the output, "class" by default.
    multi_label: True if a row may have any number of the labels, which are texts: those with a probability of at least
        0.5 are predicted. The network has an output for each label, and `name` is "labels" by default.
    targets: instead of labels, the names of the outputs of a regression; their values are `output * target_scale +
        target_offset`. With a `target_transform`, these are logarithms of the targets (or of 1 + the targets), which
        predictions are not.

    ValueError for what does not fit together. Other kinds of columns, such as categories, are in
    `model_store.schema.columns`; a `Signature` takes any.
    """
    if isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
        raise ValueError("make_signature.x: expected numbers, found masked values; fill them in, or leave the rows out")
    if x is not None and (found := np.asarray(x).dtype).kind not in "biufO":  # NumPy drops imaginary parts
        raise ValueError(f"make_signature.x: expected numbers, found {found}; encode them as numbers")
    rows = None if x is None else np.asarray(x, np.float64)
    if rows is None and shape is None:
        raise ValueError("make_signature: expected training rows or the shape of one, found neither; pass x or shape")
    if rows is not None and (rows.ndim < 2 or not rows.size or not np.isfinite(rows).all()):
        raise ValueError(f"make_signature.x: expected finite numbers (rows, features), found shape {rows.shape}")
    row_shape = tuple(int(size) for size in shape or ()) if rows is None else rows.shape[1:]
    inputs: list[Column]
    if columns is None:
        fitted_offset, fitted_scale = _one_number("offset", offset), _one_number("scale", scale)
        inputs = [ArrayColumn("x", row_shape, fitted_offset, fitted_scale, statistics=_array_statistics(rows))]
    else:
        if row_shape != (len(columns),):
            expected = f"{row_shape[0]} names" if len(row_shape) == 1 else f"none for rows of shape {row_shape}"
            raise ValueError(f"make_signature.columns: expected {expected}, found {len(columns)}")
        _check_different("columns", columns)
        offsets, scales = _numbers("offset", offset, len(columns)), _numbers("scale", scale, len(columns))
        inputs = [
            NumberColumn(str(column), offsets[i], scales[i], None, _number_statistics(rows, i))
            for i, column in enumerate(columns)
        ]
    if (labels is None) == (targets is None):
        given = "neither" if labels is None else "both"
        fix = "labels are the classes of a classification, targets the outputs of a regression"
        raise ValueError(f"make_signature: expected labels or targets, found {given}; {fix}")
    if multi_label and labels is None:
        raise ValueError("make_signature: multi_label is for labels, found targets; pass labels")
    if labels is not None:
        classes = tuple(_plain(label) for label in labels)
        if len(classes) < 2:
            raise ValueError(f"make_signature.labels: expected two different labels or more, found {len(classes)}")
        _check_different("labels", classes)
        if multi_label:
            return Signature(tuple(inputs), MultiLabelOutput(name or "labels", tuple(map(str, classes))))
        return Signature(tuple(inputs), ClassificationOutput(name or "class", classes))
    names = (targets,) if isinstance(targets, str) else tuple(str(target) for target in targets or ())
    _check_different("targets", names)
    target_offsets = _numbers("target_offset", target_offset, len(names))
    target_scales = _numbers("target_scale", target_scale, len(names))
    if target_transform not in (None, "log", "log1p"):
        raise ValueError(f"make_signature.target_transform: expected 'log' or 'log1p', found {target_transform!r}")
    transform = None if target_transform is None else TargetTransform(target_transform)
    return Signature(
        tuple(inputs), RegressionOutput(names, tuple(target_offsets), tuple(target_scales), transform=transform)
    )


def publish(
    store: Store | str | os.PathLike[str],
    name: str,
    network: Module,
    signature: Signature,
    *,
    description: str = "",
    metrics: Mapping[str, Any] | None = None,
    examples: Sequence[Any] | Array | None = None,
    baseline: Sequence[Any] | Array | None = None,
    who: str | None = None,
    when: datetime | None = None,
) -> Version:
    """Publish a trained network as the next version of `name`, with its report. Return the version.

    store: a store, or its directory or URL as `open_store` takes it.
    metrics: to show, compare and gate promotions by: names and finite numbers, or what
        `training.evaluation.metrics.evaluate` returns, with "rows" and "of", the rows that they were measured on.
    examples: rows as callers send them, of which the first 8 become golden rows: every machine that loads the model
        checks that it reproduces its outputs for them, and the service shows the first one. By default rows are made up
        from the signature's statistics, so that the file holds no row of the data.
    baseline: rows as callers send them, such as the training rows. Their mean, as the network takes them, is kept:
        explanations compare answers with it. By default the means of a signature's numbers, if it has them of all
        columns, as that of `make_signature(x, columns=...)` does; else a request must send a row to compare with.
    who, when: recorded beside the version; by default the current user and the current time.

    ValueError if network, signature and metrics do not fit together, InputError for examples that do not fit the
    signature, ArtifactError for what a model file cannot hold, StoreError if the store cannot be written. Nothing is
    published then.
    """
    store = store if isinstance(store, Store) else open_store(store)
    _check_signature(signature)
    served = _servable(network)
    _check_ending(served, signature)
    model = Model(served, signature, description, {"metrics": _checked_metrics(metrics)} if metrics else {})
    rows = _mean_instance(signature) if baseline is None else baseline
    answers = None if rows is None else mean_of_rows(model, rows, "baseline")
    return publish_model(store, name, replace(model, answers=answers), examples=examples, who=who, when=when)


def publish_model(
    store: Store,
    name: str,
    model: Model,
    *,
    examples: Sequence[Any] | Array | None = None,
    who: str | None = None,
    when: datetime | None = None,
) -> Version:
    """Publish a model without golden rows as the next version of `name`, with its report; see `publish`."""
    rows = make_up_rows(model.signature, np.random.default_rng(0)) if examples is None else _first_rows(examples)
    outputs = model.network(model.encode(rows, "examples"))
    if not np.isfinite(outputs).all():
        raise ValueError("publish.network: expected finite outputs for the example rows, found others; train it again")
    model = replace(model, golden=Golden(rows, outputs))
    version = store.publish(name, model, who=who, when=when)
    reference = f"{version.name}/{version.number}"
    try:
        store.add_report(version, render(model, reference, version.digest))
    except StoreError as error:
        raise StoreError(f"{reference} is published, but not its report: {error}") from error
    return version


def _mean_instance(signature: Signature) -> list[Any] | None:
    """Return a row of the means of a signature's columns, None unless all are numbers whose means are known."""
    means = [
        column.statistics.get("mean") if isinstance(column, NumberColumn) and column.statistics else None
        for column in signature.inputs
    ]
    return None if None in means else [means]


def _check_different(argument: str, names: Sequence[Any]) -> None:
    """Raise ValueError for a name that occurs twice, as text, since that is how callers see it."""
    twice = [text for text, count in Counter(map(str, names)).items() if count > 1]
    if twice:
        raise ValueError(f"make_signature.{argument}: expected different names, found {twice[0]!r} twice")


def _check_signature(signature: Any) -> None:
    if not isinstance(signature, Signature):
        found = type(signature).__name__
        raise ValueError(f"publish.signature: expected a Signature, found {found}; make one with make_signature")


def _servable(network: Module) -> Sequential:
    """Return the network with nested ones unfolded. ValueError names a layer that a model file cannot hold."""
    if not isinstance(network, Sequential):
        raise ValueError(f"publish.network: expected a Sequential, found {type(network).__name__}; put it into one")
    modules = list(_unfolded(network, "modules"))
    if not any(module.parameters() for module in modules):
        raise ValueError("publish.network: expected at least one layer with weights, such as Linear; found none")
    if network.dtype not in (np.float32, np.float64):
        fix = "build the network with dtype=np.float32"
        raise ValueError(f"publish.network: expected float32 or float64, found {network.dtype}; {fix}")
    return network if all(map(operator.is_, modules, network.modules)) else Sequential(modules)


def _unfolded(network: Sequential, location: str) -> list[Module]:
    modules: list[Module] = []
    for i, module in enumerate(network.modules):
        kind = type(module)
        if kind is Sequential and isinstance(module, Sequential):
            modules += _unfolded(module, f"{location}.{i}.modules")
        elif LAYERS.get(kind.__name__) is kind:
            modules.append(module)
        else:
            raise ValueError(
                f"{location}.{i}: expected a layer that a model file can hold, found {kind.__qualname__} of "
                f"{kind.__module__}; a model file holds no code, so use {', '.join(LAYERS)}"
            )
    return modules


def _check_ending(network: Sequential, signature: Signature) -> None:
    """Raise ValueError if a classifier's outputs are not probabilities."""
    if isinstance(signature.output, RegressionOutput):
        return
    each_alone = isinstance(signature.output, MultiLabelOutput) or network.output_size == 1
    expected = Sigmoid if each_alone else Softmax
    if not isinstance(network.modules[-1], expected):
        raise ValueError(
            f"modules.{len(network.modules) - 1}: expected a {expected.__name__} at the end, for probabilities of the "
            f"labels; found {type(network.modules[-1]).__name__}; add {expected.__name__}()"
        )


def _checked_metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics as a manifest holds them: a gate knows numbers, in groups such as "classes" too."""
    return {str(key): _checked_metric(value, str(key), f"publish.metrics.{key}") for key, value in metrics.items()}


def _checked_metric(value: Any, key: str, location: str) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _checked_metric(part, str(name), f"{location}.{name}") for name, part in value.items()}
    plain = _plain(value)
    if (key == "of" and isinstance(plain, str)) or (key in {"mistakes", "confusion"} and isinstance(plain, list)):
        return plain  # what `evaluate` returns beside its numbers
    if plain is None and (location.count(".") > 2 or key == "roc_auc"):  # a target without variance has no r2
        return plain
    if type(plain) not in {int, float} or not math.isfinite(plain):
        fix = "leave out what is not measured"
        raise ValueError(f"{location}: expected a finite number, found {describe_value(plain)}; {fix}")
    return plain


def _first_rows(examples: Sequence[Any] | Array) -> list[Any]:
    width = math.prod(np.shape(examples)[1:]) if isinstance(examples, np.ndarray) else 1
    rows = examples[: golden_count(width)]
    found: list[Any] = rows.tolist() if isinstance(rows, np.ndarray) else list(rows)
    if not found:
        raise ValueError("publish.examples: expected a row or more, found none; leave them out to have rows made up")
    return found


def _number_statistics(rows: Array | None, column: int) -> dict[str, Any]:
    """Return the statistics of a column of numbers as training jobs record them."""
    if rows is None:
        return {}
    values = rows[:, column]
    return {**_summary(values), "missing": 0, **decile_statistics(values)}


def _array_statistics(rows: Array | None) -> dict[str, Any]:
    if rows is None:
        return {}
    means = rows.reshape(len(rows), -1).mean(axis=1)
    return {**_summary(rows), "count": len(rows), "means": decile_statistics(means)}


def _summary(values: Array) -> dict[str, Any]:
    low, high = float(values.min()), float(values.max())
    mean = min(max(float(values.mean()), low), high)
    return {
        "count": values.size,
        "mean": mean,
        "std": float(values.std()) if low < high else 0.0,
        "min": low,
        "max": high,
    }


def _numbers(argument: str, given: npt.ArrayLike, count: int) -> list[float]:
    """Return a number for each of `count` columns. ValueError for others than finite ones, and scales above 0."""
    found = np.asarray(given, np.float64)
    if found.shape not in ((), (count,)) or not np.isfinite(found).all():
        raise ValueError(f"make_signature.{argument}: expected one number or {count}, all finite; found {given!r}")
    if argument.endswith("scale") and not (found > 0).all():
        fix = "a column with one value has no scale: use 1"
        raise ValueError(f"make_signature.{argument}: expected numbers above 0, found {found.min():g}; {fix}")
    numbers: list[float] = np.broadcast_to(found, (count,)).tolist()
    return numbers


def _one_number(argument: str, given: npt.ArrayLike) -> float:
    if np.ndim(given):
        fix = "name the columns to scale each by its own"
        raise ValueError(f"make_signature.{argument}: expected one number for an array, found {np.shape(given)}; {fix}")
    return _numbers(argument, given, 1)[0]


def _plain(value: Any) -> Any:
    """Return a scalar of NumPy as Python's."""
    return value.item() if isinstance(value, np.generic) else value
