"""The worst rows and the slices of the errors."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model_store.schema.columns import ArrayColumn, CategoryColumn, Column, NumberColumn
from model_store.schema.signature import ClassificationOutput, RegressionOutput
from training.evaluation.error_analysis import error_slices, target_units, worst_classified, worst_predicted


def locate(i: int) -> str:
    return f"line {i + 2}"


def test_the_worst_rows_of_a_classifier_are_wrong_and_the_least_likely_first() -> None:
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.01, 0.99]])
    output = ClassificationOutput("kind", ("no", "yes"))
    found = worst_classified(output, np.array([0, 0, 1, 0]), p.argmax(axis=1), np.log(p), locate)
    assert [(one["row"], one["true"], one["predicted"]) for one in found] == [
        ("line 5", "no", "yes"),
        ("line 3", "no", "yes"),
    ]
    assert [one["probability"] for one in found] == pytest.approx([0.99, 0.8])


def test_the_worst_rows_of_a_regression_have_the_largest_errors_in_units_of_the_scale() -> None:
    output = RegressionOutput(("price", "area"), (0.0, 0.0), (100.0, 1.0))
    errors = np.array([[50.0, 0.1], [-300.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    found = worst_predicted(output, errors, target_units(output, errors), locate)
    assert found == [
        {"row": "line 3", "target": "price", "error": -300.0},
        {"row": "line 4", "target": "area", "error": 2.0},
        {"row": "line 2", "target": "price", "error": 50.0},
    ]


def column(values: NDArray[Any]) -> Column:
    if values.dtype.kind == "O":
        return CategoryColumn("a", ("x",))
    known = values[~np.isnan(values)]
    return NumberColumn("a", statistics={"deciles": np.quantile(known, np.linspace(0, 1, 11), method="lower").tolist()})


def slices(values: Any, errors: Any, measure: str = "error_rate") -> list[dict[str, Any]]:
    values = np.array(values)
    found = error_slices({"a": values}, np.array(errors, np.float64), measure, [column(values)])
    assert found is not None
    json.dumps(found, allow_nan=False)
    (one,) = found["columns"]
    assert one["column"] == "a"
    return list(one["slices"])


def test_a_category_a_missing_value_and_all_rare_categories_are_slices() -> None:
    names = ["x"] * 30 + ["y"] * 20 + [None] * 10 + [f"rare {i}" for i in range(12) for _ in range(5)]
    found = slices(np.array(names, object), [1] * 15 + [0] * 105)
    assert [one.get("value") for one in found[:2]] == ["x", "y"]
    assert [(one["rows"], one["error"]["value"]) for one in found] == [(30, 0.5), (20, 0), (40, 0), (10, 0)]
    assert (found[2]["others"], found[3]["missing"]) == (8, True)  # those with 5 rows each have no slice of their own
    assert found[0]["error"]["low"] < 0.5 < found[0]["error"]["high"]


def test_numbers_are_sliced_at_the_deciles_of_training_and_few_values_one_by_one() -> None:
    values = np.append(np.arange(101.0), [np.nan] * 10)
    found = slices(values, np.append(np.arange(101) >= 80, [False] * 10))
    assert [one["rows"] for one in found] == [20, 20, 20, 20, 21, 10]
    assert [one["error"]["value"] for one in found] == [0, 0, 0, 0, 1, 0]
    assert [(one["low"], one["high"]) for one in found[:5]] == [(0, 20), (20, 40), (40, 60), (60, 80), (80, 100)]
    assert [one["value"] for one in slices([0.0] * 20 + [1.0] * 20, np.zeros(40))] == [0, 1]


def test_rows_outside_the_training_range_are_in_the_outer_slices() -> None:
    known = column(np.arange(101.0))
    values = np.append(np.arange(101.0), [-1e9] * 10 + [1e9] * 10)
    found = error_slices({"a": values}, np.zeros(len(values)), "error_rate", [known])
    assert found is not None
    assert [one["rows"] for one in found["columns"][0]["slices"]] == [30, 20, 20, 20, 31]


def test_a_slice_of_a_regression_has_rmse_and_bias() -> None:
    found = slices([0.0] * 20 + [1.0] * 20, [3.0] * 20 + [-1.0, 1.0] * 10, "rmse")
    assert [(one["error"]["value"], one["bias"]) for one in found] == [(3, 3), (1, 0)]


def test_a_column_with_one_slice_or_an_array_has_no_slices() -> None:
    inputs = {"a": np.zeros(50), "b": np.zeros((50, 3))}
    columns = [column(inputs["a"]), ArrayColumn("b", (3,))]
    assert error_slices(inputs, np.ones(50), "error_rate", columns) is None


def test_slices_of_many_columns_examine_the_most_important_ones() -> None:
    """10,000 columns without a slice took 6 s."""

    class Counted(dict[str, Any]):
        def __getitem__(self, name: str) -> Any:
            read.append(name)
            return super().__getitem__(name)

    read: list[str] = []
    constant = np.zeros(50)
    columns = [column(constant)] * 200
    assert error_slices(Counted(a=constant), np.ones(50), "error_rate", columns) is None
    assert len(read) == 50


def test_slices_of_many_texts_take_memory_for_a_few() -> None:
    """A mask for each of 20,000 texts took 400 MB."""
    texts = np.array([f"text {i}" for i in range(20_000)], object)
    tracemalloc.start()
    try:
        found = slices(np.append(texts, ["common"] * 20), np.zeros(20_020))
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
    assert [(one.get("value"), one.get("others"), one["rows"]) for one in found] == [
        ("common", None, 20),
        (None, 19_995, 19_995),
    ]


def test_slices_of_overflowing_errors_are_left_out() -> None:
    values = np.arange(100.0)
    assert error_slices({"a": values}, np.full(100, 1e200), "rmse", [column(values)]) is None


def test_one_long_category_does_not_lengthen_the_others() -> None:
    values = np.array(["x", "y"] * 2_000 + ["z" * 50_000], object)
    tracemalloc.start()
    try:
        found = error_slices({"a": values}, np.zeros(len(values)), "error_rate", [column(values)])
        assert tracemalloc.get_traced_memory()[1] < 8_000_000  # an array of texts takes 800 MB
    finally:
        tracemalloc.stop()
    assert found is not None
    assert [one["value"] for one in found["columns"][0]["slices"]] == ["x", "y"]
