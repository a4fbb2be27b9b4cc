"""The verdict of a comparison: which of two versions is better, and whether the difference is significant.

Two versions that answered the same rows are compared in pairs: accuracies by McNemar's test and Newcombe's interval for
paired data, RMSEs by the interval of their ratio, and so deviances or pinball losses of regressions that are both
trained with that loss. If the rows differ, or a version does not record its results row by row, accuracies are compared
by Newcombe's interval for independent samples, and errors without significance. So are the log losses of equal
accuracies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.evaluation.confidence import (
    difference_interval,
    loss_ratio_deviation,
    mcnemar_p_value,
    paired_difference_interval,
    student_quantile,
)
from model_store.evaluation.record import main_metric
from model_store.evaluation.row_results import RowResults
from model_store.utils.number_format import METRIC_TITLES, format_number, format_percent

_SIGNIFICANCE = 0.05
_ORDER = ("first", "second")
_MAX_EXPONENT = 700.0  # `exp` overflows at 710


@dataclass(frozen=True)
class ComparisonVerdict:
    """`better` is "first", "second" or None; `significant` is whether chance explains it with a probability below 5 %.

    paired: whether the versions were compared row by row.
    method: how significance was computed, in words; None if it was not.
    """

    better: str | None
    significant: bool
    summary: str
    paired: bool = False
    method: str | None = None


@dataclass(frozen=True)
class Pair:
    first: Any
    second: Any

    def get(self, *keys: str) -> tuple[Any, Any]:
        """Return what both have under a path of attributes and keys; None where a part of the path is missing."""
        found = []
        for part in (self.first, self.second):
            for key in keys:
                part = part.get(key) if isinstance(part, Mapping) else getattr(part, key, None)
            found.append(part)
        return found[0], found[1]


Trainings = tuple[Mapping[str, Any], Mapping[str, Any]]


def compare_classifiers(
    names: tuple[str, str], signatures: Pair, records: Pair, trainings: Trainings
) -> ComparisonVerdict:
    """Compare accuracies, or of several labels how many rows have all of them right."""
    labels = [set(getattr(signature.output, "labels", ())) for signature in (signatures.first, signatures.second)]
    several = signatures.first.output.kind == "labels"
    task, metric, title = "classification", "accuracy", "accuracy"
    if several:
        task, metric, title = "multi_label", "exact_match", "exact match"
    found = records.get(task)
    if signatures.first.output.kind != signatures.second.output.kind:
        return ComparisonVerdict(None, False, "Not comparable: their outputs are of different kinds.")
    if labels[0] != labels[1]:
        return ComparisonVerdict(None, False, "Not comparable: their labels differ.")
    if None in found:
        return ComparisonVerdict(None, False, "Not comparable: one of them has no metrics.")
    gain = found[1][metric] - found[0][metric]
    if gain == 0:
        return _compare_log_loss(names, records, title)
    better = int(gain > 0)
    bits = [None if results is None else results.correct for results in _paired_results(trainings)]
    paired = bits[0] is not None and bits[1] is not None and len(bits[0]) == len(bits[1])
    if paired:
        one, other = np.asarray(bits[1 - better]), np.asarray(bits[better])
        discordant = int((one & ~other).sum()), int((other & ~one).sum())
        low, high = paired_difference_interval(int((one & other).sum()), *discordant, int((~one & ~other).sum()))
        p = mcnemar_p_value(*discordant)
        significant, note = p < _SIGNIFICANCE, f"; p {_format_p_value(p)}"
        method = (
            f"McNemar's test in pairs: of the same {len(one)} rows, {discordant[1]} are correct only with "
            f"{names[better]}, and {discordant[0]} only with {names[1 - better]}."
        )
    else:
        correct = [(round(one[metric] * one["rows"]), one["rows"]) for one in found]
        low, high = difference_interval(correct[1 - better], correct[better])
        significant, note = low > 0, ""
        method = f"Newcombe's interval for independent samples, not in pairs: {_why_unpaired(trainings)}."
    interval = f"95 % interval {100 * low:.1f} to {_format_points(high)}{note}".replace("-", "−")
    amount = f"{title} {_format_points(abs(gain))} higher"
    return ComparisonVerdict(
        _ORDER[better], significant, _summary(names[better], amount, interval, significant), paired, method
    )


def _compare_log_loss(names: tuple[str, str], records: Pair, title: str) -> ComparisonVerdict:
    losses = records.get("calibration", "log_loss")
    if None in losses or losses[0] == losses[1]:
        return ComparisonVerdict(None, False, f"Their {title} is equal.")
    better = int(losses[1] < losses[0])
    summary = (
        f"{names[better]} is ahead: equal {title}, lower log loss "
        f"({losses[better]:.4g} against {losses[1 - better]:.4g})."
    )
    return ComparisonVerdict(_ORDER[better], False, summary)


def compare_regressions(
    names: tuple[str, str], signatures: Pair, records: Pair, trainings: Trainings
) -> ComparisonVerdict:
    targets = [set(getattr(signature.output, "names", ())) for signature in (signatures.first, signatures.second)]
    found = records.get("regression", "targets")
    if targets[0] != targets[1]:
        return ComparisonVerdict(None, False, "Not comparable: their targets differ.")
    if None in found:
        return ComparisonVerdict(None, False, "Not comparable: one of them has no metrics.")
    quantiles = records.get("regression", "quantile")
    if None not in quantiles and quantiles[0] != quantiles[1]:
        words = " and ".join(f"{quantile:g}" for quantile in quantiles)
        return ComparisonVerdict(None, False, f"Not comparable: they predict different quantiles, {words}.")
    metric = _common_metric(found)
    title, article = METRIC_TITLES[metric], "an" if metric == "rmse" else "a"
    errors = [(found[0][name][metric], found[1][name][metric]) for name in found[0].keys() & found[1].keys()]
    known = [(a, b) for a, b in errors if a is not None and b is not None and a != b]
    perfect = {_ORDER[b == 0] for a, b in known if 0 in (a, b)}  # whose RMSE is 0, which has no ratio
    if perfect:
        if len(perfect) > 1:
            return ComparisonVerdict(None, False, f"Each has {article} {title} of 0 for another target.")
        (winner,) = perfect
        summary = f"{names[_ORDER.index(winner)]} is ahead: {article} {title} of 0 (significance is not tested)."
        return ComparisonVerdict(winner, False, summary)
    log_ratios = [log(b) - log(a) for a, b in errors if a and b and a > 0 and b > 0]
    if not log_ratios or sum(log_ratios) == 0:
        return ComparisonVerdict(None, False, f"Their {title} is equal.")
    mean = sum(log_ratios) / len(log_ratios)
    better = int(mean < 0)
    amount = f"{title} {format_percent(1 - exp(-abs(mean)))} lower"
    amount += ", on average over the targets" if len(log_ratios) > 1 else ""
    complete = len(log_ratios) == len(targets[0])
    half = _half_interval(trainings, records, metric) if complete else None
    if half is None:
        absent = metric != "rmse" and None not in (found := _paired_results(trainings)) and None in _losses(found)
        why = f"the {title} of each row is not kept" if absent else _why_unpaired(trainings)
        summary = f"{names[better]} is ahead: {amount} (significance is not tested)."
        method = f"Significance is not tested, as the rows are not compared in pairs: {why}."
        return ComparisonVerdict(_ORDER[better], False, summary, False, method)
    low, high = (format_percent(1 - exp(min(-abs(mean) + sign * half, _MAX_EXPONENT))) for sign in (1, -1))
    significant = half < abs(mean)
    rows = records.first.regression["rows"]
    noun = "RMSEs" if metric == "rmse" else "deviances" if metric.endswith("deviance") else "pinball losses"
    parts = "errors" if metric == "rmse" else "losses"
    method = f"The interval of the ratio of the {noun} in pairs, from the {parts} of the same {rows} rows."
    summary = _summary(names[better], amount, f"95 % interval {low} to {high}", significant)
    return ComparisonVerdict(_ORDER[better], significant, summary, True, method)


def _common_metric(found: tuple[Any, Any]) -> str:
    """Return the metric that all targets of both are judged by: that of their loss if it is the same, else the RMSE."""
    metrics = {main_metric(target) for targets in found for target in targets.values()}
    return metrics.pop() if len(metrics) == 1 else "rmse"


def _half_interval(trainings: Trainings, records: Pair, metric: str) -> float | None:
    """Return half the 95 % interval of the mean log ratio of the metrics; None without errors of the same rows."""
    results = _paired_results(trainings)
    found = _losses(results)
    if metric == "rmse":
        found = [None if one is None else one.absolute_errors for one in results]
    rows = records.get("regression", "rows")
    if found[0] is None or found[1] is None or found[0].keys() != found[1].keys() or rows[0] != rows[1]:
        return None
    one, other = (np.column_stack([part[name] for name in found[0]]) for part in (found[0], found[1]))
    if one.shape != other.shape:
        return None
    power = 2 if metric == "rmse" else 1
    deviation = loss_ratio_deviation(one**power, other**power, rows[0])
    return None if deviation is None else deviation / power * student_quantile(len(one) - 1)


def _losses(results: tuple[RowResults | None, RowResults | None]) -> list[Mapping[str, NDArray[np.float64]] | None]:
    return [None if one is None else one.losses for one in results]


def _summary(name: str, amount: str, interval: str, significant: bool) -> str:
    if significant:
        return f"{name} is better: {amount} ({interval})."
    return f"{name} is ahead: {amount}, not significant ({interval})."


def _format_points(share: float) -> str:
    return f"{100 * share:.1f} points"


def _format_p_value(p: float) -> str:
    return "< 0.0001" if p < 0.0001 else f"= {format_number(p, 2)}"


# Rows -----------------------------------------------------------------------------------------------------------------


def same_rows(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool | None:
    """Return whether two trainings held out the same rows; None if unknown.

    By the digests of the rows, or for versions without one by what determines the rows: data, split, target and seed.
    """
    results = RowResults.parse(first), RowResults.parse(second)
    if results[0] is not None and results[1] is not None:
        return results[0].sha256 == results[1].sha256
    keys = [("data", "sha256"), ("split",), ("job", "split"), ("job", "train", "seed"), ("job", "data", "target")]
    pairs = [Pair(first, second).get(*key) for key in keys]
    if None in pairs[0] or None in pairs[1]:
        return None
    streamed = Pair(first, second).get("job", "data", "stream")  # streaming holds out different rows
    equal = bool(streamed[0]) == bool(streamed[1]) and all(one == other for one, other in pairs)
    # Releases without a digest divided the rows of small classes in another way.
    return None if equal and any(part is not None for part in results) else equal


def measured_on_training_rows(training: Mapping[str, Any]) -> bool:
    """Return whether the metrics were measured on the rows that the model was trained on."""
    metrics = training.get("metrics")
    return isinstance(metrics, Mapping) and metrics.get("of") == "training rows"


def _paired_results(trainings: Trainings) -> tuple[RowResults | None, RowResults | None]:
    """Return the results of both versions, row by row; None for both if the rows differ."""
    first, second = map(RowResults.parse, trainings)
    return (first, second) if first and second and first.sha256 == second.sha256 else (None, None)


def _why_unpaired(trainings: Trainings) -> str:
    if same_rows(*trainings) is False:
        return "they were evaluated on different rows"
    if None in map(RowResults.parse, trainings):
        return "a version was trained by a release that does not record which rows it answered correctly"
    return "the results of so many rows are not kept"
