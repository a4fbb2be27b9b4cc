"""Missing categories as a category of their own: trained in memory and streamed, published, served; old models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient

from model_store.artifact.model import Model
from model_store.registry.store import Store, open_store
from model_store.report.page import render
from model_store.schema.columns.base import FaultCollector, RowLocations
from model_store.schema.columns.category import CategoryColumn
from service.app import create_app
from service.config import Settings
from training.pipeline.job import from_dict, prepare, run

ROWS = 400
POOL, PAID = ("indoor", "outdoor", ""), ("yes", "no", "Y", "", "yes")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a table whose target depends on whether `pool` is missing. `gate` has one value, or none."""
    path, rng = tmp_path_factory.mktemp("missing"), np.random.default_rng(0)
    pool, paid, gate = rng.integers(0, 3, ROWS), rng.integers(0, 5, ROWS), rng.integers(0, 2, ROWS)
    rows = [
        f"{POOL[p]},{PAID[q]},{'shut' if g else ''},{5.0 * (p == 2) + 2 * (q == 3) + g + rng.normal() / 9:.3f}\n"
        for p, q, g in zip(pool, paid, gate, strict=True)
    ]
    (path / "t.csv").write_text("pool,paid,gate,y\n" + "".join(rows))
    return path


def content(*, stream: bool) -> dict[str, Any]:
    return {
        "model": {"name": "houses"},
        "data": {"path": "t.csv", "target": "y", "indicators": True, "stream": stream},
        "network": {"layers": [16, "relu"]},
        "train": {"epochs": 60, "optimizer": "adam", "learning_rate": 0.02},
    }


@pytest.fixture(scope="module", params=[False, True], ids=["memory", "stream"])
def store(folder: Path, request: pytest.FixtureRequest) -> Store:
    found = open_store(folder / f"models-{request.param}")
    run(from_dict(content(stream=request.param), folder), found)
    return found


@pytest.fixture
def model(store: Store) -> Model:
    return store.load("houses", 1)[1]


@pytest.fixture
def client(store: Store) -> FlaskClient:
    settings: Any = {"store": str(store.root), "poll_seconds": 0, "cache_dir": f"{store.root}-cache"}
    return create_app(Settings(**settings)).test_client()


def test_a_missing_category_has_a_position_of_its_own(model: Model) -> None:
    pool, paid, gate = model.signature.inputs
    assert pool.categories == ("indoor", "outdoor", "missing")  # type: ignore[attr-defined]
    assert paid.categories == ("no", "yes", "missing")  # type: ignore[attr-defined]
    assert gate.categories == ("shut", "missing")  # type: ignore[attr-defined]
    assert not gate.is_constant
    row = {"pool": "indoor", "paid": "no", "gate": "shut"}
    known, missing = (model.predict([row | {"pool": value}])[0] for value in ("indoor", None))
    assert missing - known == pytest.approx(5, abs=0.7)
    assert model.predict([row | {"pool": "missing"}])[0] == missing
    assert model.training["metrics"]["targets"]["y"]["r2"] > 0.9


def test_booleans_keep_their_spellings_beside_missing_values(client: FlaskClient) -> None:
    rows = [{"pool": "indoor", "paid": value, "gate": None} for value in ("yes", "Y", True, "TRUE", "no", False)]
    answers = client.post("/models/houses/predict", json={"instances": rows}).json["predictions"]
    assert len({*answers[:4]}) == 1 == len({*answers[4:]})


def test_documents_and_warnings_name_the_category(client: FlaskClient, store: Store) -> None:
    row = {"pool": None, "paid": "no", "gate": "shut"}
    found = client.post("/models/houses/predict?warnings=true", json={"instances": [row]}).json
    assert found["warnings"][0]["problem"] == "the value is missing; 'missing' was used"
    assert "null is the category missing." in client.get("/openapi.json").get_data(as_text=True)
    assert "a category of its own" in render(store.load("houses", 1)[1], "houses/1")
    inputs = client.get("/models/houses").json["inputs"]
    assert inputs[0]["fill"] == "missing"
    assert inputs[0]["categories"] == ["indoor", "outdoor", "missing"]


def test_drift_expects_the_missing_values_of_training(model: Model) -> None:
    pool = model.signature.inputs[0]
    bins = pool.bins(np.float32)
    assert bins is not None
    missing = pool.statistics["missing"]
    assert bins.expected.sum() == pool.statistics["count"] + missing
    assert missing in bins.expected.tolist()


@pytest.mark.parametrize("missing", [4, 5])
def test_a_few_missing_categories_are_the_most_frequent_one(tmp_path: Path, missing: int) -> None:
    rows = "".join(f"{'aab'[i % 3] if i >= missing else ''},{i % 7 + i % 3}\n" for i in range(90))
    (tmp_path / "t.csv").write_text("kind,y\n" + rows)
    job = content(stream=False) | {"split": {"test": 0, "validation": 0}}
    prepared = prepare(from_dict(job, tmp_path))
    (kind,) = prepared.signature.inputs
    assert kind.fill == ("a" if missing < 5 else "missing")
    note = "filled in missing values: 4 of kind with a" if missing < 5 else "are a category of their own: 5 of kind"
    assert note in "; ".join(prepared.notes)


def test_an_older_column_that_fills_in_another_word_answers_as_before() -> None:
    column = CategoryColumn("c", ("a", "b"), "bucket", "missing")
    values = column.parse([None, "missing", "a"], RowLocations("", range(3)), FaultCollector())
    encoded = column.encode(values, RowLocations("", range(3)), FaultCollector())
    assert encoded.tolist() == [[0, 0, 1], [0, 0, 1], [1, 0, 0]]
    assert not column.has_missing_category
