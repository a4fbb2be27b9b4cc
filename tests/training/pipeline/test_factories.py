"""Every key of a job reaches its optimizer or schedule, and a job trains with it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from model_store.nn import Linear
from training.config.defaults import OPTIMIZER_DEFAULTS, OPTIMIZER_KEYS, SCHEDULE_KEYS
from training.config.settings import EarlyStoppingSection, ScheduleSection, TrainSection
from training.errors import JobError
from training.optim.lr_schedulers import SCHEDULES, OnPlateau, WarmUp
from training.optim.optimizers import OPTIMIZERS
from training.pipeline import factories
from training.pipeline import job as jobs

MODULE = Linear(2, 1)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_keys_and_defaults_match_the_optimizers_constructor(name: str) -> None:
    parameters = inspect.signature(OPTIMIZERS[name]).parameters
    assert set(OPTIMIZER_KEYS[name]) == parameters.keys() - {"module", "learning_rate", "options"}
    for key, value in OPTIMIZER_DEFAULTS[name].items():
        if key in parameters:
            assert value == parameters[key].default


@pytest.mark.parametrize("name", SCHEDULES)
def test_keys_match_the_schedules_constructor(name: str) -> None:
    assert set(SCHEDULE_KEYS[name]) == inspect.signature(SCHEDULES[name]).parameters.keys() - {"score"}


def test_every_key_reaches_the_optimizer() -> None:
    train = TrainSection(optimizer="adamw", learning_rate=0.5, beta1=0.1, beta2=0.2, epsilon=0.3, weight_decay=0.4)
    found: Any = factories.make_optimizer(train, MODULE)
    assert type(found) is OPTIMIZERS["adamw"]
    assert (found.learning_rate, found.beta1, found.beta2, found.epsilon, found.weight_decay) == (
        0.5,
        0.1,
        0.2,
        0.3,
        0.4,
    )
    found = factories.make_optimizer(TrainSection(momentum=0.5, nesterov=True, clip_norm=2, clip_value=3), MODULE)
    assert (found.momentum, found.nesterov, found.clip_norm, found.clip_value) == (0.5, True, 2, 3)


def test_every_key_reaches_the_schedule() -> None:
    section = ScheduleSection("plateau", warm_up=2, patience=1, decay=0.5, threshold=0.2, cooldown=3, min_factor=0.1)
    found = factories.make_schedule(section, lambda error: 7 * error)
    assert isinstance(found, WarmUp)
    plateau = found.then
    assert isinstance(plateau, OnPlateau)
    assert (found.epochs, plateau.patience, plateau.decay, plateau.threshold) == (2, 1, 0.5, 0.2)
    assert (plateau.cooldown, plateau.min_factor) == (3, 0.1)
    assert plateau.score is not None
    assert plateau.score(2) == 14
    assert factories.make_schedule(None) is None


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("schedule", [*SCHEDULES, None])
def test_a_job_trains_with_every_optimizer_and_schedule(job_file: Path, name: str, schedule: str | None) -> None:
    chosen: dict[str, Any] = {"train.optimizer": name, "train.learning_rate": 0.01}
    if schedule:
        chosen["train.schedule"] = {"name": schedule, "warm_up": 0.5}
    history = jobs.run(jobs.load(job_file, chosen)).model.training["history"]
    assert history[-1]["loss"] < history[0]["loss"]


def test_a_plateau_in_a_job_watches_the_validation_loss(job_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    on_epoch_end = OnPlateau.on_epoch_end

    def noted(self: OnPlateau, error: float) -> None:
        assert self.score is not None
        seen.append(self.score(error))
        on_epoch_end(self, error)

    monkeypatch.setattr(OnPlateau, "on_epoch_end", noted)
    history = jobs.run(jobs.load(job_file, {"train.schedule": "plateau"})).model.training["history"]
    assert seen == [point["validation_loss"] for point in history]


def test_balanced_weights_give_every_class_the_same_total_weight() -> None:
    train = TrainSection(class_weights="balanced")
    assert factories.make_class_weights(train, ("a", "b"), np.array([30, 10])) == (40 / 60, 40 / 20)


def test_weights_by_label_default_to_one() -> None:
    train = TrainSection(class_weights={"7": 2.5})
    assert factories.make_class_weights(train, (3, 7), np.array([1, 1])) == (1, 2.5)


def test_weights_of_unknown_classes_are_reported() -> None:
    train = TrainSection(class_weights={"rosy": 2.5})
    with pytest.raises(JobError, match=r"train.class_weights.rosy: unknown class 'rosy' .*did you mean 'rose'"):
        factories.make_class_weights(train, ("lily", "rose"), np.array([1, 1]))
    with pytest.raises(JobError, match=r"train.class_weights: only for classifications, found a regression"):
        factories.make_class_weights(train, (), np.zeros(0))


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_balanced_weights_raise_the_recall_of_a_rare_class(tmp_path: Path, output: str) -> None:
    rng = np.random.default_rng(0)
    y = (rng.random(600) < 0.1).astype(int)
    np.savez(tmp_path / "d.npz", x=rng.standard_normal((600, 2)) + y[:, None], y=y)
    found = []
    for chosen in ({}, {"class_weights": "balanced"}):
        job = {"model": {"name": "m"}, "data": {"path": "d.npz"}, "network": {"output": output}, "train": chosen}
        outcome = jobs.run(jobs.from_dict(job, tmp_path))
        found.append(outcome.metrics["classes"]["1"]["recall"])
    assert found[1] > found[0] + 0.2


def test_train_check_shows_the_class_weights(train: Callable[..., Result], job_file: Path) -> None:
    found = train("check", job_file, "--set", "train.class_weights={rose = 2}")
    assert "class weights: lily 1, rose 2" in found.stdout


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        (TrainSection(epochs=20, early_stopping=EarlyStoppingSection()), "patience of 20 never ends a training of 20"),
        (TrainSection(epochs=21, early_stopping=EarlyStoppingSection()), None),
        (TrainSection(epochs=30, schedule=ScheduleSection("step")), "changes the rate after 30 epochs, found 30"),
        (TrainSection(epochs=31, schedule=ScheduleSection("step")), None),
        (TrainSection(epochs=10, schedule=ScheduleSection("plateau")), "patience of 10 never changes the rate"),
        (TrainSection(epochs=5, schedule=ScheduleSection("step", epochs=5, warm_up=1)), "after 5 epochs, found 5"),
        (TrainSection(epochs=5, schedule=ScheduleSection("cosine", warm_up=5)), "warm_up of 5 lasts the whole"),
        (TrainSection(), None),
    ],
)
def test_a_setting_that_waits_longer_than_the_training_is_reported(section: TrainSection, expected: str | None) -> None:
    found = factories.find_idle_settings(section)
    assert [expected in note for note in found if expected] == [True] * len(found)
    assert bool(found) == bool(expected)
