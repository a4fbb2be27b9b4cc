"""The agreement: workers switch to a generation together, whoever comes, goes, hangs or sees something else.

Here the workers live in one process, and do what the test says.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from model_store.errors import StoreError
from model_store.registry.store import Store
from service.registry import switch_barrier as module
from service.registry.errors import UnknownModelError
from service.registry.registry import ModelRegistry
from service.registry.switch_barrier import SwitchBarrier
from service.telemetry.metrics import Metrics
from tests.service.conftest import break_version, move, price

SECOND = 10**9


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Service:
    """A master, and workers forked from it."""

    def __init__(self, store: Store, cache: Path, clock: Clock) -> None:
        self.store, self.cache, self.clock = store, cache, clock
        self.barrier = SwitchBarrier(shared=True, clock=lambda: int(clock.seconds * SECOND))
        self.metrics = Metrics()
        self.pid = 100
        self.master = self._registry(self.barrier)
        self.master.refresh()
        self.workers: list[ModelRegistry] = []

    def _registry(self, barrier: SwitchBarrier) -> ModelRegistry:
        limits = {"max_instances": 100, "max_extra_versions": 2}
        return ModelRegistry(self.store, self.cache, self.metrics, **limits, barrier=barrier, clock=self.clock)

    def forked(self) -> ModelRegistry:
        worker = self._registry(copy.copy(self.barrier))
        worker._snapshots = dict(self.master._snapshots)
        return worker

    def start(self) -> ModelRegistry:
        """A worker that answers."""
        self.pid += 1
        worker = self.forked()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module.os, "getpid", lambda pid=self.pid: pid)
            assert worker.join()
        self.workers.append(worker)
        return worker

    def answering(self, name: str = "price", ref: str | None = None) -> list[int]:
        return [worker.find(name, ref).number for worker in self.workers]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def service(store: Store, tmp_path: Path, clock: Clock) -> Service:
    """Two workers."""
    service = Service(store, tmp_path / "cache", clock)
    service.start()
    service.start()
    return service


def count(service: Service, name: str) -> float:
    lines = service.metrics.exposition().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def test_a_version_answers_once_every_worker_has_it_and_then_in_all(service: Service, store: Store) -> None:
    first, second = service.workers
    store.publish("price", price(1))
    assert first.refresh()
    assert service.answering() == [1, 1]
    second.apply_proposal()
    assert service.answering() == [2, 2]
    assert count(service, "forward_pass_model_reloads_total") == 1


def test_all_that_changed_changes_at_once(service: Service, store: Store) -> None:
    first, second = service.workers
    for seed in (1, 2):
        store.publish("price", price(seed))
    move(store, "price", "default", 2)
    move(store, "price", "champion", 1)
    first.refresh()
    second.apply_proposal()
    store.publish("fresh", price(3))
    store.remove("image", 1)
    move(store, "price", "default", 3)
    move(store, "price", "champion", 2)
    second.refresh()
    assert service.answering() == [2, 2]
    assert service.answering("price", "champion") == [1, 1]
    assert service.answering("image") == [1, 1]
    first.apply_proposal()
    assert service.answering() == [3, 3]
    assert service.answering("price", "champion") == [2, 2]
    assert service.answering("fresh") == [1, 1]
    for worker in service.workers:
        with pytest.raises(UnknownModelError, match="image"):
            worker.find("image")


def test_a_look_that_is_asked_for_while_workers_switch_is_taken_after_it(service: Service, store: Store) -> None:
    """Where nobody looks unless asked, it would be the only one."""
    first, second = service.workers
    store.publish("price", price(1))
    first.request_sync()
    first._sync_if_due(0)
    store.publish("price", price(2))
    first.request_sync()
    first._sync_if_due(0)
    second.apply_proposal()
    assert service.answering() == [2, 2]
    first._sync_if_due(0)
    second.apply_proposal()
    assert service.answering() == [3, 3]


def test_a_worker_that_died_is_waited_for_no_longer(service: Service, store: Store) -> None:
    first, _ = service.workers
    store.publish("price", price(1))
    first.refresh()
    first.apply_proposal()
    assert first.find("price").number == 1
    service.master.leave(102)
    first.apply_proposal()
    assert first.find("price").number == 2


def test_the_proposer_may_die_before_the_switch(service: Service, store: Store) -> None:
    first, second = service.workers
    store.publish("price", price(1))
    first.refresh()
    service.master.leave(101)
    second.apply_proposal()
    assert second.find("price").number == 2


def test_a_worker_that_starts_answers_from_what_is_active(service: Service, store: Store) -> None:
    first, second = service.workers
    store.publish("price", price(1))
    first.refresh()
    second.apply_proposal()
    assert service.start().find("price").number == 2
    store.publish("price", price(2))
    first.refresh()
    service.start()  # while one has the third version, and two do not
    assert service.answering() == [2, 2, 2, 2]
    for worker, version in zip(service.workers[1:], (2, 2, 3), strict=True):
        worker.apply_proposal()
        assert service.answering() == [version] * 4


def test_a_worker_starts_without_a_store(service: Service, store: Store) -> None:
    first, second = service.workers
    store.publish("price", price(1))
    first.refresh()
    second.apply_proposal()
    shutil.rmtree(store.root)
    assert service.start().find("price").number == 2


def test_a_worker_that_has_nothing_to_answer_from_does_not_start(service: Service, store: Store) -> None:
    first, second = service.workers
    store.publish("price", price(1))
    first.refresh()
    second.apply_proposal()
    shutil.move(store.root, store.root.with_name("away"))
    for file in service.cache.glob("*.npz"):
        file.unlink()
    worker = service.forked()
    assert not worker.join()
    first.refresh()
    second.apply_proposal()
    assert service.answering() == [2, 2]  # which nobody waits with
    shutil.move(store.root.with_name("away"), store.root)
    service.clock.seconds += 60
    assert worker.join()


def test_what_was_seen_before_a_switch_does_not_undo_it(
    service: Service, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = service.workers
    store.publish("price", price(1))
    move(store, "price", "default", 2)
    state = store.state

    def slow() -> dict[str, dict[str, object]]:
        """Sees the second version; meanwhile the alias moves on, and the other worker is faster."""
        seen = state()
        monkeypatch.setattr(store, "state", state)
        move(store, "price", "default", 1)
        store.publish("price", price(2))
        move(store, "price", "default", 3)
        assert second.refresh()
        first.apply_proposal()  # which waits for no look
        assert service.answering() == [3, 3]
        return seen

    monkeypatch.setattr(store, "state", slow)
    assert not first.refresh()
    assert service.answering() == [3, 3]
    assert not first.refresh()


def test_a_broken_version_is_tried_by_one_worker_and_told_by_all(service: Service, store: Store) -> None:
    first, second = service.workers
    break_version(store, "price", store.publish("price", price(1)).number)
    store.publish("penguins", price(2))
    first.refresh()
    second.apply_proposal()
    assert service.answering() == [1, 1]
    assert service.answering("penguins") == [2, 2]
    for worker in service.workers:
        assert [problem.location for problem in worker.snapshot.problems] == ["price/2"]
    assert count(service, "forward_pass_model_load_failures_total") == 1


def test_the_golden_answers_are_asked_for_by_the_worker_that_verifies_alone(
    service: Service, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from model_store.artifact.model import Model

    first, second = service.workers
    store.publish("price", price(1))
    asked: list[str] = []
    check = Model.check_golden
    monkeypatch.setattr(Model, "check_golden", lambda model: (asked.append(model.digest), check(model)))
    first.refresh()
    assert asked
    asked.clear()
    second.apply_proposal()
    assert second.find("price").number == 2
    assert asked == []


def test_a_worker_that_cannot_load_holds_the_others_until_it_can(
    service: Service, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = service.workers
    store.publish("price", price(1))
    first.refresh()
    with monkeypatch.context() as patch:

        def fail(*_: object, **__: object) -> None:
            raise MemoryError

        patch.setattr("service.registry.loader.npz.read", fail)
        second.apply_proposal()
        second.apply_proposal()
    assert service.answering() == [1, 1]
    assert service.master.overdue_workers(30) == []
    service.clock.seconds += 31
    service.start()  # which has had no time yet
    assert service.master.overdue_workers(30) == [102]
    for worker in service.workers:
        worker.apply_proposal()
    assert service.answering() == [2, 2, 2]
    assert service.master.overdue_workers(30) == []


def test_nobody_is_overdue_while_one_loads_what_the_others_do_not_know(
    service: Service, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = service.workers
    store.publish("price", price(1))
    path = store.path

    def slow(*version: object) -> Path:
        service.clock.seconds += 3600
        assert service.master.overdue_workers(30) == []
        return path(*version)

    monkeypatch.setattr(store, "path", slow)
    assert first.refresh()
    assert service.master.overdue_workers(30) == []


def test_a_store_that_one_worker_cannot_read_is_read_by_another(
    service: Service, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = service.workers
    store.publish("price", price(1))
    with monkeypatch.context() as patch:

        def fail() -> None:
            raise StoreError("not for you")

        patch.setattr(store, "state", fail)
        first.refresh()
    second.refresh()
    assert [problem.location for problem in second.snapshot.problems] == ["store"]
    second.refresh()
    first.apply_proposal()
    assert service.answering() == [2, 2]
    assert second.snapshot.problems == ()


def test_copy_that_somebody_trimmed_is_made_again(service: Service, store: Store) -> None:
    first, second = service.workers
    digest = store.publish("price", price(1)).digest
    first.refresh()
    (service.cache / f"{digest}.npz").unlink()
    second.apply_proposal()
    assert service.answering() == [2, 2]


def test_a_version_that_became_another_is_not_what_was_proposed(service: Service, store: Store) -> None:
    first, second = service.workers
    digest = store.publish("price", price(1)).digest
    store.publish("other", price(2))
    first.refresh()
    (service.cache / f"{digest}.npz").unlink()
    path = store.path("price", 2)
    path.chmod(0o600)
    path.write_bytes(store.path("other", 1).read_bytes())
    second.apply_proposal()
    assert service.answering() == [1, 1]


def test_the_master_lets_go_of_what_the_workers_have_replaced(service: Service, store: Store) -> None:
    first, second = service.workers
    service.master.release_replaced()
    assert service.master.find("price").number == 1
    store.publish("price", price(1))
    first.refresh()
    second.apply_proposal()
    service.master.release_replaced()
    assert not service.master._snapshots
    assert service.start().find("price").number == 2


@pytest.fixture
def claim(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Callable[..., bool]:
    """Whether a process is told to look, once a second."""
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


def test_one_worker_looks_for_all_while_it_does_so_in_time(claim: Callable[..., bool], clock: Clock) -> None:
    assert claim(1)
    assert not claim(2)
    for _ in range(10):
        clock.seconds += 1
        assert not claim(2)
        assert claim(1)
        assert not claim(1)


def test_another_looks_when_the_one_hangs_or_is_dead(claim: Callable[..., bool], clock: Clock) -> None:
    assert claim(1)
    clock.seconds += 7
    assert not claim(2)
    clock.seconds += 1
    assert claim(2)
    assert not claim(1)
    claim.barrier.leave(2)  # type: ignore[attr-defined]
    clock.seconds += 1
    assert claim(1)


def test_nobody_looks_where_nobody_should_unless_asked(claim: Callable[..., bool], clock: Clock) -> None:
    assert claim(1, 0)
    clock.seconds += 10**6
    assert not claim(1, 0)
    claim.barrier.request_sync()  # type: ignore[attr-defined]
    assert claim(2, 0)
    assert not claim(1, 0)


def test_more_workers_than_there_is_room_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
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
