"""TOML of bounded cost: job files are parsed in bounded time, with the location of syntax errors."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from model_store.errors import Fault

MAX_BYTES = 8 << 20  # the names and kinds of 100,000 columns take some megabytes
MAX_DEPTH = 32  # of tables and lists in each other; jobs have five
_MAX_KEY_WORK = 30_000_000  # tomllib's time grows with the square of the parts of a key; this is about 2 s
_DOTTED = re.compile(r"[^\s=,\[\]{}]+")
_QUOTED_PART = re.compile(r"""\.(?=["'])|(?<=["'])\.""")
_LONG_INTEGER = re.compile(r"[0-9_]{4301,}")


class TomlError(ValueError):
    """A text that is not TOML, or more than a job needs; `fault` says where and why."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


def parse_toml(text: str) -> dict[str, Any]:
    """Parse TOML in bounded time. TomlError if it is invalid or nested too deeply, or a key has too many parts."""
    _check_keys(text)
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TomlError(_syntax_fault(str(error), text)) from error
    except RecursionError as error:
        most = max(text.split("\n"), key=lambda line: line.count("[") + line.count("{"))
        raise TomlError(_depth_fault(f"line {_line_number(text, text.index(most))}")) from error
    except ValueError as error:  # of Python, for an integer of too many digits
        digits = _LONG_INTEGER.search(text)
        location = f"line {_line_number(text, digits.start())}" if digits else ""
        fault = Fault(location, "expected an integer of at most 64 bits, found a longer one", "write fewer digits")
        raise TomlError(fault) from error
    level: list[tuple[str, Any]] = list(found.items())
    for _ in range(MAX_DEPTH):
        level = [
            (key, child)
            for key, value in level
            if isinstance(value, (dict, list))
            for child in (value.values() if isinstance(value, dict) else value)
        ]
    if level:
        raise TomlError(_depth_fault(level[0][0]))
    return found


def _check_keys(text: str) -> None:
    """Raise TomlError for keys of so many parts that tomllib would need more than about 2 s.

    A key is on one line. Each of its dots is beside another part without quotes, or beside a quote.
    """
    work = 0
    for number, line in enumerate(text.split("\n"), 1):
        if "." not in line:
            continue
        line = line.translate({ord(" "): None, ord("\t"): None})
        counts = (token.count(".") for token in _DOTTED.findall(line))
        work += (sum(count for count in counts if count > 1) + len(_QUOTED_PART.findall(line))) ** 2
        if work > _MAX_KEY_WORK:
            problem = "expected keys of few parts, such as train.epochs, found too many dots"
            raise TomlError(Fault(f"line {number}", problem, "remove the key, or write a list in several lines"))


def _depth_fault(location: str) -> Fault:
    return Fault(location, f"expected at most {MAX_DEPTH} tables and lists in each other, found more", "remove some")


def _line_number(text: str, offset: int) -> int:
    return text.count("\n", 0, offset) + 1


def _syntax_fault(message: str, text: str) -> Fault:
    """Turn tomllib's message into a fault: "Invalid value (at line 3, column 5)", or "... (at end of document)"."""
    if found := re.search(r" \(at line (\d+), column (\d+)\)$", message):
        line, column = found.groups()
    else:
        lines = text.split("\n")
        line, column = str(len(lines)), str(len(lines[-1]) + 1)
    problem = re.sub(r" \(at .*\)$", "", message)
    return Fault(f"line {line}, column {column}", f"not TOML: {problem}", _syntax_fix(text.split("\n")[int(line) - 1]))


def _syntax_fix(line: str) -> str:
    value = line.partition("=")[2].strip()
    return "put quotes around text" if re.match(r"[A-Za-z_./]", value) else ""
