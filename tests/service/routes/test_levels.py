"""Intervals, sets of labels and thresholds that requests to /predict ask for."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient

from model_store.artifact.answers import Answers
from model_store.artifact.conformal import Conformal
from model_store.registry.store import Store
from tests.service.conftest import PENGUIN, MakeClient, assert_error, fault_locations, penguins, price

ROW = [3.0, 80.0]


@pytest.fixture
def own(store: Store, make_client: MakeClient) -> FlaskClient:
    """Return a client of models whose levels up to 0.9 are promised."""
    scores = np.linspace(0.1, 0.9, 9, dtype=np.float32)[None]
    for name, model, method in (("price", price(), "absolute"), ("penguins", penguins(), "aps")):
        store.publish(name, dataclasses.replace(model, answers=Answers(conformal=Conformal(method, scores))))
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
        ("price", {"interval": 0.99}, "expected a level that 9 calibration rows can promise, found 0.99, for 99"),
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
