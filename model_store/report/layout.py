"""The layout of a report: sections of figures, tables, and tiles with a single value."""

from __future__ import annotations

from collections.abc import Sequence

from model_store.report.markup import Markup, tag

MAX_LABEL_LENGTH = 500  # characters of a name; longer ones are shortened in the middle


def section(title: str, *parts: Markup, note: str | None = None) -> Markup:
    below = [tag("p", note, class_="note")] if note else []
    return tag("section", tag("h2", title), tag("div", *parts, class_="figures"), *below)


def figure(title: str, content: Markup, caption: str | None = None, *, wide: bool = False) -> Markup:
    captions = [tag("figcaption", caption)] if caption else []
    class_ = "wide" if wide else None
    return tag("figure", tag("h3", title), tag("div", content, class_="scroll"), *captions, class_=class_)


def tile(tile: tuple[str, str, str]) -> Markup:
    name, value, words = tile
    return tag("div", tag("span", name), tag("b", value), tag("small", words))


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, stacks: bool = False) -> Markup:
    """Return a table; a heading that starts with ">" aligns its column to the right, the first column names the row.

    With `stacks` a phone shows the cells of a row one below the other, each with its heading.
    """
    sides = ["n" if heading.startswith(">") else None for heading in headings]
    head = [
        tag("th", heading.lstrip(">"), scope="col", class_=side) for heading, side in zip(headings, sides, strict=True)
    ]
    body = []
    for first, *others in rows:
        cells = [
            tag("td", cell, class_=side, data_label=heading if stacks else None)
            for heading, cell, side in zip(headings[1:], others, sides[1:], strict=True)
        ]
        body.append(tag("tr", tag("th", first, scope="row", class_=sides[0]), *cells))
    return tag("table", tag("thead", tag("tr", *head)), tag("tbody", *body), class_="stacks" if stacks else None)
