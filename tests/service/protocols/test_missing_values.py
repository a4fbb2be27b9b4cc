"""Missing values: required columns are refused by name, filled values are named in warnings, in every protocol."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest

from tests.service.conftest import assert_error, fault_locations

FILLED = {"island": "Biscoe", "mass": 4200.5}
PRICE = "/models/price/predict"


def test_an_empty_row_names_every_required_column(client):
    error = assert_error(client.post("/models/penguins/predict", json={"instances": [{}]}), 422, "invalid_request")
    assert fault_locations(error) == ["instances.0.island", "instances.0.mass"]
    assert all("found none" in fault["problem"] and "required" in fault["fix"] for fault in error["faults"])


@pytest.mark.parametrize(
    "row", [FILLED, FILLED | {"sex": None}, FILLED | {"sex": ""}, FILLED | {"sex": "NA"}, ["Biscoe", 4200.5, None]]
)
@pytest.mark.parametrize("path", ["/models/penguins/predict", "/v1/models/penguins:predict", "/invocations"])
def test_filled_values_are_named_in_json(client, path, row):
    model = {"model": "penguins"} if path == "/invocations" else {}
    found = client.post(path, json={**model, "instances": [["Dream", 4000, "MALE"], row]}).json
    assert found["warnings"] == [
        {
            "location": "instances.1.sex",
            "problem": "the value is missing; 'FEMALE' was used",
            "fix": "the prediction is less certain; send the value if you know it",
        }
    ]
    whole = client.post(path, json={**model, "instances": [["Dream", 4000, "MALE"], ["Biscoe", 4200.5, "FEMALE"]]}).json
    assert whole["predictions"] == found["predictions"]
    assert "warnings" not in whole


def test_range_warnings_follow_filled_values(client):
    rows = [FILLED, ["Dream", 99999, "MALE"]]
    found = client.post("/models/penguins/predict?warnings=true", json={"instances": rows}).json
    assert [each["location"] for each in found["warnings"]] == ["instances.0.sex", "instances.1.mass"]


def test_filled_values_of_columns_are_named(client):
    for area in ([None, 80], [[None], [80]]):
        found = client.post("/v1/models/price:predict", json={"inputs": {"rooms": [3, 4], "area": area}}).json
        assert [each["location"] for each in found["warnings"]] == ["inputs.0.area"]
        assert len(found["outputs"]) == 2
    found = client.post("/v1/models/price:predict", json={"inputs": {"rooms": [3, 4]}}).json
    assert [each["location"] for each in found["warnings"]] == ["inputs.0.area", "inputs.1.area"]


@pytest.mark.parametrize("text", ["rooms,area\n4,80\n3,\n", "rooms,area\n4,80\n3,n/a\n"])
def test_filled_values_of_csv_name_the_line(client, text):
    found = client.post(f"{PRICE}?warnings=true", data=text, content_type="text/csv").json
    assert [each["location"] for each in found["warnings"]] == ["line 3, column area"]
    found = client.post(PRICE, data="rooms\n4\n", content_type="text/csv; header=present").json
    assert [each["location"] for each in found["warnings"]] == ["line 2, column area"]


def test_nan_in_an_array_is_a_missing_value(client):
    file = io.BytesIO()
    np.save(file, np.array([[3, np.nan], [4, 80]]))
    found = client.post(PRICE, data=file.getvalue(), content_type="application/x-npy").json
    assert [each["location"] for each in found["warnings"]] == ["rows.0.area"]
    file = io.BytesIO()
    np.save(file, np.array([[np.nan, 80]]))
    response = client.post(PRICE, data=file.getvalue(), content_type="application/x-npy")
    assert fault_locations(assert_error(response, 422, "invalid_request")) == ["rows.0.rooms"]


def tensor(name: str, values: list[object], datatype: str = "FP64") -> dict[str, object]:
    return {"name": name, "shape": [len(values), 1], "datatype": datatype, "data": values}


@pytest.mark.parametrize("area", [[tensor("area", [None, 80])], []])
def test_filled_values_of_tensors_are_named_in_a_parameter(client, area):
    found = client.post("/v2/models/price/infer", json={"inputs": [tensor("rooms", [3, 4]), *area]}).json
    lines = found["parameters"]["warnings"].splitlines()
    assert lines[0] == "rows.0.area: the value is missing; 70 was used"
    assert len(lines) == (1 if area else 2)
    whole = [tensor("rooms", [3, 4]), tensor("area", [70, 80])]
    assert "parameters" not in client.post("/v2/models/price/infer", json={"inputs": whole}).json
    refused = client.post("/v2/models/price/infer", json={"inputs": [tensor("area", [1])]})
    assert (refused.status_code, "inputs.rooms" in refused.json["error"]) == (400, True)


def test_the_documents_say_which_columns_are_required(client):
    schemas = client.get("/openapi.json").json["components"]["schemas"]
    name = next(name for name in schemas if "penguins" in name and "nstance" in name)
    by_name = schemas[name]["anyOf"][0]
    assert by_name["required"] == ["island", "mass"]
    inputs = client.get("/models/penguins").json["inputs"]
    assert [column["required"] for column in inputs] == [True, True, False]
    config = client.get("/v2/models/penguins/config").json["input"]
    assert [each.get("optional", False) for each in config] == [False, False, True]


def test_artifacts_of_version_0_1_fill_in_every_column_and_say_so(store, make_client):
    """They do not record which columns had gaps."""
    for name in ("classifier",):
        data = Path(__file__).parents[2].joinpath("fixtures", f"artifact_0_1_{name}.npz").read_bytes()
        (Path(store.root) / "old").mkdir()
        (Path(store.root) / "old" / "1.npz").write_bytes(data)
    client = make_client(store)
    names = [column["name"] for column in client.get("/models/old").json["inputs"]]
    optional = [column["name"] for column in client.get("/models/old").json["inputs"] if not column["required"]]
    assert optional
    example = client.get("/models/old/example").json["instances"][0]
    row = {name: example[name] for name in names if name not in optional}
    found = client.post("/models/old/predict", json={"instances": [row]}).json
    assert [each["location"] for each in found["warnings"]] == [f"instances.0.{name}" for name in optional]


def test_the_fast_path_answers_rows_with_filled_values_as_flask_does(client):
    """The other fields are compared in test_fast_path_equals_flask.py."""
    body = json.dumps({"instances": [FILLED]})
    assert client.post("/models/penguins/predict", data=body).json["warnings"]
