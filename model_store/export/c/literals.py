"""Literals of C99. Nothing that a model names can leave its string, its comment or its identifier."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from model_store.nn import Array

_MAX_STRING = 4000  # bytes: C99 compilers need to accept no more than 4095 in a string literal
_MAX_COMMENT = 300
_MAX_IDENTIFIER = 40
_NOT_PLAIN = frozenset(b'"\\?')  # two question marks would begin a trigraph
_PER_LINE = 8


def string(text: str) -> str:
    """Return a text as a constant of C: its UTF-8, without line breaks, quotes or trigraphs that C would read.

    ValueError for a text with a NUL, which would end it.
    """
    data = text.encode()
    if 0 in data:
        raise ValueError("expected a text without NUL")
    if len(data) > _MAX_STRING:
        return f"(const char[]){{{', '.join(map(str, (*_signed(data), 0)))}}}"
    plain = (chr(b) if 32 <= b < 127 and b not in _NOT_PLAIN else f"\\{b:03o}" for b in data)
    return f'"{"".join(plain)}"'


def _signed(data: bytes) -> list[str]:
    return [f"(char){byte}" for byte in data]


def comment(text: str) -> str:
    r"""Return a text for the inside of a comment: no sign of it can end or begin one, and others are \u and digits."""
    shown = text if len(text) <= _MAX_COMMENT else f"{text[:_MAX_COMMENT]}..."
    return "".join(c if " " <= c <= "~" and c not in "*?\\" else f"\\u{ord(c):04x}" for c in shown)


def identifiers(prefix: str, names: Iterable[str]) -> list[str]:
    """Return a different identifier for each name: the prefix, and the name in capitals as far as C allows."""
    taken: dict[str, int] = {}
    found = []
    for name in names:
        plain = re.sub(r"[^A-Z0-9]+", "_", name.upper().encode("ascii", "replace").decode()).strip("_")
        one = f"{prefix}{plain[:_MAX_IDENTIFIER]}".rstrip("_")
        while one in taken:
            taken[one] += 1
            one = f"{one}_{taken[one]}"
        taken[one] = 1
        found.append(one)
    return found


def number(value: float) -> str:
    """Return a finite number as a constant of type double that has the same bits."""
    return repr(float(value))


def array(kind: str, name: str, values: npt.ArrayLike) -> str:
    """Return the definition of a constant array of float, double or integers, with the shortest exact digits."""
    flat: Array = np.asarray(values).reshape(-1)
    suffix = "f" if flat.dtype == np.float32 else ""
    texts = flat.astype("U32").tolist() if flat.dtype == np.float32 else list(map(repr, flat.tolist()))
    lines = [
        ", ".join(f"{text}{suffix}" for text in texts[start : start + _PER_LINE])
        for start in range(0, len(texts), _PER_LINE)
    ]
    body = ",\n    ".join(lines)
    return f"static const {kind} {name}[{len(texts)}] = {{\n    {body}}};\n"
