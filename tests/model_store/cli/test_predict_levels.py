"""`models predict` with --interval, --set and --threshold: as JSON, as columns of CSV, and from a service."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store.artifact.answers import Answers
from model_store.artifact.asked_answers import AskedAnswers
from model_store.artifact.conformal import Conformal
from model_store.artifact.model import Model
from model_store.nn import build
from model_store.registry.store import Store
from model_store.schema.signature import NumberColumn, RegressionOutput, Signature
from tests.model_store.cli.conftest import read_json
from tests.model_store.conftest import chess

SCORES = np.linspace(0.1, 0.9, 9, dtype=np.float32)
ROWS = [[30, "Bath"], [50, "York"]]


def two_prices() -> Model:
    signature = Signature((NumberColumn("area"),), RegressionOutput(("rent", "price"), (10.0, 20.0), (1.0, 2.0)))
    network = build([{"type": "Linear", "input_size": 1, "output_size": 2}], "float32", rng=np.random.default_rng(0))
    scores = np.stack([SCORES, 2 * SCORES])
    return Model(network, signature, answers=Answers(conformal=Conformal("absolute", scores)))


@pytest.fixture(autouse=True)
def promised(store: Store) -> None:
    answers = Answers(conformal=Conformal("aps", SCORES[None]))
    store.publish("promised", dataclasses.replace(chess(), answers=answers))
    store.publish("prices", two_prices())


def test_json_has_the_lists_of_the_service(models, store: Store) -> None:
    found = read_json(models("predict", "prices", "--row", "[3]", "--interval", "0.9", "--json"))
    (prediction,), (interval,) = found["predictions"], found["intervals"]
    assert list(interval) == ["rent", "price"]
    assert interval["price"] == pytest.approx([prediction["price"] - 1.8, prediction["price"] + 1.8])
    model = store.load("promised")[1]
    expected = AskedAnswers(set=0.5).as_json(model, model.network(model.encode(ROWS)))
    rows = ["--row", '[30, "Bath"]', "--row", '[50, "York"]']
    assert read_json(models("predict", "promised", *rows, "--set", "0.5", "--json"))["sets"] == expected["sets"]


def test_a_threshold_decides_the_label(models) -> None:
    for threshold, label in (("0.000001", "yes"), ("0.999999", "no")):
        found = read_json(models("predict", "promised", "--row", '[30, "Bath"]', "--threshold", threshold, "--json"))
        assert found["predictions"][0]["label"] == label


def test_tables_show_intervals_and_sets(models) -> None:
    text = models("predict", "prices", "--row", "[3]", "--interval", "0.9").stdout
    assert "target" in text
    assert "high" in text
    assert "set" in models("predict", "promised", "--row", '[30, "Bath"]', "--set", "0.9").stdout


def test_a_file_has_columns_for_them(models, tmp_path: Path) -> None:
    (tmp_path / "areas.csv").write_text("area,low_rent\n3,x\n4,y\n")
    out = tmp_path / "out.csv"
    models("predict", "prices", str(tmp_path / "areas.csv"), "--interval", "0.9", "--keep-all", "--output", str(out))
    with out.open(newline="") as file:
        found = list(csv.DictReader(file))
    header = ["area", "low_rent", "rent", "price", "predicted_low_rent", "high_rent", "low_price", "high_price"]
    assert list(found[0]) == header
    assert float(found[1]["high_price"]) - float(found[1]["price"]) == pytest.approx(1.8)
    assert found[1]["low_rent"] == "y"
    (tmp_path / "rows.csv").write_text("age,town\n30,Bath\n50,York\n")
    models("predict", "promised", str(tmp_path / "rows.csv"), "--set", "0.9", "--output", str(out))
    with out.open(newline="") as file:
        assert all(set(row["set_chess"].split("|")) <= {"no", "yes"} for row in csv.DictReader(file))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("chess", "--row", "[1, null]", "--set", "0.9"), 3, "--set: expected a model with calibration rows"),
        (("prices", "--row", "[1]", "--interval", "0.99"), 3, "--interval: expected a level that 9 calibration rows"),
        (("prices", "--row", "[1]", "--threshold", "0.5"), 3, "--threshold: expected a model of two labels"),
        (("promised", "rows.csv", "--set", "0.9", "--output", "folder/"), 2, "a folder takes predictions alone"),
    ],
)
def test_what_cannot_be_promised_says_why(models, arguments: tuple[str, ...], code: int, words: str) -> None:
    assert words in models("predict", *arguments, code=code).stderr


def test_intervals_of_another_form_are_an_error_of_the_server(models, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = {
        "version": 3,
        "inputs": [{"name": "x", "kind": "number"}],
        "output": {"kind": "values", "names": ["y"]},
    }
    monkeypatch.setattr("forward_pass_client.Client.model", lambda *_: metadata)

    def predict(client: Any, name: str, rows: list[Any], **more: Any) -> list[float]:
        assert more == {"version": 3, "interval": 0.9}
        client.intervals = [each] * len(rows)
        return [2.0] * len(rows)

    monkeypatch.setattr("forward_pass_client.Client.predict", predict)
    arguments = ("predict", "chess", "--url", "http://127.0.0.1:9", *("--row", "[1]") * 5, "--interval", "0.9")
    each: Any = [1.0, 3.0]
    assert "high" in models(*arguments).stdout
    for wrong in (7, [1.0], [1.0, None], {"y": [1.0, 3.0]}):
        each = wrong
        assert "expected intervals of the model chess" in models(*arguments, code=5).stderr
