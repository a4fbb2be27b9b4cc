"""The barrier itself: which process syncs with the store, and the plans of generations."""

from __future__ import annotations

import copy
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
