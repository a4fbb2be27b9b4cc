"""The job file as text: read it with the location of syntax errors, and set keys from the command line."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any

from model_store.errors import Fault, did_you_mean
from model_store.tables.formats import is_table
from model_store.utils.regular_file import open_regular
from model_store.utils.toml import MAX_BYTES, TomlError, parse_toml
from training.errors import JobError


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
