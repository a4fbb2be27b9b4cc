"""Markup: HTML and SVG elements whose text is escaped unless it is markup itself.

Names, labels and descriptions come from files of other people. `tag` is the only way to an element, so that none of
them can become one.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable

# Control characters are no HTML, and marks of direction would turn the text around them.
_UNSHOWN = (*range(9), *range(11, 32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_UNSAFE = dict.fromkeys(_UNSHOWN, "\N{REPLACEMENT CHARACTER}")
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
# Figures of a class and of a target by what people call them, in the order in which they are read.
TITLES = {
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "support": "rows",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R²",
}
_VOID = ("meta", "rect", "line", "circle", "path", "polyline")


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def tag(name: str, /, *children: str, **attributes: object) -> Markup:
    """An element. `class_` is class, other underscores are hyphens; an attribute that is None is left out."""
    start = name + "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_escaped(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup(f"<{start}/>")
    return Markup(f"<{start}>{join(children)}</{name}>")


def join(parts: Iterable[str]) -> Markup:
    """Parts one after the other, text among them escaped."""
    return Markup("".join(part if isinstance(part, Markup) else _escaped(part) for part in parts))


def _escaped(value: object) -> str:
    text = coordinate(value) if isinstance(value, float) else str(value)
    return html.escape(text.translate(_UNSAFE))


def coordinate(value: float) -> str:
    """A length on the page, to a hundredth."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if abs(value) >= 0.005 else "0"


def cut(text: object, most: int) -> str:
    """A long text without its middle: names are told apart by their ends as often as by their beginnings."""
    shown, end = str(text), most // 3
    return shown if len(shown) <= most else f"{shown[: most - end - 1]}…{shown[-end:]}"


def number(value: float | None, digits: int = 4) -> str:
    """A number for people: so many significant digits, powers of ten from a billion on and below 0.0001."""
    if value is None:
        return "–"
    if isinstance(value, int) and abs(value) < 10**15:
        return grouped(value)
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
    exponent = int(power)
    if not -4 <= exponent <= 8:
        return f"{_trimmed(mantissa.replace('-', '−'))} × 10{str(exponent).translate(_SUPERSCRIPTS)}"
    return _trimmed(grouped(value, max(0, digits - 1 - exponent)))


def grouped(value: float, decimals: int = 0) -> str:
    """Thousands apart from 10,000 on: four digits are often a year. With a true minus."""
    plain = f"{value:.{decimals}f}"
    whole = plain.lstrip("-").partition(".")[0]
    return (plain if len(whole) < 5 else f"{value:,.{decimals}f}").replace("-", "−")


def _trimmed(text: str) -> str:
    """Without zeros that say nothing."""
    return text.rstrip("0").rstrip(".") if "." in text else text


def percent(share: float | None, digits: int = 1) -> str:
    return "–" if share is None else f"{100 * share:.{digits}f} %".replace("-", "−")
