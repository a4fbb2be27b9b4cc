"""The optimizer, the schedule and the class weights that a job's `[train]` asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from model_store.errors import Fault, did_you_mean
from model_store.nn import Array, Module
from training.config.defaults import OPTIMIZER_KEYS, SCHEDULE_KEYS
from training.config.settings import TrainSection
from training.errors import JobError
from training.optim.base import Optimizer
from training.optim.lr_schedulers import SCHEDULES, OnPlateau, Schedule, WarmUp
from training.optim.optimizers import OPTIMIZERS

_EVERY = ("learning_rate", "weight_decay", "clip_norm", "clip_value")


def optimizer(train: TrainSection, module: Module) -> Optimizer:
    """The optimizer of `module`'s parameters."""
    return OPTIMIZERS[train.optimizer](module, **_given(train, (*_EVERY, *OPTIMIZER_KEYS[train.optimizer])))


def schedule(train: TrainSection, score: Callable[[float], float]) -> Schedule | None:
    """The schedule, if there is one; `score` is what a plateau watches (see `OnPlateau`)."""
    expected = train.schedule
    if expected is None:
        return None
    found = SCHEDULES[expected.name](**_given(expected, SCHEDULE_KEYS[expected.name]))
    if isinstance(found, OnPlateau):
        found.score = score
    return found if expected.warm_up is None else WarmUp(expected.warm_up, found)


def class_weights(
    train: TrainSection, labels: Sequence[str | int], counts: Array, source: str = "job"
) -> tuple[float, ...] | None:
    """The weight of each class, if there are any; `counts` are the training rows of each.

    Balanced is `n / (k·counts)`, n rows of k classes: every class then has the same say, and a row 1 in the mean.
    """
    expected = train.class_weights
    if expected is None:
        return None
    location = "train.class_weights"
    if not labels:
        raise JobError(source, [Fault(location, "is for classifications; found a regression", "leave it out")])
    if isinstance(expected, str):
        balanced: list[float] = (counts.sum() / (len(labels) * counts)).tolist()
        return tuple(balanced)
    names = [str(label) for label in labels]
    faults = [
        Fault(
            f"{location}.{name}", "there is no such class", did_you_mean(name, names) or f"there are {', '.join(names)}"
        )
        for name in expected
        if name not in names
    ]
    if faults:
        raise JobError(source, faults)
    return tuple(float(expected.get(name, 1)) for name in names)


def _given(section: object, keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key in keys if (value := getattr(section, key)) is not None}
