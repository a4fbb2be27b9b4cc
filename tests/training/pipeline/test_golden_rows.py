"""What a model holds of its data: made-up golden rows, and real ones only if the job says so."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.artifact.model import Model
from model_store.registry.store import open_store
from model_store.schema.columns import ArrayColumn, CategoryColumn, Column, FaultCollector, NumberColumn, RowLocations
from service.registry.example_request import make_example
from training.data.fitting.columns import fit_array, fit_category, fit_number
from training.data.fitting.statistics import ArrayStatistics, CategoryStatistics, NumberStatistics
from training.pipeline.job import PreparedJob, from_dict, prepare, run, train_and_evaluate

ROWS = 200


def people(folder: Path, target: str, **model: Any) -> PreparedJob:
    """Prepare a job on a table of which every number occurs once."""
    rng = np.random.default_rng(4)
    income = rng.permutation(ROWS) * 137.31 + 20_000 + rng.random(ROWS).round(2)
    age = 18 + rng.random(ROWS).round(5) * 70
    lines = [
        f"{a:.5f},{i:.2f},{('red', 'blue')[n % 2]},{a * 3 + i / 1000:.6f},{('p', 'q')[n % 2]}"
        for n, (a, i) in enumerate(zip(age, income, strict=True))
    ]
    (folder / "t.csv").write_text("age,income,colour,debt,kind\n" + "\n".join(lines) + "\n")
    columns = ["age", "income", "colour"]
    data = {"path": "t.csv", "target": target, "columns": columns}
    return prepare(from_dict({"model": {"name": "m", **model}, "data": data, "train": {"epochs": 3}}, folder))


def numbers(found: Any) -> set[float]:
    """Return all numbers of JSON data."""
    return {float(text) for text in re.findall(r"-?\d+\.?\d*(?:e[+-]?\d+)?", json.dumps(found))}


@pytest.mark.parametrize("target", ["debt", "kind"])
@pytest.mark.parametrize("examples", ["synthetic", "none"])
def test_a_model_holds_no_row_of_its_data_by_default(tmp_path: Path, target: str, examples: str) -> None:
    prepared = people(tmp_path, target, **({} if examples == "synthetic" else {"examples": examples}))
    outcome = run(prepared.job, open_store(str(tmp_path / "models")))
    model = outcome.model
    statistics = [column.statistics for column in model.signature.inputs]
    cells = numbers(prepared.instances(np.arange(ROWS)))
    golden = [] if model.golden is None else model.golden.instances
    assert not numbers(golden) & cells - numbers(statistics)
    for name, values in (("diagnostics", model.training["diagnostics"]), ("metrics", model.training["metrics"])):
        targets = numbers(prepared.labels(np.arange(ROWS))) if target == "debt" else set()
        assert not numbers(values) & (targets | cells) - numbers(statistics), name


@pytest.mark.parametrize("target", ["debt", "kind"])
def test_a_job_may_publish_its_first_test_rows(tmp_path: Path, target: str) -> None:
    prepared = people(tmp_path, target, examples="rows")
    model = train_and_evaluate(prepared).model
    assert model.golden is not None
    assert model.golden.instances == prepared.evaluation_instances[:8]
    np.testing.assert_array_equal(model.golden.outputs, model.network(model.encode(model.golden.instances)))
    if target == "debt":
        points = model.training["diagnostics"]["residuals"]["targets"]["debt"]["points"]
        assert {true for true, _ in points} == set(prepared.evaluation_labels)


def published(folder: Path, **model: Any) -> Model:
    store = open_store(str(folder / "models"))
    version = run(people(folder, "kind", **model).job, store).version
    assert version is not None
    return store.load("m", version.number)[1]


@pytest.mark.parametrize("examples", ["synthetic", "rows", "none"])
def test_every_published_model_is_checked_and_has_an_example(tmp_path: Path, examples: str) -> None:
    model = published(tmp_path, examples=examples)
    model.check_golden()
    assert (model.golden is None) == (examples == "none")
    assert model.training["job"]["model"]["examples"] == examples
    example = make_example(model)
    assert example.instance == model.example_row
    assert set(example.instance) == {"age", "income", "colour"}
    assert example.prediction["label"] in {"p", "q"}


def test_synthetic_rows_prove_the_predictions_like_real_ones(tmp_path: Path) -> None:
    model = published(tmp_path)
    assert model.golden is not None
    assert len(model.golden.instances) == 8
    assert len({json.dumps(row) for row in model.golden.instances}) == 8
    np.testing.assert_array_equal(model.golden.outputs, model.network(model.encode(model.golden.instances)))


def test_the_same_job_makes_up_the_same_rows(tmp_path: Path) -> None:
    first, second = (train_and_evaluate(people(tmp_path, "kind")).model.golden for _ in range(2))
    assert first is not None
    assert second is not None
    assert first.instances == second.instances


FINITE = st.floats(allow_nan=False, allow_infinity=False)


def check_drawn(column: Column) -> list[Any]:
    drawn = column.draw_values(8, np.random.default_rng(0))
    assert json.loads(json.dumps(drawn, allow_nan=False)) == drawn
    faults, locations = FaultCollector(), RowLocations("instances", range(8))
    column.encode(column.parse(drawn, locations, faults), locations, faults)
    faults.raise_if_any()
    return drawn


@given(st.lists(FINITE, min_size=1))
def test_made_up_numbers_are_in_the_range_of_training(values: list[float]) -> None:
    column = fit_number("a", NumberStatistics.from_values(np.array(values)), "impute", True)
    low, high = min(values), max(values)
    for value in check_drawn(column):
        assert low - (high / 100 - low / 100) <= value <= high + (high / 100 - low / 100)


@given(st.lists(st.integers(-(2**53), 2**53), min_size=1))
def test_made_up_numbers_of_integers_between_integer_deciles_are_integers(values: list[int]) -> None:
    column = fit_number("a", NumberStatistics.from_values(np.array(values * 11, np.float64)), "impute", True)
    if all(float(decile).is_integer() for decile in column.statistics["deciles"]):
        assert all(isinstance(value, int) or abs(value) >= 2**53 for value in check_drawn(column))


@given(st.lists(st.sampled_from("abcdef"), min_size=1))
def test_made_up_categories_are_known_and_the_first_is_the_most_frequent(values: list[str]) -> None:
    column = fit_category("a", CategoryStatistics.from_values(np.array(values, object)), "impute", "refuse")
    assert values.count(check_drawn(column)[0]) == max(map(values.count, values))


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
def test_made_up_arrays_are_valid(dtype: type) -> None:
    values = np.random.default_rng(1).integers(0, 200, (20, 3, 2)).astype(dtype)
    drawn = np.array(check_drawn(fit_array("a", ArrayStatistics.from_values(values), True)))
    assert drawn.shape == (8, 3, 2)
    assert values.min() <= drawn.min() < drawn.max() <= values.max()
    assert dtype is not np.uint8 or (drawn == np.rint(drawn)).all()


def test_columns_without_statistics_have_made_up_values_too() -> None:
    """A program may publish a network with columns of its own."""
    assert check_drawn(NumberColumn("a", 3.0)) == [3] * 8
    assert set(check_drawn(CategoryColumn("a", ("x", "y")))) <= {"x", "y"}
    check_drawn(ArrayColumn("a", (2, 2), 0.0, 255.0, 0.0, 255.0))
