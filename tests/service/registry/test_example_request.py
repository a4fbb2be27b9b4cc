"""The example of a version: none is made whose row would be large, and everything that shows one works without it."""

from __future__ import annotations

import html
from typing import Any

import pytest

from model_store.artifact.model import MAX_EXAMPLE_CHARACTERS, MAX_EXAMPLE_VALUES, Golden, Model
from model_store.nn import Flatten, Linear, MaxPool2D, Sequential
from model_store.registry.store import Store
from model_store.schema.signature import ArrayColumn, CategoryColumn, NumberColumn, RegressionOutput, Signature
from tests.service.conftest import MakeClient, assert_error, network, with_golden

OUTPUT = RegressionOutput(("y",), (0.0,), (1.0,))
SIDE = 4096


def large_image() -> Model:
    """A model of 3 kB: its made-up row took 650 MB in each worker, and 67 MB as a response."""
    layers = [MaxPool2D((SIDE, SIDE, 1), 64), Flatten((SIDE // 64, SIDE // 64, 1)), Linear((SIDE // 64) ** 2, 1)]
    return Model(Sequential(layers), Signature((ArrayColumn("x", (SIDE, SIDE)),), OUTPUT))


def columns(count: int) -> Model:
    return Model(network(count, 1, 0), Signature(tuple(NumberColumn(f"c{i}") for i in range(count)), OUTPUT))


@pytest.mark.parametrize("make", [large_image, lambda: columns(MAX_EXAMPLE_VALUES)])
def test_no_example_is_made_of_a_large_row(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make()

    def forbidden(_: object) -> Any:
        raise AssertionError("the row is too large")

    for kind in (ArrayColumn, NumberColumn):
        monkeypatch.setattr(kind, "typical_value", forbidden)
    assert model.example_row is None


def test_a_large_golden_row_is_no_example() -> None:
    for size, is_shown in ((MAX_EXAMPLE_VALUES - 1, True), (MAX_EXAMPLE_VALUES, False)):
        model = Model(network(size, 1, 0), Signature((ArrayColumn("x", (size,)),), OUTPUT))
        assert (with_golden(model, [[0.5] * size]).example_row is not None) == is_shown


def test_a_golden_row_of_long_texts_is_no_example() -> None:
    for size, is_shown in ((MAX_EXAMPLE_CHARACTERS, True), (MAX_EXAMPLE_CHARACTERS + 1, False)):
        label = "x" * size
        model = Model(network(2, 1, 0), Signature((CategoryColumn("c", ("a", label)),), OUTPUT))
        for row in ([label], {"c": label}):
            golden = Golden([row], model.network(model.encode([row])))
            example = Model(model.network, model.signature, golden=golden).example_row
            assert (example == {"c": label}) == is_shown


def test_everything_that_shows_an_example_works_without_one(store: Store, make_client: MakeClient) -> None:
    store.publish("large", large_image())
    client = make_client(store)
    found = f"large has none: a row and its prediction have {SIDE * SIDE + 1} values"
    error = assert_error(client.get("/models/large/example"), 404, "not_found")
    assert found in error["message"]
    assert error["message"].endswith("make a row of the inputs in /models/large")
    assert "example" not in error
    response = client.get("/v2/models/large/example")
    assert response.status_code == 404
    assert found in response.json["error"]
    assert client.get("/models/large").json["example"] is None
    assert "A row of this model is too large for an example." in html.unescape(client.get("/docs").text)
    operation = client.get("/openapi.json").json["paths"]["/models/large/predict"]["post"]
    assert "examples" not in operation["requestBody"]["content"]["application/json"]
    assert "example" not in assert_error(
        client.post("/models/large/predict", json={"instances": [[1]]}), 422, "invalid_request"
    )
    assert client.post("/v2/models/large/infer", json={"inputs": 1}).status_code == 400
