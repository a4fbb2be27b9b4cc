"""Workers switch to a new generation together, even if some start, die, hang or read another state of the store."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from model_store.errors import StoreError
from model_store.registry.store import Store
from service.registry.errors import UnknownModelError
from tests.service.conftest import break_version, move, price
from tests.service.registry.conftest import Service


def count(service: Service, name: str) -> float:
    lines = service.metrics.exposition().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def test_version_is_served_by_all_workers_once_every_worker_has_it(service: Service, store: Store) -> None:
    first, second = service.workers
    store.publish("price", price(1))
    assert first.refresh()
    assert service.served_versions() == [1, 1]
    second.apply_proposal()
    assert service.served_versions() == [2, 2]
    assert count(service, "forward_pass_model_reloads_total") == 1


def test_all_changes_take_effect_at_once(service: Service, store: Store) -> None:
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
    assert service.served_versions() == [2, 2]
    assert service.served_versions("price", "champion") == [1, 1]
    assert service.served_versions("image") == [1, 1]
    first.apply_proposal()
    assert service.served_versions() == [3, 3]
    assert service.served_versions("price", "champion") == [2, 2]
    assert service.served_versions("fresh") == [1, 1]
    for worker in service.workers:
        with pytest.raises(UnknownModelError, match="image"):
            worker.find("image")


def test_sync_requested_during_a_switch_happens_after_it(service: Service, store: Store) -> None:
    """Without polling, the requested sync is the only one."""
    first, second = service.workers
    store.publish("price", price(1))
    first.request_sync()
    first._sync_if_due(0)
    store.publish("price", price(2))
    first.request_sync()
    first._sync_if_due(0)
    second.apply_proposal()
    assert service.served_versions() == [2, 2]
    first._sync_if_due(0)
    second.apply_proposal()
    assert service.served_versions() == [3, 3]


def test_barrier_does_not_wait_for_a_dead_worker(service: Service, store: Store) -> None:
    first, _ = service.workers
    store.publish("price", price(1))
    first.refresh()
    first.apply_proposal()
    assert first.find("price").number == 1
    service.master.leave(102)
    first.apply_proposal()
    assert first.find("price").number == 2


def test_switch_completes_if_the_proposer_dies(service: Service, store: Store) -> None:
    first, second = service.workers
    store.publish("price", price(1))
    first.refresh()
    service.master.leave(101)
    second.apply_proposal()
    assert second.find("price").number == 2


def test_new_worker_serves_the_active_generation(service: Service, store: Store) -> None:
    first, second = service.workers
    store.publish("price", price(1))
    first.refresh()
    second.apply_proposal()
    assert service.start().find("price").number == 2
    store.publish("price", price(2))
    first.refresh()
    service.start()  # while one worker has the third version, and two do not
    assert service.served_versions() == [2, 2, 2, 2]
    for worker, version in zip(service.workers[1:], (2, 2, 3), strict=True):
        worker.apply_proposal()
        assert service.served_versions() == [version] * 4


def test_a_worker_starts_without_a_store(service: Service, store: Store) -> None:
    first, second = service.workers
    store.publish("price", price(1), who="ada")
    first.refresh()
    second.apply_proposal()
    shutil.rmtree(store.root)
    worker = service.start()
    assert worker.find("price").number == 2
    entry = worker.snapshot.entries["price"]
    assert entry.publications == second.snapshot.entries["price"].publications
    assert entry.publication(worker.find("price")).who == "ada"


def test_workers_in_turn_find_nothing_new_in_a_version_without_its_record(service: Service, store: Store) -> None:
    """Each sync of another worker than before was a switch, after which broken versions were loaded again at once."""
    first, second = service.workers
    store.publish("price", price(1))
    store.storage.delete("price/2.json")
    first.refresh()
    second.apply_proposal()
    assert service.served_versions() == [2, 2]
    generation = service.barrier.active
    for worker in (second, first) * 2:
        assert not worker.refresh()
    assert service.barrier.active == service.barrier.proposed == generation


def test_worker_without_a_loadable_generation_does_not_start(service: Service, store: Store) -> None:
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
    assert service.served_versions() == [2, 2]  # the others do not wait for the new one
    shutil.move(store.root.with_name("away"), store.root)
    service.clock.seconds += 60
    assert worker.join()


def test_stale_proposal_does_not_undo_a_switch(service: Service, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = service.workers
    store.publish("price", price(1))
    move(store, "price", "default", 2)
    state = store.state

    def slow() -> dict[str, dict[str, object]]:
        """Read the second version; meanwhile the alias moves on, and the other worker is faster."""
        read = state()
        monkeypatch.setattr(store, "state", state)
        move(store, "price", "default", 1)
        store.publish("price", price(2))
        move(store, "price", "default", 3)
        assert second.refresh()
        first.apply_proposal()  # does not wait for the sync
        assert service.served_versions() == [3, 3]
        return read

    monkeypatch.setattr(store, "state", slow)
    assert not first.refresh()
    assert service.served_versions() == [3, 3]
    assert not first.refresh()


def test_broken_version_is_tried_by_one_worker_and_reported_by_all(service: Service, store: Store) -> None:
    first, second = service.workers
    break_version(store, "price", store.publish("price", price(1)).number)
    store.publish("penguins", price(2))
    first.refresh()
    second.apply_proposal()
    assert service.served_versions() == [1, 1]
    assert service.served_versions("penguins") == [2, 2]
    for worker in service.workers:
        assert [problem.location for problem in worker.snapshot.problems] == ["price/2"]
    assert count(service, "forward_pass_model_load_failures_total") == 1


def test_a_generation_forgets_only_failures_of_versions_that_it_has(service: Service, store: Store) -> None:
    """Each publication of any model made every worker try each broken version again."""
    first, second = service.workers
    store.publish("price", price(1))
    break_version(store, "price", 2)
    assert second._loader.load("price", 2) is None
    store.publish("image", price(3))
    first.refresh()
    second.apply_proposal()
    assert second._loader.has_failed("price", 2)
    assert second._loader.in_backoff("price", 2)


def test_only_the_verifying_worker_checks_the_golden_predictions(
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


def test_worker_that_cannot_load_blocks_the_switch_until_it_can(
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
    assert service.served_versions() == [1, 1]
    assert service.master.overdue_workers(30) == []
    service.clock.seconds += 31
    service.start()  # a new worker is not overdue yet
    assert service.master.overdue_workers(30) == [102]
    for worker in service.workers:
        worker.apply_proposal()
    assert service.served_versions() == [2, 2, 2]
    assert service.master.overdue_workers(30) == []


def test_no_worker_is_overdue_while_the_proposer_loads(
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


def test_another_worker_syncs_if_one_cannot_read_the_store(
    service: Service, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = service.workers
    store.publish("price", price(1))
    with monkeypatch.context() as patch:

        def fail() -> None:
            raise StoreError("permission denied")

        patch.setattr(store, "state", fail)
        first.refresh()
    second.refresh()
    assert [problem.location for problem in second.snapshot.problems] == ["store"]
    second.refresh()
    first.apply_proposal()
    assert service.served_versions() == [2, 2]
    assert second.snapshot.problems == ()


def test_trimmed_copy_is_made_again(service: Service, store: Store) -> None:
    first, second = service.workers
    digest = store.publish("price", price(1)).digest
    first.refresh()
    (service.cache / f"{digest}.npz").unlink()
    second.apply_proposal()
    assert service.served_versions() == [2, 2]


def test_version_with_another_digest_than_proposed_is_not_served(service: Service, store: Store) -> None:
    first, second = service.workers
    digest = store.publish("price", price(1)).digest
    store.publish("other", price(2))
    first.refresh()
    (service.cache / f"{digest}.npz").unlink()
    path = store.path("price", 2)
    path.chmod(0o600)
    path.write_bytes(store.path("other", 1).read_bytes())
    second.apply_proposal()
    assert service.served_versions() == [1, 1]


def test_master_frees_replaced_versions(service: Service, store: Store) -> None:
    first, second = service.workers
    service.master.release_replaced()
    assert service.master.find("price").number == 1
    store.publish("price", price(1))
    first.refresh()
    second.apply_proposal()
    service.master.release_replaced()
    assert not service.master._generations.snapshots
    assert service.start().find("price").number == 2
