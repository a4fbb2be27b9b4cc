"""Metrics against figures worked out by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from model_store.schema.signature import ClassificationOutput, RegressionOutput
from training.evaluation import metrics

ANIMALS = ClassificationOutput("animal", ("cat", "dog", "owl"))


def test_precision_recall_and_f1_of_each_class() -> None:
    truth = np.array([0, 0, 0, 1, 1, 2])
    outputs = np.eye(3)[[0, 0, 1, 1, 1, 0]]
    found = metrics.evaluate(ANIMALS, truth, outputs)
    assert found["accuracy"] == 4 / 6
    assert found["confusion"] == [[2, 1, 0], [0, 2, 0], [1, 0, 0]]
    assert found["classes"]["cat"] == {"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "support": 3}
    assert found["classes"]["dog"] == {"precision": 2 / 3, "recall": 1.0, "f1": 0.8, "support": 2}
    assert found["classes"]["owl"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1}


def test_one_output_is_the_probability_of_the_second_label() -> None:
    assert metrics.predicted(np.array([[0.2], [0.5], [0.7]])).tolist() == [0, 0, 1]


def test_the_baseline_of_a_classification_is_the_most_frequent_class_of_training() -> None:
    found = metrics.baseline(ANIMALS, np.array([0, 1, 1]), np.array([1, 1, 2]))
    assert found == {"answer": "dog", "accuracy": 2 / 3}


def test_rmse_mae_and_r2_are_in_the_targets_own_units() -> None:
    output = RegressionOutput(("price",), (10.0,), (2.0,))
    found = metrics.evaluate(output, np.array([[10.0], [14.0]]), np.array([[0.0], [1.0]]))
    assert found["targets"]["price"] == {"rmse": pytest.approx(2**0.5), "mae": 1.0, "r2": 0.5}


def test_r2_of_a_constant_truth_is_none_and_everything_is_json() -> None:
    found = metrics.baseline(
        RegressionOutput(("a",), (0.0,), (1.0,)), np.array([[1.0], [1.0]]), np.array([[1.0], [3.0]])
    )
    assert found["targets"]["a"] == {"rmse": 1.0, "mae": 1.0, "r2": None}
    assert json.loads(json.dumps(found, allow_nan=False))["answer"] == [2.0]
