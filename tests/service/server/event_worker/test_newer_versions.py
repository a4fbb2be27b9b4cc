"""A request for a newer version than the worker serves: the store is read in the background by the application."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model_store.registry.store import Store
from service.app import create_app
from service.config import Settings
from service.registry import on_demand
from service.registry.registry import ModelRegistry
from service.server.gunicorn_app import GunicornApplication
from tests.service.conftest import price
from tests.service.server.event_worker.harness import Loop
from tests.service.server.event_worker.loading_harness import GOOD, Gate, end, waited


class Service:
    """A worker in this thread. It reads the store only for requests, once a test opens the gate."""

    def __init__(self, store: Store, cache: Path) -> None:
        settings = Settings(store=str(store.root), cache_dir=str(cache), poll_seconds=3600)
        app = create_app(settings)
        self.registry: ModelRegistry = app.extensions["registry"]
        self.registry.start_sync(3600)
        self.gate = Gate()
        refresh: Any = self.registry._early_sync._refresh

        def slow() -> None:
            self.gate("sync")
            refresh()

        self.registry._early_sync._refresh = slow
        self.loop = Loop(GunicornApplication(app, settings, [], lambda _: None), app)
        self.registry.event_loop_thread = threading.get_ident()

    def ask(self, at_least: int) -> Any:
        head = f"POST /models/price/predict HTTP/1.1\r\nHost: h\r\nX-Model-Version-At-Least: {at_least}\r\n"
        return self.loop.client(f"{head}Content-Length: {len(GOOD)}\r\n\r\n".encode() + GOOD)

    def answer(self, sock: Any) -> tuple[int, Any]:
        head, _, body = waited(self.loop, sock).partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(body)


@pytest.fixture
def service(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setattr(on_demand, "EARLY_SYNC_SECONDS", 0.0)
    service = Service(store, tmp_path / "cache")
    yield service
    end(service.loop, service.gate)


def test_other_requests_are_served_while_the_store_is_read(service: Service, store: Store) -> None:
    store.publish("price", price(1))
    waiting = [service.ask(2) for _ in range(3)]
    assert service.answer(service.ask(1))[1]["version"] == 1
    service.gate.open.set()
    for sock in waiting:
        assert service.answer(sock)[1]["version"] == 2


def test_one_sync_serves_all_requests_that_wait_for_it(
    service: Service, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.publish("price", price(1))
    waiting = [service.ask(2) for _ in range(5)]
    service.gate.open.set()
    assert [service.answer(sock)[0] for sock in waiting] == [200] * 5
    assert service.gate.passed == ["sync"]


def test_a_version_that_the_store_does_not_have_is_503_after_the_sync(service: Service) -> None:
    sock = service.ask(2)
    service.gate.open.set()
    status, body = service.answer(sock)
    assert (status, body["error"]["code"]) == (503, "older_version")
