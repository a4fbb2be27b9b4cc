"""The metrics of rows that may have several labels, against values that were computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from model_store.nn import Linear, Sequential, Sigmoid
from model_store.schema.multi_label import MultiLabelOutput
from training.evaluation.label_metrics import label_frequencies, label_log_probabilities, multi_label_metrics
from training.evaluation.metrics import evaluate, evaluate_baseline, row_results
from training.evaluation.threshold_curves import roc_area, threshold_curves

OUTPUT = MultiLabelOutput("labels", ("a", "b", "c"))
Y = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 0]], float)
P = np.array([[0.9, 0.2, 0.1], [0.4, 0.5, 0.1], [0.1, 0.6, 0.2], [0.2, 0.8, 0.3]], np.float32)


def test_metrics_of_a_small_example() -> None:
    found = multi_label_metrics(OUTPUT, Y, P)
    a, b, c = found["labels"].values()
    assert (a["precision"], a["recall"], a["support"]) == (1.0, 0.5, 2)
    assert (b["precision"], b["recall"], b["f1"]) == pytest.approx((2 / 3, 1.0, 0.8))
    assert (c["precision"], c["recall"], c["f1"], c["roc_auc"], c["support"]) == (0.0, 0.0, 0.0, None, 0)
    assert (a["roc_auc"], b["roc_auc"]) == (1.0, 0.75)
    assert a["log_loss"] == pytest.approx(-np.log([0.9, 0.4, 0.9, 0.8]).mean(), rel=1e-6)
    assert found["exact_match"] == 0.5  # the first and the last row
    assert found["hamming_loss"] == pytest.approx(2 / 12)
    assert found["micro_f1"] == pytest.approx(2 * 3 / (4 + 4))
    assert found["macro_f1"] == pytest.approx((2 / 3 + 0.8) / 2)  # no row has c
    assert found["roc_auc"] == pytest.approx(0.875)
    assert found["log_loss"] == pytest.approx(np.mean([row["log_loss"] for row in (a, b, c)]))


def test_a_weight_of_2_counts_a_row_twice() -> None:
    weighted = multi_label_metrics(OUTPUT, Y, P, np.array([2.0, 1, 1, 1]))
    repeated = multi_label_metrics(OUTPUT, Y[[0, 0, 1, 2, 3]], P[[0, 0, 1, 2, 3]])
    for key in ("exact_match", "hamming_loss", "micro_f1", "macro_f1", "log_loss"):
        assert weighted[key] == pytest.approx(repeated[key])
    assert weighted["labels"]["a"]["f1"] == pytest.approx(repeated["labels"]["a"]["f1"])


def test_the_threshold_decides_which_labels_are_predicted() -> None:
    """As a caller sees the probabilities: in float64, and a probability equal to the threshold is predicted."""
    low = MultiLabelOutput("labels", ("a", "b", "c"), threshold=float(np.float32(0.4)))
    assert multi_label_metrics(low, Y, P)["labels"]["a"]["recall"] == 1.0
    assert multi_label_metrics(MultiLabelOutput("labels", ("a", "b", "c"), threshold=0.41), Y, P)["exact_match"] == 0.5


def test_a_certain_mistake_has_a_finite_loss() -> None:
    found = multi_label_metrics(OUTPUT, 1 - np.eye(3), np.eye(3, dtype=np.float32))
    assert 10 < found["log_loss"] < 20


def test_the_baseline_predicts_the_frequency_of_each_label() -> None:
    found = evaluate_baseline(OUTPUT, Y, Y)
    assert label_frequencies(Y).tolist() == [0.5, 0.5, 0.0]
    assert found["answer"] == ["a", "b"]
    assert found["exact_match"] == 0.25
    assert found["log_loss"] == pytest.approx(2 * np.log(2) / 3, rel=1e-6)
    assert evaluate(OUTPUT, Y, P)["log_loss"] < found["log_loss"]


def test_a_row_is_correct_if_all_its_labels_are() -> None:
    found = row_results(OUTPUT, Y, P, "0" * 64).correct
    assert found is not None
    assert found.tolist() == [True, False, False, True]


def test_log_probabilities_are_those_of_the_sigmoid_at_any_logit() -> None:
    network = Sequential([Linear(1, 2, dtype=np.float32, rng=np.random.default_rng(0)), Sigmoid()])
    network.modules[0].weights[:] = [[1], [-1]]  # type: ignore[attr-defined]
    network.modules[0].bias[:] = 0  # type: ignore[attr-defined]
    yes, no = np.moveaxis(label_log_probabilities(network, np.array([[500.0], [0.25]], np.float32)), 1, 0)
    np.testing.assert_allclose(yes[0], [0.0, -500.0], atol=1e-200)
    np.testing.assert_allclose(no[0], [-500.0, 0.0], atol=1e-200)
    np.testing.assert_allclose(np.exp(yes[1]), network(np.array([[0.25]], np.float32))[0], rtol=1e-6)
    np.testing.assert_allclose(np.exp(yes) + np.exp(no), 1)


def test_roc_area_of_ranks_is_that_of_the_curve() -> None:
    rng = np.random.default_rng(0)
    positive, scores = rng.random(300) < 0.3, rng.integers(0, 20, 300) / 20.0
    assert roc_area(positive, scores) == pytest.approx(threshold_curves("a", positive, scores)["roc"]["area"])
    assert roc_area(np.ones(3, bool), np.arange(3.0)) is None
