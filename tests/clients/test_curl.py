"""curl as in TensorFlow Serving's documentation: data with -d, without a Content-Type."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import pytest

from tests.clients.conftest import Server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed"),
]


def curl(server: Server, *words: str) -> Any:
    *options, path = words
    command = ["curl", "-s", *options, f"http://127.0.0.1:{server.port}{path}"]
    return json.loads(subprocess.run(command, capture_output=True, check=True, timeout=20).stdout)


@pytest.mark.parametrize(("where", "number"), [("", 2), ("/versions/1", 1), ("/labels/champion", 1)])
def test_predictions_by_rows_and_by_columns(server, where, number):
    _, model = server.store.load("price", number)
    expected = model.predict([[3.0, 80.0], [5.0, 70.0]])
    path = f"/v1/models/price{where}:predict"
    rows = '{"signature_name": "serving_default", "instances": [{"rooms": 3.0, "area": 80.0}, {"rooms": 5.0}]}'
    found = curl(server, "-d", rows, "-X", "POST", path)
    (warning,) = found.pop("warnings")
    assert warning["location"] == "instances.1.area"
    assert found == {"predictions": expected}
    columns = '{"inputs": {"rooms": [3.0, 5.0], "area": [80.0, 70.0]}}'
    assert curl(server, "-d", columns, path) == {"outputs": expected}


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ('{"instances": [1.0, 2.0, 5.0]}', '{"predictions": [2.5, 3.0, 4.5]}'),
        ('{"instances": [[1.0], [2.0], [5.0]]}', '{"predictions": [2.5, 3.0, 4.5]}'),
        ('{"instances": [{"x": 1.0}, {"x": 2.0}, {"x": 5.0}]}', '{"predictions": [2.5, 3.0, 4.5]}'),
        ('{"inputs": [1.0, 2.0, 5.0]}', '{"outputs": [2.5, 3.0, 4.5]}'),
        ('{"inputs": {"x": [1.0, 2.0, 5.0]}}', '{"outputs": [2.5, 3.0, 4.5]}'),
    ],
)
def test_half_plus_two(server, body, answer):
    assert curl(server, "-d", body, "-X", "POST", "/v1/models/half_plus_two:predict") == json.loads(answer)


def test_status_and_metadata(server):
    states = curl(server, "/v1/models/price")["model_version_status"]
    assert [(state["version"], state["state"]) for state in states] == [("2", "AVAILABLE"), ("1", "AVAILABLE")]
    assert curl(server, "/v1/models/price/metadata")["model_spec"]["name"] == "price"


def test_faults(server):
    assert "did you mean 'price'" in curl(server, "-d", "{}", "/v1/models/prise:predict")["error"]


def test_a_csv_file_is_posted_as_it_is(server, tmp_path):
    (tmp_path / "rows.csv").write_text("rooms,area\n3,80\n5,\n")
    header = "Content-Type: text/csv"
    answer = curl(server, "-H", header, "--data-binary", f"@{tmp_path / 'rows.csv'}", "/models/price/predict")
    _, model = server.store.load("price")
    assert answer["predictions"] == model.predict([[3.0, 80.0], [5.0, None]])
