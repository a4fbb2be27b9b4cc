"""The evaluation of trials: on validation rows only, by the metric of the job, pruned and interrupted cleanly."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.training.conftest import flowers
from training.errors import JobError
from training.pipeline import job as jobs
from training.sweep.errors import InterruptedSweepError
from training.sweep.evaluation import evaluate
from training.sweep.record import search_record
from training.sweep.study import Study
from training.sweep.sweep import Stop, Sweep, run_trial, search

OpenSweep, OpenStudy = Callable[..., Sweep], Callable[..., Study]


def test_a_search_never_sees_the_test_rows(open_sweep: OpenSweep, open_study: OpenStudy, sweep_file: Path) -> None:
    """With other test rows it finds the same values."""
    found = []
    for rows in (10, 24):
        sweep_file.with_name("test.csv").write_text(flowers(rows), encoding="utf-8")
        sweep = open_sweep(split__test_file="test.csv")
        assert sweep.sizes["test"] == rows
        assert sweep.prepared.sizes["test"] == 0
        assert sweep.prepare({"train.learning_rate": 0.1, "train.batch_size": 4}).sizes["test"] == 0
        study = open_study(sweep, f"{rows}.journal")
        search(sweep, study)
        found.append([(one.values, one.value) for one in study.tried()])
    assert found[0] == found[1]


def test_all_trials_train_and_validate_on_the_same_rows(open_sweep: OpenSweep) -> None:
    sweep = open_sweep()
    parts = [sweep.prepare({"train.learning_rate": rate, "train.batch_size": 4}).split for rate in (0.01, 0.5)]
    full = jobs.prepare(sweep.job({"train.learning_rate": 0.5, "train.batch_size": 4})).split
    for part in parts:
        np.testing.assert_array_equal(part.training, full.training)
        np.testing.assert_array_equal(part.validation, full.validation)


def test_the_value_of_a_trial_is_that_of_the_trained_job(open_sweep: OpenSweep, open_study: OpenStudy) -> None:
    """So the best settings, trained again, have the value that they were chosen for."""
    sweep = open_sweep()
    study = open_study(sweep)
    search(sweep, study)
    best = study.best()
    assert best is not None
    outcome = jobs.train_and_evaluate(jobs.prepare(sweep.job(best.values)))
    point = next(one for one in outcome.model.training["history"] if one["epoch"] == outcome.best_epoch)
    assert point["validation_loss"] == best.value


@pytest.mark.parametrize("metric", ["loss", "accuracy", "log_loss"])
def test_the_networks_of_an_ensemble_are_compared_out_of_fold(open_sweep: OpenSweep, metric: str) -> None:
    sweep = open_sweep(train__ensemble=2, search__metric=metric)
    values = {"train.learning_rate": 0.1, "train.batch_size": 8}
    found = evaluate(sweep.prepare(values), sweep.metric)
    outcome = jobs.train_and_evaluate(jobs.prepare(sweep.job(values)))
    if metric == "accuracy":
        assert found.value == outcome.model.training["ensemble"]["out_of_fold"]["accuracy"]
    assert np.isfinite(found.value)


def test_the_metric_is_that_of_early_stopping_unless_the_search_has_one(open_sweep: OpenSweep) -> None:
    assert open_sweep().metric == "loss"
    assert open_sweep(train__early_stopping={"metric": "accuracy"}).metric == "accuracy"
    assert open_sweep(train__early_stopping={"metric": "accuracy"}, search__metric="macro_f1").metric == "macro_f1"


@pytest.mark.parametrize(
    ("overrides", "location", "part"),
    [
        ({"search__metric": "rmse"}, "search.metric", "expected a metric of the task"),
        ({"split__validation": 0}, "split.validation", "expected rows held out for validation"),
        (
            {"search__train__loss": {"choice": ["cross_entropy", "mse"]}, "network__output": "softmax"},
            "search.metric",
            "cannot be compared",
        ),
    ],
)
def test_a_metric_that_cannot_compare_trials_is_a_fault(
    open_sweep: OpenSweep, overrides: dict[str, object], location: str, part: str
) -> None:
    with pytest.raises(JobError) as caught:
        open_sweep(**overrides)
    assert {fault.location: part in fault.problem for fault in caught.value.faults} == {location: True}


def test_a_diverging_trial_fails_and_the_search_continues(open_sweep: OpenSweep, open_study: OpenStudy) -> None:
    sweep = open_sweep(
        search__train={"learning_rate": {"choice": [0.1, 1e30]}}, network__layers=[4, "relu"], search__pruning="none"
    )
    study = open_study(sweep)
    search(sweep, study)
    states = {one.values["train.learning_rate"]: (one.state, one.reason) for one in study.tried()}
    assert states[0.1][0] == "complete"
    assert states[1e30][0] == "failed"
    assert states[1e30][1].startswith("diverged in epoch")


@pytest.mark.parametrize("pruning", ["median", "hyperband", "none"])
def test_bad_trials_are_pruned_during_their_training(
    open_sweep: OpenSweep, open_study: OpenStudy, pruning: str
) -> None:
    rates = [0.1, 0.12, 0.15, 0.2, 0.25, 1e-7, 2e-7, 3e-7]
    sweep = open_sweep(
        train__epochs=20,
        search__train={"learning_rate": {"choice": rates}},
        search__trials=8,
        search__pruning=pruning,
    )
    study = open_study(sweep)
    for i, rate in enumerate(rates):
        claim = study._begin({"train.learning_rate": str(rate)}, i + 1, i)
        run_trial(sweep, study, claim, Stop())
    pruned = [one.values["train.learning_rate"] for one in study.tried() if one.state == "pruned"]
    assert (pruned == []) == (pruning == "none")
    assert 0.1 not in pruned
    assert all(one.epochs < 20 for one in study.tried() if one.state == "pruned" and one.epochs is not None)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_search_after_an_epoch_and_loses_no_trial(
    open_sweep: OpenSweep, open_study: OpenStudy, number: int
) -> None:
    sweep = open_sweep()
    study = open_study(sweep)
    ended = []

    def interrupt(event: object) -> None:
        ended.append(event)
        if len(ended) == 2:
            os.kill(os.getpid(), number)

    with pytest.raises(InterruptedSweepError):
        search(sweep, study, on_trial=interrupt)
    assert len(study.tried()) == 2
    search(sweep, study)
    assert [len(one.attempts) for one in study.tried()] == [1] * 6


def test_after_its_time_a_search_begins_no_trial(open_sweep: OpenSweep, open_study: OpenStudy) -> None:
    sweep = open_sweep(search__timeout=10)
    study = open_study(sweep)
    times = iter(range(0, 1000, 4))
    search(sweep, study, clock=lambda: next(times))
    assert 1 <= len(study.tried()) <= 3


def test_the_record_of_a_search_is_bounded(
    open_sweep: OpenSweep, open_study: OpenStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = open_sweep(search__trials=12, search__pruning="none")
    study = open_study(sweep)
    search(sweep, study)
    best = study.best()
    assert best is not None
    monkeypatch.setattr("training.sweep.record.MAX_SEARCH_TRIALS", 5)
    record = search_record(sweep, study)
    assert record["complete"] == 12
    assert len(record["trials"]) == 5
    assert best.number in {trial["number"] for trial in record["trials"]}
    assert 0 < sum(one["importance"] for one in record["parameters"]) <= 1.001


def test_with_folds_trials_are_compared_on_all_rows_that_are_not_tested(
    open_sweep: OpenSweep, open_study: OpenStudy
) -> None:
    """The best settings train one network, as the job does."""
    sweep = open_sweep(search__folds=3, search__trials=2, search__metric="accuracy")
    values = {"train.learning_rate": 0.1, "train.batch_size": 8}
    assert sweep.prepare(values).sizes == {"training": 32, "validation": 0, "test": 0}
    found = evaluate(sweep.prepare(values), sweep.metric)
    folded = jobs.train_and_evaluate(jobs.prepare(open_sweep(train__ensemble=3).job(values)))
    assert found.value == folded.model.training["ensemble"]["out_of_fold"]["accuracy"]
    search(sweep, open_study(sweep))
    assert sweep.job(values).settings.train.ensemble is None


def test_folds_of_an_ensemble_are_a_fault(open_sweep: OpenSweep) -> None:
    with pytest.raises(JobError, match=r"search\.folds: the networks of an ensemble hold out each row once already"):
        open_sweep(search__folds=3, train__ensemble=3)
