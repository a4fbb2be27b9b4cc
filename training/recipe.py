"""The recipe: the optimizer and the schedule that a job's `[train]` asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from model_store.nn import Module
from training.descent import Optimizer
from training.optimizers import OPTIMIZERS
from training.schedules import SCHEDULES, OnPlateau, Schedule, WarmUp
from training.settings import TrainSection

# What each takes beside the learning rate, the weight decay and the clipping.
OPTIMIZER_KEYS: Mapping[str, tuple[str, ...]] = {
    "sgd": ("momentum", "nesterov"),
    "rmsprop": ("momentum", "smoothing", "epsilon"),
    "adam": ("beta1", "beta2", "epsilon"),
    "adamw": ("beta1", "beta2", "epsilon"),
}
SCHEDULE_KEYS: Mapping[str, tuple[str, ...]] = {
    "constant": (),
    "step": ("epochs", "decay"),
    "cosine": ("lowest",),
    "one_cycle": ("rise", "first", "last"),
    "plateau": ("patience", "decay", "threshold", "rest", "lowest"),
}
# What a job gets that leaves them out, so that they can be read in the model's record.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "sgd": {"learning_rate": 0.01, "momentum": 0.9},
    "rmsprop": {"learning_rate": 0.01, "momentum": 0.0, "smoothing": 0.99},
    "adam": {"learning_rate": 0.001, "momentum": None, "beta1": 0.9, "beta2": 0.999},
    "adamw": {"learning_rate": 0.001, "momentum": None, "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.01},
}
_EVERY = ("learning_rate", "weight_decay", "clip_norm", "clip_value")


def optimizer(train: TrainSection, module: Module) -> Optimizer:
    """The optimizer of `module`'s parameters."""
    return OPTIMIZERS[train.optimizer](module, **_given(train, (*_EVERY, *OPTIMIZER_KEYS[train.optimizer])))


def schedule(train: TrainSection, score: Callable[[float], float]) -> Schedule | None:
    """The schedule, if there is one; `score` is what a plateau watches (see `OnPlateau`)."""
    wanted = train.schedule
    if wanted is None:
        return None
    found = SCHEDULES[wanted.name](**_given(wanted, SCHEDULE_KEYS[wanted.name]))
    if isinstance(found, OnPlateau):
        found.score = score
    return found if wanted.warm_up is None else WarmUp(wanted.warm_up, found)


def _given(section: object, keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key in keys if (value := getattr(section, key)) is not None}
