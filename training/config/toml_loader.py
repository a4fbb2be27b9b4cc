"""The job file as text: read TOML with the location of syntax errors, and set keys from the command line."""

from __future__ import annotations

import codecs
import re
import tomllib
from pathlib import Path
from typing import Any

from model_store.errors import Fault, did_you_mean
from model_store.tables.formats import is_table
from model_store.utils.regular_file import open_regular
from training.errors import JobError

MAX_BYTES = 8 << 20  # the names and kinds of 100,000 columns take some megabytes
MAX_DEPTH = 32  # of tables and lists in each other; jobs have five
_MAX_KEY_WORK = 30_000_000  # tomllib's time grows with the square of the parts of a key; this is about 2 s
_DOTTED = re.compile(r"[^\s=,\[\]{}]+")
_QUOTED_PART = re.compile(r"""\.(?=["'])|(?<=["'])\.""")
_LONG_INTEGER = re.compile(r"[0-9_]{4301,}")


def read_toml(path: Path) -> dict[str, Any]:
    """Read a job file in UTF-8, with a byte order mark or not. JobError if it cannot be read or is not TOML."""
    if path.is_file() and is_table(path.name):
        fix = f"train init {path} --target COLUMN writes one for this table"
        raise JobError(str(path), [Fault("", "expected a job file in TOML, found a table", fix)])
    if path.is_file() and path.suffix.lower() == ".npz":
        fix = "write one that names it: [data] path = ..."
        raise JobError(str(path), [Fault("", "expected a job file in TOML, found arrays", fix)])
    try:
        with open_regular(path) as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            fault = Fault(
                "", f"expected at most {MAX_BYTES >> 20} MiB, found more", "leave out columns, or check the path"
            )
            raise JobError(str(path), [fault])
        if content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) or b"\0" in content[:4]:
            fault = Fault("", "expected text in UTF-8, found UTF-16", "save the file as UTF-8")
            raise JobError(str(path), [fault])
        text = content.decode("utf-8-sig")
        return parse_toml(text)
    except FileNotFoundError as error:
        neighbours = [entry.name for entry in path.parent.glob("*.toml")] if path.parent.is_dir() else []
        fix = did_you_mean(path.name, neighbours) or "check the path; train init writes a job file for a table"
        raise JobError(str(path), [Fault("", "no such file", fix)]) from error
    except OSError as error:
        fix = "name a job file that you may read"
        raise JobError(str(path), [Fault("", f"cannot be read: {error.strerror}", fix)]) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        fault = Fault(f"line {line}", "expected text in UTF-8", "save the file as UTF-8")
        raise JobError(str(path), [fault]) from error
    except TomlError as error:
        raise JobError(str(path), [error.fault]) from error


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


def set_key(content: dict[str, Any], location: str, value: Any) -> None:
    """Set a key of a job file's content by its location, such as `train.epochs`; None removes it."""
    *tables, key = location.split(".")
    for name in tables:
        inner = content.setdefault(name, {})
        if not isinstance(inner, dict):
            raise JobError("--set", [Fault(location, f"'{name}' is not a section", "write it as section.key=value")])
        content = inner
    if value is None:
        content.pop(key, None)
    else:
        content[key] = value
