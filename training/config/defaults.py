"""The keys of `[train]` that belong to one optimizer or schedule, and the optimizers' defaults.

Both are those of the classes' constructors.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from training.optim.lr_schedulers import SCHEDULES
from training.optim.optimizers import OPTIMIZERS, AdamW

_NOT_RECORDED = ("nesterov", "epsilon")  # unless the job sets them


def _parameters(kind: Callable[..., Any], shared: tuple[str, ...]) -> dict[str, Any]:
    """The parameters of a class with their defaults, without those that all such classes `share`."""
    found = inspect.signature(kind).parameters.values()
    return {one.name: one.default for one in found if one.name not in shared}


# What each takes beside the learning rate, the weight decay and the clipping.
OPTIMIZER_KEYS: Mapping[str, tuple[str, ...]] = {
    name: tuple(_parameters(kind, ("module", "learning_rate", "options"))) for name, kind in OPTIMIZERS.items()
}
SCHEDULE_KEYS: Mapping[str, tuple[str, ...]] = {
    name: tuple(_parameters(kind, ("score",))) for name, kind in SCHEDULES.items()
}
# What a job gets that leaves them out, so that they can be read in the model's record.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    name: {
        **_parameters(kind, ("module", "options", *_NOT_RECORDED)),
        **({"weight_decay": AdamW.default_weight_decay} if kind is AdamW else {}),
    }
    for name, kind in OPTIMIZERS.items()
}
