"""Errors, ratios and ranks of the quality benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp, log, sqrt
from statistics import fmean

SMALLEST = 1e-6  # probabilities below it count as it: one row that was excluded as impossible decides no table

# Critical values of the two-tailed Nemenyi test at 5 %, from 2 to 10 contestants (Demšar 2006, table 5).
NEMENYI = (1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164)


def rmse(targets: Sequence[float], predictions: Sequence[float]) -> float:
    return sqrt(fmean((a - b) ** 2 for a, b in zip(targets, predictions, strict=True)))


def log_loss(targets: Sequence[str], labels: Sequence[str], probabilities: Sequence[Sequence[float]]) -> float:
    """Return the mean of -log p(label); a label that the contestant does not know has the probability `SMALLEST`."""
    place = {label: index for index, label in enumerate(labels)}
    losses = []
    for label, row in zip(targets, probabilities, strict=True):
        p = row[place[label]] / sum(row) if label in place else 0.0
        losses.append(-log(max(p, SMALLEST)))
    return fmean(losses)


def error_rate(targets: Sequence[str], labels: Sequence[str], probabilities: Sequence[Sequence[float]]) -> float:
    """Return the share of rows whose most probable label is wrong."""
    best = [labels[max(range(len(row)), key=row.__getitem__)] for row in probabilities]
    return fmean(found != label for found, label in zip(best, targets, strict=True))


def geometric_mean(ratios: Sequence[float]) -> float:
    return exp(fmean(log(ratio) for ratio in ratios))


def ranks(errors: Mapping[str, float]) -> dict[str, float]:
    """Return each contestant's rank by error, 1 the lowest; equal errors share the mean of their ranks."""
    values = sorted(errors.values())
    first = {value: values.index(value) + 1 for value in values}
    return {name: first[value] + (values.count(value) - 1) / 2 for name, value in errors.items()}


def mean_ranks(tables: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return each contestant's mean rank over tables that all contestants have."""
    ranked = [ranks(errors) for errors in tables]
    return {name: fmean(one[name] for one in ranked) for name in tables[0]}


def critical_difference(contestants: int, tables: int) -> float:
    """Return the least difference of two mean ranks that is significant at 5 % (Nemenyi; Demšar 2006, 3.2.2)."""
    return NEMENYI[contestants - 2] * sqrt(contestants * (contestants + 1) / (6 * tables))


def friedman(means: Mapping[str, float], tables: int) -> float:
    """Return Friedman's χ² of the mean ranks, with len(means) - 1 degrees of freedom."""
    k = len(means)
    return 12 * tables / (k * (k + 1)) * (sum(rank**2 for rank in means.values()) - k * (k + 1) ** 2 / 4)
