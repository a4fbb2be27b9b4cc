"""The predict endpoints: exact predictions, and all errors of a request in one response."""

from types import SimpleNamespace

import numpy as np
import pytest

from model_store.errors import InputError
from model_store.registry.store import open_store
from service.config import Settings
from service.protocols import open_inference, tensors
from service.routes import predict
from service.validation.row_limits import RowLimits
from tests.service.conftest import PENGUIN, assert_error, fault_locations, penguins, price

ROW = [3.0, 80.0]


def test_predictions_have_the_bits_of_the_network(client, store):
    rows = [[rooms / 7, area / 3] for rooms in range(1, 20) for area in range(50, 60)]
    _, model = store.load("price")
    answer = client.post("/predict", json={"model": "price", "instances": rows}).json
    assert answer == {"model": "price", "version": 1, "predictions": model.predict(rows)}


def test_rows_as_objects_and_as_lists_give_equal_predictions(client):
    as_object, as_list = (
        client.post("/models/penguins/predict", json={"instances": [row]}).json
        for row in (PENGUIN, list(PENGUIN.values()))
    )
    assert as_object == as_list
    assert as_object["predictions"][0]["label"] in {"Adelie", "Gentoo"}
    assert sum(as_object["predictions"][0]["probabilities"].values()) == pytest.approx(1)


def test_nested_and_flat_arrays_give_equal_predictions(client):
    bodies = ({"instances": [[[1, 2], [3, 4]]]}, {"instances": [[1, 2, 3, 4]]})
    nested, flat = (client.post("/models/image/predict", json=body).json["predictions"] for body in bodies)
    assert nested == flat
    assert nested[0].keys() == {"ink", "slant"}


@pytest.mark.parametrize(
    ("url", "body"),
    [
        ("/predict", {"model": "price"}),
        ("/predict", {"model": "price", "version": 1}),
        ("/predict", {"model": "price", "version": "1"}),
        ("/predict", {"model": "price", "version": "latest"}),
        ("/predict", {"model": "price", "version": None}),
        ("/models/price/predict", {}),
        ("/models/price/predict", {"model": "price", "version": 1}),
        ("/models/price/predict/", {}),
        ("/models/price/versions/1/predict", {}),
        ("/models/price/versions/latest/predict", {"model": None}),
        ("/models/price/versions/default/predict", {"version": "default"}),
    ],
)
def test_every_way_to_name_a_version_selects_it(client, url, body):
    response = client.post(url, json={**body, "instances": [ROW]})
    assert (response.status_code, response.json["version"]) == (200, 1)


def test_model_is_optional_if_there_is_only_one(make_client, tmp_path):
    store = open_store(tmp_path / "one")
    store.publish("price", price())
    assert make_client(store).post("/predict", json={"instances": [ROW]}).json["model"] == "price"


def test_a_missing_model_name_is_reported_with_the_other_errors(client):
    error = assert_error(client.post("/predict", json={"instances": 3, "colour": 1}), 422, "invalid_request")
    assert fault_locations(error) == ["model", "colour", "instances"]
    assert "image, penguins, price" in error["faults"][0]["fix"]


def test_unknown_model_is_404_with_the_known_names(client):
    for response in (
        client.post("/predict", json={"model": "pengins", "instances": [ROW]}),
        client.post("/models/pengins/predict", json={"instances": [ROW]}),
        client.get("/models/pengins"),
    ):
        error = assert_error(response, 404, "unknown_model")
        assert "image, penguins, price" in error["faults"][0]["problem"]
        assert "did you mean 'penguins'" in error["message"]


@pytest.mark.parametrize("version", [7, 0, -1, "7", "champion", "٣", "1.0", "9" * 500])
def test_unknown_version_is_404_with_the_known_versions(client, version):
    response = client.post("/predict", json={"model": "price", "version": version, "instances": [ROW]})
    error = assert_error(response, 404, "unknown_version")
    assert "1, latest" in error["faults"][0]["problem"]


def test_all_errors_of_a_request_are_reported_together(client):
    rows = [{**PENGUIN, "island": "Bisco"}, {**PENGUIN, "mass": "heavy"}, [1], {"isle": 1}]
    error = assert_error(
        client.post("/models/penguins/predict", json={"instanses": 1, "model": "price", "instances": rows}),
        422,
        "invalid_request",
    )
    assert {"instanses", "model", "instances.0.island", "instances.1.mass", "instances.2", "instances.3.isle"} <= set(
        fault_locations(error)
    )
    fixes = {fault["location"]: fault["fix"] for fault in error["faults"]}
    assert fixes["instanses"] == "did you mean 'instances'?"
    assert fixes["instances.0.island"] == "did you mean 'Biscoe'?"


def test_errors_beyond_a_hundred_are_counted(client):
    response = client.post("/models/price/predict", json={"instances": [["x", "y"]] * 300, "a": 1})
    error = assert_error(response, 422, "invalid_request")
    assert len(error["faults"]) == 100
    assert error["message"].startswith("601 errors")


def test_thousands_of_unknown_keys_get_a_short_response(client):
    body = {"k" * 300 + str(i): i for i in range(5000)} | {"instances": [ROW]}
    response = client.post("/models/price/predict", json=body)
    error = assert_error(response, 422, "invalid_request")
    assert error["message"].startswith("5000 errors")
    assert len(response.data) < 40_000


@pytest.mark.parametrize(
    ("instances", "problem"),
    [
        (None, "found null"),
        ({"rooms": 1}, "found an object"),
        ("text", "found 'text'"),
        ([], "expected at least one row"),
        ([[1]], "expected 2 values, found 1"),
        ([[[[[1]]]]], "expected 2 values, found 1"),
        ([[None, 1]], "found none"),
        ([[True, 1]], "found true"),
        ([[1, 10**30]], ""),
        ([[1e300, 1]], "fits float32"),
    ],
)
def test_invalid_rows_are_422(client, instances, problem):
    response = client.post("/models/price/predict", json={"instances": instances})
    if problem:
        error = assert_error(response, 422, "invalid_request")
        assert problem in error["message"]
        assert all(fault["location"].startswith("instances") for fault in error["faults"])
    else:
        assert response.status_code == 200
        assert np.isfinite(response.json["predictions"]).all()


@pytest.mark.parametrize("model", [3, True, [], {}, 1.5])
def test_model_of_wrong_type_is_reported_with_its_location(client, model):
    error = assert_error(client.post("/predict", json={"model": model, "instances": [ROW]}), 422, "invalid_request")
    assert fault_locations(error) == ["model"]


@pytest.mark.parametrize("version", [True, 1.5, [], {}])
def test_version_of_wrong_type_is_reported_with_its_location(client, version):
    body = {"model": "price", "version": version, "instances": [["x", 1]]}
    error = assert_error(client.post("/predict", json=body), 422, "invalid_request")
    assert fault_locations(error) == ["version", "instances.0.rooms"]


def test_body_that_contradicts_the_url_is_422(client):
    body = {"model": "penguins", "version": 2, "instances": [ROW]}
    error = assert_error(client.post("/models/price/versions/1/predict", json=body), 422, "invalid_request")
    assert fault_locations(error) == ["version", "model"]


def test_more_rows_than_the_limit_are_413(store, make_client):
    client = make_client(store, max_instances=2)
    assert client.post("/models/price/predict", json={"instances": [ROW] * 2}).status_code == 200
    error = assert_error(client.post("/models/price/predict", json={"instances": [ROW] * 3}), 413, "too_many_rows")
    assert "at most 2 rows" in error["message"]


def test_predictions_have_the_same_bits_regardless_of_the_other_rows(client):
    rows = [[i / 3, 60 + i] for i in range(70)]
    together = client.post("/models/price/predict", json={"instances": rows}).json["predictions"]
    alone = [client.post("/models/price/predict", json={"instances": [row]}).json["predictions"][0] for row in rows]
    assert together == alone


def test_the_service_starts_with_default_settings(tmp_path):
    assert Settings().max_instances >= 1
    assert penguins().predict([PENGUIN])


@pytest.mark.parametrize("row", [PENGUIN, {"island": "Dream"}, {"mass": 3, "sex": None, "model": None}])
def test_a_row_without_the_list_around_it_is_named(client, row):
    error = assert_error(client.post("/models/penguins/predict", json=row), 422, "invalid_request")
    (fault,) = error["faults"]
    assert fault["location"] == "instances"
    assert "one row alone" in fault["problem"]
    assert fault["fix"] == 'put the row into a list: {"instances": [row]}'


def test_a_column_is_not_taken_for_a_misspelt_key(client):
    faults = assert_error(client.post("/predict", json={"island": "Dream", "instance": [[1]]}), 422, "invalid_request")
    fixes = {fault["location"]: fault["fix"] for fault in faults["faults"]}
    assert fixes["island"] == "the keys are model, version, instances, explain, interval, set, threshold"
    assert fixes["instance"] == "did you mean 'instances'?"


INVALID = [
    ("post", "/models/penguins/versions/99/predict", b'{"instances": []}', {}),
    ("post", "/models/elephants/predict", b"{}", {}),
    ("post", "/models/penguins/versions/xyz/predict", b"{}", {}),
    ("get", "/models/penguins/versions/77", None, {}),
    ("get", "/nowhere", None, {}),
    ("get", "/models/penguins/predict", None, {}),
    ("post", "/v3", b"", {}),
    *(
        ("post", "/models/penguins/predict", body, {})
        for body in (b"", b"{", b'{"instances": [[1, ', b"[]", b"nul", b"3", b'{"instances": 3}', b'{"instances": []}',
                     b'{"instances": [[NaN]]}', b"{'instances': 1}", b'{"a": 1, "a": 2}', b'{"version": []}', b"\xff")
    ),
    ("post", "/models/penguins/predict", b"x", {"Content-Type": "application/xml"}),
    ("post", "/models/penguins/predict", b"x", {"Content-Encoding": "br"}),
    ("post", "/models/penguins/predict", b"x", {"Content-Encoding": "gzip"}),
    ("post", "/models/penguins/predict", b"", {"Content-Type": "text/csv"}),
    ("post", "/models/penguins/predict", b"a,b\n1\n", {"Content-Type": "text/csv"}),
    ("post", "/models/penguins/predict", b"x", {"Content-Type": "application/x-npy"}),
    ("post", "/predict", b'{"instances": [[1]]}', {}),
    ("post", "/predict?warning=1", b"{}", {}),
    ("post", "/models/penguins/predict", b"[1]" * 2_000_000, {}),
    ("post", "/invocations", b"{}", {}),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body", "headers"), INVALID)
def test_every_error_says_how_to_fix_it(client, method, path, body, headers):
    response = client.open(path, method=method.upper(), data=body, headers=headers)
    assert response.status_code >= 400
    assert_error(response, response.status_code, response.json["error"]["code"])  # every fault has a fix


V2_INVALID = [
    {}, {"inputs": []}, {"inputs": [3]}, {"inputs": [{"name": "rooms"}]},
    {"inputs": [{"name": "rooms", "datatype": "float", "shape": [1], "data": [1]}]},
    {"inputs": [{"name": "rooms", "datatype": "FP64", "shape": [1], "data": [1]}], "outputs": [3]},
    {"inputs": [], "parameters": {"binary_data_output": 3}},
]  # fmt: skip


@pytest.mark.parametrize("body", V2_INVALID)
def test_every_error_of_tensors_says_how_to_fix_it(store, body):
    model = store.load("price")[1]
    served = SimpleNamespace(model=model, max_rows=10, row_limit=RowLimits(10, 10, 10**9, 1, 2**20).for_model(model))
    tail = memoryview(b"")
    with pytest.raises(InputError) as caught:
        tensors.encode(served.model, open_inference.parse_request(body, tail, served, 1000).arrays, 10)
    assert all(fault.fix for fault in caught.value.faults)


def test_few_unknown_query_parameters_are_compared_with_known_ones(client, monkeypatch):
    """711 of them took 21 ms."""
    compared = []
    monkeypatch.setattr(predict, "did_you_mean", lambda name, _: compared.append(name) or "a hint")
    query = "&".join(f"p{i}=1" for i in range(500))
    error = assert_error(client.post(f"/models/price/predict?{query}", json={}), 422, "invalid_request")
    assert error["message"].startswith("500 errors in the request")
    assert (len(error["faults"]), len(compared)) == (100, 10)
