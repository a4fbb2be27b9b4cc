"""SVG plots: scales, axes, ticks and labels, 360 units wide so that a phone shows them unscaled.

Colors, line widths and font sizes are classes of style.css, for light and dark mode.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from model_store.report.markup import Markup, join, tag
from model_store.utils.number_format import format_grouped, format_number

WIDTH = 360.0
LINE_HEIGHT = 15.0  # of text
_CHARACTER_WIDTH = 6.8  # an upper estimate of the average
MIN_DRAWN_VALUE = 1e-99  # smaller values are drawn as 0


@dataclass(frozen=True)
class Scale:
    """Map values from `low` to `high` to positions from `start` to `end`, logarithmically if `log`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        share = (value - low) / (high - low) if high > low else 0.5  # neighbours may have equal logarithms
        return self.start + share * (self.end - self.start)

    def inside(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Axis:
    """An axis: its title, its range, and its ticks as (value, label)."""

    title: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def scale(self, start: float, end: float) -> Scale:
        return Scale(self.low, self.high, start, end, self.log)


def linear_axis(
    title: str, values: Iterable[float], *, max_ticks: int = 6, integers: bool = False, tight: bool = False
) -> Axis:
    """Return a linear axis with round ticks that covers the values.

    `tight` limits the range to the values instead of to ticks; `integers` allows only integer ticks.
    """
    low, high = _value_range(values)
    step = _round_step((high - low) / max_ticks)
    step = max(1.0, step) if integers else step
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if tight:
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    ticks = [i * step for i in range(first, last + 1)]
    if not tight:
        low, high = ticks[0], ticks[-1]
    return Axis(title, low, high, tuple((value, _tick_label(value, step)) for value in ticks))


def log_axis(title: str, values: Iterable[float]) -> Axis:
    """Return a logarithmic axis that covers positive values; ticks are powers of ten, and if few 2 and 5 times them."""
    low, high = _value_range(values)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if last - first <= 3 else (1,)
    every = max(1, -(-(last - first) // 6))
    ticks = [step * 10.0**power for power in range(first, last + 1, every) for step in steps]
    inside = [value for value in ticks if low <= value <= high]
    if len(inside) < 2:
        inside = [
            max(value for value in ticks if value <= low),
            *inside,
            min(p for p in ticks if p >= high),
        ]
        low, high = inside[0], inside[-1]
    return Axis(title, low, high, tuple((value, format_number(value, 3)) for value in inside), log=True)


def percent_axis(title: str) -> Axis:
    return Axis(title, 0.0, 1.0, tuple((i / 4, f"{25 * i} %") for i in range(5)))


@dataclass(frozen=True)
class PlotArea:
    """The area between two axes: their scales `x` and `y`, and its borders in units."""

    x: Scale
    y: Scale
    left: float
    top: float
    right: float
    bottom: float


def plot(
    label: str,
    x: Axis,
    y: Axis,
    marks: Callable[[PlotArea], Iterable[str]],
    *,
    height: float = 240.0,
    margin_right: float = 12.0,
    bottom_margin: float = 0.0,
    grid: bool = True,
) -> Markup:
    """Return a plot with axes; `marks` returns the elements inside. `label` is the text for screen readers.

    `bottom_margin` leaves space below the axes; `grid` draws horizontal lines at the ticks of y.
    """
    left = max(text_width(name) for _, name in y.ticks) + 10 if y.ticks else 12.0
    plot_bottom = height - 36 - bottom_margin
    area = PlotArea(
        x.scale(left, WIDTH - margin_right), y.scale(plot_bottom, 24.0), left, 24.0, WIDTH - margin_right, plot_bottom
    )
    parts: list[str] = [text(0.0, 11.0, y.title, "title")]
    for value, name in y.ticks:
        at = area.y(value)
        if grid:
            parts.append(tag("line", x1=left, y1=at, x2=area.right, y2=at, class_="grid"))
        parts.append(text(left - 6, at + 4, name, "tick end"))
    parts.append(tag("line", x1=left, y1=area.bottom, x2=area.right, y2=area.bottom, class_="axis"))
    for at, middle, name in spaced_ticks([(area.x(value), name) for value, name in x.ticks]):
        parts.append(tag("line", x1=at, y1=area.bottom, x2=at, y2=area.bottom + 4, class_="axis"))
        parts.append(text(middle, area.bottom + 16, name, "tick middle"))
    parts.append(text(area.right, area.bottom + 32, x.title, "title end"))
    return svg_element(label, height, [*parts, *marks(area)])


def svg_element(label: str, height: float, parts: Iterable[str], *, wide: float = WIDTH) -> Markup:
    return tag("svg", join(parts), viewBox=f"0 0 {wide:g} {height:g}", role="img", aria_label=label)


def text(x: float, y: float, words: str, class_: str, **attributes: object) -> Markup:
    return tag("text", words, x=x, y=y, class_=class_, **attributes)


def polyline(points: Iterable[tuple[float, float]], class_: str) -> Markup:
    """Return a line through points."""
    return tag("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points), class_=class_)


def tooltip(words: str) -> Markup:
    """Return a tooltip for the element that contains it."""
    return tag("title", words)


def line_labels(labels: Sequence[tuple[float, str, str]], x: float, top: float, bottom: float) -> list[Markup]:
    """Return labels, given as (y, text, class), at the end of lines, moved apart if they would overlap."""
    elements: list[Markup] = []
    free = top
    ordered = sorted(labels)
    for i, (y, words, class_) in enumerate(ordered):
        at = max(free, min(y, bottom - LINE_HEIGHT * (len(ordered) - 1 - i)))
        elements.append(text(x, at + 4, words, class_))
        free = at + LINE_HEIGHT
    return elements


def text_width(words: str) -> float:
    """Return an estimate of the width of a tick label."""
    return _CHARACTER_WIDTH * len(words)


def spaced_ticks(ticks: Sequence[tuple[float, str]]) -> list[tuple[float, float, str]]:
    """Return every n-th tick with the smallest n whose labels do not overlap; a tick at 0 is kept.

    Each is (position, middle of its label, label); labels are moved inside the plot.
    """
    zero = next((i for i, (_, name) in enumerate(ticks) if name == "0"), 0)
    for n in range(1, len(ticks) + 1):
        shown = []
        for at, name in ticks[zero % n :: n]:
            half = text_width(name) / 2
            shown.append((at, min(max(at, half), WIDTH - half), name))
        if all(
            b - a > (text_width(left) + text_width(right)) / 2 + 6 for (_, a, left), (_, b, right) in pairwise(shown)
        ):
            return shown
    return []


def _value_range(values: Iterable[float]) -> tuple[float, float]:
    """Return minimum and maximum, moved apart if they are equal."""
    known = list(values)
    low, high = min(known), max(known)
    if high - low > max(abs(low), abs(high), MIN_DRAWN_VALUE) * 1e-9:
        return low, high
    margin = abs(high) / 10 if abs(high) > MIN_DRAWN_VALUE else 1.0
    return high - margin, high + margin


def _round_step(minimum: float) -> float:
    """Return the smallest of 1, 2 and 5 times a power of ten that is at least `minimum`."""
    power = 10.0 ** math.floor(math.log10(minimum))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= minimum * (1 - 1e-9))


def _tick_label(value: float, step: float) -> str:
    """Return the label of a tick, with as many decimals as the step has."""
    if abs(value) < step / 1000:
        return "0"
    if abs(value) >= 1e6 or step < 1e-4:
        return format_number(value, 3)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return format_grouped(value, decimals)
