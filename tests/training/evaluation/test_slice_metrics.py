"""Metrics by slice of a column: those of the rows of the slice, in a bounded table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from model_store.schema.columns import NumberColumn
from model_store.schema.signature import ClassificationOutput, RegressionOutput
from training.evaluation.loss_metrics import SQUARED_ERROR
from training.evaluation.row_slices import ColumnSlices, cut_column
from training.evaluation.slice_metrics import slice_metrics


def halves(rows: int) -> ColumnSlices:
    return ColumnSlices("a", [{"value": "x"}, {"value": "y"}, {"missing": True}], (np.arange(rows) >= rows // 2) * 1)


def test_the_metrics_of_a_slice_are_those_of_its_rows() -> None:
    output = ClassificationOutput("kind", ("no", "yes"))
    y = np.array([0, 1] * 20)
    right = np.array([True] * 25 + [False] * 15)
    predicted = np.where(right, y, 1 - y)
    outputs = np.eye(2)[predicted]
    row_values = {"error_rate": (~right).astype(float), "log_loss": np.arange(40.0)}
    (found,) = slice_metrics([halves(40)], output, y, outputs, row_values, None, SQUARED_ERROR)
    assert [part["rows"] for part in found["slices"]] == [20, 20]
    metrics = found["metrics"]
    assert metrics["accuracy"] == [1.0, 0.25]
    assert metrics["error_rate"] == [0.0, 0.75]
    assert metrics["log_loss"] == [9.5, 29.5]
    positive = y[20:] == 1
    assert metrics["recall"] == [1.0, pytest.approx(right[20:][positive].mean())]


def test_recall_is_undefined_in_a_slice_without_positive_rows() -> None:
    output, y = ClassificationOutput("kind", ("no", "yes")), np.array([0] * 20 + [1] * 20)
    (found,) = slice_metrics([halves(40)], output, y, np.eye(2)[y], {}, None, SQUARED_ERROR)
    assert found["metrics"]["recall"] == [None, 1.0]


def test_several_targets_have_metrics_by_name_and_weights_count() -> None:
    output = RegressionOutput(("u", "v"), (0.0, 0.0), (1.0, 1.0))
    y = np.zeros((40, 2))
    outputs = np.column_stack([np.r_[np.ones(20), np.full(20, 3.0)], np.arange(40.0)])
    weights = np.r_[np.ones(20), np.zeros(10), np.ones(10)]
    (found,) = slice_metrics([halves(40)], output, y, outputs, {}, weights, SQUARED_ERROR)
    assert found["metrics"]["u.rmse"] == [1.0, 3.0]
    assert found["metrics"]["v.mae"] == [9.5, 34.5]
    assert slice_metrics([halves(40)], output, y, outputs, {}, np.zeros(40), SQUARED_ERROR) == []


def test_a_column_with_one_large_slice_is_left_out() -> None:
    output = RegressionOutput(("u",), (0.0,), (1.0,))
    codes = np.array([0] * 31 + [1] * 9)
    one = ColumnSlices("a", [{"value": "x"}, {"value": "y"}], codes)
    assert slice_metrics([one], output, np.zeros((40, 1)), np.zeros((40, 1)), {}, None, SQUARED_ERROR) == []


def test_rare_categories_share_a_slice_and_thirds_are_between_deciles() -> None:
    texts = np.array(["x"] * 20 + ["y"] * 12 + ["z"] * 9 + ["w"] * 3 + [None], object)
    column: Any = NumberColumn("a", statistics={"deciles": [float(10 * i) for i in range(11)]})
    found = cut_column(texts, column, ranges=3, categories=20, min_rows=10)
    assert found is not None
    assert found.words == [{"value": "x"}, {"value": "y"}, {"others": 2}, {"missing": True}]
    assert np.bincount(found.codes).tolist() == [20, 12, 12, 1]
    numbers = cut_column(np.array([0.0, 33.3, 33.4, 66.7, 200.0, np.nan]), column, ranges=3, categories=20)
    assert numbers is not None
    assert numbers.codes.tolist() == [0, 0, 1, 2, 2, 3]
    assert numbers.words[1] == {"low": pytest.approx(100 / 3), "high": pytest.approx(200 / 3)}
