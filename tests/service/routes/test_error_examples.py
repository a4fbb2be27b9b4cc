"""Examples in error responses: a request that works, in the client's protocol and with the client's values."""

from __future__ import annotations

import json
import shlex
import shutil
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from werkzeug.serving import make_server

from model_store.artifact.model import Model
from model_store.nn import Linear, Sequential
from model_store.nn.forward_pass import ForwardPass
from model_store.registry.store import Store, open_store
from model_store.schema.columns import category
from model_store.schema.signature import ArrayColumn, CategoryColumn, NumberColumn, RegressionOutput, Signature
from service.protocols import tensors
from service.routes import row_repair
from tests.service.conftest import PENGUIN, MakeClient, move, network, price

NATIVE, V1, V2 = "/models/penguins/predict", "/v1/models/penguins:predict", "/v2/models/penguins/infer"


def example_of(response: Any) -> tuple[str, dict[str, Any]]:
    """Return the path and body of the curl command in an error of any protocol."""
    assert 400 <= response.status_code < 500, response.data
    error = response.json["error"]
    line = error.partition("This works: ")[2] if isinstance(error, str) else error["example"]["curl"]
    command, silent, url, *header, data, text = shlex.split(line)
    assert header == (["-H", "Content-Type: application/json"] if "/v2/repository/" in url else [])
    assert (command, silent, data) == ("curl", "-s", "-d")
    body = json.loads(text)
    if not isinstance(error, str):
        assert error["example"]["body"] == body
    return url.removeprefix("http://localhost"), body


OUTPUT = RegressionOutput(("price",), (0.0,), (1.0,))
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
def test_every_4xx_has_a_working_request_in_the_same_protocol(client, method, path, words):
    url, body = example_of(client.open(path, method=method, **words))
    assert url.split("/")[1] in {path.split("/")[1], "models"}
    assert client.post(url, json=body).status_code == 200


def test_a_body_over_the_limit_gets_an_example(store, make_client):
    for path in (NATIVE, V1, V2):
        url, body = example_of(make_client(store, max_body_bytes=10).post(path, json={"instances": [PENGUIN]}))
        assert make_client(store).post(url, json=body).status_code == 200


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
def test_the_clients_row_is_repaired(client, path, key, wrong):
    _, body = example_of(client.post(path, json={key: [PENGUIN, wrong]}))
    assert body == {"instances": [{"island": "Biscoe", "mass": 3210.5, "sex": "MALE"}]}


def test_values_that_cannot_be_repaired_come_from_the_models_example(client):
    wrong = {"island": "the moon", "mass": None, "sex": 5.5}
    url, body = example_of(client.post(NATIVE, json={"instances": [wrong]}))
    assert client.post(url, json=body).status_code == 200
    assert body["instances"][0]["mass"] == PENGUIN["mass"]


def test_almost_valid_values_are_corrected_in_columns_that_allow_missing_values(store, make_client):
    columns = (NumberColumn("age", fill=40.0), CategoryColumn("town", ("Bath", "York"), fill="Bath"))
    signature = Signature(columns, OUTPUT)
    store.publish("homes", Model(network(signature.width, 1, 0), signature))
    client = make_client(store)
    for row, repaired in (
        ({"age": "7", "town": "Yorck"}, {"age": 7.0, "town": "York"}),
        (
            {"age": "old", "town": "York"},
            {"age": client.get("/models/homes/example").json["instances"][0]["age"], "town": "York"},
        ),
    ):
        assert example_of(client.post("/models/homes/predict", json={"instances": [row]}))[1] == {
            "instances": [repaired]
        }


def test_a_key_that_looks_like_a_row_location_is_not_one(client):
    example_of(client.post(NATIVE, json={"instances.99": 1, "instances": [PENGUIN]}))


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("small", {"mass": 2.5, "isle of": "it's"}),
        ("small", [2.5, "it's"]),
        ("one", [2.5]),
        ("large", [[0.0] * 64] * 64),
    ],
)
def test_without_a_model_name_the_example_uses_the_model_with_such_columns(kinds, make_client, name, row):
    error = make_client(kinds).post("/predict", json={"instances": [row]}).json["error"]
    assert f"/models/{name}/predict" in error["example"]["curl"]


def test_there_is_no_example_without_a_model(make_client, tmp_path):
    assert "example" not in make_client(open_store(tmp_path / "empty")).get("/nothing").json["error"]


def test_examples_do_not_use_an_unloaded_model(store, make_client):
    client = make_client(store, admin=True)
    for name in ("image", "penguins"):
        client.post(f"/v2/repository/models/{name}/unload")
    assert example_of(client.get("/models/imag"))[0] == "/models/price/predict"
    client.post("/v2/repository/models/price/unload")
    assert "example" not in client.get("/models/imag").json["error"]


def test_values_that_overflow_the_dtype_are_not_in_examples(client):
    for value in (1e99, -1e99, "1e99"):
        url, body = example_of(client.post("/models/price/predict", json={"instances": [[value, 80]]}))
        assert client.post(url, json=body).status_code == 200
        assert body["instances"][0]["area"] == 80


def test_examples_need_no_forward_pass(client, monkeypatch):
    passes = []
    call = ForwardPass.__call__
    monkeypatch.setattr(ForwardPass, "__call__", lambda self, *given: passes.append(self) or call(self, *given))
    for method, path, words in REFUSED:
        example_of(client.open(path, method=method, **words))
    example_of(client.post(NATIVE, json={"instances": [{"island": "Bisco", "mass": "3210.5", "sex": "MALE"}]}))
    example_of(client.post(V2, json={"inputs": [ISLANDS | {"data": ["Biscoe", "Dreem"]}, MASSES, SEXES]}))
    assert passes == []
    assert client.post(NATIVE, json={"instances": [PENGUIN]}).status_code == 200
    assert len(passes) == 1  # the counter works


@pytest.mark.filterwarnings("ignore:overflow")
def test_a_row_that_overflows_the_network_is_replaced_by_the_example(store, make_client):
    layer = Linear(1, 1, rng=np.random.default_rng(0))
    layer.weights[:], layer.bias[:] = 2.0, 0.0
    store.publish("double", Model(Sequential([layer]), Signature((NumberColumn("x"),), OUTPUT)))
    client = make_client(store)
    url, body = example_of(client.post("/models/double/predict", json={"instances": [[3e38]]}))
    assert body["instances"] != [{"x": 3e38}]
    assert client.post(url, json=body).status_code == 200


def test_an_error_outside_the_rows_keeps_the_first_row(client):
    _, body = example_of(client.post(NATIVE, json={"instances": [PENGUIN | {"mass": 3333}], "versoin": 1}))
    assert body == {"instances": [PENGUIN | {"mass": 3333}]}


def test_a_pixel_out_of_range_is_clipped(client):
    for sent in ([[1, 2], [3, 99]], [1, 2, 3, 99], [["1", 2], [3, 99]]):
        _, body = example_of(client.post("/models/image/predict", json={"instances": [sent]}))
        assert json.dumps(body) == '{"instances": [[[1, 2], [3, 16]]]}'  # not 16.0


def test_a_row_of_a_csv_body_is_repaired(client):
    text = "island,mass,sex\nDream,4000,MALE\nBisco,4100,MALE\n"
    _, body = example_of(client.post(NATIVE, data=text, content_type="text/csv"))
    assert body == {"instances": [{"island": "Biscoe", "mass": 4100, "sex": "MALE"}]}


def test_examples_for_columns_are_columns(client):
    for columns in ({"rooms": [3], "aria": [81]}, {"rooms": 3, "area": [81, 90]}, {"rooms": [["3"]], "area": [[81]]}):
        _, body = example_of(client.post("/v1/models/price:predict", json={"inputs": columns}))
        assert body == {"inputs": {"rooms": [3], "area": [81]}}
    _, body = example_of(client.post("/v1/models/image:predict", json={"inputs": [[[1, 2], [3, 99]]]}))
    assert body == {"inputs": [[[1, 2], [3, 16]]]}


@pytest.mark.parametrize(
    "path",
    [
        "/models/price/versions/1/predict",
        "/models/price/versions/champion/predict",
        "/v1/models/price/versions/1:predict",
        "/v1/models/price/labels/champion:predict",
        "/v2/models/price/versions/champion/infer",
    ],
)
def test_the_example_uses_the_requested_version(store, make_client, path):
    store.publish("price", price(1))
    move(store, "price", "champion", 1)
    client = make_client(store)
    url, body = example_of(client.post(path, json={}))
    assert url == path
    assert client.post(url, json=body).status_code == 200


def test_the_example_uses_the_platforms_path(store, make_client):
    client = make_client(store, predict_route="/v1/endpoints/7:predict")
    url, body = example_of(client.post("/v1/endpoints/7:predict", json={"model": "price", "instances": [3]}))
    assert (url, body["model"]) == ("/v1/endpoints/7:predict", "price")
    assert client.post(url, json=body).status_code == 200


def test_a_wrong_repository_body_gets_a_valid_one(store, make_client):
    client = make_client(store, admin=True)
    for path, words, expected in (
        ("models/price/load", {"parameters": {"file:1/model": "AAAA"}}, "models/price/load"),
        ("models/price/unload", [], "models/price/unload"),
        ("models/prise/unload", {}, "index"),  # it must not unload a model that was not meant
        ("index", {"ready": 3}, "index"),
    ):
        assert example_of(client.post(f"/v2/repository/{path}", json=words)) == (f"/v2/repository/{expected}", {})
        assert client.post(f"/v2/repository/{expected}", json={}).status_code == 200


def tensor(name: str, datatype: str, *data: Any, shape: Any = None) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape or [len(data), 1], "data": list(data)}


ISLANDS, MASSES = tensor("island", "BYTES", "Biscoe", "Dream"), tensor("mass", "FP64", 4000, 3210.5)
SEXES = tensor("sex", "BYTES", "FEMALE", "MALE")
SECOND = [tensor("island", "BYTES", "Dream"), tensor("mass", "FP64", 3210.5), tensor("sex", "BYTES", "MALE")]
FIRST = [tensor("island", "BYTES", "Biscoe"), tensor("mass", "FP64", 4000), tensor("sex", "BYTES", "FEMALE")]


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ([ISLANDS | {"data": ["Biscoe", "Dreem"]}, MASSES, SEXES], SECOND),
        ([ISLANDS | {"name": "iland"}, MASSES, SEXES], FIRST),
        ([ISLANDS | {"datatype": "BITES"}, MASSES, SEXES], FIRST),
        ([ISLANDS, MASSES | {"datatype": "BYTES", "data": ["4000", "x"]}, SEXES], FIRST),
        ([ISLANDS, MASSES | {"data": [[4000, 3210.5]]}, SEXES | {"shape": [9, 9]}], FIRST),
        ([SEXES, MASSES, ISLANDS | {"data": ["Bisco", "Dream"]}, 3, {"name": []}], FIRST),
    ],
)
def test_the_clients_tensors_are_repaired(client, sent, expected):
    url, body = example_of(client.post(V2, json={"inputs": sent}))
    assert body == {"inputs": expected}
    assert client.post(url, json=body).status_code == 200


def test_binary_tensors_are_repaired(client):
    texts = [b"".join(struct.pack("<I", len(t)) + t for t in two) for two in ((b"Dreem", b"Biscoe"), (b"MALE", b""))]
    tails = [texts[0], np.array([3210.5, 4000], "<f4").tobytes(), texts[1]]
    sent = [
        {"name": name, "shape": [2, 1], "datatype": datatype, "parameters": {"binary_data_size": len(tail)}}
        for name, datatype, tail in zip(("island", "mass", "sex"), ("BYTES", "FP32", "BYTES"), tails, strict=True)
    ]
    head = json.dumps({"inputs": sent}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    answer = client.post(V2, data=head + b"".join(tails), headers=headers, content_type="application/octet-stream")
    assert [each["data"] for each in example_of(answer)[1]["inputs"]] == [["Dream"], [3210.5], ["MALE"]]
    sent[0]["parameters"] = {"binary_data_size": 10**9}
    example_of(client.post(V2, data=json.dumps({"inputs": sent}), content_type="application/json"))


def test_the_example_for_a_table_tensor_is_a_table(client):
    wrong = tensor("instances", "FP64", 3, 80, 1e300, 90, shape=[2, 2])
    _, body = example_of(client.post("/v2/models/price/infer", json={"inputs": [wrong]}))
    (sent,) = body["inputs"]
    assert (sent["name"], sent["shape"], sent["data"][1]) == ("instances", [1, 2], 90)


def test_an_image_tensor_is_repaired(client):
    wrong = tensor("pixel", "FP32", 1, 2, 3, 99, shape=[1, 4])
    _, body = example_of(client.post("/v2/models/image/infer", json={"inputs": [wrong]}))
    assert body == {"inputs": [tensor("pixels", "FP32", 1, 2, 3, 16, shape=[1, 2, 2])]}


def test_lookups_of_unknown_names_are_bounded(client, monkeypatch):
    looked_up = []
    nearest = row_repair.nearest_name
    monkeypatch.setattr(row_repair, "nearest_name", lambda *words: looked_up.append(words) or nearest(*words))
    example_of(client.post(NATIVE, json={"instances": [{f"islan{i}": i for i in range(20_000)}]}))
    example_of(client.post(V2, json={"inputs": [tensor(f"islan{i}", "BYTES", "x") for i in range(20_000)]}))
    assert 0 < len(looked_up) < 100


def test_few_unknown_categories_are_compared_for_the_example(monkeypatch):
    """Comparing those of 1,000 columns, also the known ones, took 0.13 s."""
    compared = []
    monkeypatch.setattr(category, "nearest_name", lambda name, _: compared.append(name) or "Biscoe")
    columns = tuple(CategoryColumn(f"c{i}", ("Biscoe", "Dream")) for i in range(50))
    model = Model(network(101, 1, 0), Signature((*columns, NumberColumn("mass")), OUTPUT))
    served, example = SimpleNamespace(model=model), dict.fromkeys(model.signature.names, "Dream")
    repaired = row_repair.repair_row(served, example, ["Dream"] * 10 + ["Bisco"] * 40 + [3.5])
    assert compared == ["Bisco"] * 20
    assert list(repaired.values()) == ["Dream"] * 10 + ["Biscoe"] * 20 + ["Dream"] * 20 + [3.5]


def test_deeply_nested_lists_are_flattened_to_a_limit(client, monkeypatch):
    nested: Any = json.loads("[" * 900 + "]" * 900)
    example_of(client.post("/models/image/predict", json={"instances": [[*[0] * 20_000, nested]]}))
    deep = tensor("pixels", "FP32", *[0] * 20_000, nested)
    example_of(client.post("/v2/models/image/infer", json={"inputs": [deep]}))


@pytest.fixture
def kinds(tmp_path) -> Store:
    """Models with an image too large for a command, and with categories that need quoting in a shell."""
    store = open_store(tmp_path / "kinds")
    image, output = ArrayColumn("pixels", (64, 64), low=0.0, high=1.0), RegressionOutput(("ink",), (0.0,), (1.0,))
    for name, columns in {
        "large": (image,),
        "small": (NumberColumn("mass"), CategoryColumn("isle of", ("it's", '"Biscoe"', "$HOME `x` \\n @"))),
        "one": (NumberColumn("mass"),),
    }.items():
        signature = Signature(columns, output)
        store.publish(name, Model(network(signature.width, 1, 0), signature))
    return store


@pytest.fixture
def shell(kinds: Store, make_client: MakeClient) -> Iterator[Callable[[str, str, Any], Any]]:
    """Send a request to a running service, and run the command of its error as a user would."""
    client = make_client(kinds, predict_route="/vertex")
    server = make_server("127.0.0.1", 0, client.application, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    base = f"http://127.0.0.1:{server.server_port}"

    def send_and_run(path: str, body: Any) -> tuple[str, Any]:
        refused = client.post(path, json=body, base_url=base).json["error"]
        line = refused.partition("This works: ")[2] if isinstance(refused, str) else refused["example"]["curl"]
        done = subprocess.run(["sh", "-c", line], capture_output=True, check=True, timeout=20)
        return line, json.loads(done.stdout)

    yield send_and_run
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("name", ["large", "small", "one"])
@pytest.mark.parametrize(
    "url", ["/models/{}/predict", "/v1/models/{}:predict", "/v2/models/{}/infer", "/invocations", "/vertex"]
)
def test_the_curl_command_works_as_printed(shell, kinds, name, url):
    path = url.format(name)
    for body in ({}, {"inputs": 3}, {"model": name, "instances": [{"mass": "2"}]}):
        line, answer = shell(path, body)
        assert path in line
        assert answer.keys() & {"predictions", "outputs"}, answer
        assert ("example" in line) == (name in {"large", "mixed", "last"} and (url.find("{}") > 0 or "model" in body))


@pytest.mark.parametrize("where", ["", "/versions/1", "/versions/latest"])
def test_the_example_endpoint_is_a_valid_body_for_every_protocol(kinds, make_client, where):
    client = make_client(kinds)
    for name in ("large", "small", "one"):
        body = client.get(f"/models/{name}{where}/example").json
        for path in (f"/models/{name}/predict", "/predict", "/invocations", f"/v1/models/{name}:predict"):
            assert client.post(path, json=body).status_code == 200, path
        tensors = client.get(f"/v2/models/{name}{where}/example").json
        answer = client.post(f"/v2/models/{name}/infer", json=tensors)
        assert answer.json["outputs"][0]["shape"] == [1, 1]
    assert client.get("/models/lage/example").status_code == 404
    assert client.get("/v2/models/lage/example").json.keys() == {"error"}


def test_few_texts_of_a_binary_tensor_are_parsed_for_an_example(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """26 kB of gzip with a million texts, of which 100 are in the row of the example, took 0.6 s."""
    served, read = client.application.extensions["registry"].find("penguins"), []
    of_bytes = tensors._read_elements
    monkeypatch.setattr(
        tensors, "_read_elements", lambda data, count, *rest: read.append(count) or of_bytes(data, count, *rest)
    )
    islands = [name.encode() for name in ("Dream", "Biscoe", "Tórgersen")] * 500
    texts = b"".join(len(name).to_bytes(4, "little") + name for name in islands)
    masses = np.arange(1500, dtype="<f8")
    inputs = [
        {"name": "island", "datatype": "BYTES", "shape": [1500], "parameters": {"binary_data_size": len(texts)}},
        {"name": "mass", "datatype": "FP64", "shape": [1500], "parameters": {"binary_data_size": masses.nbytes}},
    ]
    for row, island in enumerate(["Dream", "Biscoe", "Tórgersen"]):
        found = row_repair.row_from_tensors(served, inputs, memoryview(texts + masses.tobytes()), row)
        assert found == {"island": island, "mass": float(row)}
    assert row_repair.row_from_tensors(served, inputs, memoryview(texts + masses.tobytes()), 1400) == {"mass": 1400.0}
    assert read == [1, 2, 3]
