"""Each model limits the rows of a request by its outputs and its operations, equally in every protocol."""

import json
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient

from model_store.artifact.model import Model
from model_store.nn import Linear, Sequential
from model_store.registry.store import Store, open_store
from model_store.schema import row_parser
from model_store.schema.signature import (
    CategoryColumn,
    ClassificationOutput,
    NumberColumn,
    RegressionOutput,
    Signature,
)
from service.config import Settings
from service.routes import tensorflow_serving
from service.validation.row_limits import RECEIPT_VALUES, RowLimits
from tests.service.conftest import MakeClient, assert_error, network
from tests.service.routes.test_sagemaker_vertex import npy
from tests.service.server.test_fast_path import fast_path_of, take

SETTINGS = Settings()
LIMITS = RowLimits(
    SETTINGS.max_instances,
    SETTINGS.max_output_values,
    SETTINGS.max_operations,
    SETTINGS.max_text_characters,
    SETTINGS.max_cells,
)
CLASSES = 1000


def classifier(labels: int, *, length: int = 1) -> Model:
    names = tuple(f"c{i}".ljust(length, "x") for i in range(labels))
    signature = Signature((NumberColumn("x"),), ClassificationOutput("kind", names))
    return Model(network(1, labels, 0, softmax=True), signature)


def max_rows(model: Model, top_k: int | None = None) -> int:
    return LIMITS.for_model(model).max_rows(top_k)


def tensor(rows: int) -> dict[str, Any]:
    return {"name": "x", "shape": [rows, 1], "datatype": "FP32"}


def binary(rows: int) -> dict[str, Any]:
    document = json.dumps({"inputs": [tensor(rows) | {"parameters": {"binary_data_size": 4 * rows}}]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(document))}
    return {"data": document + bytes(4 * rows), "headers": headers, "content_type": "application/octet-stream"}


NATIVE = "/models/wide/predict"
PROTOCOLS: dict[str, Any] = {
    "native": (NATIVE, lambda n: {"json": {"instances": [[0.5]] * n}}),
    "native by name": (NATIVE, lambda n: {"json": {"instances": [{"x": 0.5}] * n}}),
    "the only model": ("/predict", lambda n: {"json": {"instances": [[0.5]] * n}}),
    "CSV": (NATIVE, lambda n: {"data": "0.5\n" * n, "content_type": "text/csv; header=absent"}),
    ".npy": (NATIVE, lambda n: {"data": npy(np.zeros((n, 1))), "content_type": "application/x-npy"}),
    "SageMaker": ("/invocations", lambda n: {"json": {"instances": [[0.5]] * n}}),
    "SageMaker CSV": ("/invocations", lambda n: {"data": "0.5\n" * n, "content_type": "text/csv"}),
    "TF Serving rows": ("/v1/models/wide:predict", lambda n: {"json": {"instances": [[0.5]] * n}}),
    "TF Serving columns": ("/v1/models/wide:predict", lambda n: {"json": {"inputs": {"x": [0.5] * n}}}),
    "V2": ("/v2/models/wide/infer", lambda n: {"json": {"inputs": [tensor(n) | {"data": [0.5] * n}]}}),
    "V2 binary": ("/v2/models/wide/infer", binary),
}


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> FlaskClient:
    from service.app import create_app

    folder = tmp_path_factory.mktemp("wide")
    open_store(folder / "models").publish("wide", classifier(CLASSES))
    settings = {"store": str(folder / "models"), "poll_seconds": 0, "cache_dir": str(folder / "cache")}
    return create_app(Settings(**settings, max_output_values=3 * CLASSES)).test_client()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_has_the_limit_of_the_model(wide: FlaskClient, protocol: str) -> None:
    path, request = PROTOCOLS[protocol]
    accepted, rejected = (wide.post(path, **request(rows)) for rows in (3, 4))
    assert accepted.status_code == 200, accepted.data
    assert rejected.status_code == 413
    text = rejected.get_data(as_text=True)
    found = "more" if "CSV" in protocol else 4
    assert f"expected at most 3 rows in a request for this model, found {found}" in text
    if path.startswith("/v"):
        assert rejected.json.keys() == {"error"}
    else:
        assert_error(rejected, 413, "too_many_rows")


def test_the_fast_path_leaves_too_many_rows_to_flask(wide: FlaskClient) -> None:
    fast_path = fast_path_of(wide)
    bodies = [json.dumps({"instances": [row] * 4}).encode() for row in ([0.5], {"x": 0.5})]
    assert [take(fast_path, body, path=NATIVE) for body in bodies] == [None, None]


def test_v2_config_tells_the_limit_of_the_model(wide: FlaskClient) -> None:
    assert wide.get("/v2/models/wide/config").json["max_batch_size"] == 3


@pytest.mark.parametrize("protocol", [name for name in PROTOCOLS if PROTOCOLS[name][0].endswith("/predict")])
def test_a_receipt_counts_as_values_of_the_response(wide: FlaskClient, protocol: str) -> None:
    """A receipt of 1,048 rows of 1,000 labels, 6 kB of request, took 1.2 s of processor time instead of 0.15 s."""
    path, request = PROTOCOLS[protocol]
    fits = 3 * CLASSES // (RECEIPT_VALUES * (10 + 1))
    asked = f"{path}?top_k=10&receipt=true"
    assert wide.post(asked, **request(fits)).status_code == 200
    assert wide.post(f"{path}?top_k=10&receipt=false", **request(fits + 1)).status_code == 200
    error = assert_error(wide.post(asked, **request(fits + 1)), 413, "too_many_rows")
    assert f"expected at most {fits} rows in a request for this model" in error["message"]
    assert error["faults"][0]["fix"] == (
        f"send them in several requests; with receipt=true, a value of the response counts as {RECEIPT_VALUES}"
    )
    assert "receipt" not in wide.post(path, **request(4)).get_data(as_text=True)
    assert "at most 1 row in" in wide.post(f"{path}?receipt=true", **request(2)).get_data(as_text=True)


def test_a_receipt_leaves_small_models_their_rows() -> None:
    assert LIMITS.for_model(classifier(20)).max_rows(receipt=True) == 10_000


def test_a_small_model_has_the_general_limit() -> None:
    assert max_rows(classifier(3)) == 10_000


def test_the_limit_counts_outputs_and_the_text_of_long_labels() -> None:
    assert max_rows(classifier(CLASSES)) == 2**20 // 1000
    assert max_rows(classifier(CLASSES, length=320)) == 2**20 // 11_000
    targets = tuple(f"t{i}" for i in range(500))
    signature = Signature((NumberColumn("x"),), RegressionOutput(targets, (0.0,) * 500, (1.0,) * 500))
    assert max_rows(Model(network(1, 500, 0), signature)) == 2**20 // 500


def test_the_limit_counts_operations() -> None:
    rng = np.random.default_rng(0)
    layers = [Linear(1, 500, rng=rng), Linear(500, 500, rng=rng), Linear(500, 1, rng=rng)]
    model = Model(Sequential(layers), Signature((NumberColumn("x"),), RegressionOutput(("y",), (0.0,), (1.0,))))
    cost = model.network.row_cost
    assert cost.operations > 500 * 500
    limit = cost.pass_operations + 7 * (cost.operations + cost.pass_operations // cost.batch_rows)
    assert RowLimits(10_000, 2**20, limit, 1, 2**20).for_model(model).max_rows() == 7
    assert RowLimits(10_000, 2**20, cost.operations // 2, 1, 2**20).for_model(model).max_rows() == 1


def test_the_limit_counts_the_labels_of_categories() -> None:
    column = CategoryColumn("word", tuple(f"w{i}" for i in range(5000)))
    signature = Signature((column,), RegressionOutput(("y",), (0.0,), (1.0,)))
    assert max_rows(Model(network(5000, 1, 0), signature)) == 2**24 // 5000


def test_the_limit_counts_cells_also_those_that_a_request_leaves_out() -> None:
    columns = tuple(NumberColumn(f"x{i}", fill=0.0) for i in range(1000))
    model = Model(network(1000, 1, 0), Signature(columns, RegressionOutput(("y",), (0.0,), (1.0,))))
    assert max_rows(model) == SETTINGS.max_cells // 1000 == 2**20 // 1000
    assert RowLimits(10_000, 2**20, 2**35, 1, 999).for_model(model).max_rows() == 1


def test_a_batch_of_models_predict_has_never_too_many_cells_for_a_service() -> None:
    from model_store.cli.predict.command import _BATCH_CELLS

    assert Settings().max_cells >= _BATCH_CELLS


def test_the_row_limit_of_a_model_is_in_its_metadata_its_page_and_the_openapi_document(
    store: Store, make_client: MakeClient
) -> None:
    client = make_client(store, max_output_values=2_500, max_instances=2_000)
    document = client.get("/openapi.json").json
    limits = {"penguins": (1250, 1250), "price": (2000, 2000), "image": (1250, 1250)}  # without and with top_k
    for name, (limit, with_top_k) in limits.items():
        assert client.get(f"/models/{name}").json["max_rows"] == limit
        assert client.get(f"/models/{name}/versions/1").json["max_rows"] == limit
        schemas = document["components"]["schemas"]
        assert schemas[f"{name}.request"]["properties"]["instances"]["maxItems"] == with_top_k
        assert schemas[f"{name}.v1.rows"]["properties"]["instances"]["maxItems"] == limit
        columns = schemas[f"{name}.v1.columns"]["properties"]["inputs"]["properties"]
        assert {column["maxItems"] for column in columns.values()} == {limit}
    page = client.get("/docs").text
    assert "up to 1250 rows a request" in page
    assert "up to 2000 rows a request" in page
    parameters = {
        name: [each["name"] for each in document["paths"][f"/models/{name}/predict"]["post"]["parameters"]]
        for name in limits
    }
    assert parameters["penguins"] == [
        "top_k",
        "warnings",
        "receipt",
        "X-Request-Id",
        "X-Model-Version-At-Least",
        "threshold",
    ]
    assert parameters["price"] == ["warnings", "receipt", "X-Request-Id", "X-Model-Version-At-Least"]


def test_a_classifier_of_many_labels_accepts_more_rows_with_top_k(store: Store, make_client: MakeClient) -> None:
    store.publish("wide", classifier(1000))
    rows = make_client(store, max_output_values=3000).get("/openapi.json").json["components"]["schemas"]
    rows = rows["wide.request"]["properties"]["instances"]
    assert (rows["maxItems"], rows["description"]) == (1500, "Without top_k at most 3.")


@pytest.mark.parametrize("protocol", ["CSV", "SageMaker CSV", "TF Serving rows", "TF Serving columns"])
def test_rows_are_counted_before_a_value_is_converted(
    wide: FlaskClient, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1 kB of gzip with 500,000 rows, or 10,000 rows of a hundred empty cells, took 0.2 to 0.4 s."""

    def forbidden(*_: object) -> Any:
        raise AssertionError("a value was converted")

    monkeypatch.setattr(row_parser.RowTable, "read_cells", forbidden)
    for convert in ("_squeeze_column", "_wrap_single_values"):
        monkeypatch.setattr(tensorflow_serving, convert, forbidden)
    path, request = PROTOCOLS[protocol]
    assert wide.post(path, **request(4)).status_code == 413
