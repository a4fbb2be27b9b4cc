"""The k largest values of a row, equal ones in their order."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.nn import Array
from model_store.schema.signature import ClassificationOutput, NumberColumn, Signature
from model_store.schema.top_k import largest_columns


@given(st.integers(1, 6), st.integers(1, 8), st.integers(1, 10), st.integers(0, 2**32 - 1))
def test_the_columns_are_those_of_a_stable_sort(rows: int, width: int, k: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 4, (rows, width)).astype(np.float32)  # with many ties
    expected = np.argsort(-values, axis=1, kind="stable")[:, :k]
    assert largest_columns(values, k).tolist() == expected.tolist()


@pytest.mark.parametrize("ties", [0.0, 1.0])
def test_equal_values_are_not_sorted(ties: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A saturated softmax has one 1 and 999 zeros: all of them were sorted for the two most probable labels."""
    sorted_values: list[int] = []
    argsort = np.argsort

    def counted(values: Array, **options: Any) -> Any:
        sorted_values.append(values.size)
        return argsort(values, **options)

    monkeypatch.setattr(np, "argsort", counted)
    values = np.full((10, 1000), ties, np.float32)
    values[:, 700] = 2
    assert largest_columns(values, 3).tolist() == [[700, 0, 1]] * 10
    assert sorted_values == [10 * 3]


def test_the_first_column_is_that_of_argmax() -> None:
    values = np.array([[0.2, 0.4, 0.4], [0.0, -0.0, 0.0], [1.0, 0.0, 0.0]], np.float32)
    assert largest_columns(values, 1).ravel().tolist() == values.argmax(axis=1).tolist() == [1, 0, 0]


@pytest.mark.parametrize("outputs", [1, 2])
def test_two_labels_are_ranked_whether_the_network_has_one_output_or_two(outputs: int) -> None:
    signature = Signature((NumberColumn("x"),), ClassificationOutput("kind", ("no", "yes")))
    raw = np.array([[0.25], [0.5], [0.75]])
    found = signature.decode_arrays(raw if outputs == 1 else np.concatenate([1 - raw, raw], axis=1))
    assert [list(row["probabilities"].items()) for row in signature.predictions(found, top_k=1)] == [
        [("no", 0.75)],
        [("no", 0.5)],
        [("yes", 0.75)],
    ]
    assert [row["label"] for row in signature.predictions(found, top_k=1)] == ["no", "no", "yes"]
    assert list(signature.predictions(found, top_k=9)[2]["probabilities"]) == ["yes", "no"]
