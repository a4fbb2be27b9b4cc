"""HTML and SVG elements; text is escaped unless it is `Markup`.

Names, labels and descriptions come from untrusted files. Elements are only made by `tag`, so no text can become one.
"""

from __future__ import annotations

import html
from collections.abc import Iterable

from model_store.utils.printable import printable

_VOID_ELEMENTS = ("meta", "rect", "line", "circle", "path", "polyline")


class Markup(str):
    """Text that is already escaped."""

    __slots__ = ()


def tag(name: str, /, *children: str, **attributes: object) -> Markup:
    """Return an element. `class_` becomes class, other underscores become hyphens; an attribute of None is left out."""
    start = name + "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID_ELEMENTS:
        return Markup(f"<{start}/>")
    return Markup(f"<{start}>{join(children)}</{name}>")


def join(parts: Iterable[str]) -> Markup:
    """Return the concatenated parts; those that are not `Markup` are escaped."""
    return Markup("".join(part if isinstance(part, Markup) else _escape(part) for part in parts))


def _escape(value: object) -> str:
    text = format_coordinate(value) if isinstance(value, float) else str(value)
    return html.escape(printable(text, keep="\n\t"))


def format_coordinate(value: float) -> str:
    """Return a length on the page with two decimals at most."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if abs(value) >= 0.005 else "0"


def truncate_middle(text: object, max_length: int) -> str:
    """Shorten a long text in its middle, because names often differ only at their end."""
    shown, end = str(text), max_length // 3
    return shown if len(shown) <= max_length else f"{shown[: max_length - end - 1]}…{shown[-end:]}"
