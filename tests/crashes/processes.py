"""A process that does deeds, and what it says about them."""

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
    """Does one deed at a time, or has a fork do it that a strace watches."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.input, self.output = process.stdin, process.stdout

    def do(self, deed: str, store: Path, number: int) -> dict[str, str]:
        self._say(f"{deed} {store} {number}")
        told: dict[str, str] = json.loads(self.output.readline())
        return told

    def do_watched(self, deed: str, store: Path, number: int, *strace: str) -> dict[str, str]:
        self._say(f"fork {deed} {store} {number}")
        child = self.output.readline().strip()
        with subprocess.Popen(["strace", "-p", child, *strace], stderr=subprocess.PIPE, text=True) as watcher:
            assert watcher.stderr is not None
            attached = watcher.stderr.readline()
            self._say("go")
            told: dict[str, str] = json.loads(self.output.readline())
            if "attached" not in attached:
                pytest.skip(attached.strip())
            return told

    def _say(self, line: str) -> None:
        print(line, file=self.input, flush=True)


@contextmanager
def worker(warm_up: Path, *sabotages: str) -> Iterator[Worker]:
    """A worker that has done each deed once, in a store of its own."""
    environ = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    words = [sys.executable, "-m", "tests.crashes.deeds", *sabotages]
    with subprocess.Popen(words, cwd=ROOT, env=environ, stdin=-1, stdout=-1, text=True) as process:
        made = Worker(process)
        for deed, number in (("publish", 1), ("publish", 2), ("move", 1), ("remove", 2)):
            told = made.do(deed, warm_up, number)
            assert "done" in told, told
        yield made
    assert process.returncode == 0
