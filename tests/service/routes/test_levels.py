"""Intervals, sets of labels and thresholds that requests ask for: in the native protocol, V1 and V2."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient

from model_store.artifact.answers import Answers
from model_store.artifact.conformal import Conformal
from model_store.registry.store import Store
from tests.service.conftest import PENGUIN, MakeClient, assert_error, fault_locations, penguins, price, text_error

ROW = [3.0, 80.0]
LATEST = "/versions/latest"


def publish(store: Store) -> None:
    """Publish models whose levels up to 0.9 are promised."""
    scores = np.linspace(0.1, 0.9, 9, dtype=np.float32)[None]
    for name, model, method in (("price", price(), "absolute"), ("penguins", penguins(), "aps")):
        store.publish(name, dataclasses.replace(model, answers=Answers(conformal=Conformal(method, scores))))


@pytest.fixture
def own(store: Store, make_client: MakeClient) -> FlaskClient:
    publish(store)
    return make_client(store)


def test_a_regression_has_an_interval_around_its_prediction(own: FlaskClient) -> None:
    url = "/models/price/versions/latest/predict"
    plain = own.post(url, json={"instances": [ROW, ROW]}).json
    found = own.post(url, json={"instances": [ROW, ROW], "interval": 0.9}).json
    intervals = found.pop("intervals")
    assert found == plain
    assert len(intervals) == 2
    (low, high), value = intervals[0], found["predictions"][0]
    assert (low + high) / 2 == pytest.approx(value)
    assert (high - low) / 2 == pytest.approx(0.9, rel=1e-5)


def test_a_classifier_has_a_set_of_labels(own: FlaskClient) -> None:
    url = "/models/penguins/versions/latest/predict"
    plain = own.post(url, json={"instances": [PENGUIN]}).json
    found = own.post(url, json={"instances": [PENGUIN], "set": 0.9}).json
    (labels,) = found.pop("sets")
    assert found == plain
    assert labels[0] == found["predictions"][0]["label"]


def test_a_threshold_decides_the_label_of_two(own: FlaskClient) -> None:
    url = "/models/penguins/versions/latest/predict"
    found = own.post(url, json={"instances": [PENGUIN]}).json["predictions"][0]
    _, second = found["probabilities"]
    p = found["probabilities"][second]
    lower, higher = (
        own.post(url, json={"instances": [PENGUIN], "threshold": t}).json["predictions"][0]
        for t in (p * 0.9, min(p * 1.1, (1 + p) / 2))
    )
    assert lower["label"] == second != higher["label"]
    assert lower["probabilities"] == higher["probabilities"] == found["probabilities"]


@pytest.mark.parametrize(
    ("name", "asked", "words"),
    [
        (
            "price",
            {"interval": 0.99},
            "expected a level that 9 calibration rows can promise, found 0.99, which needs 99",
        ),
        ("price", {"interval": "high"}, "expected a number between 0 and 1"),
        ("price", {"set": 0.9}, "expected a model that predicts one label"),
        ("penguins", {"interval": 0.9}, "expected a model that predicts numbers"),
        ("price", {"threshold": 0.5}, "expected a model of two labels"),
    ],
)
def test_what_a_model_cannot_promise_is_refused(own: FlaskClient, name: str, asked: dict[str, Any], words: str) -> None:
    rows = [ROW] if name == "price" else [PENGUIN]
    response = own.post(f"/models/{name}/versions/latest/predict", json={"instances": rows, **asked})
    error = assert_error(response, 422, "invalid_request")
    assert fault_locations(error) == list(asked)
    assert words in response.text


def test_a_model_without_calibration_rows_says_how_to_get_them(client: FlaskClient) -> None:
    response = client.post("/models/price/predict", json={"instances": [ROW], "interval": 0.9})
    assert_error(response, 422, "invalid_request")
    assert "train again with calibration = 0.1 in [split]" in response.text


def test_faults_of_levels_come_with_those_of_the_rows(client: FlaskClient) -> None:
    response = client.post("/models/price/predict", json={"instances": [[3.0, "x"]], "interval": 2})
    assert len(fault_locations(assert_error(response, 422, "invalid_request"))) == 2


def test_intervals_count_as_values_of_the_response(store: Store, make_client: MakeClient) -> None:
    publish(store)
    few = make_client(store, max_output_values=9)
    for path, form in (
        (f"/models/price{LATEST}/predict", "instances"),
        (f"/v1/models/price{LATEST}:predict", "instances"),
    ):
        assert few.post(path, json={form: [ROW] * 4}).status_code == 200
        assert few.post(path, json={form: [ROW] * 3, "interval": 0.9}).status_code == 200
        response = few.post(path, json={form: [ROW] * 4, "interval": 0.9})
        assert response.status_code == 413
        assert "at most 3 rows with intervals or sets" in response.text


@pytest.mark.parametrize("form", ["instances", "inputs"])
def test_v1_has_the_ranges_of_the_native_protocol(own: FlaskClient, form: str) -> None:
    columns = {"rooms": [3.0, 3.0], "area": [80.0, 80.0]}
    names = [column["name"] for column in own.get(f"/models/price{LATEST}").json["inputs"]]
    rows = [ROW, ROW] if form == "instances" else dict(zip(names, columns.values(), strict=True))
    native = own.post(f"/models/price{LATEST}/predict", json={"instances": [ROW, ROW], "interval": 0.9}).json
    plain = own.post(f"/v1/models/price{LATEST}:predict", json={form: rows}).json
    found = own.post(f"/v1/models/price{LATEST}:predict", json={form: rows, "interval": 0.9}).json
    assert found.pop("intervals") == native["intervals"]
    assert found == plain


def test_v1_has_sets_and_decides_by_a_threshold(own: FlaskClient) -> None:
    url = f"/v1/models/penguins{LATEST}:predict"
    native = own.post(f"/models/penguins{LATEST}/predict", json={"instances": [PENGUIN], "set": 0.9}).json
    found = own.post(url, json={"instances": [PENGUIN], "set": 0.9}).json
    assert found["sets"] == native["sets"]
    labels = [
        own.post(url, json={"instances": [PENGUIN], "threshold": t}).json["predictions"][0]["label"]
        for t in (1e-9, 1 - 1e-9)
    ]
    assert labels == list(native["predictions"][0]["probabilities"])[::-1]
    text_error(own.post(url, json={"instances": [PENGUIN], "interval": 0.9}), 400)


def test_v2_has_more_tensors_for_its_parameters(own: FlaskClient) -> None:
    body = own.get(f"/v2/models/price{LATEST}/example").json
    plain = own.post(f"/v2/models/price{LATEST}/infer", json=body).json["outputs"]
    found = own.post(f"/v2/models/price{LATEST}/infer", json=body | {"parameters": {"interval": 0.9}}).json["outputs"]
    *rest, interval = found
    assert rest == plain
    assert (interval["name"], interval["datatype"], interval["shape"]) == (
        f"interval.{plain[0]['name']}",
        "FP64",
        [1, 2],
    )
    low, high = interval["data"]
    assert (low + high) / 2 == pytest.approx(plain[0]["data"][0])


def test_v2_has_a_tensor_for_the_set_and_decides_by_a_threshold(own: FlaskClient) -> None:
    url, body = f"/v2/models/penguins{LATEST}/infer", own.get(f"/v2/models/penguins{LATEST}/example").json
    labels = own.get(f"/models/penguins{LATEST}").json["output"]["labels"]
    found = own.post(url, json=body | {"parameters": {"set": 0.9}}).json["outputs"]
    by_name = {tensor["name"]: tensor for tensor in found}
    assert (by_name["set"]["datatype"], by_name["set"]["shape"]) == ("BOOL", [1, len(labels)])
    assert by_name["set"]["data"][labels.index(by_name["label"]["data"][0])] is True
    decided = [
        own.post(url, json=body | {"parameters": {"threshold": t}}).json["outputs"][0]["data"][0]
        for t in (1e-9, 1 - 1e-9)
    ]
    assert decided == labels[::-1]


def test_v2_names_a_parameter_that_the_model_cannot_promise(own: FlaskClient) -> None:
    body = own.get(f"/v2/models/price{LATEST}/example").json | {"parameters": {"interval": 0.99, "set": 0.9}}
    error = text_error(own.post(f"/v2/models/price{LATEST}/infer", json=body), 400)
    assert "parameters.interval: expected a level that 9 calibration rows can promise" in error
    assert "parameters.set: expected a model that predicts one label" in error


def test_the_label_that_a_threshold_decides_is_explained(store: Store, make_client: MakeClient) -> None:
    model = penguins()
    baseline = np.zeros(model.signature.width, np.float32)
    store.publish("penguins", dataclasses.replace(model, answers=Answers(baseline)))
    own = make_client(store)
    for threshold in (1e-9, 1 - 1e-9):
        body = {"instances": [PENGUIN], "explain": True, "threshold": threshold}
        found = own.post(f"/models/penguins{LATEST}/predict", json=body).json
        assert found["explanations"][0]["label"] == found["predictions"][0]["label"]


def test_a_url_asks_for_what_a_table_cannot(own: FlaskClient) -> None:
    url = f"/models/price{LATEST}/predict"
    expected = own.post(url, json={"instances": [ROW], "interval": 0.5}).json
    found = own.post(f"{url}?interval=0.5", data="3,80\n", content_type="text/csv")
    assert found.json == expected
    assert own.post(f"{url}?interval=.8", json={"instances": [ROW], "interval": 0.5}).json == expected
    assert own.post(f"{url}?interval=5e-1", json={"instances": [ROW]}).json == expected
    for level in ("2", "nan", "1e400", "0", "0.0", "1.", "-0.5", "", "0.9x", "e5", "."):
        error = assert_error(own.post(f"{url}?interval={level}", json={"instances": [ROW]}), 422, "invalid_request")
        assert fault_locations(error) == ["interval"]
    response = own.post(f"{url}?interval=0.99", data="3,80\n", content_type="text/csv")
    assert "expected a level that 9 calibration rows can promise" in response.text
