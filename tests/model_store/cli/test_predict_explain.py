"""`models predict --explain`: contributions as a table, as JSON, as columns of CSV, and from a service."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store.artifact.answers import Answers
from model_store.artifact.explanation import explain, read_asked
from model_store.registry.store import Store
from tests.model_store.cli.conftest import read_json
from tests.model_store.conftest import chess, pictures

ROWS = [[30, "Bath"], [50, "York"], [None, "York"]]


@pytest.fixture(autouse=True)
def explained(store: Store) -> None:
    answers = Answers(np.array([0.1, 0.4, 0.6], np.float32))
    store.publish("explained", dataclasses.replace(chess(), answers=answers))


def expected(store: Store, asked: Any = True) -> list[dict[str, Any]]:
    model = store.load("explained")[1]
    inputs = model.encode(ROWS)
    return explain(model, inputs, model.network(inputs), read_asked(asked, model)).as_json()


def test_json_has_the_objects_of_the_service(models, store: Store) -> None:
    rows = ["--row", '[30, "Bath"]', "--row", '[50, "York"]', "--row", '[null, "York"]']
    found = read_json(models("predict", "explained", *rows, "--explain", "--json"))
    assert found["explanations"] == expected(store)
    assert found["predictions"] == store.load("explained")[1].predict(ROWS)
    found = read_json(models("predict", "explained", *rows, "--explain-label", "no", "--json"))
    assert found["explanations"] == expected(store, {"label": "no"})
    assert "explanations" not in read_json(models("predict", "explained", *rows, "--json"))


def test_a_table_shows_the_largest_contribution_first(models, store: Store) -> None:
    text = models("predict", "explained", "--row", '[30, "Bath"]', "--explain").stdout
    (first, *_) = expected(store)
    lines = [line.split() for line in text[text.index("contribution") :].splitlines()[1:] if line]
    assert lines[0][:4] == ["0", "(baseline", "of", f"{first['label']})"]
    ranked = sorted(first["contributions"], key=lambda name: -abs(first["contributions"][name]))
    assert [line[0] for line in lines[1:3]] == ranked
    assert float(lines[1][1]) == pytest.approx(first["contributions"][ranked[0]], rel=1e-3)


def test_a_file_has_a_column_for_each_contribution(models, store: Store, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("explained_answer,age,town\n1,30,Bath\n2,50,York\n3,,York\n")
    out = tmp_path / "out.csv"
    models("predict", "explained", str(tmp_path / "rows.csv"), "--explain", "--keep-all", "--output", str(out))
    with out.open(newline="") as file:
        found = list(csv.DictReader(file))
    for row, explanation in zip(found, expected(store), strict=True):
        assert row["explained_answer"] in "123"  # it was there before
        assert float(row["explained_explained_answer"]) == explanation["answer"]
        assert float(row["explained_baseline"]) == explanation["baseline"]
        assert float(row["explained_residual"]) == explanation["residual"]
        for name, value in explanation["contributions"].items():
            assert float(row[f"contribution_{name}"]) == value
    (tmp_path / "empty.csv").write_text("age,town\n")
    models("predict", "explained", str(tmp_path / "empty.csv"), "--explain", "--output", str(out))
    assert out.read_text() == "chess,probability_no,probability_yes,explained_answer,explained_baseline," \
        "contribution_age,contribution_town,explained_residual\n"  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("chess", "--row", "[1, null]", "--explain"), 3, "expected a model with a baseline"),
        (
            ("explained", "--row", '[1, "Bath"]', "--explain-label", "maybe"),
            3,
            "explain.label: expected one of no, yes",
        ),
        (("explained", "rows.csv", "--explain", "--output", "folder/"), 2, "a folder takes predictions alone"),
        (("pictures", "rows.csv", "--explain", "--output", "out.csv"), 3, "found the array pixels"),
    ],
)
def test_what_cannot_be_explained_says_why(
    models,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    words: str,
) -> None:
    store.publish("pictures", dataclasses.replace(pictures(), answers=Answers(np.zeros(36))))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text("age,town\n30,Bath\n")
    assert words in models("predict", *arguments, code=code).stderr
    assert not (tmp_path / "out.csv").exists()


def test_explanations_of_another_form_are_an_error_of_the_server(models, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = {
        "version": 3,
        "inputs": [{"name": "x", "kind": "number"}],
        "output": {"kind": "values", "names": ["y"]},
        "explain": {"max_rows": 2, "baseline": True},
    }
    good = {"baseline": 1.0, "answer": 2.0, "contributions": {"x": 1.0}, "residual": 0.0}
    monkeypatch.setattr("forward_pass_client.Client.model", lambda *_: metadata)
    sizes = []

    def predict(client: Any, name: str, rows: list[Any], **_: Any) -> list[float]:
        sizes.append(len(rows))
        client.explanations = [each] * len(rows)
        return [2.0] * len(rows)

    monkeypatch.setattr("forward_pass_client.Client.predict", predict)
    arguments = ("predict", "chess", "--url", "http://127.0.0.1:9", *("--row", "[1]") * 5, "--explain")
    each: Any = good
    assert "(answer)" in models(*arguments).stdout
    assert sizes == [2, 2, 1]  # as many as the service explains
    for wrong in (
        7,
        {},
        {**good, "contributions": {"y": 1.0}},
        {**good, "contributions": {"x": "1"}},
        {**good, "answer": None},
    ):
        each = wrong
        assert "expected explanations of the model chess" in models(*arguments, code=5).stderr
