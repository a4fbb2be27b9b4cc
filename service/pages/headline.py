"""The headline metric of a version, with its 95 % confidence interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model_store.evaluation.confidence import wilson_interval
from model_store.evaluation.error_interval import error_interval
from model_store.evaluation.record import TrainingRecord, main_metric
from model_store.utils.number_format import METRIC_TITLES, format_number, format_percent


@dataclass(frozen=True)
class Headline:
    """`key` names metric and target: only equal ones can be compared. `interval` is "" if none is known."""

    key: str
    title: str
    value: float
    text: str
    interval: str
    measured_on: str


def headline(training: Mapping[str, Any]) -> Headline | None:
    """Return the accuracy, the share of rows with all labels right, or the error of the first target."""
    record = TrainingRecord.parse({"metrics": training.get("metrics")})  # its diagnostics may be 100 kB
    for metrics, name in ((record.classification, "accuracy"), (record.multi_label, "exact_match")):
        if metrics:
            share, rows = metrics[name], metrics["rows"]
            low, high = wilson_interval(round(share * rows), rows)
            interval = f"{100 * low:.1f} to {format_percent(high)}"
            return Headline(name, METRIC_TITLES.get(name, name), share, format_percent(share), interval, _rows(metrics))
    if not record.regression or not record.regression["targets"]:
        return None
    target, metrics = next(iter(record.regression["targets"].items()))
    name = main_metric(metrics)
    if (value := metrics[name]) is None:
        return None
    title = f"{METRIC_TITLES.get(name, name)} of {target}"
    limits = error_interval(training, target, name)
    interval = "" if limits is None else " to ".join(format_number(limit, 3) for limit in limits)
    return Headline(f"{name} {target}", title, value, format_number(value, 3), interval, _rows(record.regression))


def _rows(metrics: Mapping[str, Any]) -> str:
    return f"{format_number(metrics['rows'])} {metrics['of']}"
