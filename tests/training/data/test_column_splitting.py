"""Splits by a column: groups stay together, and the latest rows are held out."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from training.data.column_splitting import parse_times, split_by_group, split_by_time
from training.data.splitting import Fold, Split, quantile_classes
from training.errors import DataError

GROUPS = st.lists(st.sampled_from("abcdefghijkl"), min_size=30).filter(lambda groups: len(set(groups)) >= 5)
SEEDS = st.integers(0, 99)


def parts_of(parts: Split, values: list[str]) -> list[set[str]]:
    return [{values[row] for row in rows} for rows in (parts.training, parts.validation, parts.test)]


def all_rows(parts: Split) -> list[int]:
    return sorted(np.concatenate([parts.training, parts.validation, parts.test]).tolist())


@given(GROUPS, SEEDS)
@example([*("a" * 26), "b", "c", "d", "e"], 0)  # small groups are not all drawn for the test rows
def test_no_group_is_in_two_parts_and_the_parts_partition_the_rows(groups: list[str], seed: int) -> None:
    parts = split_by_group(groups, None, 0.2, 0.1, np.random.default_rng(seed), "t.csv")
    found = parts_of(parts, groups)
    assert all(found)
    assert len(set.union(*found)) == sum(map(len, found))
    assert all_rows(parts) == list(range(len(groups)))


@given(GROUPS, SEEDS, st.data())
def test_every_class_keeps_a_training_row(groups: list[str], seed: int, data: st.DataObject) -> None:
    classes = np.array(data.draw(st.lists(st.integers(0, 2), min_size=len(groups), max_size=len(groups))))
    try:
        parts = split_by_group(groups, classes, 0.2, 0.1, np.random.default_rng(seed), "t.csv")
    except DataError:  # each group has all the rows of a class
        assume(False)
    assert set(classes[parts.training]) == set(classes)


@given(GROUPS, SEEDS, st.integers(2, 4))
def test_folds_of_groups_partition_rows_and_groups(groups: list[str], seed: int, count: int) -> None:
    numbers = range(1, count + 1)
    try:
        folds = [
            split_by_group(groups, None, 0.2, 0.1, np.random.default_rng(seed), "t.csv", Fold(number, count))
            for number in numbers
        ]
    except DataError:  # a single large group is left for training and validation
        assume(False)
    assert sorted(np.concatenate([fold.test for fold in folds]).tolist()) == list(range(len(groups)))
    for fold in folds:
        found = parts_of(fold, groups)
        assert len(set.union(*found)) == sum(map(len, found))


def test_parts_of_many_groups_have_their_shares() -> None:
    groups = [f"patient {i // 3}" for i in range(3000)]
    parts = split_by_group(groups, None, 0.2, 0.1, np.random.default_rng(0), "t.csv")
    assert (len(parts.training), len(parts.validation), len(parts.test)) == (2100, 300, 600)
    again = split_by_group(groups, None, 0.2, 0.1, np.random.default_rng(0), "t.csv")
    other = split_by_group(groups, None, 0.2, 0.1, np.random.default_rng(1), "t.csv")
    assert parts.test.tolist() == again.test.tolist() != other.test.tolist()


def test_rows_without_a_group_are_one_group() -> None:
    groups = [None, "a", None, "b", "", "c", "d"] * 4
    parts = split_by_group(groups, None, 0.3, 0.2, np.random.default_rng(0), "t.csv")
    assert sum(bool({None, ""} & {groups[row] for row in rows}) for rows in (parts.training, parts.test)) <= 2
    assert all_rows(parts) == list(range(28))


@pytest.mark.parametrize(
    ("groups", "fold", "problem"),
    [
        ("aabb", None, "expected a group for each of 3 parts, found 2 groups"),
        ("aabbcc", Fold(1, 4), "expected a group for each of 4 folds, found 3 groups"),
    ],
)
def test_too_few_groups_are_an_error(groups: str, fold: Fold | None, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        split_by_group(list(groups), None, 0.2, 0.1, np.random.default_rng(0), "t.csv", fold)


def test_a_class_whose_rows_are_all_in_one_fold_is_an_error() -> None:
    groups, classes = list("aaabbccdd"), np.array([0, 0, 0, 1, 1, 1, 1, 1, 1])
    fold = Fold(1, 4)
    with pytest.raises(DataError, match=r"all rows of 1 classes are in the groups of fold 1"):
        split_by_group(groups, classes, 0.2, 0, np.random.default_rng(0), "t.csv", fold)


@given(
    st.lists(st.integers(0, 30), min_size=10).filter(lambda times: len(set(times)) >= 3),
    st.floats(0, 0.6),
    st.floats(0, 0.3),
)
def test_training_is_before_validation_and_validation_before_test(
    values: list[int], test: float, validation: float
) -> None:
    times = np.array(values, float)
    parts = split_by_time(times, test, validation, "t.csv")
    found = [times[rows] for rows in (parts.training, parts.validation, parts.test) if len(rows)]
    assert all(before.max() < after.min() for before, after in pairwise(found))
    assert len(found) == 1 + (test > 0) + (validation > 0)
    assert all_rows(parts) == list(range(len(times)))


@given(st.lists(st.integers(0, 90), min_size=20).filter(lambda times: len(set(times)) >= 8), st.integers(2, 5))
def test_folds_by_time_test_on_rows_after_those_they_train_on(values: list[int], count: int) -> None:
    times = np.array(values, float)
    tested: list[int] = []
    for number in range(1, count + 1):
        parts = split_by_time(times, 0.2, 0.1, "t.csv", Fold(number, count))
        assert times[parts.training].max() < times[parts.validation].min()
        assert times[parts.validation].max() < times[parts.test].min()
        tested += parts.test.tolist()
    assert len(set(tested)) == len(tested)
    first = times[tested].min()
    assert sorted(tested) == np.flatnonzero(times >= first).tolist()  # all but the first part, once


def test_parts_by_time_have_their_shares() -> None:
    parts = split_by_time(np.arange(100.0)[::-1], 0.2, 0.1, "t.csv")
    assert parts.test.tolist() == list(range(20))
    assert parts.validation.tolist() == list(range(20, 30))
    with pytest.raises(DataError, match="expected at least 3 different times, found 2"):
        split_by_time(np.array([1.0, 1.0, 2.0]), 0.2, 0.1, "t.csv")


@pytest.mark.parametrize(
    "cells",
    [
        ["3", "10", "20.5"],
        ["2023-12-31", "2024-01-01", "2024-01-02T03:04:05"],
        ["2024-01-01T00:00:00+02:00", "2023-12-31T23:00:00", "2024-01-01T00:00:00Z"],
        ["31/12/2023", "01/01/2024", "02/02/2024"],
        ["12/31/2023", "01/01/2024", "01/02/2024"],
        ["2023-Q4", "2024-Q1", "2024-Q2"],
    ],
)
def test_times_are_numbers_dates_or_texts_that_begin_with_a_year(cells: list[str]) -> None:
    times = parse_times(cells, ["line 2", "line 3", "line 4"], "t.csv", "day")
    assert times.tolist() == sorted(set(times.tolist()))


@pytest.mark.parametrize(
    ("cells", "problem"),
    [
        (["01/02/2024", "03/04/2024", "05/06/2024"], "line 2, column day: expected times"),  # day or month first?
        (["2024-01-01", "soon", "2024-01-02"], "line 3, column day: expected times.*found 'soon'"),
        (["2024-Q1", "2024-Q10", "2024-Q2"], "line 2, column day: expected times"),
        (["1", None, "3"], "found none in 1 rows, such as line 3"),
    ],
)
def test_other_texts_are_an_error_that_names_one(cells: list[str | None], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        parse_times(cells, ["line 2", "line 3", "line 4"], "t.csv", "day")


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=500))
def test_quantiles_of_a_quantity_have_equal_sizes_and_ascend(values: list[float]) -> None:
    found = quantile_classes(np.array(values))
    counts = np.bincount(found)
    assert counts.max() - counts.min() <= 1
    assert len(counts) <= 10
    in_order = found[np.argsort(values, kind="stable")]
    assert (np.diff(in_order) >= 0).all()


def test_a_fold_that_leaves_one_group_has_no_validation_rows() -> None:
    groups = list("a" * 26 + "bcde")
    folds = [Fold(number, 2) for number in (1, 2)]
    sizes = []
    for fold in folds:
        try:
            sizes.append(len(split_by_group(groups, None, 0, 0.1, np.random.default_rng(0), "t.csv", fold).test))
        except DataError as error:
            sizes.append(str(error))
    assert 26 in sizes
    assert any("no group can be held out" in str(size) for size in sizes)


def test_one_long_cell_does_not_lengthen_the_others() -> None:
    cells = [str(2000 + i % 20) for i in range(2_000)] + ["2" + " " * 50_000]
    locations = [f"line {i + 2}" for i in range(len(cells))]
    tracemalloc.start()
    try:
        times = parse_times(cells, locations, "t.csv", "year")
        assert tracemalloc.get_traced_memory()[1] < 4_000_000  # an array of texts takes 400 MB
    finally:
        tracemalloc.stop()
    assert (times[0], times[-1]) == (2000, 2)


def test_a_time_that_is_no_number_is_named_among_numbers() -> None:
    with pytest.raises(DataError, match=r"line 3, column day: expected times.*found 'soon'"):
        parse_times(["2000", "soon", "2001"], ["line 2", "line 3", "line 4"], "t.csv", "day")
