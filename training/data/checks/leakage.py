"""Leakage checks before training: columns that alone, or added up, almost determine the target.

Such a column is rarely known at prediction time: usually it was filled in later, or is the target in other words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.utils.values import list_names

MIN_ROWS = 50  # with fewer, a column may predict the target by chance
MAX_ROWS = 100_000  # that are checked
_MAX_ERROR_RATIO = 0.1  # of the error of one column's rule to that of the most frequent class
_MIN_OTHER_ROWS = 5  # that are not of the most frequent class: fewer lie side by side by chance
_MAX_UNEXPLAINED = 0.001  # of the variance of a quantity's ranks
_MIN_ROWS_PER_BIN = 10
_MAX_CHANCE = 1e-9  # that a column of as many equal values is sorted like the target
_MAX_SUM_COLUMNS, _MAX_SUM_ROWS = 100, 10_000  # of the search for columns that add up to the target
_MIN_ROWS_PER_COLUMN = 10
_MAX_SUM_RESIDUAL = 1e-6  # of the target's variance
_MAX_LISTED_COLUMNS = 8


def find_leakage(inputs: Mapping[str, NDArray[Any]], targets: NDArray[Any], classes: bool) -> list[str]:
    """Return a warning for each numeric or categorical column that alone almost determines the target.

    Rows are sorted by the column. If it determines the target, a row has the target of a neighbour. Equal values are
    sorted in random order. Rows are also sorted by a quantity: a column that is the quantity in bins then never mixes
    its values. Columns that add up to a quantity are reported together.
    """
    step = max(1, len(targets) // MAX_ROWS)
    shuffled = np.random.default_rng(0).permutation(len(targets))[: len(targets) // step]
    if len(shuffled) < MIN_ROWS:
        return []
    drawn = targets[shuffled].reshape(len(shuffled), -1)
    suspects = {}
    for name, values in inputs.items():
        if values.ndim > 1:
            continue
        sortable = _sortable(values[shuffled])
        ranked = drawn[np.argsort(sortable, kind="stable")]
        found = _class_leakage(ranked) if classes else _quantity_leakage(ranked) or _bin_leakage(sortable, drawn)
        if found:
            suspects[name] = found
    if not suspects and not classes:
        return _sum_leakage({name: values[shuffled] for name, values in inputs.items() if values.ndim == 1}, drawn)
    return _describe_suspects(suspects)


def _describe_suspects(suspects: Mapping[str, str]) -> list[str]:
    """Return a note of the columns that alone predict the target, if there are any, and what each does."""
    if not suspects:
        return []
    if len(suspects) == 1:
        (name, found), which, them = *suspects.items(), "its values", "it"
        start = f"column {name} is suspiciously predictive: it alone {found}"
    else:
        found = list_names([f"{name} {found}" for name, found in suspects.items()], _MAX_LISTED_COLUMNS)
        start, which, them = f"suspiciously predictive columns, each alone: {found}", "their values", "them"
    return [
        f"{start}. If {which} are not known at prediction time, exclude {them}: list the other columns in data.columns"
    ]


def _class_leakage(ranked: NDArray[Any]) -> str:
    """Return what the column predicts, if nearly all rows have the class of a neighbour.

    Of the rows that the most frequent class gets wrong, at most a tenth may be wrong, with two standard deviations
    `√wrong` of a count that chance makes: of 129 public tables, iris and another of 200 rows would be reported without.
    """
    targets = ranked[:, 0]
    same = targets[1:] == targets[:-1]
    wrong = int((~(np.append(same, False) | np.append(False, same))).sum())
    others = len(targets) - int(np.unique(targets, return_counts=True)[1].max())
    if others < _MIN_OTHER_ROWS or wrong + 2 * math.sqrt(wrong) > _MAX_ERROR_RATIO * others:
        return ""
    return f"predicts {_percent(1 - wrong / len(targets))} of the training rows"


def _bin_leakage(values: NDArray[Any], targets: NDArray[Any]) -> str:
    """Return what the column is, if the rows sorted by a target have each of its values in one run.

    By chance, `n!/(n₁! n₂! ...)` orders of n rows are equally likely, and `k!` of them have k runs of k values. Numbers
    must also rise or fall with the target, as their equal values may mark copies of a row; texts be few.
    """
    is_number = values.dtype.kind == "f"
    known = ~np.isnan(values) if is_number else values >= 0
    if not known.any():
        return ""
    _, codes, counts = np.unique(values[known], return_inverse=True, return_counts=True)
    orders = math.lgamma(len(codes) + 1) - sum(map(math.lgamma, counts + 1.0))
    if len(counts) < 2 or (not is_number and len(codes) < _MIN_ROWS_PER_BIN * len(counts)):
        return ""
    if math.lgamma(len(counts) + 1) - orders > math.log(_MAX_CHANCE):
        return ""
    for target in targets[known].T:
        # Rows with an equal target may be in any order: that of the values, forwards or backwards.
        for direction in (codes, -codes):
            steps = np.diff(codes[np.lexsort((direction, target))])
            if np.count_nonzero(steps) + 1 == len(counts) and (
                not is_number or (steps >= 0).all() or (steps <= 0).all()
            ):
                if is_number:
                    return "is a function of the target in steps: it only rises or falls with it"
                return "is the target in bins: sorted by the target, rows never mix its values"
    return ""


def _sum_leakage(inputs: Mapping[str, NDArray[Any]], targets: NDArray[Any]) -> list[str]:
    """Return a warning if a weighted sum of a few columns is one of the targets: least squares leave no residual."""
    varying = {name: values for name, values in inputs.items() if values.dtype.kind in "fiu" and len(values)}
    if not varying:
        return []
    names, x = list(varying), np.column_stack([values.astype(np.float64) for values in varying.values()])
    complete = np.isfinite(x).all(axis=1)
    x, y = x[complete][:_MAX_SUM_ROWS], targets[complete][:_MAX_SUM_ROWS].astype(np.float64)
    if len(x) < MIN_ROWS or len(names) > min(_MAX_SUM_COLUMNS, len(x) // _MIN_ROWS_PER_COLUMN):
        return []
    with np.errstate(all="ignore"):
        x, y = x - x.mean(axis=0), y - y.mean(axis=0)
        x, y = x / x.std(axis=0), y / y.std(axis=0)
    kept = np.flatnonzero(np.isfinite(x).all(axis=0))
    for target in y.T[np.isfinite(y).all(axis=0)]:
        if not len(kept) or _residual(x[:, kept], target) > _MAX_SUM_RESIDUAL:
            continue
        columns = kept
        for column in kept:  # leave out each column without which the sum is still complete
            fewer = columns[columns != column]
            if len(fewer) and _residual(x[:, fewer], target) <= _MAX_SUM_RESIDUAL:
                columns = fewer
        shown = list_names([names[column] for column in columns], _MAX_LISTED_COLUMNS)
        return [
            f"columns {shown} add up to the target: a weighted sum of them leaves no error. If their values are not "
            "known at prediction time, exclude them: list the other columns in data.columns"
        ]
    return []


def _residual(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Return the share of y's variance that the least-squares fit on x leaves; both have mean 0, y variance 1."""
    weights = np.linalg.lstsq(x, y, rcond=None)[0]
    return float(((y - x @ weights) ** 2).mean())


def _quantity_leakage(ranked: NDArray[Any]) -> str:
    """Return what the column explains, if neighbours share nearly all of the order of one of the targets.

    Ranks are compared, so that outliers weigh no more than other values.
    """
    ranks = np.column_stack([np.unique(target, return_inverse=True)[1] for target in ranked.T])
    with np.errstate(all="ignore"):
        unexplained = (np.diff(ranks, axis=0) ** 2.0).mean(axis=0) / 2 / ranks.var(axis=0)
    least = float(np.nanmin(unexplained, initial=1.0))
    return f"explains {_percent(1 - least)} of the target's order" if least <= _MAX_UNEXPLAINED else ""


def _sortable(values: NDArray[Any]) -> NDArray[Any]:
    """Return numbers unchanged, a missing one last; strings as their ranks, a missing one first."""
    if values.dtype.kind != "O":
        return values
    ranks = {text: rank for rank, text in enumerate(sorted({value for value in values if value is not None}))}
    return np.array([ranks.get(value, -1) for value in values])


def _percent(share: float) -> str:
    """Return a percentage that is rounded down: 100.0 % only if it is."""
    return f"{math.floor(share * 1000) / 10:.1f} %"
