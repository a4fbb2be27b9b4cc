"""The charts of the search that chose a model's settings, drawn from its validated record."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from model_store.report.markup import Markup, tag, truncate_middle
from model_store.report.svg import (
    MIN_DRAWN_VALUE,
    WIDTH,
    Axis,
    PlotArea,
    Scale,
    linear_axis,
    log_axis,
    plot,
    polyline,
    spaced_ticks,
    svg_element,
    text,
    text_width,
    tooltip,
)
from model_store.utils.number_format import format_number, format_percent

_MAX_NAME_LENGTH, _MAX_OPTION_LENGTH = 22, 14  # characters
_MAX_NAMED_OPTIONS = 8  # of an axis
_WIDE = 2 * WIDTH


def search_history(search: Mapping[str, Any], metric: str) -> Markup:
    """Plot the value of each complete trial against its number, and the best value so far as a line."""
    points = [(trial["number"], trial["value"]) for trial in search["trials"] if trial["value"] is not None]
    points.sort()
    x = linear_axis("trial", [0, max(number for number, _ in points)], integers=True)
    y = _value_axis(metric, [value for _, value in points])
    steps: list[tuple[float, float]] = []
    for number, value in points:
        if not steps or (value > steps[-1][1] if search["higher_is_better"] else value < steps[-1][1]):
            steps += [(number, steps[-1][1])] if steps else []
            steps.append((number, value))
    steps.append((points[-1][0], steps[-1][1]))

    def marks(area: PlotArea) -> Iterable[str]:
        for number, value in points:
            dot = tag("circle", cx=area.x(number), cy=area.y(value), r=3.0, class_="dot a faint")
            yield tag("g", tooltip(f"trial {number}: {format_number(value)}"), dot)
        yield polyline([(area.x(number), area.y(value)) for number, value in steps], "line b")

    best = format_number(steps[-1][1])
    return plot(f"{metric} by trial, {len(points)} complete trials; the best is {best}", x, y, marks)


def parallel_coordinates(search: Mapping[str, Any], parameters: Sequence[int], metric: str) -> Markup:
    """Draw a line for each complete trial through its values of these parameters and its metric; the best one last.

    parameters: the indices of the axes, from the left.
    """
    trials = [trial for trial in search["trials"] if trial["value"] is not None]
    top, bottom = 40.0, 250.0
    every = [search["parameters"][i] for i in parameters]
    scales = [_parameter_scale(one, bottom, top) for one in every]
    value_axis = _value_axis(metric, [trial["value"] for trial in trials])
    value_scale = value_axis.scale(bottom, top)
    left, right = 60.0, _WIDE - 70.0
    positions = [left + (right - left) * i / len(every) for i in range(len(every) + 1)]
    best = max(trials, key=lambda trial: trial["number"] == search["best"])
    parts: list[str] = []
    for trial in [*(one for one in trials if one is not best), best]:
        heights = [scale(trial["values"][i]) for scale, i in zip(scales, parameters, strict=True)]
        line = polyline(
            zip(positions, [*heights, value_scale(trial["value"])], strict=True),
            "line b" if trial is best else "line a thin",
        )
        parts.append(tag("g", tooltip(f"trial {trial['number']}: {format_number(trial['value'])}"), line))
    for i, (parameter, scale, at) in enumerate(zip(every, scales, positions, strict=False)):
        parts += _axis(at, top, bottom, _parameter_ticks(parameter), scale)
        name = truncate_middle(short_name(parameter["name"]), _MAX_NAME_LENGTH)
        middle = min(max(at, text_width(name) / 2), _WIDE - text_width(name) / 2)
        parts.append(text(middle, 11.0 if i % 2 == 0 else 26.0, name, "title middle"))
    parts += _axis(positions[-1], top, bottom, value_axis.ticks, value_scale)
    title = truncate_middle(metric, _MAX_NAME_LENGTH)
    parts.append(text(_WIDE - 2, 11.0 if len(every) % 2 == 0 else 26.0, title, "title end"))
    label = f"Parallel coordinates of {len(trials)} trials: {len(every)} parameters and the {metric}"
    return svg_element(label, bottom + 12, parts, wide=_WIDE)


def importance_bars(shares: Sequence[tuple[str, float]]) -> Markup:
    """Draw a bar for the share of each parameter, given as (name, share)."""
    names = [truncate_middle(short_name(name), _MAX_NAME_LENGTH) for name, _ in shares]
    left = max(map(text_width, names)) + 14
    right = WIDTH - 60.0
    top = max(*(share for _, share in shares), MIN_DRAWN_VALUE)
    scale = Scale(0.0, top, left, right)
    parts: list[str] = []
    for i, ((name, share), shown) in enumerate(zip(shares, names, strict=True)):
        y = 22.0 * i + 4
        parts.append(text(left - 8, y + 12, shown, "tick end"))
        width = max(scale(share) - left, 1.0)
        bar = tag("rect", x=left, y=y, width=width, height=15.0, class_="fill a soft")
        parts.append(tag("g", tooltip(f"{name}: {format_percent(share)}"), bar))
        parts.append(text(left + width + 6, y + 12, format_percent(share), "value"))
    parts.append(tag("line", x1=left, y1=0, x2=left, y2=22.0 * len(shares) + 4, class_="axis"))
    return svg_element(f"Importance: {names[0]} {format_percent(shares[0][1])}", 22.0 * len(shares) + 8, parts)


def short_name(parameter: str) -> str:
    """Return the name of a parameter without its section."""
    return parameter.partition(".")[2] or parameter


def _value_axis(metric: str, values: Sequence[float]) -> Axis:
    logarithmic = min(values) > MIN_DRAWN_VALUE and max(values) > 20 * min(values)
    return log_axis(metric, values) if logarithmic else linear_axis(metric, values)


def _parameter_scale(parameter: Mapping[str, Any], bottom: float, top: float) -> Scale:
    if parameter["options"] is not None:
        return Scale(0, len(parameter["options"]) - 1, bottom, top)
    return Scale(parameter["low"], parameter["high"], bottom, top, bool(parameter["log"]))


def _parameter_ticks(parameter: Mapping[str, Any]) -> Sequence[tuple[float, str]]:
    options = parameter["options"]
    if options is not None and len(options) > _MAX_NAMED_OPTIONS:
        return [(i, truncate_middle(options[i], _MAX_OPTION_LENGTH)) for i in (0, len(options) - 1)]
    if options is not None:
        return [(i, truncate_middle(option, _MAX_OPTION_LENGTH)) for i, option in enumerate(options)]
    low, high = parameter["low"], parameter["high"]
    middle = math.sqrt(low) * math.sqrt(high) if parameter["log"] else low / 2 + high / 2
    return [(value, format_number(value, 2)) for value in (low, middle, high)]


def _axis(at: float, top: float, bottom: float, ticks: Iterable[tuple[float, str]], scale: Scale) -> list[str]:
    """Return a vertical axis with the labels of its ticks beside it."""
    parts: list[str] = [tag("line", x1=at, y1=top, x2=at, y2=bottom, class_="axis")]
    positions = sorted((scale(value), name) for value, name in ticks)
    for y, _, name in spaced_ticks(positions) if len(positions) > 12 else [(y, y, name) for y, name in positions]:
        parts.append(tag("line", x1=at - 3, y1=y, x2=at + 3, y2=y, class_="axis"))
        parts.append(text(at + 6, y + 4, name, "tick over"))
    return parts
