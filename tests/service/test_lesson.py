"""The lesson of an error: a request that works, in the caller's protocol and with the caller's values."""

from __future__ import annotations

import json
import shlex
from typing import Any

import numpy as np
import pytest

from model_store.model import Model
from model_store.signature import Array, Signature, Values
from model_store.store import open_store
from tests.service.conftest import PENGUIN, network

NATIVE, V1, V2 = "/models/penguins/predict", "/v1/models/penguins:predict", "/v2/models/penguins/infer"


def example_of(response: Any) -> tuple[str, dict[str, Any]]:
    """The path and the body of the curl line in an error, whichever protocol's."""
    assert 400 <= response.status_code < 500, response.data
    error = response.json["error"]
    line = error.partition("This works: ")[2] if isinstance(error, str) else error["example"]["curl"]
    command, silent, address, data, text = shlex.split(line)
    assert (command, silent, data) == ("curl", "-s", "-d")
    body = json.loads(text)
    if not isinstance(error, str):
        assert error["example"]["body"] == body
    return address.removeprefix("http://localhost"), body


REFUSED: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", path, words)
    for path in (NATIVE, V1, V2, "/v1/models/image:predict", "/v2/models/image/infer", "/models/price/predict")
    for words in (
        {"data": "{"},
        {"data": ""},
        {"json": {}},
        {"json": []},
        {"json": {"instances": [{"island": 3}], "inputs": 3}},
        {"data": "<a/>", "content_type": "text/xml"},
        {"data": "{}", "headers": {"Content-Encoding": "br"}},
    )
] + [
    ("POST", "/predict", {"json": {"model": "pengins", "instances": [PENGUIN]}}),
    ("POST", "/predict", {"json": {"instances": [PENGUIN]}}),
    ("POST", "/invocations", {"json": {"instances": [PENGUIN]}}),
    ("POST", "/models/pengins/predict", {"json": {}}),
    ("POST", "/models/penguins/versions/9/predict", {"json": {}}),
    ("GET", NATIVE, {}),
    ("GET", V1, {}),
    ("GET", V2, {}),
    ("GET", "/nothing", {}),
    ("GET", "/v1/nothing", {}),
    ("GET", "/v2/models/pengins", {}),
]


@pytest.mark.parametrize(("method", "path", "words"), REFUSED)
def test_every_4xx_has_a_request_that_works_in_the_same_protocol(client, method, path, words):
    address, body = example_of(client.open(path, method=method, **words))
    assert address.split("/")[1] in {path.split("/")[1], "models"}
    assert client.post(address, json=body).status_code == 200


def test_a_body_over_the_limit_is_taught_too(store, make_client):
    for path in (NATIVE, V1, V2):
        address, body = example_of(make_client(store, max_body_bytes=10).post(path, json={"instances": [PENGUIN]}))
        assert make_client(store).post(address, json=body).status_code == 200


@pytest.mark.parametrize(("path", "key"), [(NATIVE, "instances"), (V1, "instances")])
@pytest.mark.parametrize(
    "wrong",
    [
        {"island": "Bisco", "mass": 3210.5, "sex": "MALE"},
        {"island": "Biscoe", "mass": "3210.5", "sex": "MALE"},
        {"isle": 3, "iland": "Biscoe", "mass": 3210.5, "sex": "MALE"},
        ["Bisco", 3210.5, "MALE"],
    ],
)
def test_the_callers_own_row_is_mended(client, path, key, wrong):
    _, body = example_of(client.post(path, json={key: [PENGUIN, wrong]}))
    assert body == {"instances": [{"island": "Biscoe", "mass": 3210.5, "sex": "MALE"}]}


def test_what_cannot_be_mended_is_the_models_example(client):
    wrong = {"island": "the moon", "mass": None, "sex": 5.5}
    address, body = example_of(client.post(NATIVE, json={"instances": [wrong]}))
    assert client.post(address, json=body).status_code == 200
    assert body["instances"][0]["mass"] == PENGUIN["mass"]


def test_a_key_that_looks_like_a_place_of_a_row_is_none(client):
    example_of(client.post(NATIVE, json={"instances.99": 1, "instances": [PENGUIN]}))


def test_there_is_no_lesson_without_a_model_and_none_of_large_rows(make_client, tmp_path):
    empty = open_store(tmp_path / "empty")
    assert "example" not in make_client(empty).get("/nothing").json["error"]
    signature = Signature((Array("pixels", (64, 64)),), Values(("ink",), (0.0,), (1.0,)))
    large = open_store(tmp_path / "large")
    large.publish("large", Model(network(signature.width, 1, 0), signature))
    response = make_client(large).post("/predict", json={"instances": [np.zeros(3).tolist()]})
    assert response.status_code == 422
    assert "example" not in response.json["error"]
