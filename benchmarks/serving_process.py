"""A service under measurement: started, polled until it predicts, loaded by wrk, measured, and stopped."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from benchmarks.contestants import PEERS, Contestant, Setting
from benchmarks.loading import pss_megabytes

PATIENCE_SECONDS = 60
ALIKE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # a worker has a core
# Settings of this shell must not favour a contestant.
UNSET = (
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",
    "GUNICORN_CMD_ARGS",
    "MODEL_STORE",
    "PYTHONPATH",
    "PYTHONDONTWRITEBYTECODE",
)


class FailedError(Exception):
    """A service did not start or returned a wrong response."""


def free_share(cores: Iterable[int], seconds: float = 0.05) -> float:
    """Return the share of the busier core that this process gets: 1 on an idle machine."""
    before = os.sched_getaffinity(0)
    shares = []
    try:
        for core in cores:
            os.sched_setaffinity(0, {core})
            begin, used = time.perf_counter(), time.thread_time()
            while time.perf_counter() - begin < seconds:
                pass
            shares.append((time.thread_time() - used) / (time.perf_counter() - begin))
    finally:
        os.sched_setaffinity(0, before)
    return min(shares)


class Service:
    """A contestant's processes. `cold_start` is the milliseconds from exec to the first prediction."""

    patience_seconds: float = PATIENCE_SECONDS  # until the first prediction

    def __init__(
        self, contestant: Contestant, setting: Setting, cores: str, body: bytes, *, prefix: Sequence[str] = ()
    ) -> None:
        """`prefix` is a command that runs the contestant's, such as valgrind and its options."""
        self.contestant, self.setting = contestant, setting
        environ = {k: v for k, v in os.environ.items() if k not in UNSET and not k.startswith("SERVE_")}
        environ |= ALIKE | {"BENCH_ARTIFACT": str(setting.artifact), "BENCH_ONNX": str(setting.onnx)}
        environ |= {"BENCH_WORKERS": str(setting.workers), "BENCH_PORT": str(setting.port)}
        environ |= contestant.environ(setting)
        self.log = setting.folder / f"{contestant.name}.log"
        words = ["taskset", "--cpu-list", cores, *prefix, *contestant.start(setting)]
        begin = time.perf_counter()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                words, env=environ, cwd=PEERS, stdout=log, stderr=log, start_new_session=True
            )
        try:
            self._until_it_answers(body)
        except BaseException:
            self.end()
            raise
        self.cold_start = 1000 * (time.perf_counter() - begin)

    def _until_it_answers(self, body: bytes) -> None:
        deadline = time.monotonic() + self.patience_seconds
        problem = ""
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                status, answer = self.ask(body)
            except (OSError, http.client.HTTPException):
                time.sleep(0.002)
                continue
            if status == 200:
                return
            problem = f"answered {status}: {answer[:200]!r}; "
            time.sleep(0.002)
        ended = "" if self.process.poll() is None else f"ended with {self.process.returncode}; "
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise FailedError(f"{problem}{ended}its log ends: {' / '.join(lines[-3:])}")

    def ask(self, body: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.setting.port, timeout=PATIENCE_SECONDS)
        with contextlib.closing(connection):
            connection.request("POST", self.contestant.path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read()

    def predictions(self, body: bytes) -> list[Any]:
        status, answer = self.ask(body)
        if status != 200:
            raise FailedError(f"answered {status}: {answer[:200]!r}")
        return self.contestant.answers(json.loads(answer))

    def load(self, body: Path, connections: int, seconds: int, cores: str) -> dict[str, float]:
        """Successful requests a second, p50 and p99 in milliseconds, and how many requests failed."""
        words = ["taskset", "--cpu-list", cores, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s"]
        words += ["-s", str(PEERS / "post.lua"), f"http://127.0.0.1:{self.setting.port}{self.contestant.path}"]
        done = subprocess.run(
            [*words, "--", str(body)], check=False, capture_output=True, text=True, timeout=seconds + 60
        )
        line = next((line for line in done.stdout.splitlines() if line.startswith("measured ")), None)
        if line is None:
            raise FailedError(f"wrk told nothing: {done.stdout[-300:]} {done.stderr[-300:]}")
        told = json.loads(line.removeprefix("measured "))
        rate = (told["requests"] - told["refused"]) / told["seconds"]
        return {"rate": rate, "p50": told["p50"], "p99": told["p99"], "failed": told["refused"] + told["broken"]}

    def memory(self) -> float:
        """MiB of PSS over the tree of processes."""
        total = 0.0
        for pid in self.processes():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, StopIteration):  # ended meanwhile
                total += pss_megabytes(pid)
        return total

    def processes(self) -> list[int]:
        """The first process, all that descend from it, and all of its session."""
        parents, sessions = {}, {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                _, parent, _, session = stat.read_text(encoding="utf-8").rpartition(")")[2].split()[:4]
                parents[int(stat.parent.name)], sessions[int(stat.parent.name)] = int(parent), int(session)
        first = self.process.pid
        tree = {first} | {pid for pid, session in sessions.items() if session == first}
        while more := {pid for pid, parent in parents.items() if parent in tree} - tree:
            tree |= more
        return sorted(tree)

    def end(self) -> None:
        """SIGTERM for the group, and then SIGKILL for the rest of the process tree."""
        tree = self.processes()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(2)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for pid in tree:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def installed_megabytes(contestant: Contestant, root: Path) -> float:
    """Return the installed size of what serving needs, for ours with the project's own packages."""
    python = contestant.environment / "bin" / "python"
    words = [str(python), str(PEERS / "installed.py"), *contestant.packages]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    own = sum(f.stat().st_size for folder in contestant.folders for f in (root / folder).rglob("*") if f.is_file())
    return (int(told.split()[0]) + own) / 1e6


def bodies(contestant: Contestant, rows: Mapping[int, Sequence[Any]], folder: Path) -> dict[int, Path]:
    """Write the contestant's requests, one file each for wrk."""
    paths = {}
    for count, sent in rows.items():
        paths[count] = folder / f"{contestant.name}-{count}.json"
        paths[count].write_text(json.dumps(contestant.body(list(sent))), encoding="utf-8")
    return paths
