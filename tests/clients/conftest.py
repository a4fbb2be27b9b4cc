"""One running service for the clients that other people wrote. They live in environments of their own: `make test`
makes them, and runs these tests there; elsewhere they are skipped."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from model_store.store import open_store
from tests.service.conftest import image, move, penguins, price
from tests.service.test_server import Server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two workers over three models, of which one has two versions and an alias."""
    folder = tmp_path_factory.mktemp("clients")
    store = open_store(folder / "models")
    for name, model in {"penguins": penguins(), "image": image(), "price": price()}.items():
        store.publish(name, model)
    store.publish("price", price(1))
    move(store, "price", "champion", 1)
    server = Server(store, folder, SERVE_ADMIN="true")
    yield server
    assert server.stop() == 0, server.log
    assert "Traceback" not in server.log
