"""Conformal scores of rows, local scales that help, and the table of coverage."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from model_store.artifact.conformal import Conformal
from model_store.schema.signature import ClassificationOutput, RegressionOutput
from training.evaluation.conformal_scores import (
    LEVELS,
    classification_scores,
    coverage,
    fit_local_scales,
    regression_scores,
)

PRICE = RegressionOutput(("price",), (0.0,), (1.0,))


def priced(rows: int, seed: int, *, grows: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return targets and predictions whose error grows with the prediction, or does not."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(1, 20, (rows, 1))
    return values + (values if grows else 5) * rng.standard_normal(values.shape), values


def labelled(rows: int, labels: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    z = 1.5 * rng.standard_normal((rows, labels))
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    return (z + rng.gumbel(size=z.shape)).argmax(axis=1), p.astype(np.float32)


def check_coverage(table: dict[str, Any], calibration_rows: int, *, exact: bool) -> None:
    """Within three deviations of two samples: calibration rows and evaluation rows."""
    for one in table["levels"]:
        level = one["level"]
        slack = 3 * math.sqrt(level * (1 - level) * (1 / calibration_rows + 1 / table["rows"]))
        assert one["covered"] >= level - slack, one
        assert not exact or one["covered"] <= level + slack, one


@pytest.mark.parametrize("grows", [False, True])
def test_a_local_scale_is_kept_where_it_makes_intervals_narrower(grows: bool) -> None:
    scales = fit_local_scales(*priced(3000, 0, grows=grows), np.random.default_rng(0))
    assert (scales is not None) == grows
    if scales is not None:
        assert scales[0](np.array([2.0, 18.0])) == pytest.approx(np.array([2, 18]) * math.sqrt(2 / math.pi), rel=0.3)


@pytest.mark.parametrize("scaled", [False, True])
def test_the_table_of_a_regression_keeps_what_is_promised(scaled: bool) -> None:
    scales = fit_local_scales(*priced(3000, 0, grows=True), np.random.default_rng(0)) if scaled else None
    conformal = regression_scores(*priced(2000, 1, grows=True), scales)
    table = coverage(conformal, PRICE, *priced(3000, 2, grows=True))
    assert [one["level"] for one in table["levels"]] == list(LEVELS)
    check_coverage(table, 2000, exact=True)
    spread = np.ptp([part["covered"] for part in table["groups"]["parts"]])
    assert (spread < 0.06) == scaled  # without a scale, large predictions are covered far too seldom
    assert json.loads(json.dumps(table)) == table


@pytest.mark.parametrize(("labels", "method"), [(2, "aps"), (10, "aps"), (30, "raps")])
def test_the_table_of_a_classifier_keeps_what_is_promised(labels: int, method: str) -> None:
    conformal = classification_scores(*labelled(2000, labels, 0))
    output = ClassificationOutput("y", tuple(range(labels)))
    table = coverage(conformal, output, *labelled(3000, labels, 1))
    assert table["method"] == conformal.method == method
    check_coverage(table, 2000, exact=False)
    sizes = [one["size"] for one in table["levels"]]
    assert sizes == sorted(sizes)
    assert all(1 <= size <= labels for size in sizes)
    parts = table["groups"]["parts"]
    assert len(parts) == min(labels, 20)
    assert all("name" in part for part in parts)


def test_levels_without_enough_rows_are_left_out() -> None:
    table = coverage(regression_scores(*priced(8, 0, grows=False)), PRICE, *priced(50, 1, grows=False))
    assert [one["level"] for one in table["levels"]] == [level for level in LEVELS if level < 0.9]
    assert "groups" not in table


@given(st.integers(0, 300))
def test_a_local_scale_is_above_0(seed: int) -> None:
    """Also where errors were 0, or predictions are equal: an interval is no point, and its ends are finite."""
    rng = np.random.default_rng(seed)
    y_pred = rng.integers(0, 3, (200, 1)).astype(np.float64)
    y_true = y_pred + (y_pred == 2) * rng.standard_normal(y_pred.shape)
    scales = fit_local_scales(y_true, y_pred, rng)
    if scales is not None:
        assert (scales[0](np.linspace(-5, 5, 50)) > 0).all()
        conformal: Conformal = regression_scores(y_true, y_pred, scales)
        assert np.isfinite(conformal.intervals(y_pred, 0.9)).all()


def test_rows_without_an_error_get_no_local_scale() -> None:
    y = np.random.default_rng(0).standard_normal((200, 1))
    assert fit_local_scales(y, y, np.random.default_rng(0)) is None
