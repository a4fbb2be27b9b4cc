"""The query parameters `warnings` and `receipt`: out-of-range warnings, and receipts that can be replayed."""

from __future__ import annotations

import hashlib
import io
import json
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from model_store.artifact.model import Model
from model_store.artifact.receipt import hash_predictions
from model_store.cli import main
from model_store.schema.signature import CategoryColumn, NumberColumn, RegressionOutput, Signature
from service.validation.predict_request import QUERY_PARAMETERS
from tests.service.conftest import assert_error, fault_locations, network

BODY = b'{"instances": [{"rooms": 3, "area": 0.1}, [1e3, null]], "version": 1}'


class Raw(str):
    """The text of a file that json.dumps would not write."""


@pytest.fixture
def replay(store, tmp_path):
    """Run `models replay` on a response and a body, saved as files."""

    def run(result: Any, body: bytes, *words: str, code: int = 0) -> Any:
        (tmp_path / "answer.json").write_text(result if isinstance(result, Raw) else json.dumps(result))
        (tmp_path / "body").write_bytes(body)
        files = [str(tmp_path / "answer.json"), str(tmp_path / "body")]
        result = CliRunner().invoke(main.main, ["replay", *files, *words], env={"MODEL_STORE": str(store.root)})
        assert result.exit_code == code, result.output
        return result

    return run


def test_responses_have_no_warnings_or_receipt_by_default(client):
    body = b'{"instances": [[3, 80]]}'
    assert client.post("/models/price/predict", data=body).json.keys() == {"model", "version", "predictions"}


def test_receipt_has_the_model_and_a_hash_of_the_body(client):
    result = client.post("/models/price/predict?receipt=true", data=BODY).json
    digest = client.get("/models/price").json["digest"]
    assert result["receipt"]["digest"] == digest
    assert result["receipt"]["input_sha256"] == hashlib.sha256(BODY).hexdigest()
    assert (result["receipt"]["model"], result["receipt"]["version"]) == ("price", 1)


def test_replay_gives_the_same_bits(client, replay):
    result = client.post("/models/price/predict?receipt=true", data=BODY).json
    again = json.loads(replay(result, BODY, "--json").stdout)
    assert again["predictions"] == result["predictions"]
    assert again["same"] is True
    assert "bit for bit" in replay(result["receipt"], BODY).stderr


def test_predictions_of_a_receipt_are_made_once(client, replay, monkeypatch):
    """The same objects are rendered and hashed."""
    made = []
    predictions = Signature.predictions
    monkeypatch.setattr(Signature, "predictions", lambda *a, **k: made.append(1) or predictions(*a, **k))
    result = client.post("/models/price/predict?receipt=true&warnings=true", data=BODY).json
    assert len(made) == 1
    assert list(result) == ["model", "version", "predictions", "warnings", "receipt"]
    assert result["receipt"]["predictions_sha256"] == hash_predictions(result["predictions"])


def test_a_receipt_has_the_hash_that_it_always_had():
    labels = {"b": 0.5, "a%": 1.0, "\U0001f600": 1.5e-6, "\ufb33": 0.0, "é": 2.5e-7}
    rows = [{"label": "b", "probabilities": labels}, -0.0, 1e16, {"labels": [], "probabilities": {}}]
    text = (
        '[{"label":"b","probabilities":{"a%":1,"b":0.5,"é":2.5e-7,"\U0001f600":0.0000015,"\ufb33":0}},'
        '0,10000000000000000,{"labels":[],"probabilities":{}}]'
    )
    assert hash_predictions(rows) == hashlib.sha256(text.encode()).hexdigest()
    assert hash_predictions([]) == hashlib.sha256(b"[]").hexdigest()


def test_replay_of_the_most_probable_labels(client, replay):
    body = b'{"instances": [["Dream", 4000, "MALE"], ["Biscoe", 5000, null]]}'
    result = client.post("/models/penguins/predict?receipt=true&top_k=1", data=body).json
    assert result["receipt"]["top_k"] == 1
    assert "top_k" not in client.post("/models/penguins/predict?receipt=true", data=body).json["receipt"]
    assert json.loads(replay(result, body, "--json").stdout)["predictions"] == result["predictions"]
    without = {key: value for key, value in result["receipt"].items() if key != "top_k"}
    assert "expected predictions" in replay(without, body, code=5).stderr
    for wrong in (0, "1", True, 1.0):
        assert "missing or invalid: top_k" in replay({**result["receipt"], "top_k": wrong}, body, code=3).stderr


def test_replay_accepts_every_body_format(client, replay):
    array = io.BytesIO()
    np.save(array, np.arange(8, dtype=np.float32).reshape(2, 2, 2))
    for path, kind, body in (
        ("/models/price", "text/csv", b"area,rooms\n80,3\n,1.5\n"),
        ("/models/image", "application/x-npy", array.getvalue()),
        ("/models/penguins", "application/json", b'{"instances": [["Dream", 4000, "MALE"]]}'),
    ):
        result = client.post(f"{path}/predict?receipt=true", data=body, content_type=kind).json
        assert json.loads(replay(result, body, "--json").stdout)["predictions"] == result["predictions"]


@pytest.mark.parametrize(("dtype", "expected"), [("<f8", "buffer is smaller"), ("|V0", "itemsize cannot be zero")])
def test_replay_allocates_no_memory_for_what_a_body_claims(client, replay, dtype: str, expected: str) -> None:
    np.lib.format.write_array_header_1_0(
        body := io.BytesIO(), {"descr": dtype, "fortran_order": False, "shape": (10**11,)}
    )
    receipt = json.loads(client.post("/models/price/predict?receipt=true", data=BODY).data)["receipt"]
    receipt["input_sha256"] = hashlib.sha256(body.getvalue()).hexdigest()
    assert expected in replay(receipt, body.getvalue(), code=3).stderr


def test_replay_rejects_another_body_model_or_prediction(client, replay, store):
    result = client.post("/models/price/predict?receipt=true", data=BODY).json["receipt"]
    assert "byte for byte" in replay(result, BODY + b"\n", code=3).stderr
    assert "expected the digest" in replay({**result, "digest": "0" * 64}, BODY, code=5).stderr
    assert "expected predictions" in replay({**result, "predictions_sha256": "0" * 64}, BODY, code=5).stderr
    assert "no version 9" in replay({**result, "version": 9}, BODY, code=5).stderr
    for wrong in ([], {"receipt": 3}, {**result, "version": "1"}, {"model": "price"}):
        assert "receipt=true" in replay(wrong, BODY, code=3).stderr


def test_replay_rejects_receipts_and_bodies_with_a_key_twice(client, replay):
    """Readers disagree about the value, and the service never answers such a body."""
    result = client.post("/models/price/predict?receipt=true", data=BODY).json["receipt"]
    twice = Raw(json.dumps(result)[:-1] + ', "version": 1}')
    assert "expected each key once" in replay(twice, BODY, code=3).stderr
    assert "nested too deeply" in replay(Raw("[" * 200_000), BODY, code=3).stderr
    body = BODY.replace(b'"rooms": 3', b'"rooms": 9, "rooms": 3')
    forged = {**result, "input_sha256": hashlib.sha256(body).hexdigest()}
    assert "expected each key once" in replay(forged, body, code=3).stderr


def test_warnings_report_values_outside_the_training_range(client):
    rows = [["Biscoe", 4200, "MALE"], ["Dream", 99.5, "MALE"], ["Dream", 6300, "MALE"], ["Dream", 38000, "MALE"]]
    result = client.post("/models/penguins/predict?warnings=true", json={"instances": rows}).json
    assert result["warnings"] == [
        {
            "location": "instances.1.mass",
            "problem": "99.5 is outside the training range, 2700 to 6300",
            "fix": "the prediction is extrapolated; check the value and its unit",
        },
        {
            "location": "instances.3.mass",
            "problem": "38000 is outside the training range, 2700 to 6300",
            "fix": "the prediction is extrapolated; check the value and its unit",
        },
    ]
    assert len(result["predictions"]) == 4


def test_warnings_report_unknown_categories_and_pixels(client, store, make_client):
    dark = [[0, 0], [0, 0]]
    result = client.post("/models/image/predict?warnings=true", json={"instances": [dark, [[1, 2], [3, 16]]]}).json
    assert result["warnings"] == []
    columns = (CategoryColumn("town", ("Bern",), "bucket"), NumberColumn("size", statistics={"min": "small", "max": 3}))
    model = Model(network(3, 1, 0), Signature(columns, RegressionOutput(("y",), (0.0,), (1.0,))))
    store.publish("towns", model)
    rows = [["Bern", -1e30], ["Rom", 4.0]]
    result = make_client(store).post("/models/towns/predict?warnings=true", json={"instances": rows}).json
    assert [warning["location"] for warning in result["warnings"]] == ["instances.1.town", "instances.1.size"]


def test_at_most_a_hundred_warnings_are_returned(client):
    result = client.post(
        "/models/penguins/predict?warnings=true", json={"instances": [["Dream", 1, "MALE"]] * 300}
    ).json
    assert len(result["warnings"]) == 100


def test_a_query_parameter_other_than_true_or_false_is_422(client):
    error = assert_error(client.post("/models/price/predict?receipt=yes", data=BODY), 422, "invalid_request")
    assert fault_locations(error) == ["receipt"]


@pytest.mark.parametrize("second", ["true", "false"])
def test_a_repeated_query_parameter_is_422(client, second):
    """It is unclear which value is meant."""
    path = f"/models/price/predict?receipt=true&warnings=true&receipt={second}"
    error = assert_error(client.post(path, data=BODY), 422, "invalid_request")
    result = {
        "location": "receipt",
        "problem": "expected once, found 2 times",
        "fix": "send it once: ?receipt=true",
    }
    assert error["faults"] == [result]


@pytest.mark.parametrize("path", ["/predict", "/models/price/predict", "/models/price/versions/1/predict"])
def test_an_unknown_query_parameter_is_422_with_a_suggestion(client, path):
    given = client.post(f"{path}?warning=true&apikey=secret&receipt=yes", data=BODY)
    error = assert_error(given, 422, "invalid_request")
    assert fault_locations(error) == ["warning", "apikey", "receipt"]
    assert [fault["fix"] for fault in error["faults"]][:2] == [
        "did you mean 'warnings'?",
        f"the parameters are {', '.join(QUERY_PARAMETERS)}",
    ]
    assert "secret" not in given.text


def test_an_unknown_query_parameter_is_reported_before_errors_of_the_body(client):
    error = assert_error(client.post("/models/price/predict?Warnings=true", data=b"{"), 422, "invalid_request")
    assert [fault["fix"] for fault in error["faults"]] == ["did you mean 'warnings'?"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/invocations", {"model": "price", "instances": [[3, 80]]}),
        ("/v1/models/price:predict", {"instances": [[3, 80]]}),
        (
            "/v2/models/image/infer",
            {"inputs": [{"name": "pixels", "shape": [1, 2, 2], "datatype": "FP64", "data": [0] * 4}]},
        ),
        ("/models", None),
        ("/healthz", None),
    ],
)
def test_other_endpoints_ignore_query_parameters(client, path, body):
    asked = f"{path}?warning=true&key=1&key=2"
    assert (client.get(asked) if body is None else client.post(asked, json=body)).status_code == 200


def test_training_rows_cause_no_warnings(client, store, make_client):
    low, high = 0.1, 0.7000000000000001
    number = NumberColumn("mass", 0.3, 0.07, statistics={"min": low, "max": high})
    store.publish("fine", Model(network(1, 1, 0), Signature((number,), RegressionOutput(("y",), (0.0,), (1.0,)))))
    result = make_client(store).post("/models/fine/predict?warnings=true", json={"instances": [[low], [high]]}).json
    assert result["warnings"] == []


def test_replay_decides_by_the_threshold_of_the_request(client, replay):
    labels = []
    for threshold in (1e-9, 1 - 1e-9):
        body = json.dumps({"instances": [["Biscoe", 4000, "MALE"]], "threshold": threshold}).encode()
        result = client.post("/models/penguins/predict?receipt=true", data=body).json
        again = json.loads(replay(result, body, "--json").stdout)
        assert again["predictions"] == result["predictions"]
        labels.append(again["predictions"][0]["label"])
    assert labels == ["Gentoo", "Adelie"]


def test_replay_decides_by_the_threshold_of_the_url(client, replay):
    labels = []
    for threshold in (0.01, 0.99):
        path, body = (
            f"/models/penguins/predict?receipt=true&threshold={threshold}",
            b"island,mass,sex\nBiscoe,4000,MALE\n",
        )
        result = client.post(path, data=body, content_type="text/csv").json
        assert result["receipt"]["threshold"] == threshold
        again = json.loads(replay(result, body, "--json").stdout)
        assert again["predictions"] == result["predictions"]
        labels.append(again["predictions"][0]["label"])
    assert labels == ["Gentoo", "Adelie"]
    result["receipt"]["threshold"] = 2
    assert "missing or invalid: threshold" in replay(result, body, code=3).stderr
