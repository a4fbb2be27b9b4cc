"""Workers switch together: nobody who has seen a version is answered by what came before it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.switching import MOVES, Service, driven, published

pytestmark = pytest.mark.slow

PATIENCE_SECONDS = 30


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "this has not come true in time"
        time.sleep(0.02)


def workers(service: Service) -> list[int]:
    pid = service.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("worker", ["event", "gthread"])
def test_hundred_moves_under_load_fail_no_request_and_never_go_back(tmp_path: Path, worker: str) -> None:
    store, versions = published(tmp_path, MOVES)
    with Service(store, tmp_path, SERVE_WORKER=worker) as service:
        record, _ = driven(service, store, versions)
    assert record.latest == MOVES
    assert record.failures == []
    assert record.backwards == 0
    assert "Traceback" not in service.log


def test_workers_that_follow_by_themselves_are_seen_to_go_back(tmp_path: Path) -> None:
    """The negative control of the test above."""
    store, versions = published(tmp_path, MOVES)
    with Service(store, tmp_path, together=False) as service:
        record, _ = driven(service, store, versions)
    assert record.failures == []
    assert record.backwards > 0
