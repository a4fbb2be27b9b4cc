"""How a job file says by what the decision threshold of two classes is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model_store.utils.values import is_finite_number

METRICS = ("f1", "balanced_accuracy")
_ERRORS = {"false_positive", "false_negative"}  # the keys of a table of costs


def find_threshold_problem(rule: Any) -> str | None:
    """Return what is wrong with a job's value of a rule, or None."""
    wanted = "expected a number between 0 and 1, 'f1', 'balanced_accuracy', { precision = 0.9 } or { cost = { ... } }"
    if is_finite_number(rule):
        return None if 0 < rule < 1 else wanted
    if isinstance(rule, str):
        return None if rule in METRICS else wanted
    if not isinstance(rule, Mapping) or len(rule) != 1:
        return wanted
    ((name, goal),) = rule.items()
    if name == "precision":
        return None if is_finite_number(goal) and 0 < goal <= 1 else "expected a precision above 0, at most 1"
    if name != "cost":
        return wanted
    if (
        not isinstance(goal, Mapping)
        or set(goal) != _ERRORS
        or not all(is_finite_number(c) and c > 0 for c in goal.values())
    ):
        return "expected the costs { false_positive = 1, false_negative = 5 }, numbers above 0"
    return None
