"""The keys and defaults of `[train]`, by optimizer and by schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
    "plateau": ("patience", "decay", "threshold", "cooldown", "lowest"),
}
# What a job gets that leaves them out, so that they can be read in the model's record.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "sgd": {"learning_rate": 0.01, "momentum": 0.9},
    "rmsprop": {"learning_rate": 0.01, "momentum": 0.0, "smoothing": 0.99},
    "adam": {"learning_rate": 0.001, "momentum": None, "beta1": 0.9, "beta2": 0.999},
    "adamw": {"learning_rate": 0.001, "momentum": None, "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.01},
}
