"""Charts: what a report draws, each from figures that are checked and a few words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import sqrt
from typing import Any

from model_store.evaluation.confidence import wilson_interval
from model_store.report.markup import Markup, cut, tag
from model_store.report.svg import (
    NOTHING,
    WIDTH,
    Axis,
    Frame,
    apart,
    axis,
    beside,
    drawing,
    figure,
    hint,
    log_axis,
    path,
    percent_axis,
    text,
    width,
)
from model_store.utils.number_format import format_number, format_percent

NARROW = 10  # classes whose confusion matrix takes half a page
_NAME = 20  # letters of a name in a chart
_LEAN = 0.72  # how far a turned name reaches, up and to the right, of its length


def learning(history: Sequence[Mapping[str, Any]], best: int) -> Markup:
    """The loss of each epoch, in training and on the validation rows; `best` is the epoch whose weights are kept."""
    lines = [("training", "a", [(point["epoch"], point["loss"]) for point in history])]
    validated = [(p["epoch"], p["validation_loss"]) for p in history if p["validation_loss"] is not None]
    if validated:
        lines.append(("validation", "b", validated))
    losses = [loss for _, _, points in lines for _, loss in points]
    spread = min(losses) > NOTHING and max(losses) > 20 * min(losses)
    y = log_axis("loss", losses) if spread else axis("loss", losses)
    x = axis("epoch", [history[0]["epoch"], history[-1]["epoch"]], whole=True, tight=True)

    def marks(frame: Frame) -> Iterable[str]:
        if best < history[-1]["epoch"]:
            at = frame.x(max(best, history[0]["epoch"]))
            yield tag("line", x1=at, y1=frame.top, x2=at, y2=frame.bottom, class_="mark")
            end = at > (frame.left + frame.right) / 2
            yield text(
                at - 5 if end else at + 5, frame.top + 8, f"kept: {format_number(best)}", "note end" if end else "note"
            )
        for _, class_, points in lines:
            locations = [(frame.x(epoch), frame.y(loss)) for epoch, loss in points]
            yield path(locations, f"line {class_}")
            if len(locations) == 1:
                yield tag("circle", cx=locations[0][0], cy=locations[0][1], r=3, class_=f"dot {class_}")
        ends = [(frame.y(points[-1][1]), name, f"name {class_}") for name, class_, points in lines]
        yield from beside(ends, frame.right + 6, frame.top + 4, frame.bottom - 4)

    label = f"Loss by epoch, {len(history)} points; the last training loss is {format_number(history[-1]['loss'])}"
    return figure(label, x, y, marks, margin_right=76)


def reliability(calibration: Mapping[str, Any]) -> Markup:
    """What came true of each probability that was said, with its 95 % interval, and how many rows said it."""
    bins = calibration["bins"]
    most = max(part["rows"] for part in bins)
    foot = 50.0

    def marks(frame: Frame) -> Iterable[str]:
        yield tag("line", x1=frame.x(0), y1=frame.y(0), x2=frame.x(1), y2=frame.y(1), class_="ideal")
        base = frame.bottom + 32 + foot
        yield tag("line", x1=frame.left, y1=base, x2=frame.right, y2=base, class_="axis")
        yield text(frame.left - 6, base, "rows", "tick end")
        for part in bins:
            low, high = wilson_interval(part["found"] * part["rows"], part["rows"])
            at = frame.x(part["said"])
            yield tag("line", x1=at, y1=frame.y(low), x2=at, y2=frame.y(high), class_="whisker a")
            shares = f"said {format_percent(part['said'])}, came true {format_percent(part['found'])}"
            words = f"{format_number(part['rows'])} rows: {shares}"
            yield tag("g", hint(words), tag("circle", cx=at, cy=frame.y(part["found"]), r=4.5, class_="dot a"))
            left, right = frame.x(part["low"]) + 1, frame.x(part["high"]) - 1
            tall = max(1.0, 24 * part["rows"] / most)
            bar = tag("rect", x=left, y=base - tall, width=max(1.0, right - left), height=tall, class_="fill a")
            yield tag("g", hint(words), bar)
            yield text((left + right) / 2, base - tall - 3, format_number(part["rows"]), "small middle")

    found = f"Reliability: expected calibration error {format_percent(calibration['expected_error'])}"
    x, y = percent_axis("probability said"), percent_axis("came true")
    return figure(found, x, y, marks, height=290 + foot, foot=foot)


def roc(curve: Mapping[str, Any]) -> Markup:
    """The ROC curve beside that of guessing."""

    def marks(frame: Frame) -> Iterable[str]:
        yield tag("line", x1=frame.x(0), y1=frame.y(0), x2=frame.x(1), y2=frame.y(1), class_="ideal")
        yield path([(frame.x(a), frame.y(b)) for a, b in curve["points"]], "line a")
        yield text(frame.x(0.97), frame.y(0.06), f"area {format_number(curve['area'], 3)}", "name a end")

    label = f"ROC curve, area {format_number(curve['area'], 3)}"
    return figure(label, percent_axis("false positives"), percent_axis("true positives"), marks, height=290)


def confusion(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> Markup:
    """True classes down, answers across; a cell's colour is its share of the row, right ones in another colour."""
    size = len(labels)
    wide, letters = (WIDTH, 12) if size <= NARROW else (2 * WIDTH, 18)
    names = [cut(label, letters) for label in labels]
    longest = max(map(width, names))
    left = max(40.0, longest + 10)
    cell = min(46.0, (wide - left - 4) / size)
    turned = longest > cell - 4
    if turned:  # the last name leans out of the matrix
        cell = min(46.0, (wide - left - longest * _LEAN) / (size - 0.5))
    head = 22.0 + (longest * _LEAN + 14 if turned else 18)
    parts: list[str] = [
        text(0.0, head - 6 if turned else 11.0, "true", "title"),
        text(left, 11.0, "answered", "title"),
    ]
    for i, (name, row) in enumerate(zip(names, counts, strict=True)):
        total = sum(row)
        middle = left + (i + 0.5) * cell
        turn = f"rotate(-45 {middle + 3:.1f} {head - 6:.1f})" if turned else None
        class_ = "tick" if turned else "tick middle"
        parts.append(text(middle + (3 if turned else 0), head - 6, name, class_, transform=turn))
        parts.append(text(left - 6, head + (i + 0.5) * cell + 4, name, "tick end"))
        for j, count in enumerate(row):
            share = count / total if total else 0.0
            x, y = left + j * cell, head + i * cell
            counted = f"{format_number(count)} of {format_number(total)} ({format_percent(share)})"
            words = f"{labels[i]} answered as {labels[j]}: {counted}"
            shape = {"x": x + 0.75, "y": y + 0.75, "width": cell - 1.5, "height": cell - 1.5, "rx": 2}
            inner: list[str] = [hint(words), tag("rect", **shape, class_="cell")]
            if count:
                colour = "fill a" if i == j else "fill b"
                inner.append(tag("rect", **shape, class_=colour, fill_opacity=0.12 + 0.88 * share))
                figures = format_number(count)
                if width(figures) <= cell - 2:
                    on = "on" if share > 0.55 else "off"
                    inner.append(text(x + cell / 2, y + cell / 2 + 4, figures, f"count {on}"))
            parts.append(tag("g", *inner))
    return drawing(f"Confusion matrix of {size} classes", head + size * cell + 4, parts, wide=wide)


def bars(parts: Sequence[Mapping[str, Any]], title: str, *, points: bool) -> Markup:
    """A bar a part, the costliest first, with one standard deviation to each side; `points` are hundredths."""
    times = 100.0 if points else 1.0
    known = [(p["name"], p["cost"] * times, (p["deviation"] or 0.0) * times) for p in parts if p["cost"] is not None]
    names = [cut(name, _NAME) for name, _, _ in known]
    shown = [format_number(cost, 3) for _, cost, _ in known]
    left = max(map(width, names), default=0.0) + 10
    right = WIDTH - max([52.0, *(width(words) + 8 for words in shown)])
    row = 22.0
    ends = [end for _, cost, spread in known for end in (cost - spread, cost + spread)]
    x = axis(title, [0.0, *ends], tight=True)
    scale = x.scale(left, right)
    bottom = row * len(known) + 4
    drawn: list[str] = []
    for at, middle, name in apart([(scale(location), name) for location, name in x.ticks]):
        drawn.append(tag("line", x1=at, y1=0, x2=at, y2=bottom, class_="grid"))
        drawn.append(text(middle, bottom + 15, name, "tick middle"))
    for i, ((full, cost, spread), name, said) in enumerate(zip(known, names, shown, strict=True)):
        y = i * row + 4
        start, end = sorted((scale(0), scale(cost)))
        words = f"{full}: {said} ± {format_number(spread, 2)}"
        drawn.append(text(left - 8, y + 13, name, "tick end"))
        bar = tag("rect", x=start, y=y + 2, width=max(end - start, 1.0), height=row - 8, class_="fill a soft")
        spread_line = tag(
            "line", x1=scale(cost - spread), y1=y + 9, x2=scale(cost + spread), y2=y + 9, class_="whisker ink"
        )
        drawn.append(tag("g", hint(words), bar, spread_line))
        drawn.append(text(scale(max(cost + spread, 0.0)) + 6, y + 13, said, "value"))
    drawn.append(tag("line", x1=scale(0), y1=0, x2=scale(0), y2=bottom, class_="axis"))
    drawn.append(text(right, bottom + 32, title, "title end"))
    label = f"{title}: {names[0]} {shown[0]}" if known else title
    return drawing(label, bottom + 38, drawn)


def patches(importance: Mapping[str, Any], title: str) -> Markup:
    """A cell a patch of an image: the darker, the more it costs to shuffle it."""
    rows, columns = importance["grid"]
    costs = [part["cost"] or 0.0 for part in importance["parts"]]
    most = max(0.0, *costs)
    cell = min(30.0, 300.0 / columns, 300.0 / rows)
    left, top = 30.0, 4.0
    high, wide = importance["patch"]
    drawn: list[str] = []
    for i, (part, cost) in enumerate(zip(importance["parts"], costs, strict=True)):
        x, y = left + i % columns * cell, top + i // columns * cell
        share = max(cost, 0.0) / most if most else 0.0
        shape = {"x": x, "y": y, "width": cell - 1, "height": cell - 1, "rx": 2}
        fill = tag("rect", **shape, class_="fill a", fill_opacity=share)
        drawn.append(
            tag("g", hint(f"{part['name']}: {format_number(cost, 3)}"), tag("rect", **shape, class_="cell"), fill)
        )
    bottom = top + rows * cell
    drawn += [text(left - 6, top + (i + 0.5) * cell + 4, str(i * high), "tick end") for i in range(0, rows, 2)]
    drawn += [text(left + (j + 0.5) * cell, bottom + 14, str(j * wide), "tick middle") for j in range(0, columns, 2)]
    key = left + columns * cell + 20
    for i in range(20):
        share = 1 - i / 19
        drawn.append(tag("rect", x=key, y=top + i * 6.0, width=12, height=6.2, class_="fill a", fill_opacity=share))
    drawn.append(text(key + 18, top + 9, format_number(most, 3), "tick"))
    drawn.append(text(key + 18, top + 120, "0", "tick"))
    return drawing(f"{title}: at most {format_number(most, 3)}", max(bottom + 20, 130.0), drawn)


def scatter(name: str, residuals: Mapping[str, Any]) -> Markup:
    """Answers beside the truth; on the line they are one."""
    points = residuals["points"]
    room = axis("", [value for point in points for value in point], most=5)
    shown = cut(name, _NAME)
    x, y = (Axis(words, room.low, room.high, room.ticks) for words in (f"true {shown}", f"answered {shown}"))
    size = max(1.8, min(3.5, 40 / sqrt(len(points))))

    def marks(frame: Frame) -> Iterable[str]:
        ends = [(frame.x(v), frame.y(v)) for v in (room.low, room.high)]
        yield tag("line", x1=ends[0][0], y1=ends[0][1], x2=ends[1][0], y2=ends[1][1], class_="ideal")
        for truth, answer in points:
            dot = tag("circle", cx=frame.x(truth), cy=frame.y(answer), r=size, class_="dot a faint")
            yield tag("g", hint(f"true {format_number(truth)}, answered {format_number(answer)}"), dot)

    return figure(f"Answered against true {shown}, {len(points)} rows", x, y, marks, height=290)


def spread(name: str, residuals: Mapping[str, Any]) -> Markup:
    """A histogram of the errors, answer less truth."""
    edges, counts = residuals["edges"], residuals["counts"]
    x = axis(f"error of {cut(name, _NAME)} (answered − true)", [edges[0], edges[-1]])
    y = axis("rows", [0, max(1, *counts)], whole=True)

    def marks(frame: Frame) -> Iterable[str]:
        for low, high, count in zip(edges, edges[1:], counts, strict=False):
            left, right, top = frame.x(low), frame.x(high), frame.y(count)
            bar = tag(
                "rect", x=left, y=top, width=max(right - left - 1, 0.5), height=frame.bottom - top, class_="fill a"
            )
            yield tag(
                "g", hint(f"{format_number(low, 3)} to {format_number(high, 3)}: {format_number(count)} rows"), bar
            )
        if frame.x.inside(0):
            yield tag("line", x1=frame.x(0), y1=frame.top, x2=frame.x(0), y2=frame.bottom, class_="mark")

    return figure(f"Errors of {cut(name, _NAME)}", x, y, marks, height=290)


def deciles(low: float, high: float, tenths: Sequence[float]) -> Markup:
    """A line from the least to the largest value, thick from the first to the last decile, a stroke at the median."""
    scale = axis("", [low, high], tight=True).scale(2.0, 98.0)
    first, median, last = scale(tenths[1]), scale(tenths[5]), scale(tenths[9])
    parts = [
        tag("line", x1=2, y1=8, x2=98, y2=8, class_="whisker quiet"),
        tag("rect", x=first, y=5, width=max(last - first, 1.0), height=6, class_="fill quiet"),
        tag("line", x1=median, y1=2, x2=median, y2=14, class_="whisker ink"),
    ]
    return drawing(f"deciles from {format_number(tenths[1])} to {format_number(tenths[9])}", 16, parts, wide=100)
