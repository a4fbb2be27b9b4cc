"""Weak spots: their tests against known p-values, tables without one, and planted ones."""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from training.evaluation.row_slices import ColumnSlices
from training.evaluation.weak_spots import FisherTest, RankSumTest, adjust_p_values, find_weak_spots


def table(rng: np.random.Generator, rows: int, columns: int = 6) -> list[ColumnSlices]:
    """Return columns of 2 to 6 values, which are no reason of any error."""
    found = []
    for i in range(columns):
        count = int(rng.integers(2, 7))
        words: list[dict[str, Any]] = [{"value": str(value)} for value in range(count)]
        found.append(ColumnSlices(f"c{i}", words, rng.choice(count, rows, p=rng.dirichlet(np.full(count, 2.0)))))
    return found


def spots(columns: list[ColumnSlices], errors: NDArray[Any], measure: str) -> list[dict[str, Any]]:
    found = find_weak_spots(columns, np.asarray(errors, np.float64), measure)
    assert found is not None
    json.dumps(found, allow_nan=False)
    return list(found["spots"])


def where(spot: dict[str, Any]) -> list[tuple[str, str]]:
    return [(part["column"], part["value"]) for part in spot["where"]]


def test_fishers_test_is_exact() -> None:
    """All ways to choose 4 of 9 rows, 3 of which are wrong."""
    errors = np.array([1.0] * 3 + [0.0] * 6)
    wrong = [errors[list(rows)].sum() for rows in combinations(range(9), 4)]
    for x in (2, 3):
        assert FisherTest(errors).p_value(4, x) == pytest.approx(np.mean([found >= x for found in wrong]))
    assert FisherTest(errors).p_value(4, 1) == 1.0  # no worse than elsewhere


def test_the_rank_sum_test_is_that_of_scipy() -> None:
    """scipy.stats.mannwhitneyu(x, y, alternative="greater", method="asymptotic") of SciPy 1.17.1, with ties."""
    x, y = [3.0, 4, 4, 7, 9, 9], [1.0, 1, 2, 3, 3, 4, 5, 6, 6, 7]
    test = RankSumTest(np.array(x + y))
    assert test.p_value(6, float(test.scores[:6].sum())) == pytest.approx(0.06274988723423873, rel=1e-9)
    assert RankSumTest(np.ones(30)).p_value(10, 155.0) == 1.0  # all errors are equal


def test_p_values_are_adjusted_by_holms_method() -> None:
    assert adjust_p_values(np.array([0.01, 0.04, 0.03, 0.5])).tolist() == pytest.approx([0.04, 0.09, 0.09, 0.5])


@pytest.mark.parametrize("measure", ["error_rate", "mae"])
def test_of_tables_without_a_weak_spot_at_most_5_percent_report_one(measure: str) -> None:
    reported = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        columns = table(rng, rows := 200)
        errors = rng.random(rows) < 0.15 if measure == "error_rate" else np.abs(rng.standard_t(2, rows))
        reported += bool(spots(columns, errors, measure))
    assert reported / 300 <= 0.05


@pytest.mark.parametrize("measure", ["error_rate", "mae"])
def test_a_planted_slice_of_one_column_is_found_and_its_pairs_are_left_out(measure: str) -> None:
    rng = np.random.default_rng(0)
    columns = table(rng, rows := 1000)
    weak = columns[2].codes == 1
    errors = rng.random(rows) < np.where(weak, 0.5, 0.1)
    if measure == "mae":
        errors = np.abs(rng.normal(size=rows)) * np.where(weak, 3.0, 1.0)
    (found,) = spots(columns, errors, measure)
    assert where(found) == [("c2", "1")]
    assert found["rows"] == weak.sum()
    assert (found["error"], found["elsewhere"]) == pytest.approx((errors[weak].mean(), errors[~weak].mean()))
    assert found["p"] < 1e-6


def test_a_planted_pair_is_found_without_its_single_columns() -> None:
    rng = np.random.default_rng(1)
    columns = table(rng, rows := 1000)
    weak = (columns[2].codes == 1) & (columns[3].codes == 0)
    (found,) = spots(columns, rng.random(rows) < np.where(weak, 0.7, 0.05), "error_rate")
    assert where(found) == [("c2", "1"), ("c3", "0")]


def test_two_weak_spots_are_found_in_order_of_significance() -> None:
    rng = np.random.default_rng(2)
    columns = table(rng, rows := 2000)
    rate = np.where(columns[4].codes == 0, 0.8, 0.05) + np.where(columns[1].codes == 1, 0.15, 0)
    found = spots(columns, rng.random(rows) < rate, "error_rate")
    assert [where(one) for one in found] == [[("c4", "0")], [("c1", "1")]]


def test_a_significant_but_small_difference_is_no_weak_spot() -> None:
    rng = np.random.default_rng(3)
    columns = [ColumnSlices("a", [{"value": "0"}, {"value": "1"}], rng.integers(0, 2, 100_000))]
    rate = np.where(columns[0].codes == 1, 0.22, 0.2)
    assert spots(columns, rng.random(100_000) < rate, "error_rate") == []


def test_too_few_rows_and_overflowing_errors_have_no_weak_spots() -> None:
    one = [ColumnSlices("a", [{"value": "0"}, {"value": "1"}], np.arange(40) % 2)]
    assert find_weak_spots([ColumnSlices("a", one[0].words, np.arange(19) % 2)], np.ones(19), "mae") is None
    assert find_weak_spots(one, np.full(40, np.inf), "mae") is None
    assert find_weak_spots([], np.ones(40), "mae") is None
