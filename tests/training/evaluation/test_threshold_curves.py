"""ROC, precision and recall, and costs against values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.evaluation.threshold_curves import (
    COST_RATIOS,
    MAX_LABEL_CURVES,
    label_roc,
    roc_area,
    threshold_curves,
)

RNG = np.random.default_rng
LABELS_AND_SCORES = st.lists(st.tuples(st.booleans(), st.integers(-4, 4)), min_size=1, max_size=30)


def test_roc_area_is_the_share_of_correctly_ordered_pairs() -> None:
    positive, score = np.array([True, True, False, True, False]), np.array([0.9, 0.8, 0.8, 0.4, 0.1])
    found = threshold_curves("yes", positive, score)["roc"]
    assert found["area"] == pytest.approx((2 + 1.5 + 1) / 6)  # 0.8 against 0.8 counts half
    assert found["points"] == [[0, 0], [0, 1 / 3], [0.5, 2 / 3], [0.5, 1], [1, 1]]
    assert threshold_curves("yes", np.array([True]), np.array([0.5])) == {}


def test_the_roc_curve_has_at_most_100_points_and_ends_in_its_corners() -> None:
    found = threshold_curves("yes", RNG(0).random(5000) < 0.5, RNG(1).random(5000))["roc"]
    assert len(found["points"]) <= 100
    assert (found["points"][0], found["points"][-1]) == ([0, 0], [1, 1])


def test_average_precision_is_the_area_of_the_steps_of_precision() -> None:
    positive, score = np.array([True, False, True, False, True]), np.array([5.0, 4.0, 3.0, 2.0, 1.0])
    found = threshold_curves("yes", positive, score)["precision_recall"]
    assert found["average"] == pytest.approx((1 / 1 + 2 / 3 + 3 / 5) / 3)
    assert found["points"] == [
        pytest.approx(point) for point in ([1 / 3, 1], [1 / 3, 1 / 2], [2 / 3, 2 / 3], [2 / 3, 1 / 2], [1, 3 / 5])
    ]


@given(LABELS_AND_SCORES)
def test_each_threshold_of_a_cost_counts_the_errors_of_its_decisions(rows: list[tuple[bool, int]]) -> None:
    positive, log_odds = np.array([row[0] for row in rows]), np.array([float(row[1]) for row in rows])
    found = threshold_curves("yes", positive, log_odds)
    if len(set(positive.tolist())) < 2:
        assert found == {}
        return
    probability = 1 / (1 + np.exp(-log_odds))
    assert [one["cost_ratio"] for one in found["costs"]["options"]] == list(COST_RATIOS)
    for one in found["costs"]["options"]:
        flagged = probability >= one["threshold"] * (1 - 1e-12)
        assert one["false_positives"] == int((flagged & ~positive).sum())
        assert one["false_negatives"] == int((~flagged & positive).sum())


def test_the_threshold_of_a_cost_has_the_least_cost_if_the_probabilities_are_calibrated() -> None:
    p = RNG(0).random(200_000)
    positive, log_odds = RNG(1).random(len(p)) < p, np.log(p / (1 - p))
    for one in threshold_curves("yes", positive, log_odds)["costs"]["options"]:
        ratio = one["cost_ratio"]
        cost = ratio * one["false_negatives"] + one["false_positives"]
        for threshold in np.linspace(0.02, 0.98, 25):
            flagged = p >= threshold
            other = ratio * int((~flagged & positive).sum()) + int((flagged & ~positive).sum())
            assert cost <= other * 1.02


def test_the_roc_curves_of_labels_are_those_of_the_most_frequent_ones_that_vary() -> None:
    rng = np.random.default_rng(0)
    true = rng.random((200, 12)) < np.linspace(0.05, 0.6, 12)
    true[:, 3], true[:, 11] = False, True
    odds = rng.standard_normal((200, 12)) + true
    labels = [f"l{i}" for i in range(12)]
    found = label_roc(labels, true, odds)
    assert found["left_out"] == 4
    assert len(found["curves"]) == MAX_LABEL_CURVES
    expected = sorted((i for i in range(12) if i not in (3, 11)), key=lambda i: -true[:, i].sum())[:MAX_LABEL_CURVES]
    assert [curve["of"] for curve in found["curves"]] == [labels[i] for i in expected]
    for curve, i in zip(found["curves"], expected, strict=True):
        assert curve["area"] == pytest.approx(roc_area(true[:, i], odds[:, i]))
