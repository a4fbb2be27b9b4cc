"""Untrusted text as a terminal, a log line, a page or a shell line may show it.

Names, labels, descriptions and notes come from files and requests of others. Control characters and escape sequences
would command a terminal, line breaks forge lines of a log, and direction marks (U+202E) reorder the text around them.
"""

from __future__ import annotations

import json
import unicodedata


def printable(text: str, *, keep: str = "", max_length: int | None = None) -> str:
    r"""Return the text with each character that is not visible as a JSON escape: \u001b, \u202e, \n.

    JSON text keeps its meaning, as these characters occur in its strings only. Spaces of all kinds and the characters
    in `keep` stay. A text longer than `max_length` is cut, with its length at the end.
    """
    total = len(text)
    if max_length is not None and total > max_length:
        text = f"{text[:max_length]}... ({total} characters)"
    if text.isprintable():
        return text
    return "".join(letter if _is_visible(letter) or letter in keep else _escape(letter) for letter in text)


def valid_unicode(text: str) -> str:
    r"""Return the text with what UTF-8 cannot encode as escapes: \xff for a byte of a path or of the environment."""
    try:
        return text.encode(errors="surrogateescape").decode(errors="backslashreplace")
    except UnicodeEncodeError:
        return text.encode(errors="backslashreplace").decode()


def _is_visible(letter: str) -> bool:
    return letter.isprintable() or unicodedata.category(letter) == "Zs"


def _escape(letter: str) -> str:
    # A terminal shows an escape of a lone surrogate, too, which no encoding can write.
    return f"\\u{ord(letter):04x}" if letter == "\x7f" else json.dumps(letter)[1:-1]
