"""Times of day, durations, words for missing dates, yes and no in German, and decimal commas: trained and asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from model_store.artifact import npz
from model_store.artifact.model import Model
from model_store.cli.main import main
from model_store.errors import Fault, InputError
from model_store.registry.store import open_store
from model_store.schema.columns import CategoryColumn, DateColumn, NumberColumn
from model_store.schema.columns.date_text import DateFormat
from model_store.schema.columns.number_text import NumberFormat
from training.pipeline.job import from_dict, prepare, run, train_and_evaluate

ROWS = 120
HEADER = "starts;lap;due;member;dose;y"


def lines() -> list[str]:
    due = ("pending", "N/A", *(f"2024-0{month}-11" for month in range(1, 9)))
    return [
        f"{i * 7 % 24}:{i % 6}0;{26 + i % 9}:0{i % 7}:00;{due[i % 10]};{('ja', 'nein', 'Ja')[i % 3]};"
        f"{i % 9},{i % 4 + 1};{'pq'[i % 5 > 1]}"
        for i in range(ROWS)
    ]


def job(folder: Path, stream: bool) -> Any:
    (folder / "t.csv").write_text("\n".join([HEADER, *lines()]) + "\n")
    content = {
        "model": {"name": "m"},
        "data": {"path": "t.csv", "target": "y", "stream": stream, "indicators": True},
        "train": {"epochs": 2},
    }
    return from_dict(content, folder)


@pytest.fixture(scope="module", params=[False, True], ids=["memory", "stream"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("words")
    trained = train_and_evaluate(prepare(job(folder, request.param))).model
    npz.write(folder / "m.npz", trained)
    read = npz.read(folder / "m.npz")
    read.check_golden()
    assert read.signature == trained.signature
    return read


def encoded(model: Model, warnings: list[Fault] | None = None, **values: Any) -> list[float]:
    row = {"starts": "14:30", "lap": 7200, "due": "2024-02-11", "member": "ja", "dose": 88.5} | values
    features: list[float] = model.signature.encode([row], dtype=np.float64, warnings=warnings)[0].tolist()
    return features


def test_kinds_and_formats_are_inferred(model: Model) -> None:
    starts, lap, due, member, dose = model.signature.inputs
    assert isinstance(starts, DateColumn)
    assert (starts.format, starts.cycles) == (DateFormat("time"), ("day",))
    assert isinstance(lap, NumberColumn)
    assert lap.format == NumberFormat(group=":")
    assert isinstance(due, DateColumn)
    assert (due.format, due.indicator) == (DateFormat("iso", ("pending",)), True)
    assert isinstance(member, CategoryColumn)
    assert [category.lower() for category in member.categories] == ["ja", "nein"]
    assert isinstance(dose, NumberColumn)
    assert dose.format == NumberFormat(",")


@pytest.mark.parametrize(
    ("name", "spellings"),
    [
        ("starts", ["14:30", "2:30 PM", "14:30:00"]),
        ("lap", [93_600, "26:00:00", "26h", "1 day 02:00", "93600"]),
        ("due", [None, "pending", "Pending"]),
        ("member", ["ja", "JA", "Ja", " wahr", "true", True]),
        ("dose", [88.5, "88,5"]),
    ],
)
def test_spellings_of_a_value_are_equal_features(model: Model, name: str, spellings: list[Any]) -> None:
    assert len({tuple(encoded(model, **{name: value})) for value in spellings}) == 1


@pytest.mark.parametrize(
    ("name", "value", "problem", "fix"),
    [
        ("starts", "noon", "expected a time of day, found 'noon'", "send hours and minutes, such as '14:30'"),
        ("starts", None, "expected a time of day, found none", "send a time of day; the column is required"),
        ("lap", "two hours", "expected a number, found 'two hours'", "or a text such as '1:30:00'"),
        ("dose", "1.234,5", "expected a number, found '1.234,5'", "or a text such as '1234,5'"),
        ("dose", "88.5", "expected a number, found '88.5'", "send it without quotes"),
        ("due", "soon", "expected a date, found 'soon'", "send ISO 8601"),
    ],
)
def test_other_values_are_rejected(model: Model, name: str, value: Any, problem: str, fix: str) -> None:
    with pytest.raises(InputError) as caught:
        encoded(model, **{name: value})
    (fault,) = caught.value.faults
    assert (fault.location, fault.problem) == (f"instances.0.{name}", problem)
    assert fix in fault.fix


def test_a_time_of_day_is_near_the_one_before_midnight(model: Model) -> None:
    before, after, noon = (np.array(encoded(model, starts=time)[1:3]) for time in ("23:59", "00:01", "12:00"))
    assert np.linalg.norm(before - after) < 0.01
    assert np.linalg.norm(before - noon) > 1.9
    starts = model.signature.inputs[0]
    assert starts.training_range().keys() == {"min", "mean", "max"}
    assert starts.public_details()["seen"]["max"] == "23:50"
    assert encoded(model, starts="23:58")[0] > starts.range_limits()[1]
    assert starts.range_problem(0.0) == "the time of day is outside the training period, 00:00 to 23:50"


def test_a_missing_date_is_named_in_warnings(model: Model) -> None:
    warnings: list[Fault] = []
    encoded(model, warnings, due="pending")
    assert [(warning.location, warning.problem[:21]) for warning in warnings] == [
        ("instances.0.due", "the value is missing;")
    ]


def test_a_file_is_predicted_as_the_rows_that_it_holds(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "models"))
    run(job(tmp_path, stream=False), store)
    rows = ["14:30;26:00:00;pending;Ja;88,5", "2:30 PM;1d 2h;\\N;true;88,5"]
    (tmp_path / "rows.csv").write_text("\n".join([HEADER.removesuffix(";y"), *rows]) + "\n")
    found = CliRunner().invoke(
        main, ["predict", "m", str(tmp_path / "rows.csv"), "--output", "-", "--store", str(tmp_path / "models")]
    )
    assert found.exit_code == 0, found.output
    _, first, second = found.stdout.splitlines()
    expected = store.load("m")[1].predict([["14:30", 93_600, None, True, 88.5]])[0]
    assert first == second == ",".join(map(str, [expected["label"], *expected["probabilities"].values()]))
    assert "Warning: due: 2 missing values replaced by" in found.stderr


def test_a_comma_that_the_reader_replaced_is_no_sign_of_thousands(tmp_path: Path) -> None:
    """Points between thousands are part of the column's format, and 1,234 is 1.234 in a file of semicolons."""
    rows = [f'"{i}.{i * 7 % 900 + 100},{i % 9}",{i % 9},{"pq"[i % 2]}' for i in range(1, 60)]
    (tmp_path / "t.csv").write_text("\n".join(["price,x,y", *rows]) + "\n")
    store = open_store(str(tmp_path / "models"))
    content = {"model": {"name": "m"}, "data": {"path": "t.csv", "target": "y"}, "train": {"epochs": 2}}
    run(from_dict(content, tmp_path), store)
    model = store.load("m")[1]
    assert model.signature.inputs[0].format == NumberFormat(",", ".")
    (tmp_path / "rows.csv").write_text("price;x\n1,234;1\n1.234,5;1\n")
    words = ["predict", "m", str(tmp_path / "rows.csv"), "--output", "-", "--store", str(tmp_path / "models")]
    found = CliRunner().invoke(main, words)
    assert found.exit_code == 0, found.output
    probabilities = [list(row["probabilities"].values()) for row in model.predict([[1.234, 1], [1234.5, 1]])]
    assert [list(map(float, line.split(",")[1:])) for line in found.stdout.splitlines()[1:]] == probabilities


@pytest.mark.parametrize("stream", [False, True])
def test_a_target_of_durations_is_a_quantity(tmp_path: Path, stream: bool) -> None:
    rows = [f"{i},{i // 6}:{i % 6}0:30" for i in range(90)]
    (tmp_path / "t.csv").write_text("\n".join(["x,time", *rows]) + "\n")
    data = {"path": "t.csv", "target": "time", "stream": stream}
    prepared = prepare(from_dict({"model": {"name": "m"}, "data": data}, tmp_path))
    assert prepared.dataset.task == "regression"
    assert stream or set(np.diff(np.sort(prepared.dataset.targets[:, 0])).tolist()) == {600.0}
    assert any("column time is read as numbers (durations): '0:00:30' is 30" in note for note in prepared.notes)
