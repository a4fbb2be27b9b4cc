"""The query parameter `top_k`: the most probable labels of a classifier only, and more rows in a request."""

import io
import json
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient

from model_store.nn.cost import MAX_ARRAY_BYTES
from model_store.registry.store import open_store
from service.config import Settings
from tests.service.conftest import PENGUIN, assert_error, fault_locations
from tests.service.routes.test_row_limits import CLASSES, NATIVE, classifier, max_rows

URL = "/models/penguins/predict"
PENGUIN_ROWS = {"instances": [PENGUIN, ["Dream", 6000, "MALE"], ["Torgersen", 2900, None]]}


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> FlaskClient:
    from service.app import create_app

    folder = tmp_path_factory.mktemp("wide")
    open_store(folder / "models").publish("wide", classifier(CLASSES))
    settings: Any = {"store": str(folder / "models"), "poll_seconds": 0, "cache_dir": str(folder / "cache")}
    return create_app(Settings(**settings, max_output_values=3 * CLASSES)).test_client()


def ask(client: FlaskClient, top_k: object, rows: int = 3, path: str = NATIVE) -> Any:
    return client.post(f"{path}?top_k={top_k}", json={"instances": [[i / 7] for i in range(rows)]})


@pytest.mark.parametrize("top_k", [1, 3, CLASSES, CLASSES + 1, 999_999_999])
def test_predictions_have_the_most_probable_labels_the_most_probable_first(wide: FlaskClient, top_k: int) -> None:
    every = wide.post(NATIVE, json={"instances": [[i / 7] for i in range(3)]}).json["predictions"]
    found = json.loads(ask(wide, top_k).data)["predictions"]  # in the order of the response
    for row, expected in zip(found, every, strict=True):
        ranked = sorted(expected["probabilities"].items(), key=lambda item: -item[1])[:top_k]  # a stable sort
        assert list(row["probabilities"].items()) == ranked
        assert row["label"] == expected["label"] == ranked[0][0]


def test_more_rows_fit_the_smaller_response(wide: FlaskClient) -> None:
    assert_error(wide.post(NATIVE, json={"instances": [[0.5]] * 4}), 413, "too_many_rows")
    assert len(ask(wide, 5, rows=500).json["predictions"]) == 500  # 3,000 values of 5 probabilities and a label
    error = assert_error(ask(wide, 5, rows=501), 413, "too_many_rows")
    assert "expected at most 500 rows" in error["message"]
    assert "expected at most 3 rows" in ask(wide, CLASSES, rows=4).text


def test_the_outputs_of_the_network_limit_the_rows_too() -> None:
    assert max_rows(classifier(CLASSES), 5) == 10_000
    assert max_rows(classifier(5000), 1) == MAX_ARRAY_BYTES // 4 // 5000 == 3355
    assert max_rows(classifier(5000)) == 2**20 // 5000
    assert max_rows(classifier(CLASSES, length=320), 20) == 2**20 // (21 * 11)


@pytest.mark.parametrize("path", ["/predict", NATIVE, "/models/wide/versions/1/predict"])
def test_every_native_endpoint_and_body_has_it(wide: FlaskClient, path: str) -> None:
    assert [len(row["probabilities"]) for row in ask(wide, 2, path=path).json["predictions"]] == [2, 2, 2]
    array = io.BytesIO()
    np.save(array, np.zeros((4, 1)))
    bodies = {"text/csv; header=absent": b"0.5\n" * 4, "application/x-npy": array.getvalue()}
    for content_type, body in bodies.items() if "models" in path else ():
        answer = wide.post(f"{path}?top_k=2", data=body, content_type=content_type).json
        assert [len(row["probabilities"]) for row in answer["predictions"]] == [2] * 4


def test_warnings_go_with_it(client: FlaskClient) -> None:
    answer = client.post(f"{URL}?top_k=1&warnings=true&receipt=false", json=PENGUIN_ROWS).json
    assert [len(row["probabilities"]) for row in answer["predictions"]] == [1, 1, 1]
    assert [warning["location"] for warning in answer["warnings"]] == ["instances.0.sex", "instances.2.sex"]


@pytest.mark.parametrize("given", ["0", "-1", "1.5", "", "all", "true", "1e3", "%2B3", "03", " 3", "1" * 10, "٣"])
def test_a_value_that_is_no_number_of_labels_is_422(client: FlaskClient, given: str) -> None:
    error = assert_error(client.post(f"{URL}?top_k={given}", json=PENGUIN_ROWS), 422, "invalid_request")
    assert fault_locations(error) == ["top_k"]
    assert error["faults"][0]["fix"] == "send ?top_k=5"


def test_a_repeated_value_is_422(client: FlaskClient) -> None:
    error = assert_error(client.post(f"{URL}?top_k=2&top_k=2", json=PENGUIN_ROWS), 422, "invalid_request")
    assert error["faults"] == [
        {"location": "top_k", "problem": "expected once, found 2 times", "fix": "send it once: ?top_k=5"}
    ]


@pytest.mark.parametrize("content_type", ["application/json", "text/csv"])
def test_a_regression_refuses_it(client: FlaskClient, content_type: str) -> None:
    body = b'{"instances": [[3, 80]]}' if content_type == "application/json" else b"3,80\n"
    answer = client.post("/models/price/predict?top_k=2", data=body, content_type=content_type)
    error = assert_error(answer, 422, "invalid_request")
    assert error["faults"] == [
        {
            "location": "top_k",
            "problem": "expected a model that predicts classes, found price, which predicts numbers",
            "fix": "leave it out",
        }
    ]


def test_a_parameter_of_the_url_in_the_body_is_named(client: FlaskClient) -> None:
    answer = client.post(URL, json={**PENGUIN_ROWS, "top_k": 2})
    error = assert_error(answer, 422, "invalid_request")
    assert error["faults"] == [
        {"location": "top_k", "problem": "unknown key", "fix": "it is a parameter of the URL: ?top_k=5"}
    ]
