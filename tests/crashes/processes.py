"""A worker process that runs operations and reports their results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


class Worker:
    """Runs one operation at a time, directly or in a fork traced by strace."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.input, self.output = process.stdin, process.stdout

    def run_operation(self, operation: str, store: Path, number: int) -> dict[str, str]:
        self._write_line(f"{operation} {store} {number}")
        result: dict[str, str] = json.loads(self.output.readline())
        return result

    def run_traced(self, operation: str, store: Path, number: int, *strace: str) -> dict[str, str]:
        self._write_line(f"fork {operation} {store} {number}")
        child = self.output.readline().strip()
        with subprocess.Popen(["strace", "-p", child, *strace], stderr=subprocess.PIPE, text=True) as watcher:
            assert watcher.stderr is not None
            attached = watcher.stderr.readline()
            self._write_line("go")
            result: dict[str, str] = json.loads(self.output.readline())
            if "attached" not in attached:
                pytest.skip(attached.strip())
            return result

    def _write_line(self, line: str) -> None:
        print(line, file=self.input, flush=True)


@contextmanager
def worker(warm_up: Path, *defects: str) -> Iterator[Worker]:
    """Start a worker and run each operation once in a separate store."""
    environ = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    words = [sys.executable, "-m", "tests.crashes.operations", *defects]
    with subprocess.Popen(words, cwd=ROOT, env=environ, stdin=-1, stdout=-1, text=True) as process:
        made = Worker(process)
        for operation, number in (("publish", 1), ("publish", 2), ("move", 1), ("remove", 2)):
            result = made.run_operation(operation, warm_up, number)
            assert "done" in result, result
        yield made
    assert process.returncode == 0
