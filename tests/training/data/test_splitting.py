"""The split into training, validation and test rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.splitting import Fold, split
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


def test_a_class_without_training_rows_is_rejected_by_name() -> None:
    with pytest.raises(DataError, match="class 'rare' has 1 row, and none is left"):
        split(np.repeat([0, 1], [9, 1]), ("often", "rare"), 0.6, 0.1, rng())


@pytest.mark.parametrize(("test", "validation", "location"), [(0.1, 0, "split.test"), (0, 0.1, "split.validation")])
def test_a_fraction_that_rounds_to_no_row_is_rejected(test: float, validation: float, location: str) -> None:
    with pytest.raises(DataError, match=f"{location}: 0.1 of 4 rows rounds to no row"):
        split(np.zeros((4, 1)), (), test, validation, rng())


def test_a_fraction_of_small_classes_is_reported_with_their_size() -> None:
    with pytest.raises(DataError, match=r"split\.test: 0\.2 of the rows of each class, at most 2, rounds to no row"):
        split(np.repeat(np.arange(50), 2), [str(i) for i in range(50)], 0.2, 0, rng())


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


def test_a_fold_that_leaves_a_class_without_training_rows_is_reported() -> None:
    expected = "class 'b' has 1 row, and none is left for training in one of the folds .*lower split.validation"
    with pytest.raises(DataError, match=expected):
        split(
            np.array([0] * 9 + [1]), ("a", "b"), 0.2, 0, rng(), fold=Fold(1, 3)
        )  # fold 1 is drawn, but fold 3 would lack class 'b'
    with pytest.raises(DataError, match=r"folds: expected at most 3 folds, as there are 3 rows, found 4 .use 3"):
        split(np.zeros((3, 1)), (), 0, 0, rng(), fold=Fold(1, 4))
