"""Confidence intervals against published values: Newcombe, Statistics in Medicine 17 (1998), pages 857 and 873."""

from __future__ import annotations

import numpy as np
import pytest

from model_store.evaluation.confidence import (
    difference_interval,
    loss_ratio_deviation,
    mcnemar_p_value,
    paired_difference_interval,
    student_quantile,
    wilson_interval,
)


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


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [
        ((14, 0, 5, 22), 0.011, 0.226),  # Altman, Machin, Bryant, Gardner 2000, page 52
        ((1, 7, 1, 12), -0.507, -0.026),  # Fagerland, Lydersen, Laake 2017, chapter 8: Bentur 2009
    ],
)
def test_paired_difference_interval_equals_published_values(counts, low: float, high: float) -> None:
    assert paired_difference_interval(*counts) == (pytest.approx(low, abs=5e-4), pytest.approx(high, abs=5e-4))


@pytest.mark.parametrize("counts", [(0, 0, 0, 9), (9, 0, 0, 0), (0, 9, 0, 0), (0, 0, 9, 0), (0, 3, 6, 0)])
def test_paired_difference_interval_of_extreme_counts_contains_the_difference(counts: tuple[int, ...]) -> None:
    low, high = paired_difference_interval(*counts)
    assert -1 <= low <= (counts[2] - counts[1]) / 9 <= high <= 1


def test_mcnemar_p_value_is_exact_for_few_discordant_rows() -> None:
    assert mcnemar_p_value(0, 12) == 2 / 2**12  # 950 against 962 of 1,000 correct rows
    assert mcnemar_p_value(7, 1) == mcnemar_p_value(1, 7) == 2 * 9 / 2**8
    assert mcnemar_p_value(0, 0) == mcnemar_p_value(5, 5) == 1
    assert mcnemar_p_value(700, 560) == pytest.approx(9.0e-5, rel=0.01)  # z = 139 / √1260
    assert mcnemar_p_value(0, 100_000) == 0
    assert mcnemar_p_value(470, 530) == pytest.approx(mcnemar_p_value(471, 531), rel=0.01)


@pytest.mark.parametrize(("freedom", "quantile"), [(5, 2.571), (9, 2.262), (10, 2.228), (30, 2.042), (100, 1.984)])
def test_student_quantiles_equal_the_tables(freedom: int, quantile: float) -> None:
    assert student_quantile(freedom) == pytest.approx(quantile, abs=1e-3)


def test_the_interval_of_an_rmse_ratio_covers_its_value_in_95_percent_of_samples() -> None:
    """Two equally good models whose errors are correlated: ln 1 is in the interval in about 95 % of 2,000 samples."""
    rng, rows = np.random.default_rng(0), 60
    inside = 0
    for _ in range(2000):
        common = rng.standard_normal((rows, 2))
        first, second = (common + 0.5 * rng.standard_normal((rows, 2)) for _ in range(2))
        mean = np.log(np.sqrt((second**2).mean(axis=0) / (first**2).mean(axis=0))).mean()
        deviation = loss_ratio_deviation(first**2, second**2, rows)
        assert deviation is not None
        inside += abs(mean) <= deviation / 2 * student_quantile(rows - 1)
    assert inside / 2000 == pytest.approx(0.95, abs=0.015)
    assert loss_ratio_deviation(np.zeros((20, 1)), np.ones((20, 1)), 20) is None
