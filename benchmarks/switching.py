"""A hundred alias moves under full load: does any response come from an older version than one seen before?

    python -m benchmarks.switching

Eight connections ask two workers as fast as they answer, while the alias `default` is moved a hundred times, each time
to another version, forth and back among the numbers, as soon as the move before is seen in an answer. All connections
share one record of the latest move that any connection has seen. A request that begins when a move is on record and is
answered by what came before it has seen the service go backwards. The peer is the same service, whose workers follow
the store each by itself.
"""

import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.rounds import unpin
from model_store.artifact.model import Golden, Model
from model_store.nn import Linear, Sequential, Tanh
from model_store.registry.store import Store, open_store
from model_store.schema.signature import NumberColumn, RegressionOutput, Signature

MOVES = 100
CONNECTIONS = 8
REQUESTS = 20  # on a connection
NAME = "moving"
PATIENCE_SECONDS = 60
BODY = b'{"instances": [[1, 2]]}'
REQUEST = b"POST /predict HTTP/1.1\r\nHost: here\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
BY_ITSELF = """
from service.registry.switch_barrier import SwitchBarrier
shared = SwitchBarrier.__init__
SwitchBarrier.__init__ = lambda self, **_: shared(self)
"""
SERVE = "from service.cli import main\nmain()"


def small(seed: int) -> Model:
    """A model that its weights identify."""
    rng = np.random.default_rng(seed)
    network = Sequential([Linear(2, 3, rng=rng), Tanh(), Linear(3, 1, rng=rng)])
    golden = Golden([[1.0, 2.0]], network(np.array([[1.0, 2.0]], np.float32)))
    return Model(
        network,
        Signature((NumberColumn("a"), NumberColumn("b")), RegressionOutput(("c",), (0.0,), (1.0,))),
        golden=golden,
    )


def move(store: Store, version: int) -> None:
    store.set_alias(NAME, "default", version, who="switching", why="to be seen", when=datetime.now(UTC))


class Service:
    """`serve` on its own port; with `together=False` each worker polls the store by itself."""

    def __init__(self, store: Store, folder: Path, *, together: bool = True, **environ: str) -> None:
        settings = {"SERVE_WORKERS": "2", "SERVE_POLL_SECONDS": "0.05", "SERVE_LOG_LEVEL": "warning"}
        words = ["--store", str(store.root), "--port", "0"]
        self.log_path = folder / "serve.log"
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SERVE if together else BY_ITSELF + SERVE, *words],
                cwd=Path(__file__).parents[1],
                env={**os.environ, "SERVE_CACHE_DIR": str(folder / "cache"), **settings, **environ},
                stderr=log,
            )
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (found := re.search(r"pages +http://127\.0\.0\.1:(\d+)/", self.log)) is None:
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise RuntimeError(f"the service did not start: {self.log}")
            time.sleep(0.02)
        self.port = int(found[1])

    @property
    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8")

    def __enter__(self) -> "Service":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE_SECONDS)


@dataclass
class Record:
    """Shared record of all connections; `order` has the versions in the order in which the alias reached them."""

    order: dict[int, int]
    latest: int = 0
    answers: int = 0
    failures: list[bytes] = field(default_factory=list)
    shed: int = 0  # sent away with 503 and Retry-After, as on a machine that is busy besides
    backwards: int = 0
    ended: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, port: int) -> None:
        """On one connection for a while, then on a new one, which may meet any worker; until the record has `ended`."""
        connection, asked = None, 0
        with ExitStack() as stack:
            while not self.ended:
                if connection is None or asked % REQUESTS == 0:
                    stack.close()
                    connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS))
                asked += 1
                begun = self.latest
                try:
                    connection.sendall(REQUEST)
                    answer = received(connection)
                except OSError as e:
                    answer = repr(e).encode()
                version = re.search(rb'"version":(\d+)', answer)
                with self.lock:
                    self.answers += 1
                    if version is None and b'"overloaded"' in answer:
                        self.shed += 1
                    elif version is None:
                        self.failures.append(answer)
                    else:
                        seen = self.order[int(version[1])]
                        self.backwards += seen < begun
                        self.latest = max(self.latest, seen)
                if version is None or b"\r\nConnection: close\r\n" in answer:
                    connection = None


def received(connection: socket.socket) -> bytes:
    """Read one response, head and body; raise OSError if the connection ends before it."""
    answer = b""
    while True:
        piece = connection.recv(65536)
        if not piece:
            raise ConnectionError(f"the connection ended after {answer!r}")
        answer += piece
        head, end, body = answer.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        if end and length and len(body) >= int(length[1]):
            return answer


def published(folder: Path, moves: int) -> tuple[Store, list[int]]:
    """Make a store and the sequence of versions to move to, forward and back."""
    store = open_store(folder / "models")
    versions = [store.publish(NAME, small(seed)).number for seed in range(moves + 1)]
    random.Random(1).shuffle(versions)  # noqa: S311 - any order will do
    move(store, versions[0])
    return store, versions


@contextmanager
def load(service: Service, versions: list[int]) -> Iterator[Record]:
    """Send requests on all connections meanwhile; return what they see."""
    record = Record({version: i for i, version in enumerate(versions)})
    threads = [threading.Thread(target=record.ask, args=(service.port,)) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    try:
        yield record
    finally:
        record.ended = True
        for thread in threads:
            thread.join()


def driven(service: Service, store: Store, versions: list[int]) -> tuple[Record, list[float]]:
    """Move the alias through all versions under load; return what was seen and the seconds until each move was seen."""
    times = []
    with load(service, versions) as record:
        for i, version in enumerate(versions[1:], 1):
            started = time.monotonic()
            move(store, version)
            while record.latest < i:
                if time.monotonic() > started + PATIENCE_SECONDS:
                    raise RuntimeError(f"move {i} was not seen in {PATIENCE_SECONDS} s: {service.log}")
                time.sleep(0.002)
            times.append(time.monotonic() - started)
    return record, times


def main() -> None:
    print(f"{MOVES} moves under {CONNECTIONS} connections, two workers, the store polled every 0.05 s")
    print("  worker  workers switch  requests  failed  shed    back  ms a switch")
    for worker in ("event", "gthread"):
        for together in (True, False):
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                store, versions = published(folder, MOVES)
                with Service(store, folder, together=together, SERVE_WORKER=worker) as service:
                    record, times = driven(service, store, versions)
            how = "together" if together else "by themselves"
            counts = f"{record.answers:>9,} {len(record.failures):>7} {record.shed:>5} {record.backwards:>7,}"
            print(f"{worker:>8} {how:>15} {counts} {1000 * median(times):>12.0f}")


if __name__ == "__main__":
    unpin()
    main()
