"""The barrier itself: which process syncs with the store, and the plans of generations."""

from __future__ import annotations

import copy
import fcntl
import os
import signal
import time
from collections.abc import Callable

import pytest

from service.registry import switch_barrier as module
from service.registry.switch_barrier import SwitchBarrier
from tests.service.registry.conftest import SECOND, Clock


@pytest.fixture
def claim(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Callable[..., bool]:
    """Call `claim_sync` as the process `pid`."""
    barrier = SwitchBarrier(shared=True, clock=lambda: int(clock.seconds * SECOND))
    processes: dict[int, SwitchBarrier] = {}

    def claim(pid: int, seconds: float = 1.0) -> bool:
        monkeypatch.setattr(module.os, "getpid", lambda: pid)
        if pid not in processes:
            processes[pid] = copy.copy(barrier)
            processes[pid].join(0)
        return processes[pid].claim_sync(seconds)

    claim.barrier = barrier  # type: ignore[attr-defined]
    return claim


def test_same_worker_syncs_while_it_is_on_time(claim: Callable[..., bool], clock: Clock) -> None:
    assert claim(1)
    assert not claim(2)
    for _ in range(10):
        clock.seconds += 1
        assert not claim(2)
        assert claim(1)
        assert not claim(1)


def test_another_worker_syncs_if_the_first_hangs_or_dies(claim: Callable[..., bool], clock: Clock) -> None:
    assert claim(1)
    clock.seconds += 7
    assert not claim(2)
    clock.seconds += 1
    assert claim(2)
    assert not claim(1)
    claim.barrier.leave(2)  # type: ignore[attr-defined]
    clock.seconds += 1
    assert claim(1)


def test_without_polling_a_sync_happens_only_on_request(claim: Callable[..., bool], clock: Clock) -> None:
    assert claim(1, 0)
    clock.seconds += 10**6
    assert not claim(1, 0)
    claim.barrier.request_sync()  # type: ignore[attr-defined]
    assert claim(2, 0)
    assert not claim(1, 0)


def test_a_sync_for_a_request_needs_some_time_since_the_last_one_and_changes_not_who_syncs(
    claim: Callable[..., bool], clock: Clock
) -> None:
    barrier: SwitchBarrier = claim.barrier  # type: ignore[attr-defined]
    assert claim(1)
    assert not claim(2)
    assert not barrier.claim_early_sync(0.25)
    clock.seconds += 0.25
    assert barrier.synced_before(0.25)
    assert barrier.claim_early_sync(0.25)
    assert not barrier.claim_early_sync(0.25)
    clock.seconds += 0.75
    assert not claim(1)
    clock.seconds += 0.25
    assert not claim(2)
    assert claim(1)


def test_too_many_workers_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PROCESSES", 2)
    barrier = SwitchBarrier(shared=True)
    for _ in range(2):
        assert copy.copy(barrier).join(0)
    with pytest.raises(RuntimeError, match="expected at most 2 workers"):
        barrier.join(0)


def test_a_plan_may_be_longer_or_shorter_than_the_one_before() -> None:
    barrier = SwitchBarrier(shared=True)
    for number, plan in enumerate((b"a" * 100_000, b"b", b"", b"c" * 5), 1):
        assert barrier.propose(number - 1, plan)
        assert barrier.plan(number) == plan
        assert barrier.mark_ready(number)
        assert barrier.plan(number) == plan
    assert barrier.plan(3) is None
    assert not barrier.propose(3, b"late")


def test_a_sync_whose_worker_dies_is_done_by_another_one(claim: Callable[..., bool]) -> None:
    """Also without polling: SIGHUP replaces the workers, and one that ends may have claimed the sync."""
    barrier = claim.barrier  # type: ignore[attr-defined]
    assert claim(1, 0)
    assert not claim(2, 0)
    barrier.leave(1)
    assert claim(2, 0)
    barrier.end_sync()  # as process 2
    barrier.leave(2)
    assert not claim(3, 0)


def test_a_pending_switch_ends_only_if_no_process_has_joined(clock: Clock) -> None:
    barrier = SwitchBarrier(shared=True, clock=lambda: int(clock.seconds * SECOND))
    assert barrier.propose(0, b"plan")
    assert barrier.join(0)
    barrier.end_unattended_switch()
    assert barrier.active == 0
    barrier.leave(os.getpid())
    barrier.end_unattended_switch()
    assert barrier.active == barrier.proposed == 1


def test_a_plan_is_not_waited_for_while_it_is_locked(clock: Clock) -> None:
    barrier = SwitchBarrier(shared=True, clock=lambda: int(clock.seconds * SECOND))
    assert barrier.propose(0, b"plan")
    assert barrier.plan(1, wait=False) == b"plan"
    with barrier._locked():
        assert barrier.plan(1, wait=False) is None
    holder = os.fork()
    if not holder:
        fcntl.lockf(barrier._files[0], fcntl.LOCK_EX)
        time.sleep(60)
        os._exit(0)
    try:
        deadline = time.monotonic() + 10
        while barrier.plan(1, wait=False) is not None:
            assert time.monotonic() < deadline
    finally:
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
    assert barrier.plan(1) == b"plan"
