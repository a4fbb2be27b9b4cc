"""How a table file is written, where that shall not be detected: keys of `[data]`, and options of `models predict`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from model_store.tables.text_file import is_encoding


@dataclass(frozen=True)
class TableOptions:
    """How a table file is written; None is detected."""

    separator: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    comment: str | None = None
    sheet: str | None = None


class OptionRule(NamedTuple):
    """The help of an option, the name of its value there, what is expected, and whether a value is valid."""

    help: str
    metavar: str
    expected: str
    is_valid: Callable[[Any], bool]


def _is_sign(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 1 and value not in '"\r\n'


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


OPTION_RULES = {  # of each field of `TableOptions`
    "separator": OptionRule(
        "Sign between the cells of a text file.  [default: detected]",
        "SIGN", "one character, such as ';' or '\\t'", _is_sign,
    ),
    "decimal": OptionRule(
        "Decimal sign of the numbers of a text file.  [default: detected]",
        "SIGN", "'.' or ','", lambda value: value in (".", ","),
    ),
    "encoding": OptionRule(
        "Encoding of a text file, such as cp1252.  [default: UTF-8 or UTF-16]",
        "NAME", "the name of a text encoding, such as 'utf-8', 'cp1252' or 'latin-1'", is_encoding,
    ),
    "comment": OptionRule(
        "Ignore the lines that begin with this sign, such as #.  [default: none]",
        "SIGN", "one character, such as '#'", _is_sign,
    ),
    "sheet": OptionRule(
        "Sheet of an Excel workbook.  [default: the first one]",
        "NAME", "the name of a sheet", _is_text,
    ),
}  # fmt: skip


def find_conflict(options: TableOptions) -> str:
    """Return why valid options exclude each other, "" if they do not."""
    both = options.separator == options.decimal == ","
    return "a comma cannot be the separator and the decimal sign" if both else ""
