"""Requests without a version: one rule for every protocol, for `models` and for `train`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from model_store.registry.store import Store
from service.registry.errors import UnavailableError
from service.registry.registry import ModelRegistry
from service.telemetry.metrics import Metrics
from tests.service.conftest import break_version, move, penguins, price
from tests.service.registry.conftest import LIMITS
from tests.service.server.conftest import own_server  # noqa: F401 - a fixture
from tests.service.server.server_process import Server, until

ROW = [3.0, 80.0]


@pytest.fixture
def make_registry(store: Store, tmp_path: Path) -> Callable[..., ModelRegistry]:
    def make(follow: str = "default") -> ModelRegistry:
        registry = ModelRegistry(
            store, tmp_path / "cache", Metrics(), row_limits=LIMITS, max_extra_versions=2, follow=follow
        )
        registry.refresh()
        return registry

    return make


def served(registry: ModelRegistry) -> tuple[int, str]:
    entry = registry.snapshot.entries["price"]
    assert entry.default is not None
    assert registry.find("price") is entry.default
    return entry.default.number, entry.why_default


def test_the_newest_version_is_the_default_until_the_alias_is_set(make_registry, store: Store) -> None:
    registry = make_registry()
    store.publish("price", price(1))
    registry.refresh()
    assert served(registry) == (2, "newest, as the alias default was never set")
    assert registry.find("price", "default").number == store.resolve("price") == 2
    move(store, "price", "default", 1)
    store.publish("price", price(2))
    registry.refresh()
    assert served(registry) == (1, "alias default")
    assert registry.find("price", "default").number == store.resolve("price") == 1


def test_follow_newest_ignores_the_alias_for_requests_without_a_version(make_registry, store: Store) -> None:
    store.publish("price", price(1))
    move(store, "price", "default", 1)
    registry = make_registry("newest")
    assert served(registry) == (2, "SERVE_FOLLOW=newest")
    assert registry.find("price", "default").number == 1
    store.publish("price", price(2))
    registry.refresh()
    assert served(registry) == (3, "SERVE_FOLLOW=newest")
    assert registry.find("price", 3) is registry.find("price")


@pytest.mark.parametrize("follow", ["default", "newest"])
def test_the_reason_says_why_another_version_than_intended_is_served(make_registry, store: Store, follow: str) -> None:
    if follow == "default":
        move(store, "price", "default", 1)
    registry = make_registry(follow)
    number = store.publish("price", price(1)).number
    break_version(store, "price", number)
    if follow == "default":
        move(store, "price", "default", number)
    registry.refresh()
    expected = {"default": "alias default", "newest": "SERVE_FOLLOW=newest"}[follow]
    assert served(registry) == (1, f"{expected}; version 2 cannot be served")


def test_an_alias_that_was_first_set_to_a_broken_version_keeps_the_newest_serving(make_registry, store: Store) -> None:
    break_version(store, "price", 1)
    store.publish("price", price(1))
    registry = make_registry()
    move(store, "price", "default", 1)
    registry.refresh()
    assert served(registry) == (2, "alias default; version 1 cannot be served")


def test_an_alias_of_a_broken_version_is_unavailable_not_unknown(make_registry, store: Store) -> None:
    store.publish("price", price(1))
    move(store, "price", "default", 1)
    move(store, "price", "champion", 1)
    break_version(store, "price", 1)
    registry = make_registry()
    for ref in (None, "default", "champion", 1):
        with pytest.raises(UnavailableError):
            registry.find("price", ref)


def test_each_change_of_what_requests_get_is_logged_once_with_its_reason(make_registry, store, caplog) -> None:
    caplog.set_level("INFO", "service.registry.registry")
    registry = make_registry()
    store.publish("price", price(1))
    registry.refresh()
    move(store, "price", "default", 2)
    registry.refresh()
    registry.refresh()
    move(store, "price", "default", 1)
    registry.refresh()
    assert [line for line in caplog.messages if line.startswith("price: ")] == [
        "price: now serving version 1 (newest, as the alias default was never set)",
        "price: now serving version 2 instead of 1 (newest, as the alias default was never set)",
        "price: now serving version 2 (alias default)",
        "price: now serving version 1 instead of 2 (alias default)",
    ]


def versions_by_protocol(server: Server) -> dict[str, int]:
    """Return the version that each protocol serves to requests without a version, told apart by its prediction."""
    bodies = {str(version): server.ask("POST", f"/models/price/versions/{version}/predict", {"instances": [ROW]})
              for version in (1, 2, 3)}  # fmt: skip
    by_value = {round(body["predictions"][0], 4): int(version) for version, (_, body) in bodies.items()}
    assert len(by_value) == 3
    table = {"inputs": [{"name": "rooms", "datatype": "FP64", "shape": [1, 1], "data": [3.0]},
                        {"name": "area", "datatype": "FP64", "shape": [1, 1], "data": [80.0]}]}  # fmt: skip
    answers = {
        "fast path": server.ask("POST", "/models/price/predict", {"instances": [ROW]})[1]["predictions"][0],
        "fast path, model in the body": server.ask("POST", "/predict", {"model": "price", "instances": [ROW]})[1][
            "predictions"
        ][0],
        "Flask": server.ask("POST", "/models/price/predict?warnings=true", {"instances": [ROW]})[1]["predictions"][0],
        "batch": server.ask("POST", "/models/price/predict", {"instances": [ROW] * 300})[1]["predictions"][299],
        "TensorFlow Serving": server.ask("POST", "/v1/models/price:predict", {"instances": [ROW]})[1]["predictions"][0],
        "V2": server.ask("POST", "/v2/models/price/infer", table)[1]["outputs"][0]["data"][0],
        "SageMaker": server.ask("POST", "/invocations", {"model": "price", "instances": [ROW]})[1]["predictions"][0],
    }
    found = {}
    for protocol, value in answers.items():
        number = value[0] if isinstance(value, list) else value
        found[protocol] = by_value[round(number, 4)]
    found["/models"] = server.ask("GET", "/models/price")[1]["version"]
    found["/readyz"] = server.ask("GET", "/readyz")[1]["models"]["price"]
    return found


@pytest.mark.parametrize(("follow", "version", "why"), [("default", 2, "alias default"),
                                                        ("newest", 3, "SERVE_FOLLOW=newest")])  # fmt: skip
def test_every_protocol_serves_the_same_default_version(
    store: Store,
    own_server: Callable[..., Server],  # noqa: F811 - the fixture
    follow: str,
    version: int,
    why: str,
) -> None:
    for seed in (1, 2):
        store.publish("price", price(seed))
    move(store, "price", "default", 2)
    server = own_server(SERVE_FOLLOW=follow)
    assert set(versions_by_protocol(server).values()) == {version}
    others = "newest, as the alias default was never set" if follow == "default" else why
    same = f"Serving image/1, penguins/1, price/3 ({why}) from"
    assert (same if why == others else f"Serving image/1, penguins/1 ({others}), price/2 ({why}) from") in server.log
    store.publish("penguins", penguins(1))
    until(lambda: server.ask("GET", "/readyz")[1]["models"]["penguins"] == 2)
    assert f"penguins: now serving version 2 instead of 1 ({others})" in server.log
    move(store, "price", "default", 1)
    if follow == "default":
        until(lambda: server.version("default") == server.ask("GET", "/models/price")[1]["version"] == 1)
        assert "price: now serving version 1 instead of 2 (alias default)" in server.log
    else:
        until(lambda: server.version("default") == 1)
        assert set(versions_by_protocol(server).values()) == {3}
