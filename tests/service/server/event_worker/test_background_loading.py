"""Versions that load in the background: the real application in an event loop."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model_store.registry.store import Store
from service.app import create_app
from service.config import Settings
from service.registry.registry import ModelRegistry
from service.server import blocking_executor as module
from service.server.gunicorn_app import GunicornApplication
from tests.service.conftest import break_version, price, with_golden
from tests.service.server.event_worker.harness import Loop
from tests.service.server.event_worker.loading_harness import GOOD, Gate, end, waited


class Service:
    """The real application in an event loop. Loads end when a test opens the gate."""

    def __init__(self, store: Store, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = Settings(store=str(store.root), cache_dir=str(cache), poll_seconds=0, admin=True)
        app = create_app(settings)
        self.registry: ModelRegistry = app.extensions["registry"]
        self.gate, self.now = Gate(), 0.0
        loader = self.registry._loader
        read = loader._read

        def slow(name: str, number: int, vouched: str | None) -> Any:
            self.gate((name, number))
            return read(name, number, vouched)

        monkeypatch.setattr(loader, "_read", slow)
        monkeypatch.setattr(loader, "_clock", lambda: self.now)
        self.loop = Loop(GunicornApplication(app, settings, [], lambda _: None), app)

    def ask(self, path: str, body: bytes = GOOD, method: str = "POST") -> socket.socket:
        head = f"{method} {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n"
        return self.loop.client(head.encode() + body)

    def answer(self, sock: socket.socket) -> tuple[int, Any]:
        head, _, body = waited(self.loop, sock).partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(body)

    def says(self, path: str, body: bytes = GOOD, method: str = "POST") -> tuple[int, Any]:
        return self.answer(self.ask(path, body, method))


@pytest.fixture
def service(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """Version 4 of `price` is loaded; versions 1 to 3 are only in the store."""
    for seed in (1, 2, 3):
        store.publish("price", with_golden(price(seed), [[3, 80]]))
    it = Service(store, tmp_path / "cache", monkeypatch)
    yield it
    end(it.loop, it.gate)


TENSORS = json.dumps({"inputs": [{"name": "instances", "shape": [1, 2], "datatype": "FP64", "data": [3, 80]}]}).encode()


@pytest.mark.parametrize(
    ("path", "body", "method"),
    [
        ("/models/price/versions/2/predict", GOOD, "POST"),
        ("/models/price/versions/2/predict?receipt=true", GOOD, "POST"),
        ("/predict", b'{"model": "price", "version": 2, "instances": [[3, 80]]}', "POST"),
        ("/predict", b'{"model": "price", "version": "2", "instances": [{"rooms": 3, "area": 80}]}', "POST"),
        ("/invocations", b'{"model": "price", "version": 2, "instances": [[3, 80]]}', "POST"),
        ("/v1/models/price/versions/2:predict", GOOD, "POST"),
        ("/v1/models/price/versions/2/metadata", b"", "GET"),
        ("/v2/models/price/versions/2/infer", TENSORS, "POST"),
        ("/v2/models/price/versions/2", b"", "GET"),
        ("/v2/models/price/versions/2/config", b"", "GET"),
        ("/models/price/versions/2", b"", "GET"),
        ("/models/price/versions/2/example", b"", "GET"),
    ],
)
def test_loading_a_version_does_not_delay_other_requests(service: Service, path: str, body: bytes, method: str) -> None:
    asker = service.ask(path, body, method)
    assert service.gate.reached.wait(20)
    assert service.says("/models/price/predict")[1]["version"] == 4
    assert service.says("/v1/models/price:predict")[0] == 200
    service.gate.open.set()
    status, answer = service.answer(asker)
    assert (status, service.gate.passed) == (200, [("price", 2)])
    assert (status, answer) == service.says(path, body, method)  # now in memory
    assert service.gate.passed == [("price", 2)]


def test_requests_that_wait_for_a_version_are_counted_once(service: Service) -> None:
    asker = service.ask("/models/price/versions/2/predict")
    service.gate.open.set()
    service.answer(asker)
    figures = service.loop.app.recorder.metrics.counters.exposition()
    of = 'model="price",route="/models/<name>/versions/<version>/predict",status="200",version="2"'
    assert f"forward_pass_requests_total{{{of}}} 1.0" in figures
    assert "forward_pass_requests_in_progress 0.0" in figures


def test_an_abandoned_request_is_counted_once_as_503(service: Service) -> None:
    asker = service.ask("/models/price/versions/2/predict")
    assert service.gate.reached.wait(20)
    (connection,) = service.loop.worker.event_loop.connections
    connection.arrived_at -= module.LOAD_TIMEOUT_SECONDS
    service.loop.worker.expire_connections(time.monotonic())
    assert service.answer(asker)[0] == 503
    service.gate.open.set()
    assert service.says("/models/price/versions/3/predict")[0] == 200  # handled later, because there is one thread
    figures = service.loop.app.recorder.metrics.counters.exposition()
    told = re.findall(r'^forward_pass_requests_total.*status="(\d+)",version="(\d?)"} (.*)$', figures, re.MULTILINE)
    assert told == [("503", "", "1.0"), ("200", "3", "1.0")]
    assert "forward_pass_requests_in_progress 0.0" in figures


@pytest.mark.parametrize(
    "path", ["/v2/models/price/versions/2/ready", "/v1/models/price/versions/2", "/v1/models/price/labels/2"]
)
def test_health_of_a_version_neither_loads_nor_waits(service: Service, path: str) -> None:
    status, answer = service.says(path, b"", "GET")
    assert (status, answer["ready"]) == (200, True)
    assert not service.gate.reached.is_set()
    assert service.says(path.replace("2", "9"), b"", "GET")[0] == 404


def test_statistics_of_a_version_are_served_without_loading_it(service: Service) -> None:
    status, answer = service.says("/v2/models/price/versions/2/stats", b"", "GET")
    assert (status, answer["model_stats"][0]["version"]) == (200, "2")
    assert not service.gate.reached.is_set()


def test_a_version_that_cannot_be_loaded_is_503_and_is_not_retried_at_once(service: Service, store: Store) -> None:
    break_version(store, "price", 2)
    service.gate.open.set()
    path = "/models/price/versions/2/predict"
    answers = [service.says(path) for _ in range(3)]
    assert [status for status, _ in answers] == [503, 503, 503]
    assert {answer["error"]["code"] for _, answer in answers} == {"model_unavailable"}
    assert {answer["error"]["message"] for _, answer in answers} == {"price/2 cannot be loaded"}
    assert answers[0][1]["error"]["faults"] == answers[2][1]["error"]["faults"]
    assert service.gate.passed == [("price", 2)]
    assert service.says("/v2/models/price/versions/2/ready", b"", "GET")[0] == 503
    service.gate.open.clear()
    service.ask("/models/price/versions/3/predict")
    assert service.says(path)[0] == 503  # at once, although another version is loading
    service.gate.open.set()
    service.now += 3.0
    assert service.says(path)[0] == 503
    assert service.gate.passed == [("price", 2), ("price", 3), ("price", 2)]


def test_a_rejected_request_loads_nothing(service: Service) -> None:
    """For a wrong method, the error's example uses a model that is in memory."""
    status, answer = service.says("/models/price/versions/2/predict", b"", "GET")
    assert (status, answer["error"]["code"]) == (405, "method_not_allowed")
    assert "/models/price/predict" in answer["error"]["example"]["curl"]
    assert not service.gate.reached.is_set()


def test_the_repositorys_load_does_not_delay_other_requests(service: Service, store: Store) -> None:
    store.publish("other", with_golden(price(5), [[3, 80]]))
    operator = service.ask("/v2/repository/models/other/load", b"{}")
    assert service.gate.reached.wait(20)
    assert service.says("/models/price/predict")[0] == 200
    service.gate.open.set()
    assert service.answer(operator) == (200, {})
    assert service.says("/models/other/predict")[0] == 200
