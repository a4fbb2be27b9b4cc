"""The Open Inference Protocol: the wire as its specification has it, JSON and bytes, and errors that teach."""

import gzip
import json
import struct
import zlib
from typing import Any

import numpy as np
import pytest

from model_store.registry.store import open_store
from service.protocols import tensors
from service.telemetry.exposition import ExpositionWriter
from tests.service.conftest import break_version, price, with_golden

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
    """A request with tensors after its JSON."""
    head = json.dumps(document).encode()
    sent = {"Inference-Header-Content-Length": str(len(head)), **headers}
    return {"data": head + tail, "headers": sent, "content_type": "application/octet-stream"}


def refused(response: Any, status: int = 400) -> str:
    """The one shape of every error of this protocol; returns its text."""
    assert response.status_code == status, response.data
    assert response.headers["Content-Type"] == "application/json"
    assert response.json.keys() == {"error"}
    text: str = response.json["error"]
    return text


def test_server_tells_its_extensions(client):
    found = client.get("/v2").json
    assert found["extensions"] == ["binary_tensor_data", "model_configuration", "statistics"]


def test_health_has_both_words_and_503_when_nothing_answers(client, make_client, tmp_path):
    for path in ("/v2/health/live", "/v2/health/ready"):
        response = client.get(path)
        assert (response.status_code, response.json) == (200, {"live": True, "ready": True})
    empty = make_client(open_store(tmp_path / "empty"))
    assert empty.get("/v2/health/live").status_code == 200
    assert empty.get("/v2/health/ready").status_code == 503


def test_metadata_tells_the_tensors(client):
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


def test_tensors_answer_as_rows_do_to_the_last_bit(client, store):
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
def test_arrays_may_come_in_any_numeric_datatype(client, datatype, shape):
    tensor = {"name": "pixels", "shape": shape, "datatype": datatype}
    plain = infer(client, "image", {"inputs": [tensor | {"data": [1, 2, 3, 4]}]}).json
    expected = client.post("/models/image/predict", json={"instances": [[1, 2, 3, 4]]}).json["predictions"][0]
    assert {name: output["data"] for name, output in by_name(plain).items()} == {k: [v] for k, v in expected.items()}
    dtype = {"U": "<u", "I": "<i", "F": "<f"}[datatype[0]] + str(int(datatype.lstrip("UINTFP")) // 8)
    tail = np.array([1, 2, 3, 4], dtype).tobytes()
    request = binary({"inputs": [tensor | {"parameters": {"binary_data_size": len(tail)}}]}, tail)
    assert client.post("/v2/models/image/infer", **request).json == plain


def test_truth_is_a_number_too(client):
    tensor = {"name": "pixels", "shape": [1, 4], "datatype": "BOOL"}
    plain = infer(client, "image", {"inputs": [tensor | {"data": [True, False, True, True]}]}).json
    expected = client.post("/models/image/predict", json={"instances": [[1, 0, 1, 1]]}).json["predictions"][0]
    assert {name: output["data"] for name, output in by_name(plain).items()} == {k: [v] for k, v in expected.items()}
    tail = b"\1\0\1\1"
    request = binary({"inputs": [tensor | {"parameters": {"binary_data_size": 4}}]}, tail)
    assert client.post("/v2/models/image/infer", **request).json == plain
    request = binary({"inputs": [tensor | {"parameters": {"binary_data_size": 4}}]}, b"\1\0\1\2")
    assert "expected bytes 0 and 1 for BOOL" in refused(client.post("/v2/models/image/infer", **request))


def test_bytes_in_bytes_out(client):
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


def test_outputs_choose_and_order_and_override_the_requests_wish(client):
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
    text = refused(client.post("/v2/models/penguins/infer", data=b"x", headers=headers))
    assert "island, mass, sex" in text


def test_not_a_number_is_a_missing_one(client):
    rows = {"inputs": [{"name": "instances", "shape": [2, 2], "datatype": "FP64", "data": [3, None, 3, 70]}]}
    first, second = by_name(infer(client, "price", rows).json)["price"]["data"]
    assert first == second
    column = [{"name": "rooms", "shape": [1], "datatype": "INT32", "data": [3]}]
    assert by_name(infer(client, "price", {"inputs": column}).json)["price"]["data"] == [second]
    assert "expected a number, found none" in refused(
        infer(client, "price", {"inputs": [column[0] | {"datatype": "FP32", "data": [None]}]})
    )


@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_bodies_are_inflated_and_answers_deflated(client, coding, pack):
    headers = {"Content-Encoding": coding, "Accept-Encoding": coding}
    response = client.post("/v2/models/penguins/infer", data=pack(json.dumps(PENGUINS).encode()), headers=headers)
    assert response.headers["Content-Encoding"] == coding
    unpacked = gzip.decompress(response.data) if coding == "gzip" else zlib.decompress(response.data)
    assert json.loads(unpacked) == infer(client, "penguins", PENGUINS).json


def test_only_what_a_caller_takes_is_sent_and_errors_are_never_compressed(client):
    def coding(accepted: str, body: Any = PRICE) -> str | None:
        return infer(client, "price", body, headers={"Accept-Encoding": accepted}).headers.get("Content-Encoding")

    assert coding("gzip, deflate, br") == "gzip"
    assert coding("br") is None
    assert coding("gzip;q=0") is None
    assert coding("gzip", {}) is None


def test_an_inflated_bomb_is_413_and_a_cut_stream_400(store, make_client):
    client = make_client(store, max_body_bytes=10_000)
    bomb = gzip.compress(b" " * 1_000_000)
    assert len(bomb) < 10_000
    address, headers = "/v2/models/price/infer", {"Content-Encoding": "gzip"}
    refused(client.post(address, data=bomb, headers=headers), 413)
    whole = gzip.compress(json.dumps(PRICE).encode())
    for wrong in (whole[:-9], b"not gzip", whole + b"x"):
        assert "gzip" in refused(client.post(address, data=wrong, headers=headers))
    refused(client.post(address, data=b"{}", headers={"Content-Encoding": "br"}), 415)


@pytest.mark.parametrize(
    ("change", "told"),
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
        ({"shape": [20_000, 2], "data": [0] * 40_000}, "expected 1 to 10000 rows, found 20000"),
        ({"data": [[3], [80]]}, "expected lists nested as shape [1, 2], found another nesting"),
        ({"data": [[[3, 80]]]}, "expected lists nested as shape [1, 2], found another nesting"),
        ({"data": [[3], 80]}, "expected values of FP64, found [3]"),
        ({"data": ["3", 80]}, "expected values of FP64, found '3'"),
        ({"data": [True, 80]}, "found true"),
        ({"data": "AAAA"}, "expected a list of FP64"),
        ({"datatype": "INT8", "data": [300, 1]}, "expected values of INT8, found a value out of range"),
        ({"datatype": "INT8", "data": [1.5, 1]}, "found 1.5"),
        ({"datatype": "BYTES", "data": ["a", "b"]}, "expected FP64 or another numeric datatype, found BYTES"),
        ({"datatype": "FP16", "data": [1e30, 1]}, "rows.0.rooms"),
        ({"name": "room"}, "did you mean 'rooms'?"),
        ({"parameters": {"binary_data_size": 16}}, "no data"),
        ({"parameters": {"binary_data_size": -1}, "data": None}, "binary_data_size"),
    ],
)
def test_every_fault_is_told_with_its_place(client, change, told):
    top = {key: value for key, value in change.items() if key in {"inputs", "outputs", "id"}}
    if "binary_data_output" in change.get("parameters", {}):
        top = change
    body = PRICE | (top or {"inputs": [PRICE["inputs"][0] | change]})
    assert told in refused(infer(client, "price", body))


def test_categories_that_are_not_known_are_told_with_their_rows(client):
    tensors = [dict(tensor) for tensor in PENGUINS["inputs"]]
    tensors[0]["data"] = ["Biscoe", "Dreem"]
    text = refused(infer(client, "penguins", {"inputs": tensors}))
    assert "rows.1.island: expected one of Biscoe, Dream, Torgersen; found 'Dreem' (did you mean 'Dream'?)" in text
    assert "inputs.island: expected a tensor, found none" in refused(
        infer(client, "penguins", {"inputs": PENGUINS["inputs"][1:]})
    )
    assert "island has 1" in refused(
        infer(client, "penguins", {"inputs": [tensors[0] | {"shape": [1], "data": ["Dream"]}, *tensors[1:]]})
    )
    assert "expected each tensor once" in refused(infer(client, "penguins", {"inputs": [*tensors, tensors[2]]}))


@pytest.mark.parametrize("length", ["-1", "9999", "x", "1e1", "", "99999999999999999999999"])
def test_a_header_length_beyond_the_body_is_400(client, length):
    response = infer(client, "price", PRICE, headers={"Inference-Header-Content-Length": length})
    assert "Inference-Header-Content-Length" in refused(response)


@pytest.mark.parametrize("tail", [b"", b"1", b"1" * 17, b"\xff\xff\xff\xff", b"\x01\0\0\0\xff" * 2])
def test_bytes_that_are_too_few_too_many_or_no_text_are_400(client, tail):
    tensor = {"name": "island", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": len(tail)}}
    for request in (
        binary({"inputs": [tensor, *PENGUINS["inputs"][1:]]}, tail),
        binary({"inputs": [tensor, *PENGUINS["inputs"][1:]]}, tail + b"more"),
    ):
        refused(client.post("/v2/models/penguins/infer", **request))


@pytest.mark.parametrize("shape", [[10_001], [1, 10_001]])
def test_of_more_texts_than_rows_are_taken_none_is_read(client, monkeypatch, shape):
    """Neither for an answer nor for the lesson: 1.6 million of them, in 8 MB, take seconds."""
    read = []
    monkeypatch.setattr(tensors, "_parse_texts", lambda count, *_: read.append(count))
    tail = b"\1\0\0\0a" * 10_001
    tensor = {"name": "island", "shape": shape, "datatype": "BYTES", "parameters": {"binary_data_size": len(tail)}}
    told = refused(client.post("/v2/models/penguins/infer", **binary({"inputs": [tensor]}, tail)))
    assert "inputs.0.shape: expected 1 to 10000 strings, found a shape of 10001" in told
    assert read == []


def test_of_many_more_tensors_than_a_model_takes_none_is_read(client, monkeypatch):
    read = []
    monkeypatch.setattr(tensors, "from_json", lambda *given: read.append(given))
    many = [{"name": f"x{i}", "shape": [1], "datatype": "FP64", "data": [1]} for i in range(200)]
    assert "inputs: expected up to 2 tensors, found 200" in refused(infer(client, "price", {"inputs": many}))
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


def test_errors_of_the_framework_have_the_protocols_shape(client):
    assert "did you mean 'penguins'" in refused(client.get("/v2/models/pengins"), 404)
    refused(client.get("/v2/models/penguins/versions/9"), 404)
    refused(client.get("/v2/nothing"), 404)
    refused(client.get("/v2/models/penguins/infer"), 405)
    refused(client.post("/v2/models/penguins/infer", data="<a/>", content_type="application/xml"), 415)
    assert "not JSON" in refused(client.post("/v2/models/penguins/infer", data="{"))
    refused(client.post("/v2/models/penguins/infer"))


def test_statistics_count_rows_and_requests(own_client):
    infer(own_client, "penguins", PENGUINS)
    infer(own_client, "penguins", PENGUINS)
    (found,) = own_client.get("/v2/models/penguins/stats").json["model_stats"]
    assert (found["inference_count"], found["execution_count"], found["version"]) == (4, 2, "1")
    assert found["inference_stats"]["compute_infer"]["count"] == 2
    assert found["inference_stats"]["fail"] == {"count": 0, "ns": 0}
    refused(infer(own_client, "penguins", PRICE), 400)
    (found,) = own_client.get("/v2/models/penguins/stats").json["model_stats"]
    assert found["inference_stats"]["success"]["count"] == 2
    assert found["inference_stats"]["fail"]["count"] == 1
    assert 0 < found["inference_stats"]["fail"]["ns"] < 1e9
    assert found["inference_stats"]["cache_hit"] == {"count": 0, "ns": 0}
    assert len(own_client.get("/v2/models/stats").json["model_stats"]) == 3


def test_statistics_of_many_models_read_what_was_counted_once(client, monkeypatch):
    """Once for each of a hundred models took a worker fourteen seconds, in which it answered nobody."""
    infer(client, "penguins", PENGUINS)
    read = []
    monkeypatch.setattr(
        ExpositionWriter, "_totals", lambda self, totals=ExpositionWriter._totals: read.append(1) or totals(self)
    )
    assert len(client.get("/v2/models/stats").json["model_stats"]) == 3
    assert len(read) == 1


def test_repository_is_closed_unless_an_operator_opens_it(client):
    for path in ("index", "models/price/load", "models/price/unload"):
        assert "SERVE_ADMIN" in refused(client.post(f"/v2/repository/{path}"), 404)


def test_models_are_unloaded_and_loaded_again(store, make_client):
    client = make_client(store, admin=True)
    assert "model_repository" in client.get("/v2").json["extensions"]
    unload = {"parameters": {"unload_dependents": False}}
    assert client.post("/v2/repository/models/price/unload", json=unload).status_code == 200
    assert "unloaded" in refused(infer(client, "price", PRICE), 503)
    assert client.get("/v2/models/price/ready").status_code == 503
    states = {each["name"]: each for each in client.post("/v2/repository/index").json}
    assert (states["price"]["state"], states["price"]["reason"]) == ("UNAVAILABLE", "unloaded")
    ready = client.post("/v2/repository/index", json={"ready": True}).json
    assert {each["name"] for each in ready} == {"image", "penguins"}
    assert client.post("/v2/repository/models/price/load", json={}).status_code == 200
    assert infer(client, "price", PRICE).status_code == 200


def test_what_is_unloaded_stays_so_when_another_service_starts_on_the_same_cache(store, make_client):
    """Two containers share a cache, and each has the process number 1."""
    client = make_client(store, admin=True)
    client.post("/v2/repository/models/price/unload")
    assert infer(make_client(store, admin=True), "price", PRICE).status_code == 200
    assert "unloaded" in refused(infer(client, "price", PRICE), 503)
    assert client.post("/v2/repository/models/image/unload").status_code == 200


def test_load_looks_at_the_store_and_takes_no_files(store, make_client):
    client = make_client(store, admin=True)
    store.publish("other", with_golden(price(5), [[3, 80]]))
    assert client.get("/v2/models/other/ready").status_code == 404
    assert client.post("/v2/repository/models/other/load", json={}).status_code == 200
    assert client.get("/v2/models/other/ready").status_code == 200
    refused(client.post("/v2/repository/models/nothing/load", json={}), 404)
    refused(client.post("/v2/repository/models/nothing/unload"), 404)
    body = {"parameters": {"file:1/model": "AAAA"}}
    assert "file:1/model" in refused(client.post("/v2/repository/models/other/load", json=body))
    for wrong in ([], {"parameters": 3}):
        refused(client.post("/v2/repository/models/other/load", json=wrong))
    refused(client.post("/v2/repository/index", json={"ready": 1}))


def test_index_tells_why_a_version_is_not_served(store, make_client):
    store.publish("price", with_golden(price(1), [[3, 80]]))
    break_version(store, "price", 2)
    client = make_client(store, admin=True)
    states = {(e["name"], e["version"]): e for e in client.post("/v2/repository/index", json={}).json}
    assert states["price", "1"]["state"] == "READY"
    assert states["price", "2"]["state"] == "UNAVAILABLE"
    assert states["price", "2"]["reason"]
