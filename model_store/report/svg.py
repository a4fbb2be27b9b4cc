"""SVG: scales, axes and the marks between them, drawn for a figure of 360 units so that a phone shows it unscaled.

Colours, weights and sizes of type are classes of style.css, light and dark alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from model_store.report.markup import Markup, join, tag
from model_store.utils.number_format import format_grouped, format_number

WIDTH = 360.0
LINE = 15.0  # of type
_LETTER = 6.8  # width of an average letter, generously
NOTHING = 1e-99  # what is smaller is drawn as 0


@dataclass(frozen=True)
class Scale:
    """From the values `low` to `high` to the places `start` to `end`, by the values' logarithms when `log`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (_log(v) if self.log else v for v in (self.low, self.high, value))
        share = (value - low) / (high - low)
        return self.start + share * (self.end - self.start)

    def inside(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Axis:
    """What an axis measures: its range, where its ticks are, and how they are called."""

    title: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def scale(self, start: float, end: float) -> Scale:
        return Scale(self.low, self.high, start, end, self.log)


def axis(title: str, values: Iterable[float], *, most: int = 6, whole: bool = False, tight: bool = False) -> Axis:
    """An axis with round ticks around the values; `tight` ends it where they end, `whole` has whole ticks alone."""
    low, high = _span(values)
    step = _round_step((high - low) / most)
    step = max(1.0, step) if whole else step
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if tight:
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    locations = [i * step for i in range(first, last + 1)]
    if not tight:
        low, high = locations[0], locations[-1]
    return Axis(title, low, high, tuple((location, _tick(location, step)) for location in locations))


def log_axis(title: str, values: Iterable[float]) -> Axis:
    """An axis of powers of ten, and where these are few, of their twos and fives, around values above 0."""
    low, high = _span(values)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if last - first <= 3 else (1,)
    every = max(1, -(-(last - first) // 6))
    locations = [step * 10.0**power for power in range(first, last + 1, every) for step in steps]
    inside = [location for location in locations if low <= location <= high]
    if len(inside) < 2:
        inside = [
            max(location for location in locations if location <= low),
            *inside,
            min(p for p in locations if p >= high),
        ]
        low, high = inside[0], inside[-1]
    return Axis(title, low, high, tuple((location, format_number(location, 3)) for location in inside), log=True)


def percent_axis(title: str) -> Axis:
    return Axis(title, 0.0, 1.0, tuple((i / 4, f"{25 * i} %") for i in range(5)))


@dataclass(frozen=True)
class Frame:
    """The room between two axes: `x` and `y` are their scales, everything else has its place in units."""

    x: Scale
    y: Scale
    left: float
    top: float
    right: float
    bottom: float


def figure(
    label: str,
    x: Axis,
    y: Axis,
    marks: Callable[[Frame], Iterable[str]],
    *,
    height: float = 240.0,
    margin_right: float = 12.0,
    foot: float = 0.0,
    grid: bool = True,
) -> Markup:
    """A drawing with axes; `marks` draws between them. `label` says it to who cannot see it.

    `foot` leaves room below the axes, `grid` draws the ticks of y as lines.
    """
    left = max(width(name) for _, name in y.ticks) + 10 if y.ticks else 12.0
    frame_bottom = height - 36 - foot
    frame = Frame(
        x.scale(left, WIDTH - margin_right), y.scale(frame_bottom, 24.0), left, 24.0, WIDTH - margin_right, frame_bottom
    )
    parts: list[str] = [text(0.0, 11.0, y.title, "title")]
    for location, name in y.ticks:
        at = frame.y(location)
        if grid:
            parts.append(tag("line", x1=left, y1=at, x2=frame.right, y2=at, class_="grid"))
        parts.append(text(left - 6, at + 4, name, "tick end"))
    parts.append(tag("line", x1=left, y1=frame.bottom, x2=frame.right, y2=frame.bottom, class_="axis"))
    for at, middle, name in apart([(frame.x(location), name) for location, name in x.ticks]):
        parts.append(tag("line", x1=at, y1=frame.bottom, x2=at, y2=frame.bottom + 4, class_="axis"))
        parts.append(text(middle, frame.bottom + 16, name, "tick middle"))
    parts.append(text(frame.right, frame.bottom + 32, x.title, "title end"))
    return drawing(label, height, [*parts, *marks(frame)])


def drawing(label: str, height: float, parts: Iterable[str], *, wide: float = WIDTH) -> Markup:
    return tag("svg", join(parts), viewBox=f"0 0 {wide:g} {height:g}", role="img", aria_label=label)


def text(x: float, y: float, words: str, class_: str, **attributes: object) -> Markup:
    return tag("text", words, x=x, y=y, class_=class_, **attributes)


def path(points: Iterable[tuple[float, float]], class_: str) -> Markup:
    """A line through places of a frame."""
    return tag("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points), class_=class_)


def hint(words: str) -> Markup:
    """What a mark says when it is pointed at."""
    return tag("title", words)


def beside(locations: Sequence[tuple[float, str, str]], x: float, low: float, high: float) -> list[Markup]:
    """Direct labels (place, words, class) at the end of lines, moved apart where they would overlap."""
    labels: list[Markup] = []
    free = low
    ordered = sorted(locations)
    for i, (location, words, class_) in enumerate(ordered):
        at = max(free, min(location, high - LINE * (len(ordered) - 1 - i)))
        labels.append(text(x, at + 4, words, class_))
        free = at + LINE
    return labels


def width(words: str) -> float:
    """About how wide a line of tick labels is."""
    return _LETTER * len(words)


def apart(ticks: Sequence[tuple[float, str]]) -> list[tuple[float, float, str]]:
    """Every tick, or every second, third ... of them, that their names do not touch; 0 stays where there is one.

    A tick's place, the middle of its name, which stays in the drawing, and the name.
    """
    zero = next((i for i, (_, name) in enumerate(ticks) if name == "0"), 0)
    for every in range(1, len(ticks) + 1):
        shown = []
        for at, name in ticks[zero % every :: every]:
            half = width(name) / 2
            shown.append((at, min(max(at, half), WIDTH - half), name))
        if all(b - a > (width(left) + width(right)) / 2 + 6 for (_, a, left), (_, b, right) in pairwise(shown)):
            return shown
    return []


def _span(values: Iterable[float]) -> tuple[float, float]:
    """The extremes, apart even where all values are one."""
    known = list(values)
    low, high = min(known), max(known)
    if high - low > max(abs(low), abs(high), NOTHING) * 1e-9:
        return low, high
    room = abs(high) / 10 if abs(high) > NOTHING else 1.0
    return high - room, high + room


def _round_step(least: float) -> float:
    """The least of 1, 2, 5 times a power of ten that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= least * (1 - 1e-9))


def _tick(location: float, step: float) -> str:
    """A tick's name: as many decimals as its step has."""
    if abs(location) < step / 1000:
        return "0"
    if abs(location) >= 1e6 or step < 1e-4:
        return format_number(location, 3)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return format_grouped(location, decimals)


def _log(value: float) -> float:
    return math.log10(value)
