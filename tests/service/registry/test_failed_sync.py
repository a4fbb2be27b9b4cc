"""What a sync cannot read or encode is a problem of its version or of the store, and ends nothing else."""

import itertools
import os

import pytest

from model_store.registry.store import open_store
from model_store.storage.artifact_cache import cache_file
from model_store.storage.base import put_object
from model_store.storage.local import LocalStorage
from service.registry.registry import ModelRegistry
from service.registry.snapshot import Snapshot
from service.telemetry.metrics import Metrics
from tests.service.conftest import price
from tests.service.registry.conftest import LIMITS


def make_registry(store, tmp_path, clock):
    return ModelRegistry(store, tmp_path / "cache", Metrics(), row_limits=LIMITS, max_extra_versions=2, clock=clock)


@pytest.fixture
def registry(store, tmp_path, clock):
    registry = make_registry(store, tmp_path, clock)
    registry.refresh()
    return registry


def problems(registry):
    return [(problem.location, problem.problem) for problem in registry.snapshot.problems]


def test_a_record_with_a_lone_surrogate_delays_no_other_model(registry, store):
    store.publish("price", price(1))
    store.publish("second", price(2))
    store.storage.delete("price/2.json")
    record = b'{"who": "\\ud800", "when": "2026-01-01T00:00:00+00:00", "recorded": true, "copies": []}'
    put_object(store.storage, "price/2.json", record)
    assert registry.refresh()
    assert (registry.find("price").number, registry.find("second").number) == (2, 1)
    assert [location for location, _ in problems(registry)] == ["price/2.json"]


def test_a_path_that_is_not_utf_8_is_escaped_in_problems(tmp_path, clock, caplog):
    caplog.set_level("CRITICAL", "service")  # the captured path could not be sent by a worker of pytest-xdist
    store = open_store(tmp_path / os.fsdecode(b"\xff"))
    store.publish("price", price(0))
    store.publish("price", price(1))
    store.storage.delete("price/2.json")
    put_object(store.storage, "price/2.json", b"{")
    registry = make_registry(store, tmp_path, clock)
    assert registry.refresh()
    assert registry.find("price").number == 2
    assert f"{tmp_path}/\\xff/price/2.json" in problems(registry)[0][1]
    assert not registry.refresh()


@pytest.mark.parametrize("broken", ["sync_with_store", "Snapshot.to_plan"])
def test_a_sync_that_fails_unexpectedly_is_a_problem(registry, store, monkeypatch, caplog, broken):
    """A bug in the sync must not end following silently: /readyz and the log name it, the log once."""
    store.publish("price", price(1))

    def fail(*_):
        raise ZeroDivisionError("a bug")

    if broken == "sync_with_store":
        monkeypatch.setattr("service.registry.registry.sync_with_store", fail)
    else:
        plan = Snapshot.to_plan
        monkeypatch.setattr(Snapshot, "to_plan", lambda snapshot: plan(snapshot) if snapshot.problems else fail())
    assert registry.refresh()
    assert registry.find("price").number == 1
    assert problems(registry) == [("store", "cannot be followed: ZeroDivisionError: a bug")]
    assert not registry.refresh()
    assert caplog.text.count("Traceback") == 1
    monkeypatch.undo()
    assert registry.refresh()
    assert (registry.find("price").number, problems(registry)) == (2, [])


def test_a_store_that_is_costly_to_list_is_listed_less_often(registry, monkeypatch):
    """To list 20,000 foreign folders takes 0.6 s of processor time."""
    synced: list[float] = []
    monkeypatch.setattr("service.registry.registry.time.thread_time", iter([1.0, 4.0]).__next__)
    registry._read_state()
    monkeypatch.setattr(registry, "refresh", lambda: synced.append(0.0))
    for _ in range(3):
        registry._sync_if_due(1.0)
    assert synced == [0.0]
    monkeypatch.setattr(registry._barrier, "shared", True)
    monkeypatch.setattr(registry._barrier, "claim_sync", synced.append)
    registry._sync_if_due(1.0)
    assert synced == [0.0, 60.0]
    registry._sync_interval.seconds = 0.001
    registry._sync_if_due(1.0)
    assert synced == [0.0, 60.0, 1.0]
    registry._sync_interval.seconds = 3.0
    registry._sync_if_due(0)  # never, but on request
    assert synced[-1] == 0


def test_few_broken_versions_of_a_model_are_tried_and_others_are_followed(tmp_path, store, clock, monkeypatch):
    """A folder of 3,000 empty files took 27 s of processor time in each sync, and no model was followed meanwhile."""
    folder = store.root / "broken"
    folder.mkdir()
    for number in range(1, 31):
        (folder / f"{number}.npz").touch()
    registry = make_registry(store, tmp_path, clock)
    opened = []
    monkeypatch.setattr(
        "service.registry.loader.cache_file", lambda path, cache: opened.append(path.stem) or cache_file(path, cache)
    )
    patterns = []
    monkeypatch.setattr(
        store.storage, "keys", lambda *keys, **_: patterns.extend(keys) or LocalStorage.keys(store.storage, *keys, **_)
    )
    registry.refresh()
    assert opened == [*map(str, range(30, 21, -1)), "1", "1", "1"]
    assert registry.find("price").number == 1
    assert [pattern for pattern in patterns if "*" in pattern] == ["*/aliases/*/*", "*/*"]
    found = dict(problems(registry))
    assert list(found) == [f"broken/{number}" for number in range(30, 21, -1)]
    store.publish("price", price(1))
    assert registry.refresh()
    assert registry.find("price").number == 2
    assert opened[12:] == [*map(str, range(21, 13, -1)), "2"]


def test_the_newest_version_that_works_is_served_after_a_restart_however_many_are_broken(tmp_path, store, clock):
    """Nine broken versions left a model without any until its alias `default` was set."""
    for number in range(2, 41):
        (store.root / "price" / f"{number}.npz").touch()
    registry = make_registry(store, tmp_path, clock)
    syncs = 0
    while registry.refresh() or registry.snapshot.entries["price"].default is None:
        clock.seconds += 1.0
        syncs += 1
        assert syncs < 30
    assert registry.find("price").number == 1
    assert [location for location, _ in problems(registry)] == ["price/40"]
    assert registry.snapshot.entries["price"].why_default.endswith("; version 40 cannot be served")


def test_a_hundred_versions_before_the_newest_are_tried(tmp_path, store, clock):
    for number in range(2, 151):
        (store.root / "price" / f"{number}.npz").touch()
    registry = make_registry(store, tmp_path, clock)
    for _ in range(300):
        registry.refresh()
        clock.seconds += 1.0
    found = dict(problems(registry))
    assert found["price/"] == "none of its newest 101 versions can be served; older ones are not tried"
    assert len(found) == 10
    before = registry.snapshot
    for _ in range(100):
        assert not registry.refresh()
        clock.seconds += 1.0
    assert registry.snapshot is before


def test_versions_that_cannot_be_loaded_count_for_the_interval_between_syncs(registry, store, monkeypatch, clock):
    (store.root / "broken").mkdir()
    (store.root / "broken" / "1.npz").touch()
    times = itertools.count(step=0.5)
    monkeypatch.setattr("service.registry.registry.time.thread_time", times.__next__)
    registry.refresh()
    assert registry._sync_interval.min_seconds() == 0.5 / 0.05  # a sync with a change: its listing
    registry.refresh()
    assert registry._sync_interval.min_seconds() == 1.5 / 0.05


def test_a_costly_sync_is_repeated_after_a_minute_at_most_and_logged_once(registry, caplog):
    registry._sync_interval.seconds = 10.0
    assert [registry._sync_interval.min_seconds() for _ in range(3)] == [60.0] * 3
    logged = "a sync with the store takes 10.0 s of processor time, so changes are served after up to 60 s"
    assert [line for line in caplog.messages if line.startswith("a sync")] == [logged]
