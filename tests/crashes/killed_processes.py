"""Publishers, readers and a garbage collector on one store, killed at random and replaced.

    python -m tests.crashes.killed_processes STORE SECONDS SEED [DEFECT ...]

prints a line of JSON: the acknowledgements of publishers, the errors of readers, and the number of killed processes.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from model_store.errors import ConflictError, ModelStoreError, NotFoundError
from model_store.registry.store import Store, open_store
from tests.crashes import operations

PUBLISHERS, READERS = 8, 4
GRACE = timedelta(seconds=1)  # longer than a new staged file takes to be locked


def publisher(store: Store, report: Callable[..., None]) -> None:
    seed = random.SystemRandom().getrandbits(60)
    while True:
        number, digest = operations.publish(store, seed := seed + 1).split()
        report("published", int(number), digest)
        try:
            report("moved", int(operations.move(store, int(number))), int(number))
        except ConflictError:
            report("conflict")


def reader(store: Store, report: Callable[..., None]) -> None:
    seen: set[int] = set()
    moves = 0
    while True:
        try:
            versions = store.versions(operations.NAME)
            if not seen <= set(versions):
                report("bad", f"expected {sorted(seen - set(versions))} to be listed again, found {versions[-1]}")
            seen = set(versions)
            store.load(operations.NAME)[1].check_golden()
            if operations.ALIAS in store.aliases(operations.NAME):
                store.load(operations.NAME, operations.ALIAS)[1].check_golden()
                last = store.history(operations.NAME, operations.ALIAS)[-1].number
                if last < moves:
                    report("bad", f"expected {moves} revisions, found {last}")
                moves = last
            report("read")
        except NotFoundError as e:
            if seen:
                report("bad", str(e))
        except ModelStoreError as e:
            report("bad", str(e))


def garbage_collector(store: Store, report: Callable[..., None]) -> None:
    while True:
        try:
            for garbage in store.find_garbage(now=datetime.now(UTC), grace=GRACE):
                store.delete_garbage(garbage)
                report("collected", garbage.key)
        except ModelStoreError as e:
            if store.root.exists():
                report("bad", str(e))
        time.sleep(0.1)


def start(role: Callable[[Store, Callable[..., None]], None], root: str, output: int) -> int:
    child = os.fork()
    if child == 0:
        try:  # a short line is written atomically
            role(open_store(root), lambda *words: os.write(output, json.dumps(words).encode() + b"\n"))
        except BaseException as e:  # noqa: BLE001 - the test decides
            os.write(output, json.dumps(["bad", f"{type(e).__name__}: {e}"[:2000]]).encode() + b"\n")
        finally:
            os._exit(1)
    return child


def main(root: str, seconds: float, seed: int) -> None:
    rng = random.Random(seed)
    Path(root).mkdir(parents=True, exist_ok=True)  # a reader may start before the first publisher
    reading, writing = os.pipe()
    roles = [*[publisher] * PUBLISHERS, *[reader] * READERS, garbage_collector]
    children = [start(role, root, writing) for role in roles]
    end, deaths, data = time.monotonic() + seconds, 0, bytearray()
    victim_at = time.monotonic()
    while time.monotonic() < end:
        if select.select([reading], [], [], 0.001)[0]:
            data += os.read(reading, 1 << 16)
        if time.monotonic() > victim_at:
            i = rng.randrange(len(children))
            os.kill(children[i], signal.SIGKILL)
            os.waitpid(children[i], 0)
            children[i] = start(roles[i], root, writing)
            deaths, victim_at = deaths + 1, time.monotonic() + rng.uniform(0.0, 0.04)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    os.close(writing)
    while chunk := os.read(reading, 1 << 16):
        data += chunk
    json.dump({"deaths": deaths, "lines": [json.loads(line) for line in data.splitlines()]}, sys.stdout)


if __name__ == "__main__":
    for defect in sys.argv[4:]:
        operations.DEFECTS[defect]()
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
