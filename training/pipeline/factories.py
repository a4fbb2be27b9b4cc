"""Factories: the optimizer, the schedule and the class weights of a job's `[train]` section."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from model_store.errors import Fault, did_you_mean
from model_store.nn import Array, Module
from model_store.utils.values import list_names
from training.config.defaults import OPTIMIZER_KEYS, SCHEDULE_KEYS, default_patience
from training.config.settings import ScheduleSection, TrainSection
from training.errors import JobError
from training.optim.base import Optimizer
from training.optim.lr_schedulers import SCHEDULES, OnPlateau, Schedule, StepDecay, WarmUp
from training.optim.optimizers import OPTIMIZERS
from training.optim.parameter_groups import group_factors, ntk_factors

_SHARED_OPTIMIZER_KEYS = ("learning_rate", "weight_decay", "clip_norm", "clip_value")


def make_optimizer(section: TrainSection, module: Module, parametrization: str | None = None) -> Optimizer:
    """Return the optimizer of `module`'s parameters.

    A group's learning rate is multiplied by its factor, and its decay by that and its own. The parametrization changes
    the learning rate alone.
    """
    keys = (*_SHARED_OPTIMIZER_KEYS, *OPTIMIZER_KEYS[section.optimizer])
    options = _set_keys(section, keys)
    groups = group_factors(module, section.rate_factors or {})
    if section.rate_factors is not None or parametrization == "ntk":
        normalized = section.optimizer != "sgd"
        own = ntk_factors(module, normalized=normalized) if parametrization == "ntk" else [1.0] * len(groups)
        options["rate_factors"] = [rate * factor for rate, factor in zip(groups, own, strict=True)]
    if section.rate_factors is not None or section.decay_factors is not None:
        own = group_factors(module, section.decay_factors or {})
        options["decay_factors"] = [rate * factor for rate, factor in zip(groups, own, strict=True)]
    return OPTIMIZERS[section.optimizer](module, **options)


def make_schedule(settings: ScheduleSection | None, score: Callable[[float], float] | None = None) -> Schedule | None:
    """Return the schedule, or None for a constant factor; `score` is the value that a plateau watches (`OnPlateau`)."""
    if settings is None:
        return None
    schedule = SCHEDULES[settings.name](**_set_keys(settings, SCHEDULE_KEYS[settings.name]))
    if isinstance(schedule, OnPlateau):
        schedule.score = score
    return schedule if settings.warm_up is None else WarmUp(settings.warm_up, schedule)


def make_class_weights(
    section: TrainSection, labels: Sequence[str | int], counts: Array, source: str = "job"
) -> tuple[float, ...] | None:
    """Return the weight of each class, or None; `counts` are the training rows of each. JobError for unknown classes.

    Balanced weights are `n / (k·counts)`, for n rows of k classes: all classes then have the same total weight, and a
    row has a weight of 1 on average.
    """
    weights = section.class_weights
    if weights is None:
        return None
    location = "train.class_weights"
    if not labels:
        raise JobError(source, [Fault(location, "only for classifications, found a regression", "remove it")])
    if isinstance(weights, str):
        balanced: list[float] = (counts.sum() / (len(labels) * counts)).tolist()
        return tuple(balanced)
    names = [str(label) for label in labels]
    faults = []
    for name in weights:
        if name not in names:
            fix = did_you_mean(name, names) or f"the classes are {list_names(names)}"
            faults.append(Fault(f"{location}.{name}", f"unknown class '{name}'", fix))
    if faults:
        raise JobError(source, faults)
    return tuple(float(weights.get(name, 1)) for name in names)


def make_label_weights(
    section: TrainSection, labels: Sequence[str | int], counts: Array, rows: int, source: str = "job"
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return the weight of rows without and with each label, (2, labels), or None; `counts` of the `rows` have it.

    Balanced weights are those of two classes for each label. Weights in the job are of rows with a label. JobError for
    unknown ones.
    """
    if section.class_weights is None:
        return None
    if isinstance(section.class_weights, str):
        both = np.maximum(1, [rows - counts, counts])  # of a label that no row or every row has, one is not used
        negative, positive = (rows / (2 * both)).tolist()
        return tuple(negative), tuple(positive)
    weights = make_class_weights(section, labels, counts, source)
    return None if weights is None else ((1.0,) * len(labels), weights)


def find_idle_settings(section: TrainSection) -> list[str]:
    """Return a warning for each setting that waits longer than the training lasts, and so has no effect."""
    epochs, found = section.epochs, []
    stopping, schedule = section.early_stopping, make_schedule(section.schedule)
    if stopping is not None and stopping.patience >= epochs:
        found.append(
            f"early_stopping: a patience of {stopping.patience} never ends a training of {epochs} epochs; lower it, "
            f"for example to {default_patience(epochs)} (the best weights are kept either way)"
        )
    if isinstance(schedule, WarmUp) and schedule.epochs >= epochs:
        found.append(
            f"schedule: a warm_up of {schedule.epochs:g} lasts the whole training of {epochs} epochs; lower it"
        )
    schedule = schedule.then if isinstance(schedule, WarmUp) else schedule
    if isinstance(schedule, StepDecay) and schedule.epochs >= epochs:
        found.append(
            f"schedule: step changes the rate after {schedule.epochs} epochs, found {epochs}; lower its epochs"
        )
    if isinstance(schedule, OnPlateau) and schedule.patience >= epochs:
        found.append(f"schedule: a patience of {schedule.patience} never changes the rate in {epochs} epochs; lower it")
    return found


def _set_keys(section: object, keys: tuple[str, ...]) -> dict[str, Any]:
    """Return those of the keys that are not None."""
    return {key: value for key in keys if (value := getattr(section, key)) is not None}
