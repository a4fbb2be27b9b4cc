"""Kinds, labels, and the preprocessing learned from columns."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.schema.columns import number_in
from training.data import type_inference
from training.data.readers import Table
from training.errors import DataError


def table(*cells: str | None) -> Table:
    return Table("t.csv", {"a": list(cells)}, list(range(2, 2 + len(cells))))


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["1", "-2.5e3", None, " 4".strip()], "number"),
        (["1", "x"], "category"),
        (["1_000", "2"], "category"),
        (["inf", "2"], "category"),
        (["1e999"], "category"),
        ([None, None], "number"),
    ],
)
def test_a_column_is_numbers_when_all_its_cells_are_finite_numbers(cells: list[str | None], kind: str) -> None:
    assert type_inference.infer_kind(cells) == kind


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_finite_float_is_read_exactly(value: float) -> None:
    assert number_in(repr(value)) == value


def test_each_cell_that_is_no_number_is_named_with_line_and_column() -> None:
    with pytest.raises(DataError) as caught:
        type_inference.numbers(table("1", "two", None, "inf"), "a")
    assert [fault.location for fault in caught.value.faults] == ["line 3, column a", "line 5, column a"]
    assert "found 'two'" in str(caught.value)


def test_ids_and_texts_are_refused_as_categories_with_a_mend() -> None:
    names = table(*(f"name {i}" for i in range(50)))
    with pytest.raises(DataError, match="50 different texts in 50 rows") as caught:
        type_inference.categories(names, "a", sure=False)
    assert "kinds" in caught.value.faults[0].fix
    assert len(type_inference.categories(names, "a", sure=True)) == 50


def test_more_categories_than_can_be_features_are_refused_though_the_job_asks() -> None:
    with pytest.raises(DataError, match="too many"):
        type_inference.categories(
            table(*(f"name {i}" for i in range(type_inference.MOST_CATEGORIES + 1))), "a", sure=True
        )


def test_numbers_that_the_job_calls_categories_are_counted_and_no_slip_is_looked_for() -> None:
    numbers = table(*map(str, range(type_inference.MOST_CATEGORIES + 1)))
    with pytest.raises(DataError, match="1001 different texts in 1001 rows, too many for categories; 1000 at most"):
        type_inference.categories(numbers, "a", sure=True)


def test_numbers_and_dates_in_disguise_are_told() -> None:
    with pytest.raises(
        DataError, match=r"numbers, if '0,5 €' is written with a point alone, without commas and units; or"
    ):
        type_inference.categories(table(*(f"{i},5 €" for i in range(50))), "a", sure=False)
    dates = table(*(f"2025-01-{i % 28 + 1:02}" for i in range(90)))
    (note,) = type_inference.kind_warnings(dates, {"a": "category"}, {})
    assert note.startswith("column a counts as categories: dates: write what counts as numbers")
    assert type_inference.kind_warnings(dates, {"a": "category"}, {"a": "category"}) == []
    assert type_inference.kind_warnings(table(*("red", "blue") * 40), {"a": "category"}, {}) == []


def test_one_slip_among_numbers_is_named_instead_of_making_categories_of_them() -> None:
    with pytest.raises(DataError, match=r"line 52, column a: expected a number.*found 'O.5'"):
        type_inference.categories(table(*map(str, range(50)), "O.5"), "a", sure=False)


@pytest.mark.parametrize(
    ("cells", "labels"),
    [
        (["1", "2", "1"], [1, 2, 1]),
        (["1.0", "0.0"], [1, 0]),
        (["-1", "+1", "0"], [-1, 1, 0]),
        (["01", "02"], ["01", "02"]),
        (["yes", "1"], ["yes", "1"]),
        (["0.5", "1"], ["0.5", "1"]),
        (["99999999999999999999", "1"], ["99999999999999999999", "1"]),
    ],
)
def test_labels_are_kept(cells: list[str], labels: list[object]) -> None:
    assert type_inference.labels_of(cells) == labels


@pytest.mark.parametrize(
    ("cells", "classes"),
    [
        (["a", "b"], True),
        (["0", "1", "1"], True),
        (["0.5", "1"], False),
        ([str(i // 2) for i in range(40)], True),
        ([str(i // 2) for i in range(42)], False),
        (["154", "169", "182", "189", "193", "176"], False),
        (["0", "1", "2"], True),
    ],
)
def test_texts_and_few_whole_numbers_are_classes(cells: list[str], classes: bool) -> None:
    assert type_inference.is_classes(cells) is classes


def test_a_number_learns_mean_deviation_median_and_deciles() -> None:
    found = type_inference.fit_number("a", np.array([1.0, 2, 3, 10, math.nan]), "impute", True)
    assert (found.offset, found.fill) == (4.0, 2.5)
    assert found.scale == pytest.approx(math.sqrt(12.5))
    assert found.statistics["missing"] == 1
    assert len(found.statistics["deciles"]) == 11
    assert (found.statistics["deciles"][0], found.statistics["deciles"][10]) == (1.0, 10.0)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_every_value_is_counted_at_one_decile(values: list[float]) -> None:
    found = type_inference.spread_of(np.array(values))
    assert sum(found["counts"]) == len(values)
    assert len(found["counts"]) == len(set(found["deciles"]))


def test_value_that_comes_often_has_a_count_of_its_own() -> None:
    found = type_inference.spread_of(np.array([0.0] * 7 + [1.0] * 3))
    assert dict(zip(sorted(set(found["deciles"])), found["counts"], strict=True))[0.0] == 7


def test_arrays_know_how_the_means_of_their_rows_are_spread() -> None:
    images = np.arange(40, dtype=np.uint8).reshape(10, 2, 2)
    found = type_inference.fit_array("pixels", images, True).statistics["means"]
    assert (found["deciles"][0], found["deciles"][10]) == (1.5, 37.5)
    assert sum(found["counts"]) == 10


def test_refused_missing_values_have_no_fill() -> None:
    assert type_inference.fit_number("a", np.array([1.0, 2]), "refuse", True).fill is None
    assert type_inference.fit_category("a", np.array(["x"], object), "refuse", "refuse").fill is None


def test_a_constant_is_divided_by_one() -> None:
    found = type_inference.fit_number("a", np.full(10, 0.1), "impute", True)
    assert (found.offset, found.scale) == (0.1, 1.0)


def test_unscaled_numbers_stay_as_they_are() -> None:
    found = type_inference.fit_number("a", np.array([1.0, 5]), "impute", False)
    assert (found.offset, found.scale) == (0.0, 1.0)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_statistics_of_any_finite_numbers_are_finite(values: list[float]) -> None:
    found = type_inference.fit_number("a", np.array(values), "impute", True)
    assert math.isfinite(found.offset)
    assert found.scale > 0
    assert math.isfinite(found.scale)
    assert found.fill is not None
    assert math.isfinite(found.fill)
    assert all(math.isfinite(decile) for decile in found.statistics["deciles"])


def test_a_column_that_is_all_missing_is_refused() -> None:
    with pytest.raises(DataError, match="every value in the training rows is missing"):
        type_inference.fit_number("a", np.full(3, math.nan), "impute", True)
    with pytest.raises(DataError, match="every value in the training rows is missing"):
        type_inference.fit_category("a", np.array([None, None], object), "impute", "refuse")


def test_categories_are_sorted_and_the_most_frequent_fills_in() -> None:
    found = type_inference.fit_category("a", np.array(["b", "c", "b", "a", None, "c"], object), "impute", "bucket")
    assert found.categories == ("a", "b", "c")
    assert found.fill == "b"
    assert found.unknown == "bucket"
    assert found.statistics["frequencies"] == {"a": 1, "b": 2, "c": 2}


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
def test_whole_numbers_are_divided_by_their_range(
    dtype: type, values: list[int], scale: float, low: float | None, high: float | None
) -> None:
    found = type_inference.fit_array("image", np.array(values, dtype).reshape(1, 2, 1), True)
    assert (found.offset, found.scale, found.low, found.high, found.shape) == (0, scale, low, high, (2, 1))


def test_statistics_of_arrays_are_theirs_however_large_the_numbers() -> None:
    """Powers of two lose no bit, and the squares of the large ones overflow."""
    values = np.random.default_rng(0).standard_normal((50, 4))
    small, large = (type_inference.fit_array("x", values * factor, True).statistics for factor in (1.0, 2.0**700))
    for key in ("mean", "std", "min", "max"):
        assert large[key] == pytest.approx(small[key] * 2.0**700, rel=1e-12)
    assert large["means"]["deciles"] == pytest.approx([value * 2.0**700 for value in small["means"]["deciles"]])
    assert large["means"]["counts"] == small["means"]["counts"]


def test_real_numbers_in_arrays_are_standardised() -> None:
    found = type_inference.fit_array("x", np.array([[1.0, 3.0]]), True)
    assert (found.offset, found.scale, found.low) == (2.0, 1.0, None)
