"""Schedules: the rate of every step equals the formula, and training uses it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from model_store.nn import Linear, Sequential
from training import MSE, SGD, train
from training.optim.lr_schedulers import (
    Constant,
    Cosine,
    OneCycle,
    OnPlateau,
    Schedule,
    ScheduleContext,
    StepDecay,
    WarmUp,
)

CONTEXT = ScheduleContext(40, 4)
X, Y = np.arange(8.0).reshape(8, 1) / 8, np.ones((8, 1))


def network() -> Sequential:
    return Sequential([Linear(1, 1, dtype=np.float64, rng=np.random.default_rng(0))])


class Seen(Schedule):
    """Records its calls."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, ScheduleContext]] = []
        self.told: list[float] = []

    def factor(self, step: int, context: ScheduleContext) -> float:
        self.asked.append((step, context))
        return 1 / (1 + step)

    def on_epoch_end(self, error: float) -> None:
        self.told.append(error)


def test_every_step_is_taken_with_the_scheduled_rate() -> None:
    net, schedule = network(), Seen()
    rates: list[float] = []

    class Watched(SGD):
        def step(self) -> None:
            rates.append(self.learning_rate)
            super().step()

    optimizer = Watched(net, 0.5)
    errors = train(net, X, Y, MSE(), optimizer, 2, 3, schedule=schedule, on_epoch=None)
    assert schedule.asked == [(i, ScheduleContext(6, 3)) for i in range(6)]
    assert rates == [0.5 / (1 + i) for i in range(6)]
    assert schedule.told == errors
    assert optimizer.learning_rate == 0.5


def test_a_constant_schedule_changes_nothing() -> None:
    one, two = network(), network()
    train(one, X, Y, MSE(), SGD(one), 3, 3, schedule=Constant(), on_epoch=None)
    train(two, X, Y, MSE(), SGD(two), 3, 3, on_epoch=None)
    assert one.parameter_vector is not None
    assert two.parameter_vector is not None
    assert one.parameter_vector.tolist() == two.parameter_vector.tolist()


def test_warm_up_passes_the_remaining_steps_to_the_next_schedule() -> None:
    schedule = WarmUp(2.5, Cosine(), start=0.1)
    rising = [schedule.factor(step, CONTEXT) for step in range(10)]
    assert rising == pytest.approx([0.1 + 0.9 * step / 10 for step in range(10)])
    assert schedule.factor(10, CONTEXT) == 1
    assert schedule.factor(25, CONTEXT) == pytest.approx(0.5)
    assert WarmUp(100).factor(39, CONTEXT) < 1  # longer than the training: it never gets there


def test_a_plateau_reduces_the_rate_and_its_state_resumes() -> None:
    def schedule() -> OnPlateau:
        return OnPlateau(patience=1, decay=0.5, cooldown=2, min_factor=0.2)

    errors = [3.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, math.inf, 1.0]
    whole = schedule()
    factors = []
    for error in errors:
        whole.on_epoch_end(error)
        factors.append(whole.factor(0, CONTEXT))
    assert factors == [1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25, 0.2, 0.2, 0.2]
    for cut in range(len(errors)):
        before, after = schedule(), schedule()
        for error in errors[:cut]:
            before.on_epoch_end(error)
        after.load_state(before.state())
        for error in errors[cut:]:
            after.on_epoch_end(error)
        assert after.factor(0, CONTEXT) == factors[-1]


def test_a_plateau_compares_the_given_score() -> None:
    scores = iter([2.0, 1.0, 1.0])
    schedule = OnPlateau(patience=0, score=lambda error: next(scores))
    train(net := network(), X, Y, MSE(), SGD(net), 3, schedule=schedule, on_epoch=None)
    assert schedule.factor(0, CONTEXT) == 0.1


@pytest.mark.parametrize(
    "context",
    [
        ScheduleContext(1, 1),
        ScheduleContext(2, 1),
        ScheduleContext(3, 3),
        ScheduleContext(4, 2),
        ScheduleContext(1000, 10),
    ],
)
@pytest.mark.parametrize("schedule", [Constant(), StepDecay(2, 0.5), Cosine(0.1), WarmUp(1), OneCycle(), OnPlateau()])
def test_factors_stay_from_0_to_1_in_a_training_of_any_length(schedule: Schedule, context: ScheduleContext) -> None:
    factors = [schedule.factor(step, context) for step in range(context.total_steps)]
    assert all(0 < factor <= 1 + 1e-12 for factor in factors)


def test_a_training_with_one_cycle_and_warm_up_repeats_bit_for_bit() -> None:
    def run() -> list[float]:
        net, schedule = network(), WarmUp(0.5, OneCycle())
        rng = np.random.default_rng(1)
        return train(net, X, Y, MSE(), SGD(net, 0.1), 5, 3, rng=rng, schedule=schedule, on_epoch=None)

    assert run() == run()


@pytest.mark.parametrize(
    ("make", "location"),
    [
        (lambda: StepDecay(0), "StepDecay.epochs"),
        (lambda: StepDecay(1, 1.5), "StepDecay.decay"),
        (lambda: Cosine(-1), "Cosine.min_factor"),
        (lambda: WarmUp(0), "WarmUp.epochs"),
        (lambda: WarmUp(1, start=0), "WarmUp.start"),
        (lambda: OneCycle(rise_fraction=1), "OneCycle.rise_fraction"),
        (lambda: OnPlateau(decay=1), "OnPlateau.decay"),
        (lambda: OnPlateau(patience=-1), "OnPlateau.patience"),
    ],
)
def test_an_error_names_an_invalid_number(make: type[Schedule], location: str) -> None:
    with pytest.raises(ValueError, match=rf"^{location}: expected .*, found "):
        make()
