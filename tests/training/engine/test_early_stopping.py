"""Early stopping and the history."""

from __future__ import annotations

import numpy as np
import pytest

from model_store.nn import Linear, Sequential
from training import MSE, DivergedError
from training.config.settings import EarlyStoppingSection
from training.engine.early_stopping import MAX_HISTORY_POINTS, EarlyStopping, EpochResult

NOTHING = np.empty((0, 1), np.float32)


def network() -> Sequential:
    return Sequential([Linear(1, 1, rng=np.random.default_rng(0))])


def watch(losses: list[float], early_stopping: EarlyStoppingSection | None) -> tuple[EarlyStopping, Sequential, int]:
    """Run early stopping on these losses, weights n after epoch n; return it, the network and the last epoch."""
    model = network()
    watching = EarlyStopping(model, MSE(), NOTHING, NOTHING, early_stopping)
    for number, loss in enumerate(losses, 1):
        for array in model.parameters():
            array[:] = number
        if watching(number, len(losses), loss):
            return watching, model, number
    return watching, model, len(losses)


def test_training_stops_after_patience_epochs_and_restores_the_best_weights() -> None:
    watching, model, stopped = watch([5, 3, 4, 3, 3.5, 1], EarlyStoppingSection(patience=3))
    assert stopped == 5
    assert watching.restore_best().number == 2
    assert all((array == 2).all() for array in model.parameters())


def test_the_best_weights_are_restored_after_the_last_epoch_too() -> None:
    watching, model, stopped = watch([5, 3, 4], EarlyStoppingSection(patience=10))
    assert stopped == 3
    assert watching.restore_best().number == 2
    assert all((array == 2).all() for array in model.parameters())


def test_an_improvement_below_min_delta_does_not_count() -> None:
    watching, _, stopped = watch([5, 4.9, 4.8, 4.7, 1], EarlyStoppingSection(patience=3, min_delta=0.5))
    assert stopped == 4
    assert watching.restore_best().number == 1


def test_without_early_stopping_the_last_weights_are_kept() -> None:
    watching, model, stopped = watch([5, 3, 4], None)
    assert stopped == 3
    assert watching.restore_best().number == 3
    assert all((array == 3).all() for array in model.parameters())


def test_validation_rows_decide_if_there_are_any() -> None:
    model = network()
    seen: list[EpochResult] = []
    ones = np.ones((2, 1), np.float32)
    watching = EarlyStopping(model, MSE(), ones, ones, EarlyStoppingSection(patience=1), seen.append)
    for number, weight in enumerate([0.0, 1.0, 3.0], 1):
        model.modules[0].weights[:] = weight  # type: ignore[attr-defined]
        model.modules[0].bias[:] = 0  # type: ignore[attr-defined]
        stopped = watching(number, 3, 100.0)
    assert stopped
    assert [epoch.validation_loss for epoch in seen] == [1.0, 0.0, 4.0]
    assert watching.restore_best().number == 2


def test_a_validation_loss_that_is_not_finite_is_divergence() -> None:
    model = network()
    ones = np.ones((1, 1), np.float32)
    model.modules[0].weights[:] = np.inf  # type: ignore[attr-defined]
    with np.errstate(invalid="ignore"), pytest.raises(DivergedError):
        EarlyStopping(model, MSE(), ones, ones)(1, 1, 0.5)


@pytest.mark.parametrize("epochs", [1, 2, MAX_HISTORY_POINTS, MAX_HISTORY_POINTS + 1, 12_345])
def test_a_long_history_keeps_the_first_the_last_and_the_best_epoch(epochs: int) -> None:
    losses = [1.0 + abs(number - epochs // 3) for number in range(1, epochs + 1)]
    watching, _, _ = watch(losses, EarlyStoppingSection(patience=epochs))
    kept = [point["epoch"] for point in watching.history_points()]
    assert kept == sorted(set(kept))
    assert len(kept) <= MAX_HISTORY_POINTS + 1
    assert len(kept) >= min(epochs, MAX_HISTORY_POINTS)
    assert {1, epochs, watching.restore_best().number} <= set(kept)
