"""The page of a model over HTTP: page or JSON, the model as JavaScript, and the comparison of two versions."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from typing import Any

import pytest
from flask.testing import FlaskClient

from model_store.evaluation import compare
from model_store.export.base import ExportSource
from model_store.export.javascript.target import TARGET
from model_store.registry.store import Store
from model_store.schema.signature import ClassificationOutput
from service.pages import model_page
from service.pages.recent_texts import RecentTexts
from service.routes import model_pages
from tests.service.conftest import MakeClient, assert_error, move, penguins

PAGE = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
MODULE = "/models/penguins/versions/1/model.js"


@pytest.mark.parametrize("name", ["penguins", "price", "image"])
def test_a_browser_gets_the_page_and_a_program_the_metadata(client: FlaskClient, name: str) -> None:
    for path in (f"/models/{name}", f"/models/{name}/versions/1"):
        page, data = client.get(path, headers=PAGE), client.get(path)
        assert page.mimetype == "text/html"
        assert data.mimetype == "application/json"
        assert page.headers["Vary"] == data.headers["Vary"] == "Accept, Accept-Encoding"
        form = json.loads(re.search(r'id="form-data">(.*?)</script>', page.text)[1])  # type: ignore[index]
        assert form["example"] == data.json["example"]["instances"][0]
        assert [column["name"] for column in form["columns"]] == [column["name"] for column in data.json["inputs"]]
    assert "secret" not in page.text  # paths of the training


def test_bins_of_the_training_values_have_all_rows() -> None:
    signature = penguins().signature
    for column in signature.inputs:
        assert model_page._field(column)["name"] == column.name
    deciles = [0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 9.0]
    column: Any = signature.inputs[1]
    object.__setattr__(column, "statistics", {"min": 0.0, "max": 9.0, "deciles": deciles, "counts": [30, *[10] * 8]})
    found = model_page._training_values(column)
    assert found["bins"][0] == [0.0, 1.0, 40]
    assert sum(rows for _, _, rows in found["bins"]) == 110
    object.__setattr__(column, "statistics", {"min": 0.0, "max": 9.0, "deciles": deciles, "counts": ["x"]})
    assert sum(rows for _, _, rows in model_page._training_values(column)["bins"]) == 8
    object.__setattr__(column, "statistics", {"min": "x"})
    assert model_page._training_values(column) == {}


def test_the_module_is_the_export_and_is_cached_by_its_digest(store: Store, client: FlaskClient) -> None:
    version, model = store.load("penguins", 1)
    (exported,) = TARGET.files(ExportSource("penguins", 1, version.digest, model)).values()
    found = client.get(MODULE)
    assert found.data == exported
    assert found.mimetype == "text/javascript"
    assert client.get(MODULE, headers={"If-None-Match": found.headers["ETag"]}).status_code == 304
    assert client.get(MODULE, headers={"If-None-Match": '"other"'}).status_code == 200


def test_a_large_model_is_not_exported(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_page, "MAX_EXPORT_BYTES", 8)
    assert_error(client.get(MODULE), 404, "not_found")
    assert '"exportable": false' in client.get("/models/penguins", headers=PAGE).text


def test_the_texts_of_a_model_count_for_its_export(monkeypatch: pytest.MonkeyPatch) -> None:
    model = penguins()
    weights = sum(array.nbytes for array in model.network.arrays().values())
    monkeypatch.setattr(model_page, "MAX_EXPORT_BYTES", weights + 1000)
    assert model_page.is_exportable(model)
    output = ClassificationOutput("species", ("Adelie", "x" * 1000))
    assert not model_page.is_exportable(replace(model, signature=replace(model.signature, output=output)))


def test_exports_are_kept_up_to_a_size(store: Store, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    original = type(TARGET).files
    monkeypatch.setattr(type(TARGET), "files", lambda *args: (made.append(args[1].reference), original(*args))[1])
    client = make_client(store)
    assert client.get(MODULE).data == client.get(MODULE).data
    assert made == ["penguins/1"]
    monkeypatch.setattr(model_pages, "_MAX_MODULE_BYTES", 1000)
    client = make_client(store)
    assert client.get(MODULE).data == client.get(MODULE).data
    assert made == ["penguins/1"] * 3


def test_the_program_of_exports_has_no_model(client: FlaskClient) -> None:
    program = client.get("/static/runtime.js").text
    assert program.startswith("export function open(MODEL, WEIGHTS) {")
    assert program.count("\nexport ") == 0
    assert "penguins" not in program


def test_versions_are_compared(store: Store, make_client: MakeClient) -> None:
    store.publish("penguins", penguins(1))
    client = make_client(store)
    page = client.get("/models/penguins/compare?first=1&second=latest", headers=PAGE).text
    assert "penguins/1" in page
    assert "penguins/2" in page
    assert "secret" not in page
    for query in ("first=1&second=9", "first=../1&second=2"):
        error = assert_error(client.get(f"/models/penguins/compare?{query}", headers=PAGE), 404, "unknown_version")
        assert "choose two of 1, 2" in error["message"]
    assert_error(client.get("/models/unknown/compare"), 404, "unknown_model")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was read: manifests, and signatures that were parsed from one."""
    found: list[str] = []

    def count(owner: Any, name: str) -> None:
        original = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args: (found.append(name), original(*args))[1])

    count(compare, "read_signature")
    count(Store, "manifest")
    return found


def test_a_version_equals_itself_without_its_signature(client: FlaskClient, reads: list[str]) -> None:
    for _ in range(3):
        page = client.get("/models/penguins/compare?first=1&second=1", headers=PAGE).text
        assert "penguins/1 and penguins/1 are the same model." in page
    assert reads == ["manifest"]


def test_the_comparison_of_versions_in_memory_reads_no_signature_and_is_kept(
    store: Store, make_client: MakeClient, reads: list[str]
) -> None:
    store.publish("penguins", penguins(1))
    move(store, "penguins", "old", 1)
    client = make_client(store)
    first, second = (client.get("/models/penguins/compare?first=old&second=2", headers=PAGE).text for _ in range(2))
    assert first == second
    assert 'class="verdict"' in first
    assert "&lt;div" not in first
    assert reads == ["manifest", "manifest"]
    client.get("/models/penguins/compare?first=2&second=1", headers=PAGE)
    assert reads == ["manifest"] * 4


def test_the_comparison_of_versions_in_the_store_is_kept(
    store: Store, make_client: MakeClient, reads: list[str]
) -> None:
    for seed in (1, 2):
        store.publish("penguins", penguins(seed))
    client = make_client(store)
    for _ in range(2):
        client.get("/models/penguins/compare?first=1&second=2", headers=PAGE)
    assert reads.count("read_signature") == 2


def test_a_replaced_version_is_compared_anew(store: Store, make_client: MakeClient, reads: list[str]) -> None:
    store.publish("penguins", penguins(1))
    client = make_client(store)
    query = "/models/penguins/compare?first=1&second=2"
    client.get(query, headers=PAGE)
    (store.root / "penguins" / "2.npz").unlink()
    shutil.copy(store.root / "penguins" / "1.npz", store.root / "penguins" / "2.npz")
    client.application.extensions["registry"].refresh()
    assert "are the same model" in client.get(query, headers=PAGE).text


def test_recent_texts_are_bounded_by_number_and_bytes() -> None:
    texts = RecentTexts(2, 10)
    texts.put("a", "äää")
    texts.put("b", "bbb")
    assert texts.get("a") == "äää"
    texts.put("c", "cc")
    assert [texts.get(key) for key in "abc"] == ["äää", None, "cc"]
    texts.put("c", "c" * 10)
    assert [texts.get(key) for key in "ac"] == [None, "c" * 10]
    texts.put("c", "c" * 11)
    assert texts.get("c") is None


def test_without_pages_there_is_only_json(store: Store, make_client: MakeClient) -> None:
    client = make_client(store, pages=False)
    assert client.get("/models/penguins", headers=PAGE).mimetype == "application/json"
    for path in (MODULE, "/static/runtime.js", "/static/charts.css", "/models/penguins/compare?first=1&second=1"):
        assert_error(client.get(path), 404, "not_found")
