"""The order of rows depends on the rows alone, and weights count."""

import numpy as np
import pytest

from training.sklearn.row_order import order_rows

NUMBERS = np.array([1.0, np.nan, -0.0, 3.0])
TEXTS = np.array(["a", None, "c", "d"], object)
Y = np.array([0, 1, 0, 1])


def test_any_arrangement_gives_the_same_rows_and_digest() -> None:
    first = order_rows([NUMBERS, TEXTS], Y)
    for order in ([3, 1, 0, 2], [1, 0, 3, 2]):
        other = order_rows([NUMBERS[order], TEXTS[order]], Y[order])
        assert np.array(order)[other.rows].tolist() == first.rows.tolist()
        assert other.sha256 == first.sha256


@pytest.mark.parametrize("column", [0, 1, 2])
def test_another_value_is_another_digest(column: int) -> None:
    table = [NUMBERS.copy(), TEXTS.copy(), Y.copy()]
    before = order_rows(table[:2], table[2]).sha256
    table[column][0] = (5.0, "b", 1)[column]
    assert order_rows(table[:2], table[2]).sha256 != before


def test_zeros_of_both_signs_are_equal() -> None:
    assert order_rows([NUMBERS, TEXTS], Y).sha256 == order_rows([NUMBERS + 0.0, TEXTS], Y).sha256


def test_whole_weights_are_copies_and_others_weights() -> None:
    copies = order_rows([NUMBERS, TEXTS], Y, np.array([2.0, 0, 1, 3]))
    assert copies.weights is None
    assert np.bincount(copies.rows).tolist() == [2, 0, 1, 3]
    fractions = order_rows([NUMBERS, TEXTS], Y, np.array([0.5, 0, 1, 3]))
    assert fractions.weights is not None
    assert dict(zip(fractions.rows.tolist(), fractions.weights.tolist(), strict=True)) == {0: 0.5, 2: 1.0, 3: 3.0}


def test_equal_fractions_are_no_weights() -> None:
    assert order_rows([NUMBERS, TEXTS], Y, np.full(4, 0.5)).weights is None


def test_many_copies_are_weights_of_the_loss() -> None:
    ordered = order_rows([NUMBERS, TEXTS], Y, np.array([1.0, 1, 1, 1000]))
    assert ordered.weights is not None
    assert len(ordered.rows) == 4
