"""Compile C and run it in a folder of its own."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from model_store.export.base import ExportError

FLAGS = ("-std=c99", "-O1")
_COMPILERS = ("cc", "gcc", "clang")
_SECONDS = 600  # for one compilation or run: 16 million weights take gcc a minute
_MAX_MESSAGE = 1000


def find_compiler() -> str:
    """Return the path of a C compiler. ExportError if there is none on PATH."""
    compiler = next(filter(None, map(shutil.which, _COMPILERS)), None)
    if compiler is None:
        fix = "install gcc or clang, since an export is only written after it has given the model's answers"
        raise ExportError(f"expected a C compiler (cc, gcc or clang) on PATH, found none: {fix}")
    return compiler


def compile_and_run(files: Mapping[str, bytes], main: str, standard_input: bytes = b"") -> bytes:
    """Compile the file `main` among `files`, run the program and return its output.

    ExportError without a compiler, for a file that it rejects, and for a program that fails.
    """
    compiler = find_compiler()
    with tempfile.TemporaryDirectory(prefix="export-") as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        _run([compiler, *FLAGS, "-o", "program", main, "-lm"], folder, b"")
        return _run([str(Path(folder) / "program")], folder, standard_input)


def _run(command: list[str], folder: str, standard_input: bytes) -> bytes:
    try:
        done = subprocess.run(  # noqa: S603 - a compiler, and the program that it has made of our own text
            command, cwd=folder, input=standard_input, capture_output=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        raise ExportError(f"{command[0]}: {e}") from e
    if done.returncode:
        message = (done.stderr or done.stdout).decode(errors="replace")[:_MAX_MESSAGE]
        raise ExportError(f"{' '.join(command)}: exit code {done.returncode}: {message}")
    return done.stdout
