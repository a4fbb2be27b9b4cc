"""The section of a report on the search that chose the model's settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from model_store.evaluation.record import TrainingRecord
from model_store.report import search_charts
from model_store.report.layout import MAX_LABEL_LENGTH, figure, section, table
from model_store.report.markup import Markup, truncate_middle
from model_store.utils.number_format import METRIC_TITLES, format_number

_MAX_AXES, _MAX_BARS, _MAX_ROWS = 7, 12, 10


def search(record: TrainingRecord) -> Markup | None:
    """Return the history of the search, its trials in parallel coordinates, and the importance of parameters."""
    found = record.search
    if found is None:
        return None
    metric = METRIC_TITLES.get(found["metric"], found["metric"])
    order = sorted(range(len(found["parameters"])), key=lambda i: -(found["parameters"][i]["importance"] or 0.0))
    figures = [figure(f"{metric} by trial".capitalize(), search_charts.search_history(found, metric), _counts(found))]
    shares = [(one["name"], one["importance"]) for one in (found["parameters"][i] for i in order)]
    known = [(name, share) for name, share in shares if share is not None][:_MAX_BARS]
    if known:
        caption = "The share of each parameter in what sets the best tenth of the trials apart (PED-ANOVA)."
        caption += _left_out(len(shares), len(known))
        figures.append(figure("Importance of the parameters", search_charts.importance_bars(known), caption))
    axes = order[:_MAX_AXES]
    caption = "Each line is a complete trial; the strong one is the best." + _left_out(len(order), len(axes))
    chart = search_charts.parallel_coordinates(found, axes, metric)
    figures.append(figure("Parallel coordinates", chart, caption, wide=True))
    figures.append(_best_trials(found, axes, metric))
    note = (
        "Trials are compared on rows held out from their training, never on the test rows. The best of many trials is "
        "partly luck: expect a worse value on other rows."
    )
    return section("Search", *figures, note=note)


def _counts(found: Mapping[str, Any]) -> str:
    states = ", ".join(f"{format_number(found[state])} {state}" for state in ("complete", "pruned", "failed"))
    total = found["complete"] + found["pruned"] + found["failed"]
    shown = len(found["trials"])
    better = "highest" if found["higher_is_better"] else "lowest"
    caption = f"{states}. The line is the {better} value so far. The best is trial {format_number(found['best'])}."
    return (
        caption if shown == total else f"{caption} {format_number(shown)} of {format_number(total)} trials are shown."
    )


def _left_out(total: int, shown: int) -> str:
    return "" if shown == total else f" {total - shown} less important parameters are not shown."


def _best_trials(found: Mapping[str, Any], axes: Sequence[int], metric: str) -> Markup:
    sign = -1 if found["higher_is_better"] else 1
    complete = [trial for trial in found["trials"] if trial["value"] is not None]
    parameters = found["parameters"]
    rows = [
        [
            format_number(trial["number"]),
            format_number(trial["value"]),
            *(_shown(parameters[i], trial["values"][i]) for i in axes),
        ]
        for trial in sorted(complete, key=lambda trial: sign * trial["value"])[:_MAX_ROWS]
    ]
    names = [truncate_middle(search_charts.short_name(parameters[i]["name"]), 40) for i in axes]
    headings = ["trial", f">{metric}", *(f">{name}" for name in names)]
    return figure("Best trials", table(headings, rows), wide=True)


def _shown(parameter: Mapping[str, Any], value: float) -> str:
    if parameter["options"] is not None:
        return truncate_middle(parameter["options"][int(value)], MAX_LABEL_LENGTH)
    return format_number(value, 4)
