"""Confidence intervals against published values: Newcombe, Statistics in Medicine 17 (1998), pages 857 and 873."""

from __future__ import annotations

import pytest

from model_store.evaluation.confidence import difference_interval, wilson_interval


@pytest.mark.parametrize(
    ("correct", "rows", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_equals_published_values(correct: int, rows: int, low: float, high: float) -> None:
    assert wilson_interval(correct, rows) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [((48, 80), (56, 70), 0.0524, 0.3339), ((3, 10), (9, 10), 0.1705, 0.8090), ((0, 10), (10, 10), 0.6075, 1.0)],
)
def test_difference_interval_equals_published_values(first, second, low: float, high: float) -> None:
    assert difference_interval(first, second) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))
