"""The job of an estimator: what `train init` writes for a table of its size, changed by the estimator's parameters."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.config.defaults import OPTIMIZER_KEYS, default_patience
from training.config.recipe import recommend
from training.config.schema import validate
from training.config.settings import JobSettings, TrainSection
from training.config.toml_loader import set_key
from training.data.splitting import part_sizes
from training.errors import JobError
from training.pipeline.prepared_job import Job

# The keys of a job that `settings` may hold, besides those of [network] and [train].
DATA_KEYS = ("missing", "indicators", "unknown", "scale", "asinh", "target_transform", "label_threshold")
# What `train init` writes into [data].
_DATA = {
    "missing": "impute",
    "indicators": True,
    "optional": "all",
    "unknown": "bucket",
    "scale": "standard",
    "asinh": "skewed",
}
_PATH = "table.csv"  # stands for the table while the content is validated
_MIN_VALIDATED_ROWS = 20


def make_job(
    source: str,
    parameters: Mapping[str, Any],
    rows: int,
    columns: int,
    task: str,
    targets: Sequence[str],
    classes: NDArray[np.int64] | None,
    seed: int,
) -> Job:
    """Return the job. JobError names each key that is not valid.

    parameters: those of the estimator; None stands for the default of `train init`.
    rows, columns: of the table, by which the network and its training are chosen.
    classes: (n,) of a classification.
    """
    content: dict[str, Any] = tomllib.loads(recommend(rows, columns, task, fast=False))
    content["train"]["seed"] = seed
    _change_network(content["network"], parameters)
    _change_training(content["train"], parameters)
    stopping = content["train"].get("early_stopping") is not None
    share = _plain(parameters["validation_fraction"]) if stopping else 0.0
    content |= {
        "model": {"name": "model", "description": f"{', '.join(targets[:5])}, trained by {source}"},
        "data": {**_DATA, "path": _PATH, "target": list(targets), "task": task},
        "split": {
            "test": _plain(parameters["test_fraction"]),
            "validation": share if _can_hold_out(share, rows, classes) else 0.0,
        },
    }
    if task == "regression":
        content["split"]["stratify"] = True
    if task == "classification":
        content["data"]["target"] = targets[0]
    if parameters.get("kinds") is not None:
        content["data"]["kinds"] = dict(parameters["kinds"])
    for location, value in (parameters["settings"] or {}).items():
        section, _, key = str(location).partition(".")
        if section not in ("network", "train") and not (section == "data" and key in DATA_KEYS):
            raise ValueError(
                f"settings: expected keys of a job file such as 'train.label_smoothing', of [network], [train], or "
                f"of [data] {', '.join(DATA_KEYS)}; found {location!r}"
            )
        set_key(content, str(location), _plain(value))
    found = validate(content)
    if isinstance(found, list):
        raise JobError(source, found)
    data = replace(found.data, path=None, stream=False)
    return Job(replace(found, data=data), Path(), source)


def without_schedule(settings: JobSettings) -> JobSettings:
    """Return the settings of one pass over some rows: nothing is held out, and the learning rate stays as it is."""
    train: TrainSection = replace(
        settings.train, schedule=None, regularization_schedule=None, ensemble=None, early_stopping=None, epochs=1
    )
    return replace(settings, train=train, split=replace(settings.split, test=0.0, validation=0.0))


def _change_network(network: dict[str, Any], parameters: Mapping[str, Any]) -> None:
    """Change the hidden layers of the recipe: their sizes, activation and dropout. The layers before them stay."""
    layers = network["layers"]
    first = next(i for i, layer in enumerate(layers) if isinstance(layer, int))
    sizes = [layer for layer in layers if isinstance(layer, int)]
    activation, dropout = (
        layers[first + 1],
        next((one for one in layers if isinstance(one, dict) and "dropout" in one), None),
    )
    if parameters["hidden_layer_sizes"] is not None:
        sizes = list(np.atleast_1d(parameters["hidden_layer_sizes"]).tolist())
    if parameters["activation"] is not None:
        activation = parameters["activation"]
    if parameters["dropout"] is not None:
        dropout = {"dropout": _plain(parameters["dropout"])} if parameters["dropout"] else None
    hidden = [[size, activation, *([] if dropout is None else [dropout])] for size in sizes]
    network["layers"] = [*layers[:first], *(layer for group in hidden for layer in group)]


def _change_training(train: dict[str, Any], parameters: Mapping[str, Any]) -> None:
    optimizer = parameters["optimizer"]
    if optimizer is not None and optimizer != train["optimizer"]:
        others = {key for keys in OPTIMIZER_KEYS.values() for key in keys} - set(OPTIMIZER_KEYS.get(str(optimizer), ()))
        # At the rate of AdamW, RMSProp did not learn diabetes.
        if {optimizer, train["optimizer"]} != {"adam", "adamw"}:
            others.add("learning_rate")
        if train["optimizer"] == "adamw":  # whose decay is not added to the gradient, and so is far larger
            others |= {"weight_decay", "decay_factors"}
        for key in others:
            train.pop(key, None)
        train["optimizer"] = optimizer
    for name, key in (
        ("loss", "loss"),
        ("learning_rate", "learning_rate"),
        ("weight_decay", "weight_decay"),
        ("batch_size", "batch_size"),
        ("max_iter", "epochs"),
        ("class_weight", "class_weights"),
    ):
        if parameters.get(name) is not None:
            train[key] = _plain(parameters[name])
    if parameters["max_iter"] is not None:
        train["early_stopping"] = {"patience": default_patience(int(train["epochs"]))}
    if not parameters["early_stopping"]:
        del train["early_stopping"]
    elif parameters["n_iter_no_change"] is not None:
        train["early_stopping"] = {"patience": _plain(parameters["n_iter_no_change"])}
    ensemble = _plain(parameters["ensemble"])
    if ensemble == 1:
        train.pop("ensemble", None)
    elif ensemble is not None:
        train["ensemble"] = ensemble


def _can_hold_out(share: Any, rows: int, classes: NDArray[np.int64] | None) -> bool:
    """Return True if so large a share of the rows is a row or more, as `train init` decides."""
    if not isinstance(share, (int, float)) or not 0 < share < 1:
        return True  # the schema tells what is wrong with it
    counts = np.array([rows]) if classes is None else np.unique(classes, return_counts=True)[1]
    _, sizes = part_sizes(counts, 0.0, share, np.random.default_rng(0))
    return rows >= _MIN_VALIDATED_ROWS and bool(sizes.sum())


def _plain(value: Any) -> Any:
    """Return a value with the scalars and arrays of NumPy, as parameter grids have them, as those of Python."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value
