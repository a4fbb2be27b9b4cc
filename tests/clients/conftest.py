"""A running service for the clients of other projects.

The clients live in environments of their own, which `make clients` creates to run these tests; elsewhere the tests are
skipped.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from model_store.artifact.answers import Answers
from model_store.artifact.conformal import Conformal
from model_store.artifact.model import Model
from model_store.nn import Linear, Sequential
from model_store.registry.store import open_store
from model_store.schema.signature import NumberColumn, RegressionOutput, Signature
from tests.service.conftest import image, move, penguins, price
from tests.service.routes.test_explain import with_baseline
from tests.service.server.server_process import Server, free_port


def half_plus_two() -> Model:
    """Return the example model of TensorFlow Serving's documentation."""
    layer = Linear(1, 1, rng=np.random.default_rng(0))
    layer.weights[:], layer.bias[:] = 0.5, 2.0
    return Model(Sequential([layer]), Signature((NumberColumn("x"),), RegressionOutput(("y",), (0.0,), (1.0,))))


def with_scores(model: Model, method: str, count: int) -> Model:
    """Return the model with the scores of nine calibration rows, for so many targets."""
    scores = np.tile(np.linspace(0.1, 0.9, 9, dtype=np.float32), (count, 1))
    return replace(model, answers=Answers(model.baseline, Conformal(method, scores)))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run two workers with four models, one of them with two versions and an alias."""
    folder = tmp_path_factory.mktemp("clients")
    store = open_store(folder / "models")
    models = {
        "penguins": with_scores(with_baseline(penguins()), "aps", 1),
        "image": with_scores(image(), "absolute", 2),
        "price": price(),
        "half_plus_two": half_plus_two(),
    }
    for name, model in models.items():
        store.publish(name, model)
    store.publish("price", price(1))
    move(store, "price", "champion", 1)
    second, grpc_ports = free_port(), {}
    if importlib.util.find_spec("grpc_health"):
        grpc_ports = {name: str(free_port()) for name in ("SERVE_GRPC_PORT", "SERVE_GRPC_ADMIN_PORT")}
    server = Server(store, folder, SERVE_ADMIN="true", SERVE_ADMIN_PORT=str(second), **grpc_ports)
    server.port = second  # it serves all endpoints, including the repository API
    server.grpc_port = int(grpc_ports.get("SERVE_GRPC_ADMIN_PORT", 0))  # so does this one
    yield server
    assert server.stop() == 0, server.log
    assert "Traceback" not in server.log
