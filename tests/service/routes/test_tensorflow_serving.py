"""TensorFlow Serving's REST API and KServe V1: rows, columns, versions, labels, status and metadata."""

import pytest
from flask.testing import FlaskClient

from model_store.registry.store import Store, open_store
from tests.service.conftest import PENGUIN, break_version, move, price, text_error

ENDPOINT = "/v1/models/price:predict"


@pytest.fixture
def store(store: Store) -> Store:
    store.publish("price", price(1))
    move(store, "price", "champion", 1)
    return store


@pytest.fixture
def client(own_client: FlaskClient) -> FlaskClient:
    return own_client


@pytest.mark.parametrize(
    ("url", "number"),
    [
        (ENDPOINT, 2),
        ("/v1/models/price/versions/1:predict", 1),
        ("/v1/models/price/versions/2:predict", 2),
        ("/v1/models/price/labels/champion:predict", 1),
    ],
)
def test_the_url_selects_the_version(client, store, url, number):
    response = client.post(url, json={"signature_name": "serving_default", "instances": [[3, 80], [4, 90]]})
    _, model = store.load("price", number)
    assert response.json == {"predictions": model.predict([[3, 80], [4, 90]])}
    assert response.headers["X-Model-Version"] == str(number)


@pytest.mark.parametrize(
    "columns",
    [
        {"rooms": [3, 4], "area": [80, 90]},
        {"rooms": [[3], [4]], "area": [[80], [90]]},
        {"instances": [[3, 80], [4, 90]]},
        [[3, 80], [4, 90]],
    ],
)
def test_columns_and_rows_give_equal_predictions(client, store, columns):
    _, model = store.load("price", 2)
    response = client.post(ENDPOINT, json={"inputs": columns})
    assert response.json == {"outputs": model.predict([[3, 80], [4, 90]])}


def test_several_outputs_are_objects_by_row_and_by_column(client, store):
    _, model = store.load("penguins")
    penguin = PENGUIN | {"sex": "MALE"}
    (expected,) = model.predict([penguin])
    row = {"label": expected["label"], "probabilities": list(expected["probabilities"].values())}
    url = "/v1/models/penguins:predict"
    assert client.post(url, json={"instances": [penguin]}).json == {"predictions": [row]}
    columns = {"island": ["Biscoe"], "mass": [4200.5], "sex": ["MALE"]}
    assert client.post(url, json={"inputs": columns}).json == {"outputs": {k: [v] for k, v in row.items()}}


@pytest.mark.parametrize("form", ["instances", "inputs"])
def test_arrays_are_rows(client, form):
    for rows in ([[[1, 2], [3, 4]]], {"pixels": [[[1, 2], [3, 4]]]}):
        if form == "inputs" or isinstance(rows, list):
            response = client.post("/v1/models/image:predict", json={form: rows})
            assert response.status_code == 200, response.data


def test_curl_needs_no_content_type(client):
    data, form = '{"instances": [[3, 80]]}', "application/x-www-form-urlencoded"
    assert client.post(ENDPOINT, data=data, content_type=form).status_code == 200


@pytest.mark.parametrize(
    ("body", "expected_text"),
    [
        ({}, "found neither"),
        ({"instances": [[3, 80]], "inputs": [[3, 80]]}, "found instances and inputs"),
        ({"instances": [[3, 80]], "signature_name": "classify"}, "signature_name: expected 'serving_default'"),
        ({"instances": [[3, 80]], "signature_name": {}}, "signature_name: expected 'serving_default'"),
        ({"instances": []}, "expected at least one row, found none"),
        ({"instances": 3}, "instances: expected a list, found 3"),
        ({"instances": {"rooms": 3}}, "put the row into a list"),
        ({"instances": [["3", 80]]}, "instances.0.rooms"),
        ({"inputs": {"rooms": 3, "area": [80]}}, "inputs.rooms: expected a list"),
        ({"inputs": {"rooms": [3], "area": [80, 90]}}, "area has 2, rooms has 1"),
        ({"inputs": {"room": [3], "area": [80]}}, "did you mean 'rooms'?"),
        ({"inputs": {}}, "expected at least one row, found none"),
        ({"inputs": None}, "inputs: expected a list, found null"),
        ([], "expected an object"),
    ],
)
def test_every_error_is_reported_with_its_location(client, body, expected_text):
    assert expected_text in text_error(client.post(ENDPOINT, json=body))


def test_errors_have_the_protocols_format(client):
    assert "did you mean 'price'? This works: curl" in text_error(client.post("/v1/models/prise:predict", json={}), 404)
    text_error(client.post("/v1/models/price/versions/9:predict", json={"instances": [[3, 80]]}), 404)
    text_error(client.post("/v1/models/price/labels/none:predict", json={"instances": [[3, 80]]}), 404)
    text_error(client.get(ENDPOINT), 405)
    text_error(client.get("/v1/models/price/versions/1:predict"), 405)
    text_error(client.get("/v1/nothing"), 404)
    text_error(client.post(ENDPOINT, data="{"))
    text_error(client.post(ENDPOINT, data="<a/>", content_type="text/xml"), 415)


def test_a_too_large_body_is_413_in_the_protocols_format(store, make_client):
    text_error(make_client(store, max_body_bytes=10).post(ENDPOINT, json={"instances": [[3, 80]]}), 413)


def test_status_has_both_protocols_keys(client):
    found = client.get("/v1/models/price").json
    available = {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    states = [{"version": "2", **available}, {"version": "1", **available}]
    assert found == {"name": "price", "ready": True, "model_version_status": states}
    for path in ("versions/1", "labels/champion"):
        assert client.get(f"/v1/models/price/{path}").json["model_version_status"] == [states[1]]
    assert client.get("/v1/models").json == {"models": ["image", "penguins", "price"]}
    text_error(client.get("/v1/models/prise"), 404)


def test_status_of_a_broken_version_has_the_reason(store, make_client, tmp_path):
    store.publish("price", price(2))
    break_version(store, "price", 3)
    newest, *_ = make_client(store).get("/v1/models/price").json["model_version_status"]
    assert (newest["version"], newest["state"]) == ("3", "END")
    assert newest["status"]["error_message"]
    alone = open_store(tmp_path / "alone")
    alone.publish("price", price())
    break_version(alone, "price", 1)
    response = make_client(alone).get("/v1/models/price")
    assert (response.status_code, response.json["ready"]) == (503, False)


def test_metadata_describes_the_tensors(client):
    found = client.get("/v1/models/penguins/metadata").json
    assert found["model_spec"] == {"name": "penguins", "signature_name": "", "version": "1"}
    definition = found["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert definition["method_name"] == "tensorflow/serving/predict"
    assert definition["inputs"]["island"] == {
        "dtype": "DT_STRING",
        "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False},
        "name": "serving_default_island:0",
    }
    assert definition["outputs"]["probabilities"]["dtype"] == "DT_FLOAT"
    sizes = [dim["size"] for dim in definition["outputs"]["probabilities"]["tensor_shape"]["dim"]]
    assert sizes == ["-1", "2"]
    assert client.get("/v1/models/price/labels/champion/metadata").json["model_spec"]["version"] == "1"


def test_status_ignores_an_unreadable_alias(client, store):
    (store.root / "price" / "aliases" / "champion" / "2.json").write_text("{")
    client.application.extensions["registry"].refresh()
    assert client.get("/readyz").json["status"] == "degraded"
    states = client.get("/v1/models/price").json["model_version_status"]
    assert [(each["version"], each["state"]) for each in states] == [("2", "AVAILABLE"), ("1", "AVAILABLE")]
