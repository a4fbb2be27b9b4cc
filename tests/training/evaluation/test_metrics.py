"""Metrics against values computed by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from model_store.schema.signature import ClassificationOutput, RegressionOutput
from training.evaluation import metrics

ANIMALS = ClassificationOutput("animal", ("cat", "dog", "owl"))


def test_precision_recall_and_f1_of_each_class() -> None:
    y_true = np.array([0, 0, 0, 1, 1, 2])
    outputs = np.eye(3)[[0, 0, 1, 1, 1, 0]]
    found = metrics.evaluate(ANIMALS, y_true, outputs)
    assert found["accuracy"] == 4 / 6
    assert found["confusion"] == [[2, 1, 0], [0, 2, 0], [1, 0, 0]]
    assert found["classes"]["cat"] == {"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "support": 3}
    assert found["classes"]["dog"] == {"precision": 2 / 3, "recall": 1.0, "f1": 0.8, "support": 2}
    assert found["classes"]["owl"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1}


def test_one_output_is_the_probability_of_the_second_label() -> None:
    output = ClassificationOutput("y", ("no", "yes"))
    assert output.predicted(np.array([[0.2], [0.5], [0.7]])).tolist() == [0, 0, 1]


def test_metrics_are_those_of_the_threshold() -> None:
    output, outputs = ClassificationOutput("y", ("no", "yes"), threshold=0.2), np.array([[0.1], [0.2], [0.7]])
    for raw in (outputs, np.concatenate([1 - outputs, outputs], axis=1)):
        assert metrics.evaluate(output, np.array([0, 1, 1]), raw)["accuracy"] == 1
        assert metrics.row_results(output, np.array([1, 1, 1]), raw, "d").as_json()


def test_the_classification_baseline_predicts_the_most_frequent_training_class() -> None:
    found = metrics.evaluate_baseline(ANIMALS, np.array([0, 1, 1]), np.array([1, 1, 2]))
    assert found == {"answer": "dog", "accuracy": 2 / 3}


def test_rmse_and_mae_are_in_the_unit_of_the_target() -> None:
    output = RegressionOutput(("price",), (10.0,), (2.0,))
    found = metrics.evaluate(output, np.array([[10.0], [14.0]]), np.array([[0.0], [1.0]]))
    assert found["targets"]["price"] == {"rmse": pytest.approx(2**0.5), "mae": 1.0, "r2": 0.5}


@pytest.mark.parametrize("unit", [1e-200, 1e200])
def test_metrics_are_right_for_targets_whose_squares_underflow_or_overflow(unit: float) -> None:
    output, y_true = RegressionOutput(("price",), (0.0,), (unit,)), np.array([[0.0], [4.0]]) * unit
    found = metrics.evaluate(output, y_true, np.array([[0.0], [2.0]]))["targets"]["price"]
    assert {name: value / (1 if name == "r2" else unit) for name, value in found.items()} == pytest.approx(
        {"rmse": 2**0.5, "mae": 1.0, "r2": 0.5}
    )
    baseline = metrics.evaluate_baseline(output, y_true, y_true)
    assert (baseline["answer"], baseline["targets"]["price"]["r2"]) == ([2 * unit], 0)


def test_r2_of_a_constant_target_is_none_and_metrics_are_json() -> None:
    found = metrics.evaluate_baseline(
        RegressionOutput(("a",), (0.0,), (1.0,)), np.array([[1.0], [1.0]]), np.array([[1.0], [3.0]])
    )
    assert found["targets"]["a"] == {"rmse": 1.0, "mae": 1.0, "r2": None}
    assert json.loads(json.dumps(found, allow_nan=False))["answer"] == [2.0]
