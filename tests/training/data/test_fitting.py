"""The statistics and preprocessing that are fitted on columns."""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.schema.columns import KINDS
from model_store.schema.columns.decile_statistics import decile_statistics
from training.config.settings import DataSection
from training.data import type_inference
from training.data.fitting.columns import fit_array, fit_category, fit_number
from training.data.fitting.kinds import COLUMN_KINDS
from training.data.fitting.statistics import (
    ArrayStatistics,
    CategoryStatistics,
    NumberStatistics,
    NumericSummary,
    summarize,
)
from training.errors import DataError


def test_every_column_kind_is_stored_under_its_name_and_fitted_by_training() -> None:
    assert list(KINDS) == list(COLUMN_KINDS)
    assert all(kind.kind == name for name, kind in KINDS.items())


def test_a_numeric_column_has_mean_deviation_median_and_deciles() -> None:
    found = fit_number("a", NumberStatistics.from_values(np.array([1.0, 2, 3, 10, math.nan])), "impute", "standard")
    assert (found.offset, found.fill) == (4.0, 2.5)
    assert found.scale == pytest.approx(math.sqrt(12.5))
    assert found.statistics["missing"] == 1
    assert len(found.statistics["deciles"]) == 11
    assert (found.statistics["deciles"][0], found.statistics["deciles"][10]) == (1.0, 10.0)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_every_value_is_counted_at_one_decile(values: list[float]) -> None:
    found = decile_statistics(np.array(values))
    assert sum(found["counts"]) == len(values)
    assert len(found["counts"]) == len(set(found["deciles"]))


def test_a_frequent_value_has_its_own_count() -> None:
    found = decile_statistics(np.array([0.0] * 7 + [1.0] * 3))
    assert dict(zip(sorted(set(found["deciles"])), found["counts"], strict=True))[0.0] == 7


def test_arrays_have_deciles_of_their_row_means() -> None:
    images = np.arange(40, dtype=np.uint8).reshape(10, 2, 2)
    found = fit_array("pixels", ArrayStatistics.from_values(images), True).statistics["means"]
    assert (found["deciles"][0], found["deciles"][10]) == (1.5, 37.5)
    assert sum(found["counts"]) == 10


def test_a_column_that_refuses_missing_values_has_no_fill_value() -> None:
    assert fit_number("a", NumberStatistics.from_values(np.array([1.0, 2])), "refuse", "standard").fill is None
    assert fit_category("a", CategoryStatistics.from_values(np.array(["x"], object)), "refuse", "refuse").fill is None


def test_a_constant_is_divided_by_one() -> None:
    found = fit_number("a", NumberStatistics.from_values(np.full(10, 0.1)), "impute", "standard")
    assert (found.offset, found.scale) == (0.1, 1.0)


@pytest.mark.parametrize(
    "values",
    [
        [0.3, 0.1 + 0.2],
        [sum([share] * round(1 / share)) for share in (0.5, 0.1, 0.05, 0.02, 0.01)],
        [1e200, math.nextafter(1e200, 0)],
        [-1e-300, math.nextafter(-1e-300, 0)],
    ],
)
@pytest.mark.parametrize("fit", ["number", "array"])
def test_a_constant_up_to_rounding_is_a_constant(values: list[float], fit: str) -> None:
    """Divided by its deviation of 3e-17, a constant would give features of ±1 and 0.31 one of 3e14."""
    assert len(set(values)) > 1
    numbers = np.array(values * 7)
    if fit == "number":
        found: Any = fit_number("a", NumberStatistics.from_values(numbers), "impute", "standard")
    else:
        found = fit_array("a", ArrayStatistics.from_values(numbers[:, None]), True)
    assert found.is_constant
    assert min(values) <= found.offset <= max(values)
    assert found.scale == max(1.0, abs(found.offset))


def test_a_small_variation_that_is_no_rounding_error_is_scaled() -> None:
    found = fit_number("a", NumberStatistics.from_values(np.array([1.0, 1.0 + 1e-12])), "impute", "standard")
    assert not found.is_constant
    assert found.scale == pytest.approx(5e-13, rel=1e-3)


@given(st.lists(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1), min_size=1))
def test_a_stream_has_the_statistics_of_the_same_numbers_in_memory(batches: list[list[float]]) -> None:
    every = np.concatenate([np.array(batch) for batch in batches])
    streamed, in_memory = reduce(NumericSummary.merge, map(summarize, map(np.array, batches))), summarize(every)
    assert (streamed.count, streamed.minimum, streamed.maximum) == (len(every), every.min(), every.max())
    assert streamed.is_constant == in_memory.is_constant
    unit = max(abs(every)) or 1.0
    for key in ("mean", "std"):
        assert getattr(streamed, key) / unit == pytest.approx(getattr(in_memory, key) / unit, rel=1e-9, abs=1e-9)
    assert (streamed.std == 0) == (in_memory.std == 0) == (len(set(every)) == 1)


def test_unscaled_numbers_are_unchanged() -> None:
    found = fit_number("a", NumberStatistics.from_values(np.array([1.0, 5])), "impute", "none")
    assert (found.offset, found.scale) == (0.0, 1.0)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_statistics_of_any_finite_numbers_are_finite(values: list[float]) -> None:
    found = fit_number("a", NumberStatistics.from_values(np.array(values)), "impute", "standard")
    assert math.isfinite(found.offset)
    assert found.scale > 0
    assert math.isfinite(found.scale)
    assert found.fill is not None
    assert math.isfinite(found.fill)
    assert all(math.isfinite(decile) for decile in found.statistics["deciles"])


def test_a_column_without_values_cannot_be_fitted() -> None:
    assert fit_number("a", NumberStatistics.from_values(np.full(3, math.nan)), "impute", "standard") is None
    values = CategoryStatistics.from_values(np.array([None, None], object))
    assert fit_category("a", values, "impute", "refuse") is None


def test_categories_are_sorted_and_the_most_frequent_is_the_fill_value() -> None:
    found = fit_category(
        "a", CategoryStatistics.from_values(np.array(["b", "c", "b", "a", None, "c"], object)), "impute", "bucket"
    )
    assert found.categories == ("a", "b", "c")
    assert found.fill == "b"
    assert found.unknown == "bucket"
    assert found.statistics["frequencies"] == {"a": 1, "b": 2, "c": 2}


def test_of_too_many_categories_the_most_frequent_ones_are_kept() -> None:
    rare = [f"rare {i}" for i in range(type_inference.MAX_CATEGORIES)]
    statistics = CategoryStatistics.from_values(np.array(["a", "b", *rare, "b", None, "a", "b"], object))
    found = fit_category("a", statistics, "refuse", "bucket")
    assert len(found.categories) == type_inference.MAX_CATEGORIES
    assert set(found.categories) == {"a", "b", *sorted(rare)[:-2]}
    assert found.statistics["distinct"] == len(rare) + 2
    bins = found.bins("float32")
    assert bins is not None
    assert sum(bins.expected) == found.statistics["count"] == len(rare) + 5
    assert bins.expected[bins.feature_bins[-1]] == 2  # rows of the two categories without a feature
    with pytest.raises(DataError, match="1002 distinct values, at most 1000 can be told apart"):
        fit_category("a", statistics, "refuse", "refuse")


@pytest.mark.parametrize(
    ("dtype", "values", "scale", "low", "high"),
    [
        (np.uint8, [0, 16], 16, 0, 255),
        (np.uint8, [0, 250], 255, 0, 255),
        (np.uint8, [0, 0], 1, 0, 255),
        (np.int8, [-100, 50], 100, -128, 127),
        (np.uint16, [0, 65000], 65535, 0, 65535),
        (np.int64, [0, 7], 7, None, None),
    ],
)
def test_integers_are_divided_by_their_range(
    dtype: type, values: list[int], scale: float, low: float | None, high: float | None
) -> None:
    found = fit_array("image", ArrayStatistics.from_values(np.array(values, dtype).reshape(1, 2, 1)), True)
    assert (found.offset, found.scale, found.low, found.high, found.shape) == (0, scale, low, high, (2, 1))


@pytest.mark.parametrize("factor", [2.0**700, 2.0**-700])
def test_statistics_of_arrays_are_exact_for_numbers_of_any_size(factor: float) -> None:
    """Scaling by a power of two loses no bit, and the squares of the numbers overflow or underflow."""
    values = np.random.default_rng(0).standard_normal((50, 4))
    expected, found = (
        fit_array("x", ArrayStatistics.from_values(values * unit), True).statistics for unit in (1.0, factor)
    )
    for key in ("mean", "std", "min", "max"):
        assert found[key] / factor == pytest.approx(expected[key], rel=1e-12)
    assert [value / factor for value in found["means"]["deciles"]] == pytest.approx(expected["means"]["deciles"])
    assert found["means"]["counts"] == expected["means"]["counts"]


def test_floats_in_arrays_are_standardised() -> None:
    found = fit_array("x", ArrayStatistics.from_values(np.array([[1.0, 3.0]])), True)
    assert (found.offset, found.scale, found.low) == (2.0, 1.0, None)


def test_robust_scaling_ignores_outliers() -> None:
    values = np.array([1.0, 2, 3, 4, 5, 6, 7, 8, 1e6])
    found = fit_number("a", NumberStatistics.from_values(values), "impute", "robust")
    assert (found.offset, found.scale) == (5, 4)
    mostly_equal = np.array([3.0] * 20 + [2, 8])
    found = fit_number("a", NumberStatistics.from_values(mostly_equal), "impute", "robust")
    assert (found.offset, found.scale) == (3, 3)  # half of the range, as the quartiles are equal
    constant = fit_number("a", NumberStatistics.from_values(np.full(9, 0.1)), "impute", "robust")
    assert constant == fit_number("a", NumberStatistics.from_values(np.full(9, 0.1)), "impute", "standard")


@pytest.mark.parametrize(("texts", "features"), [(1, 32), (279, 32), (512, 64), (2047, 128), (2048, 256), (10**7, 256)])
def test_few_texts_have_fewer_features(texts: int, features: int) -> None:
    statistics = CategoryStatistics.from_counts({"some words": texts}, 3)
    column = COLUMN_KINDS["text"].fit("name", statistics, DataSection())
    assert column is not None
    assert column.width == features


def test_a_robust_scale_that_overflows_is_mean_and_deviation() -> None:
    values = NumberStatistics.from_values(np.array([-1.7e308] * 50 + [1.7e308] * 50))
    found, standard = (fit_number("a", values, "impute", scaling) for scaling in ("robust", "standard"))
    assert (found.offset, found.scale) == (standard.offset, standard.scale)
