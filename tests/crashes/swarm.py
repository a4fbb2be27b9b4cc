"""Publishers, readers and a collector of garbage that are killed at random and replaced, at one store.

    python -m tests.crashes.swarm STORE SECONDS SEED [SABOTAGE ...]

prints a line of JSON: what publishers were told, what readers saw go wrong, and how many died.
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
from tests.crashes import deeds

PUBLISHERS, READERS = 8, 4
GRACE = timedelta(seconds=1)  # longer than it takes to lock a draft that was just made


def publisher(store: Store, tell: Callable[..., None]) -> None:
    seed = random.SystemRandom().getrandbits(60)
    while True:
        number, digest = deeds.publish(store, seed := seed + 1).split()
        tell("published", int(number), digest)
        try:
            tell("moved", int(deeds.move(store, int(number))), int(number))
        except ConflictError:
            tell("conflict")


def reader(store: Store, tell: Callable[..., None]) -> None:
    seen: set[int] = set()
    moves = 0
    while True:
        try:
            versions = store.versions(deeds.NAME)
            if not seen <= set(versions):
                tell("bad", f"expected {sorted(seen - set(versions))} again, found {versions[-1]}")
            seen = set(versions)
            store.load(deeds.NAME)[1].check_golden()
            if deeds.ALIAS in store.aliases(deeds.NAME):
                store.load(deeds.NAME, deeds.ALIAS)[1].check_golden()
                last = store.history(deeds.NAME, deeds.ALIAS)[-1].number
                if last < moves:
                    tell("bad", f"expected {moves} moves, found {last}")
                moves = last
            tell("read")
        except NotFoundError as e:
            if seen:
                tell("bad", str(e))
        except ModelStoreError as e:
            tell("bad", str(e))


def collector(store: Store, tell: Callable[..., None]) -> None:
    while True:
        try:
            for leftover in store.find_garbage(now=datetime.now(UTC), grace=GRACE):
                store.delete_garbage(leftover)
                tell("collected", leftover.key)
        except ModelStoreError as e:
            if store.root.exists():
                tell("bad", str(e))
        time.sleep(0.1)


def start(life: Callable[[Store, Callable[..., None]], None], root: str, told: int) -> int:
    child = os.fork()
    if child == 0:
        try:  # a line this short is written whole or not at all
            life(open_store(root), lambda *words: os.write(told, json.dumps(words).encode() + b"\n"))
        except BaseException as e:  # noqa: BLE001 - the test judges
            os.write(told, json.dumps(["bad", f"{type(e).__name__}: {e}"[:2000]]).encode() + b"\n")
        finally:
            os._exit(1)
    return child


def main(root: str, seconds: float, seed: int) -> None:
    rng = random.Random(seed)
    Path(root).mkdir(parents=True, exist_ok=True)  # a reader may be sooner there than all publishers
    reading, writing = os.pipe()
    lives = [*[publisher] * PUBLISHERS, *[reader] * READERS, collector]
    children = [start(life, root, writing) for life in lives]
    end, deaths, data = time.monotonic() + seconds, 0, bytearray()
    victim_at = time.monotonic()
    while time.monotonic() < end:
        if select.select([reading], [], [], 0.001)[0]:
            data += os.read(reading, 1 << 16)
        if time.monotonic() > victim_at:
            i = rng.randrange(len(children))
            os.kill(children[i], signal.SIGKILL)
            os.waitpid(children[i], 0)
            children[i] = start(lives[i], root, writing)
            deaths, victim_at = deaths + 1, time.monotonic() + rng.uniform(0.0, 0.04)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    os.close(writing)
    while piece := os.read(reading, 1 << 16):
        data += piece
    json.dump({"deaths": deaths, "told": [json.loads(line) for line in data.splitlines()]}, sys.stdout)


if __name__ == "__main__":
    for sabotage in sys.argv[4:]:
        deeds.SABOTAGES[sabotage]()
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
