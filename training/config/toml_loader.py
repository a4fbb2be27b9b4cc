"""The job file as text: TOML, with the place of what is no TOML, and keys that a command sets."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from model_store.errors import Fault, did_you_mean
from training.errors import JobError

# Data that are given in place of the job file that names them.
_NAMED = "write one that names it: [data] path = ..."
_DATA = {
    ".csv": ("a table", "train init {path} --target COLUMN writes one for this table"),
    ".parquet": ("a table", _NAMED),
    ".npz": ("arrays", _NAMED),
}


def parse(path: Path) -> dict[str, Any]:
    """What a job file says. JobError where it cannot be read or is no TOML."""
    kind = path.suffix.lower()
    if kind in _DATA and path.is_file():
        problem, fix = _DATA[kind]
        raise JobError(str(path), [Fault("", f"expected a job file in TOML, found {problem}", fix.format(path=path))])
    try:
        text = path.read_bytes().decode("utf-8")
        return tomllib.loads(text)
    except FileNotFoundError as error:
        there = [entry.name for entry in path.parent.glob("*.toml")] if path.parent.is_dir() else []
        raise JobError(str(path), [Fault("", "no such file", did_you_mean(path.name, there))]) from error
    except OSError as error:
        raise JobError(str(path), [Fault("", f"cannot be read: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise JobError(
            str(path), [Fault(f"line {line}", "expected text in UTF-8", "save the file as UTF-8")]
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise JobError(str(path), [_syntax_fault(str(error), text)]) from error


def _syntax_fault(message: str, text: str) -> Fault:
    """tomllib's message, the place first: "Invalid value (at line 3, column 5)", or "... (at end of document)"."""
    if found := re.search(r" \(at line (\d+), column (\d+)\)$", message):
        line, column = found.groups()
    else:
        lines = text.split("\n")
        line, column = str(len(lines)), str(len(lines[-1]) + 1)
    problem = re.sub(r" \(at .*\)$", "", message)
    return Fault(f"line {line}, column {column}", f"not TOML: {problem}", _syntax_mend(text.split("\n")[int(line) - 1]))


def _syntax_mend(line: str) -> str:
    value = line.partition("=")[2].strip()
    return "put texts in quotes" if re.match(r"[A-Za-z_./]", value) else ""


def set_key(content: dict[str, Any], location: str, value: Any) -> None:
    """Set a key of what a job file says, by its place: `train.epochs`; None leaves it out."""
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
