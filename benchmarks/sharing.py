"""A 400 MB model served by one worker and by four: memory, and duration of a reload.

    python -m benchmarks.sharing

The peer is a process a worker that reads the same file by `np.load`. Every worker has answered a row when memory is
measured: the sum over all processes, gunicorn's master included, of PSS, in which a page shared by four counts a
quarter for each. Then the same weights are published under a second version, and the service's log tells how each
worker came by it: one makes and verifies the copy and asks it for its golden answers, the others find and map it. What
`np.load` reads is not verified.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from benchmarks.loading import pss_megabytes, write_model
from benchmarks.rounds import unpin
from model_store.artifact import npz
from model_store.artifact.model import Golden, Model
from model_store.registry.store import Store, open_store

SIZES = [64, 9950, 9950, 10]  # 100 million float32 parameters
WORKERS = 4
NAME = "big"
ROW = json.dumps({"instances": [[1.0] * SIZES[0]]}).encode()
PATIENCE_SECONDS = 120
MASTER_SECONDS = 5  # gunicorn's master lets go of what was replaced when it next looks after its workers


def published(folder: Path) -> tuple[Store, Model]:
    """Make a store with one version, golden outputs included; return it and the model."""
    write_model(folder / "model.npz", SIZES)
    found = npz.read(folder / "model.npz", mapped=True)
    golden = Golden([[1.0] * SIZES[0]], found.network(np.ones((1, SIZES[0]), np.float32)))
    model = Model(found.network, found.signature, golden=golden)
    store = open_store(str(folder / "models"))
    store.publish(NAME, model)
    return store, model


class Service:
    """`serve` with `workers` workers, and its log."""

    def __init__(self, store: Store, folder: Path, workers: int) -> None:
        self.workers, self.log_path = workers, folder / f"serve-{workers}.log"
        words = ["-m", "service", "--store", str(store.root), "--port", "0", "--workers", str(workers)]
        environ = {**os.environ, "SERVE_CACHE_DIR": str(folder / "cache"), "SERVE_POLL_SECONDS": "1"}
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen([sys.executable, *words], env=environ, stderr=log)
        self.port = self.until(r"pages +http://127\.0\.0\.1:(\d+)/")[0]

    def until(self, pattern: str, count: int = 1) -> list[str]:
        """What a pattern finds in the log, once it finds so much."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(found := re.findall(pattern, self.log_path.read_text(encoding="utf-8"))) < count:
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise SystemExit(f"the service did not come so far: {self.log_path.read_text(encoding='utf-8')}")
            time.sleep(0.05)
        return found

    def ask_all(self, version: int) -> None:
        """Asks until every worker has answered with that version."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/predict", ROW)
        answered: set[str] = set()
        while len(answered) < self.workers:
            with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as response:  # noqa: S310 - our own service
                response.read()
            log = self.log_path.read_text(encoding="utf-8")
            answered = set(re.findall(rf"\[(\d+)\] POST /predict 200 \S+ {NAME}/{version} ", log))

    def memory(self) -> float:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text(encoding="ascii")
        return sum(pss_megabytes(int(pid)) for pid in (self.process.pid, *children.split()))

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def ours(folder: Path, store: Store, model: Model, workers: int) -> tuple[float, float, list[list[float]]]:
    """Return megabytes before and after a reload, and per worker the milliseconds to copy, map and check."""
    service = Service(store, folder, workers)
    try:
        service.ask_all(store.versions(NAME)[-1])
        before = service.memory()
        number = store.publish(NAME, Model(model.network, model.signature, str(workers), {}, model.golden)).number
        line = rf"loaded {NAME}/{number}: verified copy in (\d+) ms, mapped in ([\d.]+) ms, checked in ([\d.]+) ms"
        found = service.until(line.replace("(", "(?:") + ".*", workers)
        times = [re.search(line, text) for text in found]
        service.ask_all(number)
        time.sleep(MASTER_SECONDS)
        after = service.memory()
    finally:
        service.stop()
    return before, after, sorted([float(figure) for figure in each.groups()] for each in times if each)


def theirs(path: Path, workers: int) -> tuple[float, list[float]]:
    words = [sys.executable, "-m", "benchmarks.loading", "np.load", str(path)]
    environ = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    with ExitStack() as stack:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        processes = [stack.enter_context(subprocess.Popen(words, env=environ, **pipes)) for _ in range(workers)]
        told = [json.loads(process.stdout.readline()) for process in processes if process.stdout]
        memory = sum(pss_megabytes(process.pid) for process in processes)
        for process in processes:
            process.communicate()
    return memory, sorted(one["read"] for one in told)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store, model = published(folder)
        path = store.path(NAME, 1)
        print(f"A model of {path.stat().st_size / 1e6:.0f} MB; MB of memory, and milliseconds until it is reloaded")
        peer = {count: theirs(path, count) for count in (1, WORKERS)}
        mine = {count: ours(folder, store, model, count) for count in (1, WORKERS)}
    tell("np.load", peer[1][0], peer[WORKERS][0])
    tell("serve", mine[1][0], mine[WORKERS][0])
    tell("reloaded", mine[1][1], mine[WORKERS][1])
    read = " ".join(f"{milliseconds:.0f}" for milliseconds in peer[WORKERS][1])
    print(f"np.load   reads {read} ms, in {WORKERS} processes at a time, unverified")
    for verified, mapped, checked in mine[WORKERS][2]:
        print(f"serve     verified copy in {verified:.0f} ms, mapped in {mapped:.1f} ms, checked in {checked:.1f} ms")


def tell(who: str, one: float, many: float) -> None:
    print(f"{who:<9} 1 worker {one:>5.0f} MB   {WORKERS} workers {many:>5.0f} MB   {many / one:.2f}x")


if __name__ == "__main__":
    unpin()
    main()
