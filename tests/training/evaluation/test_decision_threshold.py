"""Decision thresholds against every threshold that parts the rows differently."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from training.config.threshold_rule import find_threshold_problem
from training.evaluation.decision_threshold import (
    Rule,
    UnreachableThresholdError,
    choose_threshold,
)

COSTS = {"false_positive": 1.0, "false_negative": 4.0}
RULES: tuple[Rule, ...] = ("f1", "balanced_accuracy", {"cost": COSTS}, {"precision": 0.6})


def score(rule: Any, true: NDArray[np.bool_], flagged: NDArray[np.bool_], weights: Any = None) -> float:
    """Return the score of flagged rows from its definition; of costs the mean with its sign changed."""
    w = np.ones(len(true)) if weights is None else weights
    tp, fp, fn, tn = (w[rows].sum() for rows in (true & flagged, ~true & flagged, true & ~flagged, ~true & ~flagged))
    if rule == "f1":
        return float(2 * tp / (2 * tp + fp + fn))
    if rule == "balanced_accuracy":
        return float((tp / (tp + fn) + tn / (tn + fp)) / 2)
    if "cost" in rule:
        return float(-(COSTS["false_positive"] * fp + COSTS["false_negative"] * fn) / w.sum())
    return float(tp / (tp + fn)) if tp and tp / (tp + fp) >= rule["precision"] else -1.0


@st.composite
def rows(draw: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float64]]:
    p = draw(st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5000001, 0.9, 1.0]), min_size=2, max_size=30))
    positive = draw(
        st.lists(st.booleans(), min_size=len(p), max_size=len(p)).filter(lambda found: len(set(found)) == 2)
    )
    weights = draw(st.lists(st.sampled_from([0.5, 1.0, 2.0]), min_size=len(p), max_size=len(p)))
    return np.array(p, np.float32), np.array(positive), np.array(weights)


@pytest.mark.parametrize("rule", RULES)
@given(rows=rows(), weighted=st.booleans())
def test_no_threshold_is_better(rule: Rule, rows: Any, weighted: bool) -> None:
    p, positive, weights = rows
    own = weights if weighted else None
    # Each way to part the rows by a number above 0 and below 1: 0 is never flagged, and 1 always is.
    ways = [t for t in (*np.unique(p).astype(np.float64), 1 - 1e-12) if t > 0 and t < 1] + [1e-12]
    every = [score(rule, positive, p >= t, own) for t in ways]
    try:
        found = choose_threshold(rule, p, positive, own)
    except UnreachableThresholdError:
        assert max(every) == -1.0
        return
    reached = score(rule, positive, p >= np.float64(found.threshold), own)
    assert 0 < found.threshold < 1
    assert reached >= max(every) - 1e-9
    assert found.score == pytest.approx(-reached if found.rule == "cost" else reached)


def test_of_equally_good_thresholds_the_closest_to_a_half_is_chosen() -> None:
    p, positive = np.array([0.1, 0.3, 0.8, 0.9]), np.array([False, False, True, True])
    assert choose_threshold("f1", p, positive).threshold == 0.5
    assert choose_threshold("f1", np.array([0.1, 0.2, 0.3, 0.4]), positive).threshold == pytest.approx(0.25)


def test_a_missed_row_that_costs_more_lowers_the_threshold() -> None:
    """With calibrated probabilities it is false_positive / (false_positive + false_negative); Elkan 2001."""
    rng = np.random.default_rng(0)
    p = rng.random(200_000)
    positive = rng.random(len(p)) < p
    found = choose_threshold({"cost": COSTS}, p, positive)
    assert found.threshold == pytest.approx(1 / 5, abs=0.02)


def test_a_fixed_threshold_needs_no_rows() -> None:
    found = choose_threshold(0.3, np.empty(0), np.empty(0, bool))
    assert found.threshold == 0.3
    assert found.as_json() == {"value": 0.3, "by": "fixed", "score": None, "rows": 0}


def test_a_precision_that_no_threshold_reaches_names_the_best() -> None:
    p, positive = np.array([0.9, 0.9, 0.2]), np.array([True, False, False])
    with pytest.raises(UnreachableThresholdError, match=r"expected a precision of 0\.8, found 0\.5 at most"):
        choose_threshold({"precision": 0.8}, p, positive)


def test_rows_of_one_label_have_no_threshold() -> None:
    with pytest.raises(UnreachableThresholdError, match="one label only"):
        choose_threshold("f1", np.array([0.9, 0.1]), np.array([True, True]))


@pytest.mark.parametrize("rule", [0.3, *RULES, {"precision": 1}])
def test_valid_rules_have_no_problem(rule: Any) -> None:
    assert find_threshold_problem(rule) is None


@pytest.mark.parametrize(
    "rule",
    [
        *(0, 1, True, float("nan"), "accuracy", [], {}, {"precision": 0}, {"precision": 1.1}, {"recall": 0.5}, None),
        *({"cost": {"false_positive": 1}}, {"cost": {"false_positive": 0, "false_negative": 1}}, {"cost": 3}),
        {"precision": 0.9, "cost": COSTS},
    ],
)
def test_other_rules_have_a_problem(rule: Any) -> None:
    assert "expected" in str(find_threshold_problem(rule))
