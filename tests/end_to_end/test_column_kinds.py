"""Columns of every kind: trained from a CSV file, in memory and streamed, saved, read and asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store.artifact import npz
from model_store.artifact.model import Model
from model_store.errors import Fault, InputError
from training.pipeline.job import from_dict, prepare, train_and_evaluate

ROWS = 120


@pytest.fixture(scope="module", params=[False, True], ids=["memory", "stream"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    if request.param:
        pytest.importorskip("pyarrow")
    folder = tmp_path_factory.mktemp("kinds")
    lines = [
        f'"${i * 37 % 5000:,}.50",{i % 9}%,{i * 7 % 50} kg,2020-0{i % 9 + 1}-{i % 28 + 1:02d} {i % 24:02d}:30,'
        f"{('yes', 'no')[i % 2]},0{i % 7}123,{'pq'[i % 3 == 0]}"
        for i in range(ROWS)
    ]
    (folder / "t.csv").write_text("price,share,weight,sold,member,zip,y\n" + "\n".join(lines) + "\n")
    content: dict[str, Any] = {
        "model": {"name": "m"},
        "data": {"path": "t.csv", "target": "y", "stream": request.param},
        "train": {"epochs": 2},
    }
    trained = train_and_evaluate(prepare(from_dict(content, folder))).model
    npz.write(folder / "m.npz", trained)
    read = npz.read(folder / "m.npz")
    read.check_golden()
    assert read.signature == trained.signature
    return read


def encoded(model: Model, **values: Any) -> list[float]:
    row = {
        "price": 1200,
        "share": 3,
        "weight": 12,
        "sold": "2020-02-03T05:30",
        "member": "yes",
        "zip": "02123",
    } | values
    features: list[float] = model.signature.encode([json.loads(json.dumps(row))], dtype=np.float64)[0].tolist()
    return features


def test_kinds_are_inferred(model: Model) -> None:
    kinds = {column.name: column.kind for column in model.signature.inputs}
    assert kinds == {
        "price": "number", "share": "number", "weight": "number", "sold": "date",
        "member": "category", "zip": "category",
    }  # fmt: skip
    assert next(column for column in model.signature.inputs if column.name == "sold").cycles == ("day", "week", "year")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "spellings"),
    [
        ("price", [1200, "1200", "$1,200", "$1,200.00", "1,200"]),
        ("share", [3, "3%", "3 %"]),
        ("weight", [12, "12 kg", "12kg", "12.0 KG"]),
        ("sold", ["2020-02-03T05:30", "2020-02-03 05:30", "2020-02-03T05:30:00Z", "2020-02-03T07:30+02:00"]),
        ("member", ["yes", True, "YES", "true", "T", "on", "y"]),
    ],
)
def test_spellings_of_a_value_are_equal_features(model: Model, name: str, spellings: list[Any]) -> None:
    assert len({tuple(encoded(model, **{name: value})) for value in spellings}) == 1


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("price", "12 apples", "expected a number, found '12 apples'"),
        ("price", "9" * 100, "expected a number"),
        ("sold", "yesterday", "expected a date, found 'yesterday'"),
        ("sold", 1580707800, "expected a date, found 1580707800"),
        ("sold", None, "expected a date, found none"),
    ],
)
def test_other_values_are_rejected(model: Model, name: str, value: Any, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        encoded(model, **{name: value})
    (fault,) = caught.value.faults
    assert (fault.location, fault.problem[: len(problem)]) == (f"instances.0.{name}", problem)


def test_unknown_categories_and_dates_of_other_years_are_warnings(model: Model) -> None:
    warnings: list[Fault] = []
    row = {"price": 1, "share": 3, "weight": 12, "sold": "2031-01-01", "member": "maybe", "zip": "99999"}
    features = model.signature.encode([row], warnings=warnings)
    assert [warning.location for warning in warnings] == ["instances.0.member", "instances.0.zip"]
    sold = next(column for column in model.signature.inputs if column.name == "sold")
    start = 3
    assert features[0, start] > sold.range_limits()[1]
    assert sold.range_problem(features[0, start]).startswith("the date is outside the training period, 2020-01-01T")


def test_free_text_is_hashed(tmp_path: Path) -> None:
    words = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "and", "runs", "away"]
    rng = np.random.default_rng(0)
    lines = [f"{' '.join(rng.permutation(words)[:6])} {i},{'pq'[i % 2]}" for i in range(80)]
    (tmp_path / "t.csv").write_text("review,y\n" + "\n".join(lines) + "\n")
    content = {"model": {"name": "m"}, "data": {"path": "t.csv", "target": "y"}, "train": {"epochs": 2}}
    prepared = prepare(from_dict(content, tmp_path))
    assert prepared.dataset.kinds == {"review": "text"}
    features = prepared.signature.encode([["A lazy dog"], ["lazy a  DOG"], ["cat"], ["!"]], dtype=np.float64)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), [1, 1, 1, 0])
    np.testing.assert_array_equal(features[0], features[1])
    assert (features[0] != features[2]).any()
    npz.write(tmp_path / "m.npz", train_and_evaluate(prepared).model)
    assert npz.read(tmp_path / "m.npz").predict([["a dog"]])
