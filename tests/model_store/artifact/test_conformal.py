"""Conformal prediction: ranks of quantiles, the coverage that they promise, and reduced scores."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.artifact.conformal import (
    Conformal,
    LocalScale,
    TooFewScoresError,
    label_scores,
    quantile,
    reduced_scores,
    rows_needed,
    score_rank,
)

FIXTURES = Path(__file__).parents[2] / "fixtures"
LEVELS = [round(0.05 * k, 2) for k in range(1, 20)] + [0.99, 0.999]


@pytest.mark.parametrize(("level", "rows"), [(0.5, 1), (0.8, 4), (0.9, 9), (0.95, 19), (0.99, 99), (0.999, 999)])
def test_a_level_needs_so_many_rows(level: float, rows: int) -> None:
    assert rows_needed(level) == rows
    assert quantile(np.arange(rows), level) == rows - 1
    problem = f"expected {rows} calibration rows or more for the level {level}, found {rows - 1}"
    with pytest.raises(TooFewScoresError, match=problem):
        quantile(np.arange(rows - 1), level)


@given(st.integers(0, 5000), st.sampled_from(LEVELS))
def test_the_rank_is_exact(n: int, level: float) -> None:
    """In doubles, (9 + 1) · 0.9 rounded up may be 10: one row more would seem to be needed."""
    share = Fraction(str(level))
    assert score_rank(n, level) - 1 < (n + 1) * share <= score_rank(n, level)
    assert (score_rank(n, level) <= n) == (n >= rows_needed(level))


@pytest.mark.parametrize("level", [0, 1, -0.1, 1.5, math.nan])
def test_a_level_is_between_0_and_1(level: float) -> None:
    with pytest.raises(ValueError, match="level: expected a number between 0 and 1"):
        score_rank(10, level)


@given(st.integers(1, 300), st.sampled_from(LEVELS))
def test_the_next_of_exchangeable_scores_is_covered_as_often_as_promised(n: int, level: float) -> None:
    """Each of n + 1 different scores is the next one equally often; ⌈(n + 1) level⌉ of them are covered."""
    if n < rows_needed(level):
        return
    scores = np.arange(n + 1.0)
    covered = sum(scores[i] <= quantile(np.delete(scores, i), level) for i in range(n + 1))
    assert covered == score_rank(n, level)
    assert level <= covered / (n + 1) < level + 1 / (n + 1) + 1e-12


@given(st.integers(1, 400), st.integers(1, 60), st.sampled_from(LEVELS))
def test_reduced_scores_promise_every_level_that_they_accept(n: int, most: int, level: float) -> None:
    scores = np.arange(n, dtype=np.float64)
    kept = reduced_scores(scores[::-1], most)
    assert len(kept) == min(n, most)
    assert (np.diff(kept) > 0).all()
    if len(kept) >= rows_needed(level):
        found = quantile(kept, level)
        assert found >= quantile(scores, level)
        assert found <= score_rank(n, level) - 1 + (n + 1) / (len(kept) + 1) + 1  # one step of the m at most


def test_the_score_of_a_label_sums_the_probabilities_before_it() -> None:
    p = np.array([[0.2, 0.5, 0.3], [0.4, 0.2, 0.4]], np.float32)
    assert label_scores(p) == pytest.approx(np.array([[0.8, 0.0, 0.5], [0.0, 0.8, 0.4]]), abs=1e-7)
    found = label_scores(p, penalty=0.1, rank=1)
    assert found == pytest.approx(np.array([[1.0, 0.0, 0.6], [0.0, 1.0, 0.5]]), abs=1e-7)


def drawn(rows: int, labels: int, seed: int) -> tuple[Any, Any]:
    """Return probabilities and labels that are drawn with them."""
    rng = np.random.default_rng(seed)
    z = 2 * rng.standard_normal((rows, labels))
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    return p.astype(np.float32), (z + rng.gumbel(size=z.shape)).argmax(axis=1)


@pytest.mark.parametrize(("penalty", "rank"), [(0.0, 0), (0.01, 5), (0.1, 2)])
@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95, 0.99])
def test_sets_hold_the_true_label_as_often_as_promised(penalty: float, rank: int, level: float) -> None:
    p, y = drawn(4000, 8, 0)
    scores = np.sort(label_scores(p[:2000], penalty, rank)[np.arange(2000), y[:2000]])
    conformal = Conformal("raps", scores[None], penalty=penalty, rank=rank)
    held, true = conformal.sets(p[2000:], level), y[2000:]
    covered = held[np.arange(2000), true].mean()
    assert covered >= level - 3 * math.sqrt(2 * level * (1 - level) / 2000)  # of both halves
    assert held.any(axis=1).all()


@given(st.integers(0, 500), st.sampled_from(LEVELS), st.sampled_from(LEVELS))
def test_a_larger_level_has_larger_sets_and_intervals(seed: int, one: float, other: float) -> None:
    low, high = sorted((one, other))
    p, y = drawn(1200, 4, seed)
    sets = Conformal("aps", np.sort(label_scores(p)[np.arange(1200), y])[None])
    assert (sets.sets(p[:50], low) <= sets.sets(p[:50], high)).all()
    values = np.random.default_rng(seed).standard_normal((50, 1))
    intervals = Conformal("absolute", np.sort(np.abs(np.random.default_rng(seed).standard_normal((1, 1200)))))
    (a, b), (c, d) = intervals.intervals(values, low), intervals.intervals(values, high)
    assert (c <= a).all()
    assert (a <= b).all()
    assert (b <= d).all()


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95, 0.99])
def test_intervals_hold_the_target_as_often_as_promised(normalized: bool, level: float) -> None:
    """The error grows with the prediction: a local scale keeps the promise for small and for large ones."""
    rng = np.random.default_rng(1)
    values = rng.uniform(1, 10, (6000, 1))
    targets = values + values * rng.standard_normal(values.shape)
    scale = LocalScale(np.array([1.0, 10.0]), np.array([1.0, 10.0]))
    scales = (scale,) if normalized else ()
    errors = np.abs(targets - values)[:, 0] / (scale(values[:, 0]) if normalized else 1)
    conformal = Conformal("normalized" if normalized else "absolute", np.sort(errors[:3000])[None], scales)
    low, high = conformal.intervals(values[3000:], level)
    covered = ((targets[3000:] >= low) & (targets[3000:] <= high))[:, 0]
    slack = 3 * math.sqrt(2 * level * (1 - level) / 3000)
    assert abs(covered.mean() - level) <= slack
    if normalized:
        small = values[3000:, 0] < 4
        assert abs(covered[small].mean() - level) <= slack * 2
        assert abs(covered[~small].mean() - level) <= slack * 2


def test_each_target_has_its_own_scores() -> None:
    conformal = Conformal("absolute", np.array([[1.0, 2, 3], [10.0, 20, 30]]))
    low, high = conformal.intervals(np.array([[0.0, 0.0]]), 0.5)
    assert low.tolist() == [[-2, -20]]
    assert high.tolist() == [[2, 20]]
    assert conformal.max_level == 0.75


@pytest.fixture(scope="module")
def mapie() -> dict[str, Any]:
    """MAPIE 1.6.0 on the same rows; see tests/fixtures/make_mapie.py."""
    with np.load(FIXTURES / "mapie.npz") as file:
        return dict(file)


def test_intervals_are_those_of_mapie(mapie: dict[str, Any]) -> None:
    conformal = Conformal("absolute", np.sort(np.abs(mapie["targets"] - mapie["values"][:, 0]))[None])
    for i, level in enumerate(mapie["levels"].tolist()):
        low, high = conformal.intervals(mapie["new"], level)
        assert low[:, 0] == pytest.approx(mapie["intervals"][:, 0, i], rel=1e-12)
        assert high[:, 0] == pytest.approx(mapie["intervals"][:, 1, i], rel=1e-12)


@pytest.mark.parametrize("method", ["aps", "raps"])
def test_scores_of_labels_and_their_quantiles_are_those_of_mapie(mapie: dict[str, Any], method: str) -> None:
    p, y = mapie["probabilities"], mapie["labels"]
    penalty, rank = (float(mapie["penalty"]), int(mapie["rank"])) if method == "raps" else (0.0, 0)
    scores = label_scores(p, penalty, rank)[np.arange(len(y)), y]
    own = p[np.arange(len(y)), y]  # which MAPIE subtracts a random share of
    assert scores + own == pytest.approx(mapie[method], rel=1e-12)
    found = [quantile(np.sort(mapie[method]), level) for level in mapie["levels"].tolist()]
    assert found == pytest.approx(mapie[f"{method}_quantiles"].tolist(), rel=1e-12)
