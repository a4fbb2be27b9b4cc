"""One run of the quality benchmark: a contestant, a table and a seed; and the file that keeps its result."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from threading import Timer
from time import perf_counter
from typing import Any

from benchmarks.quality.measures import error_rate, log_loss, rmse
from benchmarks.quality.tables import Table
from benchmarks.rounds import unpinned

ROOT = Path(__file__).parents[2]
PEER = ROOT / "benchmarks" / "peers" / "quality" / "contestant.py"
ENVIRONMENTS = {
    "sklearn-mlp": "sklearn",
    "sklearn-hgb": "sklearn",
    "lightgbm": "lightgbm",
    "catboost": "catboost",
    "realmlp": "realmlp",
    "realmlp-log-loss": "realmlp",
}
# The last commit with the first default: one layer of 64 ReLUs, SGD, 40 epochs.
BEFORE = "f0abd2d1f9baf438bc5eb579df7f0b7f0ee77efd"
OURS = ("ours", "before")
ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
Result = dict[str, Any]


def digest(paths: Iterable[Path]) -> str:
    found = sha256()
    for path in sorted(paths):
        found.update(path.name.encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:12]


@dataclass(frozen=True)
class Contestant:
    """`version` changes with whatever changes its results, so that no result of another version counts as its own."""

    name: str
    python: Path
    version: str
    tree: Path = ROOT
    changes: tuple[str, ...] = ()

    def command(self, table: Table, folder: Path, seed: int, answer: Path) -> list[str]:
        task = "classes" if table.classes else "numbers"
        words = [str(folder / "train.csv"), str(folder / "test.csv"), table.target, task, str(seed), str(answer)]
        if self.name in ENVIRONMENTS:
            return [str(self.python), str(PEER), self.name, *words]
        return [str(self.python), str(ROOT / "benchmarks" / "quality" / "ours.py"), *words, *self.changes]


def contestant(name: str, folder: Path, changes: Sequence[str] = ()) -> Contestant:
    """Return a contestant: "ours" of this tree, "before" of the commit `BEFORE`, which is unpacked, or a peer."""
    if name in ENVIRONMENTS:
        environment = ROOT / f".venv-peer-{ENVIRONMENTS[name]}"
        lines = (PEER.parent / "requirements" / f"{ENVIRONMENTS[name]}.txt").read_text(encoding="utf-8").split()
        return Contestant(
            name, environment / "bin" / "python", " ".join(lines) + " " + digest(PEER.parent.glob("*.py"))
        )
    tree = ROOT if name == "ours" else folder / "before"
    if name == "before" and not tree.exists():
        archive = subprocess.run(["git", "archive", BEFORE], cwd=ROOT, capture_output=True, check=True)  # noqa: S607
        tree.mkdir(parents=True)
        subprocess.run(["tar", "-x"], cwd=tree, input=archive.stdout, check=True)  # noqa: S607
    code = [path for package in ("training", "model_store") for path in (tree / package).rglob("*.py")]
    version = " ".join([digest(code), *changes])
    return Contestant(name, Path(sys.executable), version, tree, tuple(changes))


def run(one: Contestant, table: Table, folder: Path, seed: int, timeout: float) -> Result:
    """Run one contestant in a process; return its errors and costs, or why it failed.

    `process` is the processor time of the whole process in seconds, `work` of preparing, fitting and predicting alone,
    `memory` the peak in MB.
    """
    environ = {**unpinned(os.environ), **ONE_THREAD, "PYTHONPATH": str(one.tree)}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program has its bytecode on disk
    result: Result = {}
    with tempfile.TemporaryDirectory() as scratch:
        answer, log = Path(scratch) / "answer.json", Path(scratch) / "log"
        begin = perf_counter()
        with log.open("wb") as out:
            process = subprocess.Popen(
                one.command(table, folder.resolve(), seed, answer),
                env=environ,
                stdout=out,
                stderr=out,
                cwd=scratch,
                start_new_session=True,
            )
            usage = _finished(process, timeout)
        result |= {"wall": round(perf_counter() - begin, 2), "memory": round(usage.ru_maxrss / 1024, 1)}
        result["process"] = round(usage.ru_utime + usage.ru_stime, 3)
        if not answer.exists():
            log_lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            lines = [line for line in log_lines if line.strip() and not line.startswith(" ")] or ["no output"]
            return result | {
                "failed": lines[-1][:400] if process.returncode != -signal.SIGKILL else f"stopped after {timeout:g} s"
            }
        found = json.loads(answer.read_text(encoding="utf-8"))
    result["work"] = round(found["seconds"], 3)
    if note := found.get("note"):
        result["note"] = note[:400]
    return result | errors(table, targets(folder / "test.csv", table.target), found)


def _finished(process: subprocess.Popen[bytes], timeout: float) -> Any:
    """Wait for a process, and kill its session after `timeout` seconds; return what it and its children used."""
    timer = Timer(timeout, os.killpg, (process.pid, signal.SIGKILL))
    timer.start()
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:  # Ctrl-C, or a signal that ends this program
        os.killpg(process.pid, signal.SIGKILL)
        raise
    finally:
        timer.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage


def targets(path: Path, column: str) -> list[str]:
    with path.open(encoding="utf-8", newline="") as file:
        return [row[column] for row in csv.DictReader(file)]


def errors(table: Table, wanted: Sequence[str], found: Result) -> dict[str, float]:
    """Return `rmse`, or `log_loss` and `error_rate`."""
    if not table.classes:
        return {"rmse": rmse([float(cell) for cell in wanted], found["predictions"])}
    labels, probabilities = found["labels"], found["probabilities"]
    return {
        "log_loss": log_loss(wanted, labels, probabilities),
        "error_rate": error_rate(wanted, labels, probabilities),
    }


class Results:
    """The results of one purpose ("test" or "development"): a file of JSON lines a contestant, appended to.

    `committed` results count as measured, by contestant.
    """

    def __init__(self, folder: Path, purpose: str, committed: Mapping[str, Sequence[Result]] | None = None) -> None:
        self.committed = committed or {}
        self.folder = folder / "results" / purpose
        self.folder.mkdir(parents=True, exist_ok=True)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.jsonl"

    def of(self, one: Contestant) -> list[Result]:
        """Return a contestant's results of its present version; a line that was cut off is not one."""
        path = self._path(one.name)
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        found = [*self.committed.get(one.name, ()), *(result for line in lines if (result := _parsed(line)))]
        latest = {(r["table"], r["data"], r["seed"]): r for r in found if r["version"] == one.version}
        return list(latest.values())

    def has(self, one: Contestant, table: str, data: str, seed: int) -> bool:
        key = (table, data, seed)
        return any((result["table"], result["data"], result["seed"]) == key for result in self.of(one))

    def add(self, one: Contestant, table: str, data: str, seed: int, result: Result) -> None:
        line = {"contestant": one.name, "version": one.version, "table": table, "data": data, "seed": seed, **result}
        with self._path(one.name).open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(line))  # the newline first: a line that was cut off spoils no other


def _parsed(line: str) -> Result:
    try:
        found: Result = json.loads(line)
    except json.JSONDecodeError:
        return {}
    return found
