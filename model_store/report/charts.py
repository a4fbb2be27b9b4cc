"""The charts of a report, each drawn from validated parts of the training record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import sqrt
from typing import Any

from model_store.evaluation.confidence import wilson_interval
from model_store.report.markup import Markup, tag, truncate_middle
from model_store.report.svg import (
    MIN_DRAWN_VALUE,
    WIDTH,
    Axis,
    PlotArea,
    line_labels,
    linear_axis,
    log_axis,
    percent_axis,
    plot,
    polyline,
    spaced_ticks,
    svg_element,
    text,
    text_width,
    tooltip,
)
from model_store.utils.number_format import format_number, format_percent, format_score

MAX_NARROW_CLASSES = 10  # with more classes the confusion matrix takes the full width
_MAX_NAME_LENGTH = 20  # characters
_MAX_LINE_LENGTH = 52  # characters of a name that has a line of its own
_ROTATED_EXTENT = 0.72  # width and height of a rotated label, relative to its length


def learning_curves(history: Sequence[Mapping[str, Any]], best: int) -> Markup:
    """Plot training and validation loss against the epoch; `best` is the epoch whose weights are kept."""
    lines = [("training", "a", [(point["epoch"], point["loss"]) for point in history])]
    validated = [(p["epoch"], p["validation_loss"]) for p in history if p["validation_loss"] is not None]
    if validated:
        lines.append(("validation", "b", validated))
    losses = [loss for _, _, points in lines for _, loss in points]
    logarithmic = min(losses) > MIN_DRAWN_VALUE and max(losses) > 20 * min(losses)
    y = log_axis("loss", losses) if logarithmic else linear_axis("loss", losses)
    x = linear_axis("epoch", [history[0]["epoch"], history[-1]["epoch"]], integers=True, tight=True)

    def marks(area: PlotArea) -> Iterable[str]:
        if best < history[-1]["epoch"]:
            at = area.x(max(best, history[0]["epoch"]))
            yield tag("line", x1=at, y1=area.top, x2=at, y2=area.bottom, class_="mark")
            end = at > (area.left + area.right) / 2
            yield text(
                at - 5 if end else at + 5, area.top + 8, f"best: {format_number(best)}", "note end" if end else "note"
            )
        for _, class_, points in lines:
            points_on_page = [(area.x(epoch), area.y(loss)) for epoch, loss in points]
            yield polyline(points_on_page, f"line {class_}")
            if len(points_on_page) == 1:
                yield tag("circle", cx=points_on_page[0][0], cy=points_on_page[0][1], r=3, class_=f"dot {class_}")
        ends = [(area.y(points[-1][1]), name, f"name {class_}") for name, class_, points in lines]
        yield from line_labels(ends, area.right + 6, area.top + 4, area.bottom - 4)

    label = f"Loss by epoch, {len(history)} points; final training loss {format_number(history[-1]['loss'])}"
    return plot(label, x, y, marks, margin_right=76)


def reliability_diagram(calibration: Mapping[str, Any]) -> Markup:
    """Plot observed frequency against predicted probability, with 95 % intervals and the number of rows per bin."""
    bins = calibration["bins"]
    max_rows = max(part["rows"] for part in bins)
    bar_space = 50.0

    def marks(area: PlotArea) -> Iterable[str]:
        yield tag("line", x1=area.x(0), y1=area.y(0), x2=area.x(1), y2=area.y(1), class_="ideal")
        base = area.bottom + 32 + bar_space
        yield tag("line", x1=area.left, y1=base, x2=area.right, y2=base, class_="axis")
        yield text(area.left - 6, base, "rows", "tick end")
        for part in bins:
            low, high = wilson_interval(part["found"] * part["rows"], part["rows"])
            at = area.x(part["said"])
            yield tag("line", x1=at, y1=area.y(low), x2=at, y2=area.y(high), class_="whisker a")
            shares = f"predicted {format_percent(part['said'])}, observed {format_percent(part['found'])}"
            words = f"{format_number(part['rows'])} rows: {shares}"
            yield tag("g", tooltip(words), tag("circle", cx=at, cy=area.y(part["found"]), r=4.5, class_="dot a"))
            left, right = area.x(part["low"]) + 1, area.x(part["high"]) - 1
            tall = max(1.0, 24 * part["rows"] / max_rows)
            bar = tag("rect", x=left, y=base - tall, width=max(1.0, right - left), height=tall, class_="fill a")
            yield tag("g", tooltip(words), bar)
            yield text((left + right) / 2, base - tall - 3, format_number(part["rows"]), "small middle")

    label = f"Reliability diagram: expected calibration error {format_percent(calibration['expected_error'])}"
    x, y = percent_axis("predicted probability"), percent_axis("observed frequency")
    return plot(label, x, y, marks, height=290 + bar_space, bottom_margin=bar_space)


def roc_curve(curve: Mapping[str, Any]) -> Markup:
    """Plot the ROC curve and the diagonal of random guessing."""
    area = format_score(curve["area"], 3)
    random = [(0.0, 0.0), (1.0, 1.0)]
    names = ("false-positive rate", "true-positive rate")
    return _threshold_curve(f"ROC curve, AUC {area}", names, curve["points"], f"AUC {area}", random)


def precision_recall_curve(curve: Mapping[str, Any], share: float) -> Markup:
    """Plot precision against recall, and the precision of random guessing: the `share` of positive rows."""
    average = format_score(curve["average"], 3)
    label = f"Precision-recall curve, average precision {average}"
    random = [(0.0, share), (1.0, share)]
    return _threshold_curve(label, ("recall", "precision"), curve["points"], f"average {average}", random)


def _threshold_curve(
    label: str,
    names: tuple[str, str],
    points: Sequence[Sequence[float]],
    note: str,
    random: Sequence[tuple[float, float]],
) -> Markup:
    def marks(area: PlotArea) -> Iterable[str]:
        yield polyline([(area.x(a), area.y(b)) for a, b in random], "ideal")
        yield polyline([(area.x(a), area.y(b)) for a, b in points], "line a")
        yield text(area.x(0.97), area.y(0.06), note, "name a end")

    return plot(label, percent_axis(names[0]), percent_axis(names[1]), marks, height=290)


def confusion_matrix(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> Markup:
    """Draw true classes as rows and predicted ones as columns; the color of a cell is its share of the row."""
    size = len(labels)
    wide, letters = (WIDTH, 12) if size <= MAX_NARROW_CLASSES else (2 * WIDTH, 18)
    names = [truncate_middle(label, letters) for label in labels]
    longest = max(map(text_width, names))
    left = max(40.0, longest + 10)
    cell = min(46.0, (wide - left - 4) / size)
    rotated = longest > cell - 4
    if rotated:  # the last label extends beyond the matrix
        cell = min(46.0, (wide - left - longest * _ROTATED_EXTENT) / (size - 0.5))
    head = 22.0 + (longest * _ROTATED_EXTENT + 14 if rotated else 18)
    parts: list[str] = [
        text(0.0, head - 6 if rotated else 11.0, "true", "title"),
        text(left, 11.0, "predicted", "title"),
    ]
    for i, (name, row) in enumerate(zip(names, counts, strict=True)):
        total = sum(row)
        middle = left + (i + 0.5) * cell
        turn = f"rotate(-45 {middle + 3:.1f} {head - 6:.1f})" if rotated else None
        class_ = "tick" if rotated else "tick middle"
        parts.append(text(middle + (3 if rotated else 0), head - 6, name, class_, transform=turn))
        parts.append(text(left - 6, head + (i + 0.5) * cell + 4, name, "tick end"))
        for j, count in enumerate(row):
            share = count / total if total else 0.0
            x, y = left + j * cell, head + i * cell
            counted = f"{format_number(count)} of {format_number(total)} ({format_percent(share)})"
            words = f"{labels[i]} predicted as {labels[j]}: {counted}"
            shape = {"x": x + 0.75, "y": y + 0.75, "width": cell - 1.5, "height": cell - 1.5, "rx": 2}
            inner: list[str] = [tooltip(words), tag("rect", **shape, class_="cell")]
            if count:
                color = "fill a" if i == j else "fill b"
                inner.append(tag("rect", **shape, class_=color, fill_opacity=0.12 + 0.88 * share))
                number = format_number(count)
                if text_width(number) <= cell - 2:
                    on = "on" if share > 0.55 else "off"
                    inner.append(text(x + cell / 2, y + cell / 2 + 4, number, f"count {on}"))
            parts.append(tag("g", *inner))
    return svg_element(f"Confusion matrix of {size} classes", head + size * cell + 4, parts, wide=wide)


def interval_bars(
    parts: Sequence[Mapping[str, Any]],
    title: str,
    show: Callable[[float], str],
    reference: float | None = None,
) -> Markup:
    """Draw a bar for the value of each part, with a line from its `low` to its `high`.

    Each part has "name", "value", "low" and "high", in the unit of the axis, which `show` formats; "words" is its
    tooltip, the name by default. A dashed line marks the `reference`.
    """
    above = any(len(part["name"]) > _MAX_NAME_LENGTH for part in parts)  # long names stand above their bars
    names = [truncate_middle(part["name"], _MAX_LINE_LENGTH) for part in parts]
    shown = [show(part["value"]) for part in parts]
    left = 4.0 if above else max(map(text_width, names), default=0.0) + 14
    right = WIDTH - max([52.0, *(text_width(words) + 8 for words in shown)])
    row = 36.0 if above else 22.0
    ends = [part[end] for part in parts for end in ("low", "high")]
    x = linear_axis(title, [0.0, *ends], tight=True)
    scale = x.scale(left, right)
    bottom = row * len(parts) + 4
    drawn: list[str] = []
    words_over_lines: list[str] = []
    for at, middle, name in spaced_ticks([(scale(value), show(value)) for value, _ in x.ticks]):
        drawn.append(tag("line", x1=at, y1=0, x2=at, y2=bottom, class_="grid"))
        drawn.append(text(middle, bottom + 15, name, "tick middle"))
    for i, (part, name, value) in enumerate(zip(parts, names, shown, strict=True)):
        y = (i + 1) * row - 18
        start, end = sorted((scale(0), scale(part["value"])))
        words = f"{part.get('words', part['name'])}: {value}, {show(part['low'])} to {show(part['high'])}"
        place = text(left + 5, y - 3, name, "tick over") if above else text(left - 8, y + 13, name, "tick end")
        words_over_lines.append(tag("g", tooltip(words), place))
        bar = tag("rect", x=start, y=y + 2, width=max(end - start, 1.0), height=14.0, class_="fill a soft")
        line = tag("line", x1=scale(part["low"]), y1=y + 9, x2=scale(part["high"]), y2=y + 9, class_="whisker ink")
        drawn.append(tag("g", tooltip(words), bar, line))
        words_over_lines.append(text(scale(max(part["high"], 0.0)) + 6, y + 13, value, "value over"))
    drawn.append(tag("line", x1=scale(0), y1=0, x2=scale(0), y2=bottom, class_="axis"))
    if reference is not None:
        drawn.append(tag("line", x1=scale(reference), y1=0, x2=scale(reference), y2=bottom, class_="ideal"))
    if text_width(title) <= right:  # the heading of the figure has a longer one
        drawn.append(text(right, bottom + 32, title, "title end"))
    label = f"{title}: {names[0]} {shown[0]}" if parts else title
    return svg_element(label, bottom + 38, [*drawn, *words_over_lines])


def importance_heatmap(importance: Mapping[str, Any], title: str) -> Markup:
    """Draw a cell for each patch of an image; a stronger color is a higher cost of shuffling it."""
    rows, columns = importance["grid"]
    costs = [part["cost"] or 0.0 for part in importance["parts"]]
    max_cost = max(0.0, *costs)
    cell = min(30.0, 300.0 / columns, 300.0 / rows)
    left, top = 30.0, 4.0
    high, wide = importance["patch"]
    drawn: list[str] = []
    for i, (part, cost) in enumerate(zip(importance["parts"], costs, strict=True)):
        x, y = left + i % columns * cell, top + i // columns * cell
        share = max(cost, 0.0) / max_cost if max_cost else 0.0
        shape = {"x": x, "y": y, "width": cell - 1, "height": cell - 1, "rx": 2}
        fill = tag("rect", **shape, class_="fill a", fill_opacity=share)
        drawn.append(
            tag("g", tooltip(f"{part['name']}: {format_number(cost, 3)}"), tag("rect", **shape, class_="cell"), fill)
        )
    bottom = top + rows * cell
    drawn += [text(left - 6, top + (i + 0.5) * cell + 4, str(i * high), "tick end") for i in range(0, rows, 2)]
    drawn += [text(left + (j + 0.5) * cell, bottom + 14, str(j * wide), "tick middle") for j in range(0, columns, 2)]
    key = left + columns * cell + 20
    for i in range(20):
        share = 1 - i / 19
        drawn.append(tag("rect", x=key, y=top + i * 6.0, width=12, height=6.2, class_="fill a", fill_opacity=share))
    drawn.append(text(key + 18, top + 9, format_number(max_cost, 3), "tick"))
    drawn.append(text(key + 18, top + 120, "0", "tick"))
    return svg_element(f"{title}: at most {format_number(max_cost, 3)}", max(bottom + 20, 130.0), drawn)


def predicted_against_true(name: str, residuals: Mapping[str, Any]) -> Markup:
    """Plot predicted against true values, and the line on which they are equal."""
    points = residuals["points"]
    shared = linear_axis("", [value for point in points for value in point], max_ticks=5)
    shown = truncate_middle(name, _MAX_NAME_LENGTH)
    x, y = (Axis(words, shared.low, shared.high, shared.ticks) for words in (f"true {shown}", f"predicted {shown}"))
    size = max(1.8, min(3.5, 40 / sqrt(len(points))))

    def marks(area: PlotArea) -> Iterable[str]:
        ends = [(area.x(v), area.y(v)) for v in (shared.low, shared.high)]
        yield tag("line", x1=ends[0][0], y1=ends[0][1], x2=ends[1][0], y2=ends[1][1], class_="ideal")
        for true, predicted in points:
            dot = tag("circle", cx=area.x(true), cy=area.y(predicted), r=size, class_="dot a faint")
            yield tag("g", tooltip(f"true {format_number(true)}, predicted {format_number(predicted)}"), dot)

    return plot(f"Predicted against true {shown}, {len(points)} rows", x, y, marks, height=290)


def residual_histogram(name: str, residuals: Mapping[str, Any]) -> Markup:
    """Draw a histogram of the errors, predicted minus true value."""
    edges, counts = residuals["edges"], residuals["counts"]
    x = linear_axis(f"error of {truncate_middle(name, _MAX_NAME_LENGTH)} (predicted − true)", [edges[0], edges[-1]])
    y = linear_axis("rows", [0, max(1, *counts)], integers=True)

    def marks(area: PlotArea) -> Iterable[str]:
        for low, high, count in zip(edges, edges[1:], counts, strict=False):
            left, right, top = area.x(low), area.x(high), area.y(count)
            bar = tag(
                "rect", x=left, y=top, width=max(right - left - 1, 0.5), height=area.bottom - top, class_="fill a"
            )
            yield tag(
                "g", tooltip(f"{format_number(low, 3)} to {format_number(high, 3)}: {format_number(count)} rows"), bar
            )
        if area.x.inside(0):
            yield tag("line", x1=area.x(0), y1=area.top, x2=area.x(0), y2=area.bottom, class_="mark")

    return plot(f"Errors of {truncate_middle(name, _MAX_NAME_LENGTH)}", x, y, marks, height=290)


def decile_bar(low: float, high: float, deciles: Sequence[float]) -> Markup:
    """Draw a line from minimum to maximum, a bar from the first to the ninth decile and a tick at the median."""
    scale = linear_axis("", [low, high], tight=True).scale(2.0, 98.0)
    first, median, last = scale(deciles[1]), scale(deciles[5]), scale(deciles[9])
    parts = [
        tag("line", x1=2, y1=8, x2=98, y2=8, class_="whisker quiet"),
        tag("rect", x=first, y=5, width=max(last - first, 1.0), height=6, class_="fill quiet"),
        tag("line", x1=median, y1=2, x2=median, y2=14, class_="whisker ink"),
    ]
    return svg_element(f"deciles from {format_number(deciles[1])} to {format_number(deciles[9])}", 16, parts, wide=100)
