"""Export a version: make the files in memory, check them on the golden rows, write all of them or none."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path

from model_store.export.agreement import find_disagreement
from model_store.export.base import ExportError, ExportSource, Target, check_carried, golden_rows
from model_store.utils.atomic_write import atomic_write

TARGETS = {  # the module of each target, which has the target as TARGET
    "c": "model_store.export.c.target",
    "javascript": "model_store.export.javascript.target",
    "onnx": "model_store.export.onnx.target",
    "python": "model_store.export.python.target",
}


def find_target(name: str) -> Target:
    """Return the target of a name of `TARGETS`."""
    target: Target = import_module(TARGETS[name]).TARGET
    return target


def export(source: ExportSource, target: Target) -> dict[str, bytes]:
    """Return the checked files by name. ExportError if the target cannot carry the model, or its answers differ."""
    check_carried(source, target)
    target.check_engine(source)
    files = target.files(source)
    check_answers(source, target, files)
    return files


def check_answers(source: ExportSource, target: Target, files: Mapping[str, bytes]) -> None:
    """Raise ExportError unless the files give the model's answers for its golden rows.

    A model without golden rows is checked on rows that are made up from its statistics.
    """
    golden = golden_rows(source.model)
    found = target.answer(source, files, golden.instances)
    different = find_disagreement(source.model.signature, golden.outputs, found)
    if different is not None:
        row, expected, answer = different
        raise ExportError(
            f"{source.reference}: {target.name} gives another answer for golden row {row}: "
            f"expected {expected}, found {answer}; nothing was written"
        )


def write_files(files: Mapping[Path, bytes], *, force: bool = False) -> None:
    """Write all files or none. ExportError if one exists with another content, unless `force` is given."""
    for path, content in files.items():
        if not force and path.is_file() and path.read_bytes() != content:
            raise ExportError(f"{path}: already exists; overwrite it with --force, or choose another with --output")
    with ExitStack() as stack:  # an error removes all temporary files; without one all are renamed
        for path, content in files.items():
            stack.enter_context(atomic_write(path)).write(content)
