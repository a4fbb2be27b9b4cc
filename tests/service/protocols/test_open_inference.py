"""The Open Inference Protocol: JSON and binary tensors as specified, compression, and errors."""

import gzip
import io
import json
import struct
import zlib
from typing import Any

import numpy as np
import pytest

from model_store.artifact.model import Model
from model_store.registry.store import open_store
from model_store.schema.signature import CategoryColumn, ClassificationOutput, Signature
from service.protocols import tensors
from tests.service.conftest import network, text_error

PENGUINS = {
    "inputs": [
        {"name": "island", "shape": [2, 1], "datatype": "BYTES", "data": ["Biscoe", "Dream"]},
        {"name": "mass", "shape": [2, 1], "datatype": "FP64", "data": [[4200.5], [3000]]},
        {"name": "sex", "shape": [2], "datatype": "BYTES", "data": [None, "MALE"]},
    ]
}
ROWS = [["Biscoe", 4200.5, None], ["Dream", 3000, "MALE"]]
PRICE = {"inputs": [{"name": "instances", "shape": [1, 2], "datatype": "FP64", "data": [3, 80]}]}


def infer(client, name: str, body: Any, **options: Any) -> Any:
    return client.post(f"/v2/models/{name}/infer", json=body, **options)


def by_name(answer: dict[str, Any]) -> dict[str, Any]:
    return {output["name"]: output for output in answer["outputs"]}


def binary(document: dict[str, Any], tail: bytes, **headers: str) -> dict[str, Any]:
    """Return a request with binary tensors after its JSON."""
    head = json.dumps(document).encode()
    sent = {"Inference-Header-Content-Length": str(len(head)), **headers}
    return {"data": head + tail, "headers": sent, "content_type": "application/octet-stream"}


def test_server_metadata_lists_the_extensions(client):
    found = client.get("/v2").json
    assert found["extensions"] == ["binary_tensor_data", "model_configuration", "statistics"]


def test_health_has_live_and_ready_and_503_without_a_model(client, make_client, tmp_path):
    for path in ("/v2/health/live", "/v2/health/ready"):
        response = client.get(path)
        assert (response.status_code, response.json) == (200, {"live": True, "ready": True})
    empty = make_client(open_store(tmp_path / "empty"))
    assert empty.get("/v2/health/live").status_code == 200
    assert empty.get("/v2/health/ready").status_code == 503


def test_metadata_describes_the_tensors(client):
    found = client.get("/v2/models/penguins").json
    assert found["versions"] == ["1"]
    assert found["inputs"] == [
        {"name": "island", "datatype": "BYTES", "shape": [-1, 1]},
        {"name": "mass", "datatype": "FP64", "shape": [-1, 1]},
        {"name": "sex", "datatype": "BYTES", "shape": [-1, 1]},
    ]
    assert [(o["name"], o["datatype"], o["shape"]) for o in found["outputs"]] == [
        ("label", "BYTES", [-1, 1]),
        ("probabilities", "FP32", [-1, 2]),
    ]
    assert client.get("/v2/models/image/versions/1").json["inputs"][0]["shape"] == [-1, 2, 2]
    config = client.get("/v2/models/penguins/config").json
    assert config["output"][1]["labels"] == ["Adelie", "Gentoo"]
    assert client.get("/v2/models/penguins/versions/latest/ready").json["ready"] is True


def test_tensors_and_rows_give_bit_identical_predictions(client, store):
    _, model = store.load("penguins")
    answer = infer(client, "penguins", {**PENGUINS, "id": "42"})
    assert answer.headers["X-Model-Version"] == "1"
    assert (answer.json["model_name"], answer.json["model_version"], answer.json["id"]) == ("penguins", "1", "42")
    outputs = by_name(answer.json)
    predicted = model.predict(ROWS)
    assert outputs["label"]["data"] == [row["label"] for row in predicted]
    probabilities = np.reshape(outputs["probabilities"]["data"], (2, 2)).tolist()
    assert probabilities == [list(row["probabilities"].values()) for row in predicted]


@pytest.mark.parametrize("datatype", ["UINT8", "UINT64", "INT8", "INT32", "FP16", "FP32", "FP64"])
@pytest.mark.parametrize("shape", [[1, 2, 2], [1, 4]])
def test_arrays_may_have_any_numeric_datatype(client, datatype, shape):
    tensor = {"name": "pixels", "shape": shape, "datatype": datatype}
    plain = infer(client, "image", {"inputs": [tensor | {"data": [1, 2, 3, 4]}]}).json
    expected = client.post("/models/image/predict", json={"instances": [[1, 2, 3, 4]]}).json["predictions"][0]
    assert {name: output["data"] for name, output in by_name(plain).items()} == {k: [v] for k, v in expected.items()}
    dtype = {"U": "<u", "I": "<i", "F": "<f"}[datatype[0]] + str(int(datatype.lstrip("UINTFP")) // 8)
    tail = np.array([1, 2, 3, 4], dtype).tobytes()
    request = binary({"inputs": [tensor | {"parameters": {"binary_data_size": len(tail)}}]}, tail)
    assert client.post("/v2/models/image/infer", **request).json == plain


def test_arrays_may_be_bool(client):
    tensor = {"name": "pixels", "shape": [1, 4], "datatype": "BOOL"}
    plain = infer(client, "image", {"inputs": [tensor | {"data": [True, False, True, True]}]}).json
    expected = client.post("/models/image/predict", json={"instances": [[1, 0, 1, 1]]}).json["predictions"][0]
    assert {name: output["data"] for name, output in by_name(plain).items()} == {k: [v] for k, v in expected.items()}
    tail = b"\1\0\1\1"
    request = binary({"inputs": [tensor | {"parameters": {"binary_data_size": 4}}]}, tail)
    assert client.post("/v2/models/image/infer", **request).json == plain
    request = binary({"inputs": [tensor | {"parameters": {"binary_data_size": 4}}]}, b"\1\0\1\2")
    assert "expected bytes 0 and 1 for BOOL" in text_error(client.post("/v2/models/image/infer", **request))


def classifier(labels: tuple[int, ...]) -> Model:
    signature = Signature((CategoryColumn("paid", ("False", "True")),), ClassificationOutput("code", labels))
    return Model(network(2, 2, 0, softmax=True), signature)


@pytest.mark.parametrize(
    ("labels", "datatype"),
    [
        ((-(2**63), 2**63 - 1), "INT64"),
        ((0, 2**64 - 1), "UINT64"),
        ((-1, 2**63), "BYTES"),
    ],
)
def test_integer_labels_of_64_bits_are_exact_in_every_protocol(store, make_client, labels, datatype):
    store.publish("codes", classifier(labels))
    client = make_client(store)
    label = client.post("/models/codes/predict", json={"instances": [["True"]]}).json["predictions"][0]["label"]
    assert label in labels
    assert (
        client.post("/v1/models/codes:predict", json={"instances": [["True"]]}).json["predictions"][0]["label"] == label
    )
    answer = infer(client, "codes", {"inputs": [{"name": "paid", "shape": [1], "datatype": "BYTES", "data": ["True"]}]})
    output = by_name(answer.json)["label"]
    assert output["datatype"] == datatype
    assert output["data"] == [str(label) if datatype == "BYTES" else label]
    for path in ("/v2/models/codes/config", "/v1/models/codes/metadata", "/models/codes", "/openapi.json", "/docs"):
        response = client.get(path)
        assert response.status_code == 200
    assert str(labels[1]) in response.text


def test_booleans_are_the_categories_that_spell_them(store, make_client):
    store.publish("paid", classifier((0, 1)))
    client = make_client(store)
    expected = client.post("/models/paid/predict", json={"instances": [["True"], ["False"]]}).json["predictions"]
    assert (
        client.post("/models/paid/predict", json={"instances": [[True], {"paid": False}]}).json["predictions"]
        == expected
    )
    columnar = client.post("/v1/models/paid:predict", json={"inputs": {"paid": [True, False]}}).json["outputs"]
    assert columnar["label"] == [row["label"] for row in expected]
    tensor = {"name": "paid", "shape": [2], "datatype": "BOOL"}
    plain = infer(client, "paid", {"inputs": [tensor | {"data": [True, False]}]})
    assert by_name(plain.json)["label"]["data"] == [row["label"] for row in expected]
    request = binary({"inputs": [tensor | {"parameters": {"binary_data_size": 2}}]}, b"\1\0")
    assert client.post("/v2/models/paid/infer", **request).json == plain.json
    packed = io.BytesIO()
    np.save(packed, np.array([True, False]))
    npy = client.post("/models/paid/predict", data=packed.getvalue(), content_type="application/x-npy")
    assert npy.json["predictions"] == expected
    penguins = [*PENGUINS["inputs"][:2], {"name": "sex", "shape": [2], "datatype": "BOOL", "data": [True, False]}]
    assert "expected BYTES, found BOOL" in text_error(infer(client, "penguins", {"inputs": penguins}))


def test_an_output_that_is_requested_twice_is_rejected(client):
    body = PENGUINS | {"outputs": [{"name": "label"}, {"name": "label", "parameters": {"binary_data": True}}]}
    assert "outputs.1.name: expected each output once" in text_error(infer(client, "penguins", body))


def test_binary_tensors_in_requests_and_responses(client):
    texts = b"".join(struct.pack("<I", len(t)) + t for t in (b"Biscoe", b"Dream"))
    sexes = b"".join(struct.pack("<I", len(t)) + t for t in (b"FEMALE", b"MALE"))
    masses = np.array([4200.5, 3000.0], "<f8").tobytes()
    tails = {"island": texts, "mass": masses, "sex": sexes}
    tensors = [
        {"name": t["name"], "shape": [2, 1], "datatype": t["datatype"]}
        | {"parameters": {"binary_data_size": len(tails[t["name"]])}}
        for t in PENGUINS["inputs"]
    ]
    document = {"inputs": tensors, "parameters": {"binary_data_output": True}}
    response = client.post("/v2/models/penguins/infer", **binary(document, b"".join(tails.values())))
    assert response.mimetype == "application/octet-stream"
    length = int(response.headers["Inference-Header-Content-Length"])
    answer, rest = json.loads(response.data[:length]), response.data[length:]
    sizes = [output["parameters"]["binary_data_size"] for output in answer["outputs"]]
    assert sum(sizes) == len(rest)
    assert all("data" not in output for output in answer["outputs"])
    plain = by_name(infer(client, "penguins", PENGUINS).json)
    assert np.frombuffer(rest[sizes[0] :], "<f4").tolist() == plain["probabilities"]["data"]
    assert rest[4 : 4 + rest[0]].decode() == plain["label"]["data"][0]


def test_outputs_select_and_order_tensors_and_override_binary_data_output(client):
    outputs = [{"name": "probabilities", "parameters": {"binary_data": False}}, {"name": "label"}]
    document = {**PENGUINS, "outputs": outputs, "parameters": {"binary_data_output": True}}
    response = infer(client, "penguins", document)
    length = int(response.headers["Inference-Header-Content-Length"])
    first, second = json.loads(response.data[:length])["outputs"]
    assert (first["name"], second["name"]) == ("probabilities", "label")
    assert "data" in first
    assert second["parameters"]["binary_data_size"] == len(response.data) - length


def test_raw_body_is_one_row_of_the_only_tensor(client):
    for name, row in (("image", np.array([1, 2, 3, 4], "<f4")), ("price", np.array([3, 80], "<f8"))):
        headers = {"Inference-Header-Content-Length": "0"}
        response = client.post(f"/v2/models/{name}/infer", data=row.tobytes(), headers=headers)
        length = int(response.headers["Inference-Header-Content-Length"])
        expected = client.post(f"/models/{name}/predict", json={"instances": [row.tolist()]}).json["predictions"][0]
        found = np.frombuffer(response.data[length:], "<f8").tolist()
        assert found == (list(expected.values()) if isinstance(expected, dict) else [expected])
    text = text_error(client.post("/v2/models/penguins/infer", data=b"x", headers=headers))
    assert "island, mass, sex" in text


def test_an_array_with_nan_is_rejected_with_advice(client):
    tensor = {"name": "pixels", "shape": [1, 2, 2], "datatype": "FP32", "data": [1.0, None, 1.0, 1.0]}
    response = client.post("/v2/models/image/infer", json={"inputs": [tensor]})
    assert response.status_code == 400
    assert "rows.0: expected finite numbers, found nan (an array has no missing values" in response.json["error"]


def test_nan_and_null_are_missing_values(client):
    rows = {"inputs": [{"name": "instances", "shape": [2, 2], "datatype": "FP64", "data": [3, None, 3, 70]}]}
    first, second = by_name(infer(client, "price", rows).json)["price"]["data"]
    assert first == second
    column = [{"name": "rooms", "shape": [1], "datatype": "INT32", "data": [3]}]
    assert by_name(infer(client, "price", {"inputs": column}).json)["price"]["data"] == [second]
    assert "expected a number, found none" in text_error(
        infer(client, "price", {"inputs": [column[0] | {"datatype": "FP32", "data": [None]}]})
    )


@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_compressed_requests_and_responses(client, coding, pack):
    headers = {"Content-Encoding": coding, "Accept-Encoding": coding}
    response = client.post("/v2/models/penguins/infer", data=pack(json.dumps(PENGUINS).encode()), headers=headers)
    assert response.headers["Content-Encoding"] == coding
    unpacked = gzip.decompress(response.data) if coding == "gzip" else zlib.decompress(response.data)
    assert json.loads(unpacked) == infer(client, "penguins", PENGUINS).json


def test_compression_follows_accept_encoding_and_errors_are_not_compressed(client):
    def coding(accepted: str, body: Any = PRICE) -> str | None:
        return infer(client, "price", body, headers={"Accept-Encoding": accepted}).headers.get("Content-Encoding")

    assert coding("gzip, deflate, br") == "gzip"
    assert coding("br") is None
    assert coding("gzip;q=0") is None
    assert coding("gzip", {}) is None


def test_a_compression_bomb_is_413_and_a_truncated_stream_400(store, make_client):
    client = make_client(store, max_body_bytes=10_000)
    bomb = gzip.compress(b" " * 1_000_000)
    assert len(bomb) < 10_000
    url, headers = "/v2/models/price/infer", {"Content-Encoding": "gzip"}
    text_error(client.post(url, data=bomb, headers=headers), 413)
    whole = gzip.compress(json.dumps(PRICE).encode())
    for wrong in (whole[:-9], b"not gzip", whole + b"x"):
        assert "gzip" in text_error(client.post(url, data=wrong, headers=headers))
    text_error(client.post(url, data=b"{}", headers={"Content-Encoding": "br"}), 415)


@pytest.mark.parametrize(
    ("change", "expected_text"),
    [
        ({"inputs": None}, "inputs: expected a list of tensors"),
        ({"inputs": []}, "inputs: expected a list of tensors"),
        ({"inputs": [3]}, "inputs.0: expected a tensor with a name"),
        ({"outputs": [{"name": "prise"}]}, "did you mean 'price'?"),
        ({"outputs": 3}, "outputs: expected a list, found 3"),
        ({"outputs": {"name": "price"}}, "outputs: expected a list, found an object"),
        ({"outputs": [3]}, "outputs.0.name"),
        ({"outputs": [{"name": "price", "parameters": [1]}]}, "outputs.0.parameters: expected an object"),
        (
            {"outputs": [{"name": "price", "parameters": {"binary_data": 1}}]},
            "outputs.0.parameters.binary_data:",
        ),
        ({"parameters": [1]}, "inputs.0.parameters: expected an object"),
        ({"id": 3}, "id: expected a string, found 3"),
        ({"parameters": {"binary_data_output": 1}}, "expected true or false"),
        ({"datatype": "FP31"}, "did you mean 'FP32'?"),
        ({"datatype": ["FP32"]}, "inputs.0.datatype"),
        ({"shape": [1, 3], "data": [1, 2, 3]}, "inputs.instances: expected shape [-1, 2], found [1, 3]"),
        ({"shape": [2], "data": [1, 2]}, "expected shape [-1, 2], found [2]"),
        ({"shape": [1, 2, 3]}, "expected 6 values for shape [1, 2, 3], found 2"),
        ({"shape": "1"}, "inputs.0.shape"),
        ({"shape": []}, "inputs.0.shape"),
        ({"shape": [0, 2], "data": []}, "inputs.0.shape"),
        ({"shape": [-1, 2]}, "inputs.0.shape"),
        ({"shape": [10**30, 2]}, "inputs.0.shape"),
        ({"data": [[3], [80]]}, "expected lists nested as shape [1, 2], found another nesting"),
        ({"data": [[[3, 80]]]}, "expected lists nested as shape [1, 2], found another nesting"),
        ({"data": [[3], 80]}, "expected values of FP64, found [3]"),
        ({"data": ["3", 80]}, "expected values of FP64, found '3'"),
        ({"data": [True, 80]}, "found true"),
        ({"data": "AAAA"}, "expected a list of FP64"),
        ({"datatype": "INT8", "data": [300, 1]}, "expected values of INT8, found a value out of range"),
        ({"datatype": "INT8", "data": [1.5, 1]}, "found 1.5"),
        ({"datatype": "BYTES", "data": ["a", "b"]}, "expected a number in each row, found text (BYTES)"),
        ({"datatype": "FP16", "data": [1e30, 1]}, "rows.0.rooms"),
        ({"name": "room"}, "did you mean 'rooms'?"),
        ({"parameters": {"binary_data_size": 16}}, "no data"),
        ({"parameters": {"binary_data_size": -1}, "data": None}, "binary_data_size"),
    ],
)
def test_every_error_is_reported_with_its_location(client, change, expected_text):
    top = {key: value for key, value in change.items() if key in {"inputs", "outputs", "id"}}
    if "binary_data_output" in change.get("parameters", {}):
        top = change
    body = PRICE | (top or {"inputs": [PRICE["inputs"][0] | change]})
    assert expected_text in text_error(infer(client, "price", body))


def test_unknown_categories_are_reported_with_their_rows(client):
    tensors = [dict(tensor) for tensor in PENGUINS["inputs"]]
    tensors[0]["data"] = ["Biscoe", "Dreem"]
    text = text_error(infer(client, "penguins", {"inputs": tensors}))
    assert "rows.1.island: expected one of Biscoe, Dream, Torgersen; found 'Dreem' (did you mean 'Dream'?)" in text
    assert "inputs.island: expected a tensor, found none" in text_error(
        infer(client, "penguins", {"inputs": PENGUINS["inputs"][1:]})
    )
    assert "island has 1" in text_error(
        infer(client, "penguins", {"inputs": [tensors[0] | {"shape": [1], "data": ["Dream"]}, *tensors[1:]]})
    )
    assert "expected each tensor once" in text_error(infer(client, "penguins", {"inputs": [*tensors, tensors[2]]}))


@pytest.mark.parametrize("length", ["-1", "9999", "x", "1e1", "", "99999999999999999999999"])
def test_a_json_length_beyond_the_body_is_400(client, length):
    response = infer(client, "price", PRICE, headers={"Inference-Header-Content-Length": length})
    assert "Inference-Header-Content-Length" in text_error(response)


@pytest.mark.parametrize("tail", [b"", b"1", b"1" * 17, b"\xff\xff\xff\xff", b"\x01\0\0\0\xff" * 2])
def test_binary_data_of_wrong_size_or_encoding_is_400(client, tail):
    tensor = {"name": "island", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": len(tail)}}
    for request in (
        binary({"inputs": [tensor, *PENGUINS["inputs"][1:]]}, tail),
        binary({"inputs": [tensor, *PENGUINS["inputs"][1:]]}, tail + b"more"),
    ):
        text_error(client.post("/v2/models/penguins/infer", **request))


@pytest.mark.parametrize(
    ("shape", "status", "expected"),
    [
        ([10_001], 413, "inputs.0: expected at most 10000 rows in a request for this model, found 10001"),
        ([1, 10_001], 400, "inputs.0.shape: expected 1 to 10000 strings, found a shape of 10001"),
    ],
)
def test_more_strings_than_the_row_limit_are_not_parsed(client, monkeypatch, shape, status, expected):
    """Neither for the response nor for the example in the error: 1.6 million of them, in 8 MB, take seconds."""
    read = []
    monkeypatch.setattr(tensors, "_parse_elements", lambda count, *_, **__: read.append(count))
    tail = b"\1\0\0\0a" * 10_001
    tensor = {"name": "island", "shape": shape, "datatype": "BYTES", "parameters": {"binary_data_size": len(tail)}}
    response = client.post("/v2/models/penguins/infer", **binary({"inputs": [tensor]}, tail))
    assert expected in text_error(response, status)
    assert read == []


def test_far_more_tensors_than_columns_are_not_parsed(client, monkeypatch):
    read = []
    monkeypatch.setattr(tensors, "from_json", lambda *given: read.append(given))
    many = [{"name": f"x{i}", "shape": [1], "datatype": "FP64", "data": [1]} for i in range(200)]
    assert "inputs: expected up to 2 tensors, found 200" in text_error(infer(client, "price", {"inputs": many}))
    assert read == []


@pytest.mark.parametrize("fuzz", range(200))
def test_no_body_crashes_the_service(client, fuzz):
    rng = np.random.default_rng(fuzz)
    tail = np.array([1, 2, 3, 4], "<f4").tobytes()
    tensor = {"name": "pixels", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": 16}}
    request = binary({"inputs": [tensor]}, tail)
    data = bytearray(request["data"])
    for _ in range(rng.integers(1, 4)):
        data[rng.integers(len(data))] = rng.integers(256)
    response = client.post("/v2/models/image/infer", **request | {"data": bytes(data)})
    assert response.status_code in {200, 400}


def test_framework_errors_have_the_protocols_format(client):
    assert "did you mean 'penguins'" in text_error(client.get("/v2/models/pengins"), 404)
    text_error(client.get("/v2/models/penguins/versions/9"), 404)
    text_error(client.get("/v2/nothing"), 404)
    text_error(client.get("/v2/models/penguins/infer"), 405)
    text_error(client.post("/v2/models/penguins/infer", data="<a/>", content_type="application/xml"), 415)
    assert "not JSON" in text_error(client.post("/v2/models/penguins/infer", data="{"))
    text_error(client.post("/v2/models/penguins/infer"))
