"""A soak test: a day's requests in minutes, while versions change. Memory does not grow, and no descriptor leaks.

Memory is the PSS of the master and its workers; its growth is the slope of a line fitted to the samples after warm-up.
"""

from __future__ import annotations

import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.service.conftest import move, price
from tests.service.server.server_process import Server
from tests.stress.cases import GOOD, PENGUIN, PRICE, TENSORS, head, sized
from tests.stress.signals import open_files
from tests.stress.trial import Control, TrialResult, child_pids, memory_mib, publish_models, running_service

SAMPLES = 60
WARM_UP = 0.5  # of the samples
CONNECTIONS = 4
MAX_GROWTH_MIB = 1.0  # of growth per million requests

# What one connection sends in a row: mostly plain predictions, and some other requests.
_PLAIN = sized("/models/price/predict", PRICE)
_OTHERS = [
    (200, sized("/predict", b'{"model": "penguins", ' + PENGUIN[1:])),
    (200, sized("/v2/models/image/infer", TENSORS)),
    (200, sized(*GOOD[3])),
    (200, head("/models/price", method=b"GET")),
    (422, sized("/models/price/predict", b'{"instances": [[1, "x"]]}')),
]
BATCH = b"".join([_PLAIN * 9 + other for _, other in _OTHERS])
EXPECTED = {b"200": 49, b"422": 1}
SIZE = sum(EXPECTED.values())


def trial(*, short: bool = False) -> TrialResult:
    """Send two million requests, the first as warm-up, over 60 changes of version; 20,000 and 20 in the short form."""
    result = TrialResult("soak")
    count, samples = (20_000, 20) if short else (2_000_000, SAMPLES)
    memory, files = run_soak(result, count, samples)
    if leaked(files):
        result.record_loss(f"descriptors: {files[0]} at the start, {files[-1]} at the end")
    result.measurements["descriptors"] = f"{files[0]} at the start, {files[-1]} at the end"
    result.measurements["memory"] = (
        f"{memory[0]:.1f} MiB at the start, {max(memory):.1f} at most, {memory[-1]:.1f} at the end"
    )
    slope, noise = growth_per_million(memory, count)
    result.measurements["noise around the line"] = f"{noise:.2f} MiB"
    if not short:  # too few requests for a slope
        result.check_bound("growth per million requests", slope, MAX_GROWTH_MIB, "MiB")
    return result


def run_soak(result: TrialResult, count: int, samples: int, without: str = "") -> tuple[list[float], list[int]]:
    """Return memory and open descriptors at each sample."""
    with tempfile.TemporaryDirectory() as folder:
        store = publish_models(Path(folder))
        store.publish("price", price(1))
        memory, files = [], []
        with running_service(Path(folder), store, without=without) as server:
            ask(server, result, CONNECTIONS * 2)
            for sample in range(samples):
                move(store, "price", "default", 1 + sample % 2)
                ask(server, result, count // samples // SIZE)
                time.sleep(0.3)  # connections are closed, and the version has changed
                memory.append(memory_mib(server.process.pid))
                files.append(descriptors(server))
        return memory, files


def ask(server: Server, result: TrialResult, batches: int) -> None:
    """Send batches over a few connections."""
    lock, left = threading.Lock(), [batches]

    def call() -> None:
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as sock:
            while True:
                with lock:
                    if not left[0]:
                        return
                    left[0] -= 1
                found = count_statuses(sock)
                with lock:
                    result.tried += SIZE
                    if found != EXPECTED:  # 503: the machine was busy with other work
                        right = sum(min(n, found.get(status, 0)) for status, n in EXPECTED.items())
                        if lost := SIZE - right - found.get(b"503", 0):
                            result.record_loss(f"expected {EXPECTED}, found {found}", lost)

    threads = [threading.Thread(target=call) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def count_statuses(sock: socket.socket) -> dict[bytes, int]:
    """Send a batch in one piece; count its statuses."""
    sock.sendall(BATCH)
    got = b""
    while got.count(b"HTTP/1.1 ") < SIZE or not got.endswith(b"\n"):
        piece = sock.recv(1 << 18)
        if not piece:
            break
        got += piece
    statuses = [part[:3] for part in got.split(b"HTTP/1.1 ")[1:]]
    return {status: statuses.count(status) for status in set(statuses)}


def leaked(files: list[int]) -> bool:
    """True if more are open at the end than ever at the start: one or two come and go with each sync of the store."""
    return min(files[-5:]) > max(files[:5])


def descriptors(server: Server) -> int:
    return sum(len(open_files(pid)) for pid in (server.process.pid, *child_pids(server.process.pid)))


def growth_per_million(memory: list[float], count: int) -> tuple[float, float]:
    """Return the growth in MiB per million requests (Theil-Sen, robust to a step) and the deviation from the line."""
    warm = int(WARM_UP * len(memory))
    found = np.array(memory[warm:])
    asked = np.arange(len(found)) * count / len(memory) / 1e6
    before, after = np.triu_indices(len(found), 1)
    slope = np.median((found[after] - found[before]) / (asked[after] - asked[before]))
    return float(slope), float(np.std(found - slope * asked))


def controls() -> Iterator[Control]:
    """Add a leak of each kind, which the trial must find."""
    result = TrialResult("leaks")
    memory, files = run_soak(result, 20_000, 20, without="absence of leaks")
    slope, _ = growth_per_million(memory, 20_000)
    yield Control(
        "with a leak of 1 kB per forward pass",
        slope > MAX_GROWTH_MIB,
        f"{slope:.0f} MiB per million",
    )
    yield Control("with a file left open every hundred passes", leaked(files), f"{files[-1] - files[0]} stay open")
