"""Small models, a store of them, and an application that serves it in this process."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient

from model_store.artifact.model import Golden, Model
from model_store.nn import Linear, Sequential, Softmax, Tanh
from model_store.registry.store import Store, open_store
from model_store.schema.signature import (
    ArrayColumn,
    CategoryColumn,
    ClassificationOutput,
    NumberColumn,
    RegressionOutput,
    Signature,
)
from service.app import create_app
from service.config import Settings
from service.registry.registry import ModelRegistry

PENGUIN = {"island": "Biscoe", "mass": 4200.5, "sex": None}


def network(inputs: int, outputs: int, seed: int, *, softmax: bool = False, dtype: str = "float32") -> Sequential:
    rng = np.random.default_rng(seed)
    first = Linear(inputs, 5, rng=rng, initializer="glorot_uniform", dtype=dtype)
    layers = [first, Tanh(), Linear(5, outputs, rng=rng, dtype=dtype)]
    return Sequential([*layers, Softmax()] if softmax else layers)


def with_golden(model: Model, instances: list[Any]) -> Model:
    golden = Golden(instances, model.network(model.encode(instances)))
    return Model(model.network, model.signature, model.description, model.training, golden)


def penguins(seed: int = 0, dtype: str = "float32") -> Model:
    columns = (
        CategoryColumn("island", ("Biscoe", "Dream", "Torgersen")),
        NumberColumn("mass", 4200.0, 800.0, statistics={"min": 2700.0, "mean": 4200.0, "max": 6300.0}),
        CategoryColumn("sex", ("FEMALE", "MALE"), fill="FEMALE"),
    )
    signature = Signature(columns, ClassificationOutput("species", ("Adelie", "Gentoo")))
    training = {
        "metrics": {"accuracy": 0.975, "of": "test rows", "rows": 69, "classes": {"Adelie": {"f1": 1.0}}},
        "baseline": {"accuracy": 0.43, "answer": "Adelie"},
        "history": [{"loss": 1.0}],
        "job": {"data": {"path": "secret/penguins.csv"}},
    }
    model = Model(
        network(signature.width, 2, seed, softmax=True, dtype=dtype), signature, "Species of a penguin", training
    )
    return with_golden(model, [list(PENGUIN.values())])


def image(seed: int = 0) -> Model:
    column = ArrayColumn("pixels", (2, 2), 0.0, 16.0, 0.0, 16.0, {"min": 0.0, "mean": 4.0, "max": 16.0})
    signature = Signature((column,), RegressionOutput(("ink", "slant"), (0.0, 0.0), (1.0, 1.0)))
    return Model(network(4, 2, seed), signature, "Ink & slant of <b>an image</b>")


def price(seed: int = 0, dtype: str = "float32") -> Model:
    signature = Signature(
        (NumberColumn("rooms"), NumberColumn("area", fill=70.0)), RegressionOutput(("price",), (100.0,), (10.0,))
    )
    return Model(network(2, 1, seed, dtype=dtype), signature)


def move(store: Store, name: str, alias: str, version: int) -> None:
    store.set_alias(name, alias, version, who="tests", why="to see it move", when=datetime(2024, 1, 1, tzinfo=UTC))


def break_version(store: Store, name: str, number: int) -> None:
    """Flip bits of a stored artifact."""
    path = store.path(name, number)
    damaged = bytearray(path.read_bytes())
    damaged[-200] ^= 0xFF
    path.chmod(0o600)
    path.write_bytes(damaged)


def assert_error(response: Any, status: int, code: str) -> dict[str, Any]:
    """Check the format of an error response and return its inner object."""
    assert response.status_code == status, response.get_data(as_text=True)
    assert response.mimetype == "application/json"
    body = response.get_json()
    assert body.keys() == {"error", "request_id"}
    error: dict[str, Any] = body["error"]
    assert error.keys() - {"example"} == {"code", "message", "faults"}
    assert error["code"] == code
    assert error["message"]
    assert error["faults"]
    for fault in error["faults"]:
        assert fault.keys() == {"location", "problem", "fix"}
        assert all(fault.values()), fault
    assert body["request_id"] == response.headers["X-Request-Id"]
    return error


def text_error(response: Any, status: int = 400) -> str:
    """Check the error format of the Open Inference Protocol and TensorFlow Serving, and return its text."""
    assert response.status_code == status, response.data
    assert response.headers["Content-Type"] == "application/json"
    assert response.json.keys() == {"error"}
    text: str = response.json["error"]
    return text


def fault_locations(error: dict[str, Any]) -> list[str]:
    return [fault["location"] for fault in error["faults"]]


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a store with three models of different kinds, published once. Tests get copies."""
    store = open_store(tmp_path_factory.mktemp("published") / "models")
    for name, model in {"penguins": penguins(), "image": image(), "price": price()}.items():
        store.publish(name, model)
    return store.root


@pytest.fixture
def store(published: Path, tmp_path: Path) -> Store:
    """Three models of different kinds, in a store of this test's own."""
    return open_store(shutil.copytree(published, tmp_path / "models"))


MakeClient = Callable[..., FlaskClient]


@pytest.fixture
def make_client(tmp_path: Path) -> MakeClient:
    """An application over any store, which syncs only when a test calls `refresh`."""

    def make(store: Store, **settings: Any) -> FlaskClient:
        cache = str(tmp_path / "cache")
        settings = {"store": str(store.root), "poll_seconds": 0, "cache_dir": cache, **settings}
        return create_app(Settings(**settings)).test_client()

    return make


@pytest.fixture(scope="session")
def shared_app(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Flask:
    """An application for the tests that only send requests: making one takes 0.1 s, and a thousand tests need one."""
    cache = str(tmp_path_factory.mktemp("cache"))
    return create_app(Settings(store=str(published), poll_seconds=0, cache_dir=cache))


# A test that uses one of these may change the store or the application, or counts what happens in it.
_OWN_APP = {"store", "make_client", "registry", "tmp_path", "monkeypatch", "caplog", "capsys", "capfd"}


@pytest.fixture
def client(request: pytest.FixtureRequest) -> Iterator[FlaskClient]:
    """A client of an application over `store`, or of the shared one if the test only sends requests."""
    if _OWN_APP & {*request.fixturenames}:
        app = request.getfixturevalue("make_client")(request.getfixturevalue("store")).application
    else:
        app = request.getfixturevalue("shared_app")
    with app.test_client() as client:
        yield client


@pytest.fixture
def own_client(store: Store, make_client: MakeClient) -> FlaskClient:
    """A client of an application that no other test uses: its metrics begin at zero."""
    return make_client(store)


@pytest.fixture
def registry(client: FlaskClient) -> ModelRegistry:
    found: ModelRegistry = client.application.extensions["registry"]
    return found
