"""The rows of a stream that are held out: of each class and in all as many as of a table in memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.splitting import part_sizes
from training.data.streaming.held_out import HeldOutSampler

RNG = np.random.default_rng


def draw(classes: np.ndarray, batch: int, fractions: tuple[float, float], seed: int) -> tuple[list, np.ndarray, tuple]:
    """Return the rows of both parts, the training rows, and the expected sizes of the parts."""
    sampler = HeldOutSampler(sum(fractions), RNG(seed))
    rows = np.arange(len(classes))
    training = [
        sampler.add(rows[i : i + batch], rows[i : i + batch], classes[i : i + batch])
        for i in range(0, len(rows), batch)
    ]
    sizes = part_sizes(np.bincount(classes), *fractions, RNG(seed))
    parts, left = sampler.draw(sizes, np.arange(classes.max() + 1))
    for records, numbers in parts:
        assert records.tolist() == numbers.tolist() == sorted(numbers)
    return [records for records, _ in parts], np.concatenate([*training, left]), sizes


@given(
    st.lists(st.one_of(st.integers(1, 6), st.integers(1, 80)), min_size=1, max_size=20),
    st.sampled_from([(0.1, 0.0), (0.2, 0.1), (1 / 3, 0.25), (0.0, 0.15), (0.29, 0.71 / 2), (0.0, 0.0)]),
    st.integers(1, 50),
    st.integers(0, 99),
)
def test_the_parts_have_the_sizes_of_a_split_in_memory(counts, fractions, batch, seed) -> None:
    classes = RNG(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    parts, training, sizes = draw(classes, batch, fractions, seed)
    for part, expected in zip(parts, sizes, strict=True):
        assert np.bincount(classes[part], minlength=len(counts)).tolist() == expected.tolist()
    assert sorted(np.concatenate([*parts, training])) == list(range(len(classes)))
    again, _, _ = draw(classes, 7, fractions, seed)
    assert [part.tolist() for part in again] == [part.tolist() for part in parts]  # regardless of the batches


def test_every_row_is_as_likely_as_any_other_to_be_held_out() -> None:
    """A regular pattern in the file must not decide which rows are held out."""
    drawn = np.zeros(60)
    for seed in range(3000):
        (test, validation), _, _ = draw(np.zeros(60, np.int64), 9, (0.2, 0.1), seed)
        drawn[test] += 1
        drawn[validation] += 100_000
    assert drawn % 100_000 / 3000 == pytest.approx(np.full(60, 0.2), abs=0.04)
    assert drawn // 100_000 / 3000 == pytest.approx(np.full(60, 0.1), abs=0.04)


def test_codes_of_one_class_are_drawn_together() -> None:
    sampler = HeldOutSampler(0.5, RNG(0))
    rows = np.arange(12)
    training = sampler.add(rows, rows, rows % 3)
    parts, left = sampler.draw([np.array([4, 1])], np.array([0, 1, 0]))  # codes 0 and 2 are class 0
    assert np.bincount(parts[0][0] % 3 == 1).tolist() == [4, 1]
    assert len(parts[0][0]) + len(left) + len(training) == 12
