"""Workers switch together: once a client has seen a version, no worker serves it an older one."""

from __future__ import annotations

import os
import re
import shutil
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.switching import MOVES, NAME, Service, driven, load, move, published, small
from model_store.registry import signing
from model_store.registry.store import Store, open_store
from tests.attacks.arrays import arrays_are_finite
from tests.attacks.forge import valid_artifact
from tests.service.conftest import break_version

pytestmark = pytest.mark.slow

PATIENCE_SECONDS = 30


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true in time"
        time.sleep(0.02)


def workers(service: Service) -> list[int]:
    pid = service.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("worker", ["event", "gthread"])
def test_hundred_alias_moves_under_load_fail_no_request_and_never_go_back(tmp_path: Path, worker: str) -> None:
    store, versions = published(tmp_path, MOVES)
    with Service(store, tmp_path, SERVE_WORKER=worker) as service:
        record, _ = driven(service, store, versions)
    assert record.latest == MOVES
    assert record.failures == []
    assert record.backwards == 0
    assert "Traceback" not in service.log


def test_workers_that_sync_separately_do_go_back(tmp_path: Path) -> None:
    """The negative control of the test above."""
    store, versions = published(tmp_path, MOVES)
    with Service(store, tmp_path, together=False) as service:
        record, _ = driven(service, store, versions)
    assert record.failures == []
    assert record.backwards > 0


def replacing(service: Service, master: int) -> None:
    """Replace all workers, add one, remove one."""
    for how in (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU):
        os.kill(master, how)
        time.sleep(1)


def killing(service: Service, master: int) -> None:
    os.kill(workers(service)[0], signal.SIGKILL)
    time.sleep(0.5)


def hanging(service: Service, master: int) -> None:
    """Stop a worker until the master replaces it."""
    time.sleep(0.5)
    hung = workers(service)[0]  # the oldest
    os.kill(hung, signal.SIGSTOP)
    until(lambda: hung not in workers(service))
    until(lambda: len(workers(service)) == 2)


@contextmanager
def repeated(disturbance: Callable[[Service, int], None], service: Service) -> Iterator[None]:
    ended = threading.Event()

    def disturb() -> None:
        while not ended.is_set():
            disturbance(service, service.process.pid)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize(("disturbance", "moves"), [(replacing, 30), (killing, 30), (hanging, 4)])
def test_restarting_workers_do_not_prevent_a_switch(
    tmp_path: Path, disturbance: Callable[[Service, int], None], moves: int
) -> None:
    store, versions = published(tmp_path, moves)
    with Service(store, tmp_path, SERVE_TIMEOUT_SECONDS="2") as service:
        until(lambda: len(workers(service)) == 2)
        with repeated(disturbance, service):
            record, _ = driven(service, store, versions)
    assert record.latest == moves
    assert record.backwards == 0
    if disturbance is replacing:
        assert record.failures == []
    assert all(b"Connection" in failure for failure in record.failures), "only cut connections may fail"


def corrupt(store: Store) -> None:
    """Publish a version that is broken from the first sync on."""
    other = open_store(store.root.parent / "other")
    for seed in (8, 9):
        other.publish(NAME, small(seed))
    break_version(other, NAME, 2)
    other.path(NAME, 2).rename(store.root / NAME / "2.npz")


def unsigned(store: Store) -> None:
    store.publish(NAME, small(9))


def not_a_number(store: Store) -> None:
    (store.root / NAME / "2.npz").write_bytes(arrays_are_finite.hostile(valid_artifact())["NaN"])


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [(corrupt, "found another"), (not_a_number, "finite"), (unsigned, "expected a signature")],
)
def test_bad_version_leaves_the_old_one_serving_and_is_logged_once(
    tmp_path: Path, candidate: Callable[[Store], None], reason: str
) -> None:
    store, versions = published(tmp_path, 0)
    key = tmp_path / "key.pem"
    signing.generate_key(key)
    private = signing.load_private_key(key)
    signature = signing.sign(private, NAME, store.load(NAME, 1)[0].digest)
    store.add_signature(NAME, 1, signing.fingerprint(private.public_key()), signature)
    trusted = str(signing.public_key_path(key)) if candidate is unsigned else ""
    with Service(store, tmp_path, SERVE_TRUSTED_KEYS=trusted) as service, load(service, [*versions, 2]) as record:
        candidate(store)
        move(store, 2)
        until(lambda: f"{NAME}/2 cannot be served" in service.log)
        assert service.log.count(f"{NAME}/2 cannot be served") == 1
        metric = rf'^forward_pass_model_load_failures_total{{model="{NAME}"}} 1(\.0)?$'
        until(lambda: re.search(metric, fetch(service, "/metrics"), re.MULTILINE))
        until(lambda: all('"degraded"' in fetch(service, "/readyz") for _ in range(10)))
        before = record.answers
        until(lambda: record.answers > before + 100)
    assert reason in service.log
    assert (record.latest, record.failures) == (0, [])


def test_replacement_worker_needs_no_store_and_the_master_keeps_no_old_version(tmp_path: Path) -> None:
    store, versions = published(tmp_path, 1)
    with Service(store, tmp_path) as service:
        with load(service, versions) as record:
            until(lambda: len(workers(service)) == 2)
            first, second = (store.load(NAME, version)[0].digest for version in versions)
            master = Path(f"/proc/{service.process.pid}/maps")
            assert first in master.read_text()
            move(store, versions[1])
            until(lambda: record.latest)
        until(lambda: first not in master.read_text())
        shutil.move(store.root, tmp_path / "away")
        before = workers(service)
        for worker in before:
            os.kill(worker, signal.SIGKILL)
        until(lambda: len(set(workers(service)) - set(before)) == 2)
        until(lambda: all(second in Path(f"/proc/{worker}/maps").read_text() for worker in workers(service)))
        with load(service, versions) as later:
            until(lambda: later.answers > 100)
    assert (later.latest, later.failures) == (1, [])


def fetch(service: Service, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{service.port}{path}", timeout=PATIENCE_SECONDS) as response:
        text: str = response.read().decode()
        return text
