"""The keys of `[train]` that belong to one optimizer or schedule, and the optimizers' defaults.

Both are read from the constructors of the classes, so each default is written once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from training.optim.lr_schedulers import SCHEDULES
from training.optim.optimizers import OPTIMIZERS, AdamW

_UNRECORDED_DEFAULTS = ("nesterov", "epsilon")  # in the model's record, unless the job sets them


# What early stopping may watch instead of the loss, and whether higher is better.
CLASS_METRICS = {"accuracy": True, "macro_f1": True, "log_loss": False, "roc_auc": True}
LABEL_METRICS = {
    "exact_match": True,
    "hamming_loss": False,
    "micro_f1": True,
    "macro_f1": True,
    "log_loss": False,
    "roc_auc": True,
}
QUANTITY_METRICS = {"rmse": False, "mae": False, "r2": True}
LOSS_METRICS = {  # of a regression with this loss
    "poisson": {"poisson_deviance": False, "d2": True},
    "gamma": {"gamma_deviance": False, "d2": True},
    "pinball": {"pinball_loss": False, "d2": True},
}
METRIC_DIRECTIONS: Mapping[str, bool] = dict(
    item for group in (CLASS_METRICS, LABEL_METRICS, QUANTITY_METRICS, *LOSS_METRICS.values()) for item in group.items()
)


def default_patience(epochs: int) -> int:
    """Return how many epochs early stopping waits in a job of at most `epochs` epochs: a quarter of them, 1 to 20."""
    return max(1, min(20, epochs // 4))


def _constructor_defaults(constructor: Callable[..., Any], excluded: tuple[str, ...]) -> dict[str, Any]:
    """Return a constructor's parameters with their defaults, without the `excluded` ones."""
    parameters = inspect.signature(constructor).parameters.values()
    return {one.name: one.default for one in parameters if one.name not in excluded}


# The keys of each optimizer in addition to the learning rate, the weight decay and gradient clipping.
OPTIMIZER_KEYS: Mapping[str, tuple[str, ...]] = {
    name: tuple(_constructor_defaults(kind, ("module", "learning_rate", "options")))
    for name, kind in OPTIMIZERS.items()
}
SCHEDULE_KEYS: Mapping[str, tuple[str, ...]] = {
    name: tuple(_constructor_defaults(kind, ("score",))) for name, kind in SCHEDULES.items()
}
# Filled into a job's settings, so that the model's record shows them.
OPTIMIZER_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    name: {
        **_constructor_defaults(kind, ("module", "options", *_UNRECORDED_DEFAULTS)),
        **({"weight_decay": AdamW.default_weight_decay} if kind is AdamW else {}),
    }
    for name, kind in OPTIMIZERS.items()
}
