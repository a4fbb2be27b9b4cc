"""Temperature scaling: the temperature of least log loss, kept only if it helps rows that it was not fitted on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from training.evaluation.temperature import (
    MAX_DRAWS,
    MAX_TEMPERATURE,
    MIN_ROWS,
    PRIOR_ROWS,
    best_temperature,
    fit_temperature,
    logit_loss,
    unscale_log_probabilities,
)

Logits = tuple[NDArray[np.float64], NDArray[np.float64]]


def drawn(seed: int, rows: int = 3000, outputs: int = 4, *, is_softmax: bool) -> Logits:
    """Return logits and targets that are drawn with the logits' own probabilities."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.standard_normal((rows, outputs))
    if not is_softmax:
        return logits, (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.float64)
    chosen = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return logits, np.eye(outputs)[chosen]


@given(st.integers(0, 1000), st.floats(0.2, 5), st.booleans())
def test_logits_that_are_too_large_get_their_factor_as_temperature(seed: int, factor: float, is_softmax: bool) -> None:
    logits, targets = drawn(seed, is_softmax=is_softmax)
    assert best_temperature(factor * logits, targets, is_softmax=is_softmax) == pytest.approx(factor, rel=0.15)


@given(st.integers(0, 1000), st.floats(0.3, 3), st.booleans())
def test_no_other_temperature_has_a_lower_loss(seed: int, factor: float, is_softmax: bool) -> None:
    logits, targets = drawn(seed, 200, is_softmax=is_softmax)
    logits *= factor
    p = np.exp(logits) / (np.exp(logits).sum(axis=1, keepdims=True) if is_softmax else 1 + np.exp(logits))
    n = len(logits)
    smoothed = (n * targets + PRIOR_ROWS * p) / (n + PRIOR_ROWS)
    best = best_temperature(logits, targets, is_softmax=is_softmax)
    found, *others = (
        logit_loss(logits / (best * by), smoothed, is_softmax=is_softmax) for by in (1, 0.9, 0.99, 1.01, 1.1)
    )
    assert found <= min(others)


def test_a_weight_of_two_counts_as_two_rows() -> None:
    logits, targets = drawn(1, 100, is_softmax=True)
    weights = np.random.default_rng(0).integers(1, 3, 100)
    twice = (np.repeat(rows, weights, axis=0) for rows in (3 * logits, targets))
    found = best_temperature(3 * logits, targets, weights.astype(np.float64), is_softmax=True)
    assert found == pytest.approx(
        best_temperature(*twice, is_softmax=True), rel=0.05
    )  # the rows of the prior count less


def test_rows_without_a_mistake_get_no_extreme_temperature() -> None:
    logits = np.tile([[2.0, 0.0]], (100, 1))
    found = best_temperature(logits, np.tile([[1.0, 0.0]], (100, 1)), is_softmax=True)
    before, after = 1 / (1 + np.exp(-2)), 1 / (1 + np.exp(-2 / found))
    assert after == pytest.approx((100 + PRIOR_ROWS * before) / (100 + PRIOR_ROWS))


def test_few_rows_change_the_temperature_little() -> None:
    logits, targets = drawn(0, 10, is_softmax=True)
    found = best_temperature(5 * logits, targets, is_softmax=True)
    assert 1 < found < best_temperature(5 * np.tile(logits, (100, 1)), np.tile(targets, (100, 1)), is_softmax=True)


def test_equal_logits_stay_within_the_limits() -> None:
    found = best_temperature(np.zeros((60, 2)), np.tile([[1.0, 0.0]], (60, 1)), is_softmax=True)
    assert 1 / MAX_TEMPERATURE <= found <= MAX_TEMPERATURE


@pytest.mark.parametrize("is_softmax", [True, False])
def test_a_temperature_is_kept_where_it_lowers_the_loss_of_other_rows(is_softmax: bool) -> None:
    logits, targets = drawn(2, is_softmax=is_softmax)
    fit = fit_temperature(3 * logits, targets, np.random.default_rng(0), is_softmax=is_softmax)
    assert fit is not None
    assert fit.temperature == pytest.approx(3, rel=0.15)
    assert fit.log_loss_after < fit.log_loss_before
    assert fit.rows == len(logits)


def test_a_temperature_that_does_not_help_other_rows_is_not_kept() -> None:
    """The probabilities are right already: over many draws, the fitted temperatures are noise and mostly rejected."""
    kept = 0
    for seed in range(40):
        logits, targets = drawn(seed, 200, is_softmax=True)
        kept += fit_temperature(logits, targets, np.random.default_rng(seed), is_softmax=True) is not None
    assert kept < 20


def test_the_halves_do_not_measure_themselves() -> None:
    """A row is measured with the temperature of the other half, whatever its own label is."""
    logits, targets = drawn(3, 400, is_softmax=True)
    logits *= 2
    rng = np.random.default_rng(5)
    rng.permutation(400)  # which rows are used: all
    losses = []
    for _ in range(MAX_DRAWS):
        order = rng.permutation(400)
        halves = [np.sort(order[i::2]) for i in range(2)]
        of_half = [best_temperature(logits[rows], targets[rows], is_softmax=True) for rows in halves]
        losses += [
            logit_loss(logits[rows] / other, targets[rows], is_softmax=True)
            for rows, other in zip(halves, of_half[::-1], strict=True)
        ]
    fit = fit_temperature(logits, targets, np.random.default_rng(5), is_softmax=True)
    assert fit is not None
    assert fit.log_loss_after == pytest.approx(np.mean(losses), rel=1e-12)


def test_few_rows_and_rows_without_weight_get_no_temperature() -> None:
    logits, targets = drawn(4, MIN_ROWS, is_softmax=True)
    fewer = fit_temperature(5 * logits[1:], targets[1:], np.random.default_rng(0), is_softmax=True)
    weightless = fit_temperature(5 * logits, targets, np.random.default_rng(0), np.zeros(MIN_ROWS), is_softmax=True)
    assert fewer is None
    assert weightless is None
    assert fit_temperature(5 * logits, targets, np.random.default_rng(0), is_softmax=True) is not None


@given(st.floats(0.05, 20), st.lists(st.floats(-50, 50), min_size=2, max_size=5))
def test_the_probabilities_before_the_temperature_are_recovered(temperature: float, logits: list[float]) -> None:
    z = np.array([logits])
    before, after = (x - np.log(np.exp(x - x.max()).sum()) - x.max() for x in (z, z / temperature))
    assert unscale_log_probabilities(after, temperature) == pytest.approx(before, rel=1e-9, abs=1e-9)
