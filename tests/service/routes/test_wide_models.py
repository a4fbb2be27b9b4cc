"""Errors of a model with thousands of columns or values cost little, and repeat few of its names."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from model_store.artifact.model import Model
from model_store.registry.store import Store
from model_store.schema.signature import ArrayColumn, NumberColumn, RegressionOutput, Signature
from service.http import responses
from service.inference.drift import column_bins
from service.openapi import described_models
from service.protocols import open_inference
from service.routes import docs, error_examples, row_repair
from service.routes.page_frame import render_page
from tests.service.conftest import MakeClient, network, price

COLUMNS = 1000
NAMES = [f"column_{i}" for i in range(COLUMNS)]


@pytest.fixture
def client(store: Store, make_client: MakeClient) -> Any:
    outputs = tuple(f"target_{i}" for i in range(COLUMNS))
    scaling = ((0.0,) * COLUMNS, (1.0,) * COLUMNS)
    columns = tuple(map(NumberColumn, NAMES))
    store.publish("wide", Model(network(COLUMNS, COLUMNS, 0), Signature(columns, RegressionOutput(outputs, *scaling))))
    image = Signature((ArrayColumn("x", (60, 60)),), RegressionOutput(("y",), (0.0,), (1.0,)))
    store.publish("large", Model(network(3600, 1, 0), image))
    return make_client(store)


def tensor(name: str, rows: int = 1) -> dict[str, Any]:
    return {"name": name, "shape": [rows, 1], "datatype": "FP64", "data": [1.0] * rows}


FAULTY = {
    "a value": ("/models/wide/predict", {"instances": [dict.fromkeys(NAMES, 1) | {NAMES[7]: "x"}]}),
    "a tensor": ("/v2/models/wide/infer", {"inputs": [*map(tensor, NAMES[1:]), tensor(NAMES[0]) | {"data": ["x"]}]}),
    "unknown tensors": ("/v2/models/wide/infer", {"inputs": [tensor(f"{name}x") for name in NAMES]}),
    "rows of tensors": (
        "/v2/models/wide/infer",
        {"inputs": [tensor(NAMES[i], 1 + i % 50) for i in range(COLUMNS)]},
    ),
    "rows of columns": ("/v1/models/wide:predict", {"inputs": {name: [1] * (1 + i) for i, name in enumerate(NAMES)}}),
    "outputs": ("/v2/models/wide/infer", {"inputs": list(map(tensor, NAMES)), "outputs": [{"name": "no"}]}),
    "an image": ("/models/large/predict", {"instances": ["x"]}),
    "a tensor of an image": ("/v2/models/large/infer", {"inputs": [tensor("x")]}),
}


@pytest.mark.parametrize("case", FAULTY)
def test_an_error_of_a_wide_model_is_short_and_no_row_is_repaired(
    client: Any, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """Its example would be left out, since it is long."""

    def forbidden(*_: object) -> Any:
        raise AssertionError("the example is too long to be shown")

    monkeypatch.setattr(error_examples, "_example_body", forbidden)
    path, body = FAULTY[case]
    response = client.post(path, json=body)
    assert response.status_code in (400, 422)
    assert len(response.data) < 30_000
    assert "/example" in response.text


def test_only_unknown_tensors_are_compared_with_the_names_of_a_model(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = client.application.extensions["registry"].find("wide")
    compared: list[object] = []
    monkeypatch.setattr(row_repair, "nearest_name", lambda name, _: compared.append(name) or "")
    row = row_repair.row_from_tensors(served, list(map(tensor, NAMES)), memoryview(b""), 0)
    assert row == dict.fromkeys(NAMES, 1.0)
    assert not compared
    row_repair.row_from_tensors(served, [tensor(f"{name}x") for name in NAMES], memoryview(b""), 0)
    assert len(compared) == 20


def test_names_in_an_error_are_cut_however_long_a_model_has_them(store: Store, make_client: MakeClient) -> None:
    column = NumberColumn("n" * 1000)
    store.publish("long", Model(network(1, 1, 0), Signature((column,), RegressionOutput(("y",), (0.0,), (1.0,)))))
    response = make_client(store).post("/models/long/predict", json={"instances": [{"m": 1}]})
    assert "n" * 100 + "..." in response.json["error"]["faults"][0]["fix"]


def test_models_that_are_too_large_to_describe_are_named(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page and a document of 60,000 columns took 7 s, for a request of 30 bytes; others are described as before."""
    monkeypatch.setattr(described_models, "MAX_DESCRIBED_BYTES", 200_000)
    page, document = client.get("/docs").text, client.get("/openapi.json")
    assert "/models/penguins/predict" in page
    assert "/models/penguins/predict" in document.json["paths"]
    assert "Too large to describe here; see <code>GET /models/wide</code>" in page
    assert "Too large to describe here: wide; see /models/{name}." in document.json["info"]["description"]
    assert "/models/wide/predict" not in document.json["paths"]
    assert NAMES[7] not in page + document.text
    assert client.get("/models/wide").json["inputs"][7]["name"] == NAMES[7]


def test_models_that_are_too_many_to_describe_are_named(
    store: Store, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(described_models, "MAX_DESCRIBED_BYTES", 15_000)
    client = make_client(store)
    page, document = client.get("/docs").text, client.get("/openapi.json").json
    described = [path for path in document["paths"] if path.endswith("/predict") and "{" not in path]
    assert len(described) == 2  # /predict and that of one model
    assert page.count("Too large to describe here") == 2


def test_models_are_described_as_far_as_the_document_has_room(
    store: Store, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Targets counted 5 bytes each and took 400: four model files of 95 kB made a document of 17 MB."""
    monkeypatch.setattr(described_models, "MAX_DESCRIBED_BYTES", 500_000)
    column = (NumberColumn("x"),)
    for i in range(4):
        outputs = RegressionOutput(tuple(f"t{n}" for n in range(600)), (0.0,) * 600, (1.0,) * 600)
        store.publish(f"targets{i}", Model(network(1, 600, 0), Signature(column, outputs)))
    document = make_client(store).get("/openapi.json")
    assert len(document.data) < 500_000 + 60_000  # the endpoints that all models share
    paths = document.json["paths"]
    assert "/models/penguins/predict" in paths
    assert "/models/targets0/predict" in paths
    assert "/models/targets1/predict" not in paths


def test_a_model_that_cannot_fit_is_not_measured(
    store: Store, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = RegressionOutput(tuple(f"t{n}" for n in range(2000)), (0.0,) * 2000, (1.0,) * 2000)
    store.publish("targets", Model(network(1, 2000, 0), Signature((NumberColumn("x"),), outputs)))
    monkeypatch.setattr(described_models, "MAX_DESCRIBED_BYTES", 300_000)
    measured: list[str] = []
    add = described_models.add_model_paths

    def add_noted(spec: Any, served: Any) -> None:
        measured.append(served.name)
        add(spec, served)

    monkeypatch.setattr(described_models, "add_model_paths", add_noted)
    assert make_client(store).get("/openapi.json").status_code == 200
    assert "penguins" in measured
    assert "targets" not in measured


def test_the_page_of_a_snapshot_is_rendered_once_for_all_hosts(
    store: Store, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 4,000 models it took 0.4 s of processor time for each request, without a key."""
    rendered = []
    monkeypatch.setattr(
        docs, "render_page", lambda *names, **values: rendered.append(names) or render_page(*names, **values)
    )
    client = make_client(store)
    hosts = ("localhost", "a.example:8000", "[::1]:8000")
    pages = {host: client.get("/docs", headers={"Host": host}) for host in hosts}
    assert len(rendered) == 1
    for host in ("localhost", "a.example:8000"):
        assert f"<code>http://{host}</code>" in pages[host].text
        assert f"curl http://{host}/models/penguins/predict -d" in pages[host].text
    assert "<code>http://[::1]:8000</code>" in pages["[::1]:8000"].text
    assert "curl &#x27;http://[::1]:8000/models/penguins/predict&#x27; -d" in pages["[::1]:8000"].text
    store.publish("price", price(1))
    client.application.extensions["registry"].refresh()
    assert client.get("/docs").text != pages["localhost"].text
    assert len(rendered) == 2


def test_the_page_shows_a_bounded_table_of_metrics(store: Store, make_client: MakeClient) -> None:
    """A file of 28 kB with 2,000 classes, the first with 1,500 metrics, made a page of 36 MB."""
    classes = {"first": {f"m{i}": 1 for i in range(1500)}} | {str(i): {} for i in range(1999)}
    signature = Signature((NumberColumn("x"),), RegressionOutput(("y",), (0.0,), (1.0,)))
    model = Model(network(1, 1, 0), signature, training={"metrics": {"classes": classes}})
    store.publish("metrics", model)
    page = make_client(store).get("/docs").get_data(as_text=True)
    assert page.count('<th scope="row">') < 1010
    assert page.count("<td>") < 20_500
    assert len(page) < 1_000_000


def test_a_model_whose_metrics_cannot_be_written_harms_no_page(store: Store, make_client: MakeClient) -> None:
    deep: dict[str, Any] = {}
    for _ in range(400):
        deep = {"a": deep}
    columns = (NumberColumn("x"),)
    signature = Signature(columns, RegressionOutput(("y",), (0.0,), (1.0,)))
    store.publish("deep", Model(network(1, 1, 0), signature, training={"metrics": deep}))
    client = make_client(store)
    for path in ("/docs", "/openapi.json", "/models", "/models/penguins", "/models/deep"):
        assert client.get(path).status_code == 200
    assert client.get("/models/deep").json["training"] == {}


def test_statistics_with_many_bins_are_not_monitored(store: Store, make_client: MakeClient) -> None:
    """Each bin is a cell of the metrics: 1.2 million of them made a scrape take 20 s."""
    for count in (10, 10_000):
        statistics = {"deciles": [float(i) for i in range(count)], "counts": [1] * count}
        signature = Signature((NumberColumn("x", statistics=statistics),), RegressionOutput(("y",), (0.0,), (1.0,)))
        store.publish(f"bins{count}", Model(network(1, 1, 0), signature))
    registry = make_client(store).application.extensions["registry"]
    assert [len(bins.expected) for bins in column_bins(registry.find("bins10").model)] == [11]
    assert list(column_bins(registry.find("bins10000").model)) == []


@pytest.mark.parametrize("form", ["native", "V1 rows", "V1 columns", "V2", "V2 binary"])
def test_a_response_of_many_targets_is_rendered_in_few_parts(
    client: Any, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """One by one, 60,000 targets took a second for a request of 100 bytes."""
    rendered: list[bytes] = []
    join = responses.join_pieces
    monkeypatch.setattr(responses, "join_pieces", lambda parts: join(rendered.append(part) or part for part in parts))
    inputs = {"inputs": list(map(tensor, NAMES)), "parameters": {"binary_data_output": form == "V2 binary"}}
    path, body = {
        "native": ("/models/wide/predict", {"instances": [[1.0] * COLUMNS]}),
        "V1 rows": ("/v1/models/wide:predict", {"instances": [[1.0] * COLUMNS]}),
        "V1 columns": ("/v1/models/wide:predict", {"inputs": {name: [1.0] for name in NAMES}}),
        "V2": ("/v2/models/wide/infer", inputs),
        "V2 binary": ("/v2/models/wide/infer", inputs),
    }[form]
    response = client.post(path, json=body)
    assert response.status_code == 200
    assert len(rendered) < 30
    length = int(response.headers.get("Inference-Header-Content-Length", len(response.data)))
    found = json.loads(response.data[:length])
    if form == "V2 binary":
        values = np.frombuffer(response.data[length:]).tolist()
        assert [output["parameters"] for output in found["outputs"]] == [{"binary_data_size": 8}] * COLUMNS
    elif form == "V2":
        values = [output["data"][0] for output in found["outputs"]]
    elif form == "V1 columns":
        values = [column[0] for column in found["outputs"].values()]
    else:
        values = list(found["predictions"][0].values())
    served = client.application.extensions["registry"].find("wide")
    (expected,) = served.model.predict([[1.0] * COLUMNS])
    assert values == list(expected.values())


@pytest.mark.parametrize("rows", [1, 7, 40])
def test_outputs_of_any_size_are_the_same_in_blocks(client: Any, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    body = {
        "inputs": [{"name": "instances", "shape": [rows, COLUMNS], "datatype": "UINT8", "data": [1] * rows * COLUMNS}]
    }
    whole = client.post("/v2/models/wide/infer", json=body).json
    assert [output["shape"] for output in whole["outputs"]] == [[rows, 1]] * COLUMNS
    for size in (1, 30, 1000):
        monkeypatch.setattr(open_inference, "BLOCK_VALUES", size)
        assert client.post("/v2/models/wide/infer", json=body).json == whole
