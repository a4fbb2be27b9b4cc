"""A soak: a day's requests in minutes, while versions change. Memory does not grow, and no descriptor stays open.

Memory is the PSS of the master and its workers, and its growth the slope of a line fitted to what was found after
warming up.
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
from tests.stress.signals import links
from tests.stress.trial import Control, Outcome, children, megabytes, models, serving

LOOKS = 60
WARM_UP = 0.5  # of them, and of the requests
CONNECTIONS = 4
MOST_MEGABYTES = 1.0  # of growth with a million requests, where that is more than noise

# What one connection asks for in a row: mostly plain predictions, and some of everything else.
_PLAIN = sized("/models/price/predict", PRICE)
_OTHERS = [
    (200, sized("/predict", b'{"model": "penguins", ' + PENGUIN[1:])),
    (200, sized("/v2/models/image/infer", TENSORS)),
    (200, sized(*GOOD[3])),
    (200, head("/models/price", method=b"GET")),
    (422, sized("/models/price/predict", b'{"instances": [[1, "x"]]}')),
]
BATCH = b"".join([_PLAIN * 9 + other for _, other in _OTHERS])
WANTED = {b"200": 49, b"422": 1}
SIZE = sum(WANTED.values())


def trial(*, short: bool = False) -> Outcome:
    """Two million requests, of which the second counts, and 60 changes of version; 20,000 and 20 in the short form."""
    outcome = Outcome("soak")
    count, looks = (20_000, 20) if short else (2_000_000, LOOKS)
    memory, files = soaked(outcome, count, looks)
    if leaked(files):
        outcome.lose(f"descriptors: {files[0]} at the start, {files[-1]} at the end")
    outcome.figures["descriptors"] = f"{files[0]} at the start, {files[-1]} at the end"
    outcome.figures["memory"] = (
        f"{memory[0]:.1f} MiB at the start, {max(memory):.1f} at most, {memory[-1]:.1f} at the end"
    )
    slope, noise = growth(memory, count)
    outcome.figures["noise around the line"] = f"{noise:.2f} MiB"
    if not short:  # too few to tell
        outcome.bound("growth with a million requests", slope, MOST_MEGABYTES, "MiB")
    return outcome


def soaked(outcome: Outcome, count: int, looks: int, without: str = "") -> tuple[list[float], list[int]]:
    """Memory and open descriptors, at each look."""
    with tempfile.TemporaryDirectory() as folder:
        store = models(Path(folder))
        store.publish("price", price(1))
        memory, files = [], []
        with serving(Path(folder), store, without=without) as server:
            ask(server, outcome, CONNECTIONS * 2)
            for look in range(looks):
                move(store, "price", "default", 1 + look % 2)
                ask(server, outcome, count // looks // SIZE)
                time.sleep(0.3)  # connections are closed, and the version has changed
                memory.append(megabytes(server.process.pid))
                files.append(descriptors(server))
        return memory, files


def ask(server: Server, outcome: Outcome, batches: int) -> None:
    """So many, over a few connections at a time."""
    lock, left = threading.Lock(), [batches]

    def call() -> None:
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as sock:
            while True:
                with lock:
                    if not left[0]:
                        return
                    left[0] -= 1
                found = answers(sock)
                with lock:
                    outcome.tried += SIZE
                    if found != WANTED:  # 503 is for want of time, on a machine that does something else
                        right = sum(min(n, found.get(status, 0)) for status, n in WANTED.items())
                        if lost := SIZE - right - found.get(b"503", 0):
                            outcome.lose(f"expected {WANTED}, found {found}", lost)

    threads = [threading.Thread(target=call) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def answers(sock: socket.socket) -> dict[bytes, int]:
    """How often each status came, of a batch that was sent in one piece."""
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
    """Whether more are open at the end than ever at the start: one or two come and go as the store is looked at."""
    return min(files[-5:]) > max(files[:5])


def descriptors(server: Server) -> int:
    return sum(len(links(pid)) for pid in (server.process.pid, *children(server.process.pid)))


def growth(memory: list[float], count: int) -> tuple[float, float]:
    """MiB with a million requests, and the deviation from that: Theil and Sen's line, which a step does not tilt."""
    warm = int(WARM_UP * len(memory))
    found = np.array(memory[warm:])
    asked = np.arange(len(found)) * count / len(memory) / 1e6
    before, after = np.triu_indices(len(found), 1)
    slope = np.median((found[after] - found[before]) / (asked[after] - asked[before]))
    return float(slope), float(np.std(found - slope * asked))


def controls() -> Iterator[Control]:
    """Nothing is taken out here, but put in: a leak of each kind, which has to be found."""
    outcome = Outcome("leaks")
    memory, files = soaked(outcome, 20_000, 20, without="tidiness")
    slope, _ = growth(memory, 20_000)
    yield Control(
        "with a leak of 1 kB a forward pass",
        slope > MOST_MEGABYTES,
        f"{slope:.0f} MiB with a million",
    )
    yield Control(
        "with a file that stays open every hundred passes", leaked(files), f"{files[-1] - files[0]} stay open"
    )
