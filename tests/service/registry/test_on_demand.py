"""Versions that are loaded for a request: together they take a bounded share of a processor."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from model_store.registry.store import Store
from service.registry import on_demand
from service.registry.errors import UnavailableError, WouldBlock
from service.registry.on_demand import EarlySync, LoadBudget
from service.registry.periodic import SyncInterval
from service.registry.registry import ModelRegistry
from service.registry.switch_barrier import SwitchBarrier
from service.telemetry.metrics import Metrics
from tests.service.conftest import MakeClient, assert_error, break_version, move, price, text_error
from tests.service.registry.conftest import LIMITS, SECOND, Clock


class CostlyLoads:
    """Counts the loads of a registry, of which each takes a second of processor time."""

    def __init__(self, registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
        self.versions: list[int] = []
        self._load: Any = registry._loader.load
        monkeypatch.setattr(registry._loader, "load", self)
        monkeypatch.setattr(on_demand.time, "thread_time", lambda: float(len(self.versions)))

    def __call__(self, name: str, number: int, *rest: Any) -> Any:
        self.versions.append(number)
        return self._load(name, number, *rest)


@pytest.fixture
def registry(store: Store, tmp_path: Path, clock: Clock) -> ModelRegistry:
    """Of the versions 1 to 9 of `price`, two are kept in memory besides the newest."""
    for seed in range(1, 9):
        store.publish("price", price(seed))
    found = ModelRegistry(store, tmp_path / "cache", Metrics(), row_limits=LIMITS, max_extra_versions=2, clock=clock)
    found.refresh()
    return found


@pytest.fixture
def loads(registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch) -> CostlyLoads:
    return CostlyLoads(registry, monkeypatch)


def refusal(registry: ModelRegistry, number: int, **options: Any) -> UnavailableError:
    with pytest.raises(UnavailableError) as caught:
        registry.find("price", number, **options)
    return caught.value


def test_versions_asked_for_in_turn_are_loaded_for_a_share_of_the_time(
    registry: ModelRegistry, loads: CostlyLoads, clock: Clock
) -> None:
    """A client with a key had versions of 6,000 columns loaded anew at each request: 1.0 s of processor time."""
    answered = 0
    for second in range(600):
        clock.seconds = 1000.0 + second
        with suppress(UnavailableError):
            answered += registry.find("price", 1 + second % 8).number > 0
        assert registry.find("price").number == 9
    assert 60 <= len(loads.versions) <= on_demand.LOAD_BURST_SECONDS + 600 * on_demand.LOAD_SHARE + 1
    assert answered >= len(loads.versions)


def test_a_version_beyond_the_budget_is_refused_until_the_time_that_the_error_names(
    registry: ModelRegistry, loads: CostlyLoads, clock: Clock
) -> None:
    for number in (1, 2, 3):
        registry.find("price", number)
    error = refusal(registry, 4)
    assert (error.code, error.fault.location, error.retry_after) == ("loading", "price/4", 1)
    assert "SERVE_MAX_EXTRA_VERSIONS" in error.fault.fix
    assert [registry.find("price", number).number for number in (2, 3)] == [2, 3]  # in memory
    clock.seconds += error.retry_after
    assert registry.find("price", 4).number == 4
    assert refusal(registry, 5).retry_after == 9
    assert loads.versions == [1, 2, 3, 4]


def test_the_event_loop_queues_no_request_beyond_the_budget(registry: ModelRegistry, loads: CostlyLoads) -> None:
    registry.event_loop_thread = on_demand.threading.get_ident()
    with pytest.raises(WouldBlock):
        registry.find("price", 4)
    registry._on_demand._budget._left = 0.0
    refusal(registry, 4)
    assert registry.version_number("price", 4) == 4
    assert loads.versions == []


def test_a_storm_of_requests_for_many_versions_loads_few(registry: ModelRegistry, loads: CostlyLoads) -> None:
    def ask(number: int) -> str:
        try:
            return str(registry.find("price", number).number)
        except UnavailableError as e:
            return e.code

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(ask, [1 + i % 8 for i in range(160)]))
    assert len(loads.versions) == on_demand.LOAD_BURST_SECONDS
    assert found.count("loading") > 0


def test_loads_that_fail_count_for_the_budget(registry: ModelRegistry, loads: CostlyLoads, store: Store) -> None:
    for number in (1, 2, 3):
        break_version(store, "price", number)
        assert refusal(registry, number).code == "model_unavailable"
    assert refusal(registry, 4).code == "loading"


def test_versions_with_an_alias_are_loaded_whatever_the_budget(
    registry: ModelRegistry, loads: CostlyLoads, store: Store
) -> None:
    registry._on_demand._budget._left = -100.0
    move(store, "price", "champion", 4)
    registry.refresh()
    assert registry.find("price", "champion").number == 4


def test_every_protocol_says_when_to_try_again(store: Store, make_client: MakeClient) -> None:
    store.publish("price", price(1))
    client = make_client(store)
    client.application.extensions["registry"]._on_demand._budget._left = -1.0
    response = client.post("/models/price/versions/1/predict", json={"instances": [[3.0, 80.0]]})
    assert assert_error(response, 503, "loading")["faults"][0]["location"] == "price/1"
    others = [
        client.post("/v1/models/price/versions/1:predict", json={"instances": [[3.0, 80.0]]}),
        client.get("/v2/models/price/versions/1"),
    ]
    assert all("price/1 is not in memory" in text_error(other, 503) for other in others)
    assert {each.headers["Retry-After"] for each in (response, *others)} == {"10"}


class EarlySyncs:
    """Syncs for requests, of which each takes `seconds` of time and none of a processor."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self.clock, self.seconds, self.count = clock, seconds, 0
        self.barrier = SwitchBarrier(clock=lambda: int(clock.seconds * SECOND))
        self.early = EarlySync(self.refresh, self.barrier, LoadBudget(clock), SyncInterval(), clock)
        self.early.poll_seconds = 1.0

    def refresh(self) -> None:
        self.count += 1
        self.clock.seconds += self.seconds


@pytest.mark.parametrize(("seconds", "pause"), [(0.001, 0.1), (0.03, 0.3), (1.5, 1.0)])
def test_requests_that_wait_for_a_sync_share_it_and_the_next_one_begins_after_a_pause(
    clock: Clock, seconds: float, pause: float
) -> None:
    """40 clients made a service with a slow bucket sync one time after the other: other requests waited for 14.6 s."""
    syncs = EarlySyncs(clock, seconds)
    assert syncs.early.may_help
    for _ in range(40):
        syncs.early.run()
    assert syncs.count == 1
    clock.seconds += 0.99 * pause
    assert not syncs.early.may_help
    assert syncs.early.retry_after == 1
    clock.seconds += 0.02 * pause
    assert syncs.early.may_help
    syncs.early.run()
    assert syncs.count == 2


def test_a_sync_that_fails_is_followed_by_a_pause_too(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs = EarlySyncs(clock, 0.3)

    def fail() -> None:
        syncs.refresh()
        raise OSError("the bucket does not respond")

    monkeypatch.setattr(syncs.early, "_refresh", fail)
    with pytest.raises(OSError, match="does not respond"):
        syncs.early.run()
    assert not syncs.early.may_help


def test_requests_wait_together_for_a_switch_that_does_not_come(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the requests that waited for a sync waited for a second, one after the other."""
    syncs = EarlySyncs(clock, 0.3)
    sleeps: list[float] = []

    def sleep(seconds: float) -> None:
        sleeps.append(seconds)
        assert len(sleeps) < 1000
        clock.seconds += seconds

    monkeypatch.setattr(on_demand.time, "sleep", sleep)
    assert syncs.barrier.propose(0, b"a plan that a worker does not load")
    assert syncs.early.may_help
    for _ in range(40):
        syncs.early.run()
    assert sum(sleeps) <= 1.01
    clock.seconds += 1.0
    assert syncs.barrier.is_switching(60)
    for _ in range(3):
        syncs.early.run()
    assert sum(sleeps) <= 1.01
