"""Explanations of predictions: in the native protocol, KServe's `:explain` and the Open Inference Protocol."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from flask.testing import FlaskClient

from model_store.artifact.answers import Answers
from model_store.artifact.model import Model
from model_store.nn.integrated_gradients import max_explained_rows
from model_store.registry.store import open_store
from service.app import create_app
from service.config import Settings
from tests.service.conftest import PENGUIN, assert_error, fault_locations, image, penguins, price, text_error

URL = "/models/penguins/predict"
ROWS = [PENGUIN, ["Dream", 6000, "MALE"], ["Torgersen", 2900, None]]


def with_baseline(model: Model) -> Model:
    width = model.signature.width
    return replace(model, answers=Answers(np.linspace(0.1, 0.5, width).astype(model.network.dtype)))


def make_client(folder: Path, **settings: Any) -> FlaskClient:
    store = open_store(folder / "models")
    for name, model in (("penguins", penguins()), ("price", price()), ("image", image())):
        store.publish(name, with_baseline(model))
    store.publish("old", penguins(1))
    own: dict[str, Any] = {"store": str(folder / "models"), "poll_seconds": 0, "cache_dir": str(folder / "cache")}
    return create_app(Settings(**own, **settings)).test_client()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    return make_client(tmp_path_factory.mktemp("explain"))


def total(value: Any) -> float:
    return sum(map(total, value)) if isinstance(value, list) else value


def assert_adds_up(explanation: dict[str, Any]) -> None:
    difference = explanation["answer"] - explanation["baseline"]
    found = sum(map(total, explanation["contributions"].values()))
    assert found == pytest.approx(difference, rel=1e-3, abs=1e-6)
    assert found + explanation["residual"] == pytest.approx(difference, abs=1e-12)


@pytest.mark.parametrize("path", ["/predict", URL, "/models/penguins/versions/1/predict", "/invocations"])
def test_contributions_add_up_to_the_answer_less_the_baseline(client: FlaskClient, path: str) -> None:
    plain = client.post(URL, json={"instances": ROWS}).json
    found = client.post(path, json={"model": "penguins", "instances": ROWS, "explain": True}).json
    assert found["predictions"] == plain["predictions"]
    assert len(found["explanations"]) == 3
    for explanation, prediction in zip(found["explanations"], plain["predictions"], strict=True):
        assert list(explanation) == ["label", "baseline", "answer", "contributions", "residual"]
        assert explanation["label"] == prediction["label"]
        assert explanation["answer"] == prediction["probabilities"][prediction["label"]]
        assert list(explanation["contributions"]) == ["island", "mass", "sex"]
        assert_adds_up(explanation)


@pytest.mark.parametrize("wanted", [False, None])
def test_a_request_without_it_has_the_bytes_of_before(client: FlaskClient, wanted: Any) -> None:
    plain = client.post(URL, json={"instances": ROWS})
    assert client.post(URL, json={"instances": ROWS, "explain": wanted}).data == plain.data
    assert "explanations" not in plain.json


def test_a_label_and_a_baseline_can_be_asked_for(client: FlaskClient) -> None:
    wanted = {"label": "Adelie", "baseline": ["Dream", 5000, "MALE"]}
    (found,) = client.post(URL, json={"instances": [PENGUIN], "explain": wanted}).json["explanations"]
    at_baseline = client.post(URL, json={"instances": [wanted["baseline"]]}).json["predictions"][0]
    assert found["label"] == "Adelie"
    assert found["baseline"] == at_baseline["probabilities"]["Adelie"]
    assert_adds_up(found)


def test_a_row_that_is_the_baseline_has_no_contributions(client: FlaskClient) -> None:
    wanted = {"baseline": PENGUIN}
    (found,) = client.post(URL, json={"instances": [PENGUIN], "explain": wanted}).json["explanations"]
    assert set(found["contributions"].values()) == {0}
    assert found["answer"] == found["baseline"]


def test_a_body_without_keys_is_explained_by_the_url(client: FlaskClient) -> None:
    """CSV, .npy and JSON: the explanations of the key `explain`."""
    csv_body = "island,mass,sex\nBiscoe,4200.5,MALE\nDream,6000,MALE\n"
    rows = [["Biscoe", 4200.5, "MALE"], ["Dream", 6000, "MALE"]]
    expected = client.post(URL, json={"instances": rows, "explain": {"label": "Adelie"}}).json
    table = {"data": csv_body, "content_type": "text/csv"}
    assert client.post(f"{URL}?explain_label=Adelie", **table).json == expected
    assert client.post(f"{URL}?explain=true&explain_label=Adelie", json={"instances": rows}).json == expected
    body = {"instances": rows, "explain": {"label": "Adelie"}}  # overrides the URL
    assert client.post(f"{URL}?explain_label=Gentoo", json=body).json == expected
    plain = client.post(f"{URL}?explain=false&explain_label=Adelie", **table)
    assert plain.data == client.post(URL, **table).data
    pixels = io.BytesIO()
    np.save(pixels, np.array([[[1.0, 2], [3, 4]]]))
    found = client.post("/models/image/predict?explain=true", data=pixels.getvalue(), content_type="application/x-npy")
    instances = {"instances": [[[1, 2], [3, 4]]], "explain": True}
    assert found.json == client.post("/models/image/predict", json=instances).json
    assert np.shape(found.json["explanations"][0]["contributions"]["pixels"]) == (2, 2)


def test_faults_of_what_the_url_asks_are_422(client: FlaskClient) -> None:
    table = {"data": "island,mass,sex\nBiscoe,4200.5,MALE\n", "content_type": "text/csv"}
    rows = {"json": {"instances": [PENGUIN]}}
    for query, sent, location, words in (
        ("explain=yes", table, "explain", "expected true or false"),
        ("explain=true&explain=true", table, "explain", "expected once"),
        ("explain_label=Gentto", table, "explain_label", "did you mean 'Gentoo'"),
        ("explain_label=Gentto", rows, "explain_label", "did you mean 'Gentoo'"),
        ("explain_target=x", table, "explain_target", "unknown key"),
    ):
        error = assert_error(client.post(f"{URL}?{query}", **sent), 422, "invalid_request")
        (fault,) = error["faults"]
        assert fault["location"] == location
        assert words in fault["problem"] + fault["fix"]
    error = assert_error(client.post("/models/old/predict?explain=true", **table), 422, "invalid_request")
    assert "send JSON with a row to compare with" in error["faults"][0]["fix"]
    assert_error(client.post("/invocations?explain=true", **rows), 422, "invalid_request")


def test_more_rows_of_a_table_than_are_explained_are_413(tmp_path: Path) -> None:
    client = make_client(tmp_path, max_explained_rows=1)
    table = {"data": "island,mass,sex\n" + "Biscoe,4200.5,MALE\n" * 2, "content_type": "text/csv"}
    assert client.post(URL, **table).status_code == 200
    error = assert_error(client.post(f"{URL}?explain=true", **table), 413, "too_many_rows")
    assert "expected at most 1 row to explain" in error["message"]


def test_a_row_whose_explanation_is_not_finite_is_named_in_every_protocol(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "model_store.artifact.explanation.integrated_gradients", lambda _, rows, *__: np.full(rows.shape, np.nan)
    )
    table = {"data": "island,mass,sex\nBiscoe,4200.5,MALE\n", "content_type": "text/csv"}
    for path, sent, location in (
        (URL, {"json": {"instances": [PENGUIN], "explain": True}}, "instances.0"),
        (f"{URL}?explain=true", table, "line 2"),
        ("/v1/models/penguins:explain", {"json": {"instances": [PENGUIN]}}, "instances.0"),
        ("/v2/models/penguins/infer", {"json": penguin_tensors(explain=True)}, "rows.0"),
    ):
        assert f"{location}: the explanation is not finite" in client.post(path, **sent).get_data(as_text=True)


def test_a_regression_is_explained_in_the_units_of_its_target(client: FlaskClient) -> None:
    answer = client.post("/models/price/predict", json={"instances": [[3, 80]], "explain": True}).json
    (found,) = answer["explanations"]
    assert "target" not in found
    assert found["answer"] == answer["predictions"][0]
    assert_adds_up(found)


def test_an_array_has_a_contribution_for_each_value_in_its_shape(client: FlaskClient) -> None:
    body = {"instances": [[[1, 2], [3, 4]]], "explain": {"target": "slant"}}
    answer = client.post("/models/image/predict", json=body).json
    (found,) = answer["explanations"]
    assert found["target"] == "slant"
    assert found["answer"] == answer["predictions"][0]["slant"]
    assert np.shape(found["contributions"]["pixels"]) == (2, 2)
    assert_adds_up(found)


@pytest.mark.parametrize(
    ("wanted", "locations"),
    [
        ("yes", ["explain"]),
        ([], ["explain"]),
        (1, ["explain"]),
        ({"label": "Gentto"}, ["explain.label"]),
        ({"label": ["Gentoo"]}, ["explain.label"]),
        ({"target": "species"}, ["explain.target"]),
        ({"baselin": PENGUIN}, ["explain.baselin"]),
        ({"baseline": {**PENGUIN, "island": "Bisco"}}, ["explain.baseline.island"]),
        ({"baseline": 3}, ["explain.baseline"]),
        ({"label": "x", "baseline": [1]}, ["explain.label", "explain.baseline"]),
    ],
)
def test_faults_of_what_is_asked_are_422(client: FlaskClient, wanted: Any, locations: list[str]) -> None:
    error = assert_error(client.post(URL, json={"instances": [PENGUIN], "explain": wanted}), 422, "invalid_request")
    assert fault_locations(error) == locations


def test_its_faults_come_with_those_of_the_rows(client: FlaskClient) -> None:
    body = {"instances": [{**PENGUIN, "island": "Bisco"}], "explain": {"label": "x"}, "foo": 1}
    error = assert_error(client.post(URL, json=body), 422, "invalid_request")
    assert sorted(fault_locations(error)) == ["explain.label", "foo", "instances.0.island"]


def test_a_model_without_a_baseline_says_what_to_do(client: FlaskClient) -> None:
    error = assert_error(client.post("/models/old/predict", json={"instances": [PENGUIN], "explain": True}), 422,
                         "invalid_request")  # fmt: skip
    (fault,) = error["faults"]
    assert fault["location"] == "explain"
    assert "expected a model with a baseline" in fault["problem"]
    assert "train it again" in fault["fix"]
    body = {"instances": [PENGUIN], "explain": {"baseline": ["Dream", 5000, "MALE"]}}
    assert_adds_up(client.post("/models/old/predict", json=body).json["explanations"][0])


def test_more_rows_than_are_explained_are_413(tmp_path: Path) -> None:
    client = make_client(tmp_path, max_explained_rows=2)
    assert client.post(URL, json={"instances": ROWS[:2], "explain": True}).status_code == 200
    error = assert_error(client.post(URL, json={"instances": ROWS, "explain": True}), 413, "too_many_rows")
    assert "expected at most 2 rows to explain for this model, found 3" in error["message"]
    assert client.post(URL, json={"instances": ROWS}).status_code == 200
    assert client.get("/models/penguins").json["explain"] == {"max_rows": 2, "baseline": True}
    assert client.get("/models/old").json["explain"] == {"max_rows": 2, "baseline": False}


@pytest.mark.parametrize("limit", [{"max_explained_rows": 0}, {"max_operations": 10**6}, {"max_output_values": 5}])
def test_explanations_that_are_off_or_too_costly_are_refused(tmp_path: Path, limit: dict[str, int]) -> None:
    client = make_client(tmp_path, **limit)
    error = assert_error(client.post(URL, json={"instances": [PENGUIN], "explain": True}), 422, "invalid_request")
    assert fault_locations(error) == ["explain"]
    assert client.post(URL, json={"instances": [PENGUIN]}).status_code == 200
    assert client.get("/models/penguins").json["explain"]["max_rows"] == 0
    assert "/v1/models/penguins:explain" not in client.get("/openapi.json").json["paths"]


def test_rows_that_are_explained_count_by_their_operations(tmp_path: Path) -> None:
    network = penguins().network
    operations = next(most for most in range(10_000, 10**8, 1000) if max_explained_rows(network, most))
    client = make_client(tmp_path, max_operations=operations)
    assert client.get("/models/penguins").json["explain"]["max_rows"] == 1
    assert client.post(URL, json={"instances": [PENGUIN], "explain": True}).status_code == 200
    assert_error(client.post(URL, json={"instances": [PENGUIN] * 2, "explain": True}), 413, "too_many_rows")


@pytest.mark.parametrize("path", ["", "/versions/1"])
def test_kserves_verb_explains_rows_and_columns(client: FlaskClient, path: str) -> None:
    native = client.post(URL, json={"instances": ROWS[:2], "explain": True}).json["explanations"]
    found = client.post(f"/v1/models/penguins{path}:explain", json={"instances": ROWS[:2]}).json
    assert found["explanations"] == native
    assert [row["label"] for row in found["predictions"]] == [each["label"] for each in native]
    columns = {"island": ["Biscoe", "Dream"], "mass": [4200.5, 6000], "sex": [None, "MALE"]}
    by_column = client.post(f"/v1/models/penguins{path}:explain", json={"inputs": columns}).json
    assert by_column["explanations"] == native
    for wanted in (True, False, None):  # the verb asks for them
        body = {"instances": ROWS[:2], "explain": wanted}
        assert client.post(f"/v1/models/penguins{path}:explain", json=body).json["explanations"] == native
    by_key = client.post(f"/v1/models/penguins{path}:predict", json={"instances": ROWS[:2], "explain": True})
    assert by_key.json["explanations"] == native
    labelled = client.post(
        f"/v1/models/penguins{path}:explain", json={"instances": ROWS[:2], "explain": {"label": "Adelie"}}
    )
    assert [each["label"] for each in labelled.json["explanations"]] == ["Adelie", "Adelie"]
    assert "explain.label" in text_error(
        client.post("/v1/models/penguins:explain", json={"instances": ROWS, "explain": {"label": "x"}})
    )


def penguin_tensors(**parameters: Any) -> dict[str, Any]:
    columns = {
        "island": ("BYTES", ["Biscoe", "Dream"]),
        "mass": ("FP64", [4200.5, 6000]),
        "sex": ("BYTES", ["MALE"] * 2),
    }
    inputs = [{"name": name, "datatype": kind, "shape": [2, 1], "data": data} for name, (kind, data) in columns.items()]
    return {"inputs": inputs, "parameters": parameters}


def test_the_open_inference_protocol_has_contributions_as_tensors(client: FlaskClient) -> None:
    rows = [["Biscoe", 4200.5, "MALE"], ["Dream", 6000, "MALE"]]
    native = client.post(URL, json={"instances": rows, "explain": {"label": "Gentoo"}}).json["explanations"]
    answer = client.post("/v2/models/penguins/infer", json=penguin_tensors(explain=True, explain_label="Gentoo")).json
    found = {output["name"]: output for output in answer["outputs"]}
    assert found["contributions.mass"]["shape"] == [2, 1]
    assert found["contributions.mass"]["data"] == [each["contributions"]["mass"] for each in native]
    assert found["explained.answer"]["data"] == [each["answer"] for each in native]
    assert found["explained.label"]["data"] == ["Gentoo", "Gentoo"]
    binary = client.post("/v2/models/penguins/infer", json=penguin_tensors(explain=True, binary_data_output=True))
    assert binary.headers["Inference-Header-Content-Length"]
    plain = client.post("/v2/models/penguins/infer", json=penguin_tensors(explain=False)).json
    assert [output["name"] for output in plain["outputs"]] == ["label", "probabilities"]
    for wrong, words in (
        ({"explain": "yes"}, "parameters.explain"),
        ({"explain": True, "explain_label": "x"}, "label"),
    ):
        assert words in text_error(client.post("/v2/models/penguins/infer", json=penguin_tensors(**wrong)))


def test_requests_and_responses_match_the_openapi_document(client: FlaskClient) -> None:
    document = client.get("/openapi.json").json

    def check(path: str, body: dict[str, Any]) -> None:
        operation = document["paths"][path]["post"]
        for value, schema in (
            (body, operation["requestBody"]["content"]["application/json"]["schema"]),
            (client.post(path, json=body).json, operation["responses"]["200"]["content"]["application/json"]["schema"]),
        ):
            checked = {**schema, "components": document["components"]}
            jsonschema.Draft202012Validator(checked).validate(value)

    wanted = {"label": "Adelie", "baseline": PENGUIN}
    for explain in (True, False, None, wanted):
        check(URL, {"instances": ROWS, "explain": explain})
        check("/predict", {"model": "penguins", "instances": ROWS, "explain": explain})
    check("/models/image/predict", {"instances": [[1, 2, 3, 4]], "explain": {"target": "ink"}})
    check("/models/price/predict", {"instances": [[3, 80]], "explain": True})
    check("/models/old/predict", {"instances": ROWS, "explain": {"baseline": PENGUIN}})
    explain = document["components"]["schemas"]["old.explain"]
    assert not jsonschema.Draft202012Validator({**explain, "components": document["components"]}).is_valid(True)
    check("/v1/models/penguins:explain", {"instances": ROWS, "explain": wanted})
    check("/v2/models/penguins/infer", penguin_tensors(explain=True))


def test_requests_at_the_same_time_do_not_disturb_each_other(client: FlaskClient) -> None:
    """Half of them explain, half predict; all have the bytes of one alone."""
    bodies = [{"instances": ROWS[i % 3 :], **({"explain": True} if i % 2 else {})} for i in range(6)]
    alone = [client.post(URL, json=body).data for body in bodies]

    def ask(i: int) -> bytes:
        return client.application.test_client().post(URL, json=bodies[i % 6]).data

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(60))) == alone * 10
