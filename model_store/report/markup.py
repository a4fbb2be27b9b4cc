"""Markup: HTML and SVG elements whose text is escaped unless it is markup itself.

Names, labels and descriptions come from files of other people. `tag` is the only way to an element, so that none of
them can become one.
"""

from __future__ import annotations

import html
from collections.abc import Iterable

# Control characters are no HTML, and marks of direction would turn the text around them.
_UNSHOWN = (*range(9), *range(11, 32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_UNSAFE = dict.fromkeys(_UNSHOWN, "\N{REPLACEMENT CHARACTER}")
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
