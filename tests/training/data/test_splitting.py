"""The split into training, validation and test rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from training.data.splitting import Fold, part_sizes, split
from training.errors import DataError


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@given(st.lists(st.integers(0, 2), min_size=30).filter(lambda labels: len(set(labels)) == 3), st.integers(0, 99))
def test_the_parts_partition_the_rows_and_every_class_has_training_rows(labels: list[int], seed: int) -> None:
    targets = np.array(labels)
    parts = split(targets, ("a", "b", "c"), 0.2, 0.1, np.random.default_rng(seed))
    every = np.concatenate([parts.training, parts.validation, parts.test])
    assert sorted(every.tolist()) == list(range(len(labels)))
    assert set(targets[parts.training]) == {0, 1, 2}


def test_the_split_is_stratified_by_class() -> None:
    targets = np.repeat([0, 1], [100, 50])
    parts = split(targets, ("a", "b"), 0.2, 0.1, rng())
    assert np.bincount(targets[parts.test]).tolist() == [20, 10]
    assert np.bincount(targets[parts.validation]).tolist() == [10, 5]


def test_the_split_depends_only_on_the_generator() -> None:
    targets = np.zeros((50, 1))
    np.random.seed(1)  # noqa: NPY002 - the global state that must not matter
    first = split(targets, (), 0.2, 0.1, rng())
    np.random.seed(2)  # noqa: NPY002
    second = split(targets, (), 0.2, 0.1, rng())
    other = split(targets, (), 0.2, 0.1, np.random.default_rng(1))
    assert first.test.tolist() == second.test.tolist()
    assert first.test.tolist() != other.test.tolist()


def test_without_held_out_rows_all_rows_are_training_and_evaluation_rows() -> None:
    parts = split(np.zeros((4, 1)), (), 0, 0, rng())
    assert parts.training.tolist() == [0, 1, 2, 3]
    assert parts.evaluation_rows.tolist() == [0, 1, 2, 3]
    assert not len(parts.test)


def test_a_class_of_one_row_is_trained_on() -> None:
    parts = split(np.repeat([0, 1], [9, 1]), ("often", "rare"), 0.6, 0.1, rng())
    assert (len(parts.test), len(parts.validation)) == (6, 1)
    assert 9 in parts.training


@pytest.mark.parametrize(("test", "validation", "location"), [(0.1, 0, "split.test"), (0, 0.1, "split.validation")])
def test_a_fraction_that_rounds_to_no_row_is_rejected(test: float, validation: float, location: str) -> None:
    with pytest.raises(DataError, match=f"{location}: 0.1 of 4 rows rounds to no row"):
        split(np.zeros((4, 1)), (), test, validation, rng())


def test_classes_of_one_row_leave_nothing_to_hold_out() -> None:
    expected = r"split\.test: expected 0\.2 of 50 rows, found none, as each class needs a training row"
    with pytest.raises(DataError, match=expected):
        split(np.arange(50), [str(i) for i in range(50)], 0.2, 0, rng())


def sizes(counts: list[int], test: float, validation: float) -> tuple[NDArray[np.int64], ...]:
    """Return the test and validation rows of each class."""
    targets = np.repeat(np.arange(len(counts)), counts)
    parts = split(targets, [str(i) for i in range(len(counts))], test, validation, rng())
    return tuple(np.bincount(targets[part], minlength=len(counts)) for part in (parts.test, parts.validation))


def test_small_classes_get_their_test_rows() -> None:
    """Rounding each class by itself gave 59 of 60 classes no test row, and 30 rows instead of 54."""
    test, _ = sizes([300] + [4] * 59, 0.1, 0)
    assert test.sum() == 54
    assert test[0] == 30
    assert sorted(test[1:]) == [0] * 35 + [1] * 24


def test_a_class_without_test_rows_comes_before_a_larger_remainder() -> None:
    assert sizes([152, 68, 4], 0.1, 0)[0].tolist() == [15, 6, 1]  # 15.2, 6.8 and 0.4 rows of 22


def test_validation_and_test_rows_of_small_classes_are_of_different_classes() -> None:
    test, validation = sizes([300] + [4] * 59, 0.1, 0.1)
    assert (test.sum(), validation.sum()) == (54, 54)
    assert (test + validation)[1:].max() == 1


CLASS_COUNTS = st.lists(st.one_of(st.integers(1, 6), st.integers(2, 300)), min_size=1, max_size=70)
FRACTIONS = st.sampled_from([0.05, 0.1, 0.15, 0.2, 0.29, 1 / 3, 0.4])


@given(CLASS_COUNTS, FRACTIONS, st.sampled_from([0, 0.1, 0.2, 0.3]), st.integers(0, 9))
def test_parts_have_their_sizes_for_any_class_counts(counts, test, validation, seed) -> None:
    n = np.array(counts)
    found = part_sizes(n, test, validation, np.random.default_rng(seed))
    most = n - 1  # a row is left for training
    for fraction, rows in zip((test, validation), found, strict=True):
        low, high = (np.minimum(f(np.round(fraction * n, 9)), most) for f in (np.floor, np.ceil))
        assert (low <= rows).all()
        assert (rows <= high).all()
        total = int(round(fraction * n.sum(), 9) + 0.5)
        assert rows.sum() == min(total, high.sum())
        if ((rows > low) & (low > 0)).any():  # no class gets a further row before each that can has one
            assert (rows >= np.minimum(high, 1)).all()
        most = np.minimum(n - 1, np.ceil(np.round((test + validation) * n, 9))) - rows


@given(CLASS_COUNTS.map(lambda counts: [*(max(2, n) for n in counts), 10]), st.integers(2, 12), st.integers(0, 9))
def test_folds_have_equal_sizes_for_any_class_counts(counts: list[int], folds: int, seed: int) -> None:
    """Rounding each class by itself gave five folds of one class of 5 and 20 of 4 the sizes 1, 21, 21, 21, 21."""
    targets = np.repeat(np.arange(len(counts)), counts)
    folds = min(folds, len(targets))
    labels = [str(i) for i in range(len(counts))]
    parts = [
        split(targets, labels, 0, 0.1, np.random.default_rng(seed), fold=Fold(number, folds))
        for number in range(1, folds + 1)
    ]
    assert sorted(np.concatenate([part.test for part in parts])) == list(range(len(targets)))
    found = np.array([np.bincount(targets[part.test], minlength=len(counts)) for part in parts])
    assert found.sum(axis=1).max() - found.sum(axis=1).min() <= 1
    assert (found.max(axis=0) - found.min(axis=0) <= 1).all()
    for part in parts:
        assert set(targets[part.training]) == set(range(len(counts)))
        assert not {*part.validation} & {*part.test}


def test_folds_of_small_classes_are_not_starved() -> None:
    targets = np.repeat(np.arange(21), [5] + [4] * 20)
    labels = [str(i) for i in range(21)]
    found = [len(split(targets, labels, 0, 0, rng(), fold=Fold(number, 5)).test) for number in range(1, 6)]
    assert found == [17, 17, 17, 17, 17]


def test_folds_have_different_validation_rows() -> None:
    targets = np.repeat([0, 1], 50)
    found = [split(targets, ("a", "b"), 0, 0.2, rng(), fold=Fold(number, 5)).validation for number in range(1, 6)]
    assert sorted(np.concatenate(found)) == list(range(100))


@given(st.integers(2, 9), st.lists(st.integers(0, 1), min_size=30, max_size=60), st.integers(0, 99))
def test_folds_are_stratified_and_partition_the_rows(count: int, labels: list[int], seed: int) -> None:
    targets = np.array([*labels, *[0] * 10, *[1] * 10])
    held: list[int] = []
    for number in range(1, count + 1):
        parts = split(targets, ("a", "b"), 0.9, 0.1, np.random.default_rng(seed), fold=Fold(number, count))
        every = np.concatenate([parts.training, parts.validation, parts.test])
        assert sorted(every.tolist()) == list(range(len(targets)))
        for label in (0, 1):
            rows = int((targets == label).sum())
            assert abs((targets[parts.test] == label).sum() - rows / count) < 1
        held += parts.test.tolist()
    assert sorted(held) == list(range(len(targets)))


def test_the_only_row_of_a_class_is_a_training_row_in_every_fold() -> None:
    targets = np.array([2] + [0] * 9 + [1])
    held: list[int] = []
    for number in range(1, 4):
        parts = split(targets, ("a", "b", "c"), 0.2, 0.2, rng(), fold=Fold(number, 3))
        assert {0, 10} <= set(parts.training.tolist())
        held += parts.test.tolist()
    assert sorted(held) == list(range(1, 10))


def test_more_folds_than_rows_that_can_be_held_out_are_reported() -> None:
    with pytest.raises(DataError, match=r"at most 3 folds, as there are 3 rows of classes with at least 2 rows, found"):
        split(np.array([0, 0, 0, 1]), ("a", "b"), 0, 0, rng(), fold=Fold(1, 4))
    with pytest.raises(DataError, match=r"folds: expected at most 3 folds, as there are 3 rows, found 4 .use 3"):
        split(np.zeros((3, 1)), (), 0, 0, rng(), fold=Fold(1, 4))
