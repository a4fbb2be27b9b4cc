"""Suspects: columns that tell too much, or nothing, and classes that no held-out row has. A column that alone all but
gives the answer away is rarely there when a model is asked: it was filled in afterwards, or is the target in other
words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.schema.signature import CategoryColumn, Signature

FEWEST_ROWS = 50  # among fewer, chance alone finds a column
MOST_ROWS = 100_000  # that are looked at
_CLASSES_WRONG = 0.005  # of the rows, and no more than a tenth of what the most frequent class gets wrong
_NAMED = 5  # classes
_UNEXPLAINED = 0.001  # of the variance of a quantity's ranks


def suspects(inputs: Mapping[str, NDArray[Any]], answers: NDArray[Any], classes: bool) -> list[str]:
    """A warning for each column of numbers or categories by which alone the target is known, arrays apart.

    The rows are sorted by the column. Where it gives the target away, a row's answer is that of a neighbour.
    """
    step = max(1, len(answers) // MOST_ROWS)
    shuffled = np.random.default_rng(0).permutation(len(answers))[: len(answers) // step]  # equal values: in any order
    if len(shuffled) < FEWEST_ROWS:
        return []
    targets = answers[shuffled].reshape(len(shuffled), -1)
    warnings = []
    for name, values in inputs.items():
        if values.ndim > 1:
            continue
        ranked = targets[np.argsort(_sortable(values[shuffled]), kind="stable")]
        if told := _classes_told(ranked) if classes else _quantities_told(ranked):
            warnings.append(
                f"column {name} is suspiciously good: {told} by it alone. If its values are not known "
                "when the model is asked, leave it out: list the others as data.columns"
            )
    return warnings


def constants(signature: Signature) -> list[str]:
    """A note for each column that was the same in every training row."""
    return [
        f"column {column.name} has one value in all training rows: it tells the network nothing"
        for column in signature.inputs
        if (len(column.categories) == 1 if isinstance(column, CategoryColumn) else column.statistics["std"] == 0)
    ]


def channels_first(shape: Sequence[int]) -> list[str]:
    """A note where images that are convolved look as other libraries keep them, (channels, height, width)."""
    if len(shape) != 3 or shape[0] not in (1, 3, 4) or min(shape[1:]) <= 4:
        return []
    height, width, channels = shape
    return [
        f"images are taken as {height} high and {width} wide, with {channels} channels; "
        "if the channels come first, save np.moveaxis(x, 1, -1)"
    ]


def unjudged(labels: Sequence[str | int], answers: NDArray[Any]) -> list[str]:
    """A note of the classes that none of the rows held out has; `answers` are theirs."""
    absent = [
        repr(label) for label, rows in zip(labels, np.bincount(answers, minlength=len(labels)), strict=True) if not rows
    ]
    if not absent or not len(answers):
        return []
    names = ", ".join(absent[:_NAMED]) + (", ..." if len(absent) > _NAMED else "")
    classes = f"class {names} has" if len(absent) == 1 else f"{len(absent)} classes have"
    shown = "" if len(absent) == 1 else f" ({names})"
    return [f"{classes} no row among those held out{shown}: the metrics do not tell how well it is known"]


def _classes_told(ranked: NDArray[Any]) -> str:
    """How many rows have the class of a neighbour, if nearly all do; many more than have the most frequent one."""
    answers = ranked[:, 0]
    same = answers[1:] == answers[:-1]
    wrong = 1 - float((np.append(same, False) | np.append(False, same)).mean())
    others = 1 - float(np.unique(answers, return_counts=True)[1].max()) / len(answers)
    return f"{1 - wrong:.1%} of the training rows can be told" if wrong <= min(_CLASSES_WRONG, others / 10) else ""


def _quantities_told(ranked: NDArray[Any]) -> str:
    """The share of the targets' order that neighbours share, if they share nearly all of it, for one of the targets.

    Of ranks, so that a few values far from all others weigh no more than the rest.
    """
    ranks = np.column_stack([np.unique(target, return_inverse=True)[1] for target in ranked.T])
    with np.errstate(all="ignore"):
        unexplained = (np.diff(ranks, axis=0) ** 2.0).mean(axis=0) / 2 / ranks.var(axis=0)
    found = float(np.nanmin(unexplained, initial=1.0))
    return f"{1 - found:.1%} of the target's order is explained" if found <= _UNEXPLAINED else ""


def _sortable(values: NDArray[Any]) -> NDArray[Any]:
    """Numbers as they are, a missing one last; texts as their ranks, a missing one before them."""
    if values.dtype.kind != "O":
        return values
    ranks = {text: rank for rank, text in enumerate(sorted({value for value in values if value is not None}))}
    return np.array([ranks.get(value, -1) for value in values])
