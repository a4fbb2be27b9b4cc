"""An extension of mkdocstrings: a paragraph of `name: description` lines in a docstring becomes a list."""

from __future__ import annotations

import re
from typing import Any

import griffe

_NAMED = re.compile(r"^(?P<names>[a-z_]\w*(?:, [a-z_]\w*)*): ")


class ParameterLists(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            summary, *paragraphs = obj.docstring.value.split("\n\n")
            obj.docstring.value = "\n\n".join([summary, *map(_as_list, paragraphs)])


def _as_list(paragraph: str) -> str:
    """Return a list if all lines begin with a name and a colon, or are indented; otherwise the paragraph."""
    lines = paragraph.split("\n")
    named = [_NAMED.match(line) for line in lines]
    if named[0] is None or not all(found or line.startswith("    ") for found, line in zip(named, lines, strict=True)):
        return paragraph
    return "\n".join(_NAMED.sub(r"- `\g<names>`: ", line) for line in lines)
