"""Workers in a test's own process, and servers in processes of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from model_store.registry.store import Store, open_store
from service.server import event_loop, request_reader
from tests.service.conftest import image, penguins, price
from tests.service.server.event_worker.harness import Loop
from tests.service.server.server_process import Server


@pytest.fixture
def loop() -> Iterator[Loop]:
    it = Loop()
    yield it
    it.close()


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat requests above a hundred bytes as large."""
    monkeypatch.setattr(event_loop, "READ_BYTES", 100)
    monkeypatch.setattr(event_loop, "LARGE_READ_BYTES", 200)
    monkeypatch.setattr(request_reader, "CHUNKS_PER_READ", 2)


@pytest.fixture
def own_server(store: Store, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start servers of a test's own, which stop after it."""
    started: list[Server] = []

    def start(**options: Any) -> Server:
        started.append(Server(store, tmp_path, **options))
        return started[-1]

    yield start
    for server in started:
        if server.process.poll() is None:
            assert server.stop() == 0, server.log


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of two workers, whose tests do not change the store."""
    folder = tmp_path_factory.mktemp("server")
    store = open_store(folder / "models")
    for name, model in {"penguins": penguins(), "image": image(), "price": price()}.items():
        store.publish(name, model)
    server = Server(store, folder)
    yield server
    assert server.stop() == 0, server.log
    assert "Traceback" not in server.log
