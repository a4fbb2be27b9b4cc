"""What a new worker serves before it has loaded what the others serve."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from model_store.artifact import npz
from model_store.registry.store import Store, open_store
from service.registry.errors import UnavailableError, UnknownModelError
from service.registry.registry import ModelRegistry
from tests.service.conftest import price
from tests.service.registry.conftest import Clock, Service


def reasons(worker: ModelRegistry) -> dict[str, str]:
    return {problem.location: problem.problem for problem in worker.snapshot.problems}


@pytest.fixture
def lonely(service: Service) -> ModelRegistry:
    """A new worker, whose master has dropped its versions, when all other workers have died."""
    service.store.publish("price", price(1))
    for worker in service.workers:
        worker.refresh()
        service.barrier.leave(service.pid)
        service.pid -= 1
    service.master._generations.snapshots.clear()
    worker = service.forked()
    worker.start_joining()
    return worker


def test_models_are_unavailable_with_a_reason_until_they_are_loaded(lonely: ModelRegistry) -> None:
    with pytest.raises(UnavailableError, match="no version of price can be served") as caught:
        lonely.find("price")
    assert str(caught.value.fault) == "models: are being loaded (try again in a moment)"
    with pytest.raises(UnknownModelError):
        lonely.find("prize")
    assert lonely.join()
    assert lonely.find("price").number == 2
    assert lonely.snapshot.problems == ()


def test_a_worker_serves_what_it_could_load_and_joins_once_the_store_can_be_read(
    lonely: ModelRegistry, service: Service, store: Store, clock: Clock
) -> None:
    away = store.root.with_name("away")
    shutil.move(store.root, away)
    (service.cache / f"{npz.read_digest(away / 'price' / '2.npz')}.npz").unlink()
    assert not lonely.join()
    assert lonely.find("penguins").number == 1
    with pytest.raises(UnavailableError) as caught:
        lonely.find("price")
    assert caught.value.fault.location == "price/2"
    assert {"price/2", "store"} <= reasons(lonely).keys()
    clock.seconds += 100
    shutil.move(away, store.root)
    assert [lonely.join(), lonely.join()][-1]
    assert lonely.find("price").number == 2
    assert reasons(lonely) == {}


def test_a_store_that_cannot_be_read_at_the_start_is_the_reason(tmp_path: Path, clock: Clock) -> None:
    service = Service(open_store(tmp_path / "none"), tmp_path / "cache", clock)
    worker = service.forked()
    worker.start_joining()
    assert worker.join()
    with pytest.raises(UnavailableError, match="no model can be served: store: cannot be read"):
        worker.find("price")
