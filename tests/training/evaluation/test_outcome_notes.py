"""Notes on a trained model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from model_store.evaluation.record import TrainingRecord
from model_store.report.page import render
from tests.training.tables import job
from training.config.settings import TrainSection
from training.evaluation.outcome_notes import find_outcome_notes
from training.pipeline.job import prepare, train_and_evaluate


def notes(r2: float | None, costs: dict[str, float | None], **more: Any) -> list[str]:
    parts = [{"name": name, "cost": cost, "low": cost, "high": cost} for name, cost in costs.items()]
    found = {"importance": {"measure": "squared_error", "parts": parts, **more}}
    return find_outcome_notes(TrainSection(), training(metrics={"targets": {"cnt": {"r2": r2}}}, diagnostics=found))


def training(**parts: Any) -> dict[str, Any]:
    return {"history": [], "metrics": {"accuracy": 0.9}, "baseline": {"answer": "no", "accuracy": 0.8}, **parts}


def validated(*losses: float) -> list[dict[str, Any]]:
    return [{"epoch": i, "loss": 1.0, "validation_loss": loss} for i, loss in enumerate(losses, 1)]


def test_a_validation_loss_that_still_falls_suggests_more_epochs() -> None:
    section = TrainSection(epochs=40)
    falling = validated(*(1 / (1 + i) for i in range(40)))
    (note,) = find_outcome_notes(section, training(history=falling))
    assert "lowest in epoch 40 of 40" in note
    assert "train.epochs=80" in note
    earlier = falling[:30] + validated(*[0.5] * 40)[30:]
    assert not any("more epochs" in note for note in find_outcome_notes(section, training(history=earlier)))
    assert find_outcome_notes(section, training(history=falling[:39])) == []  # stopped early


def test_predictions_of_a_transformed_target_that_are_too_low_on_average_are_reported() -> None:
    def found(bias: float, **data: str) -> list[str]:
        return find_outcome_notes(
            TrainSection(),
            {
                "job": {"data": data},
                "history": [],
                "metrics": {"targets": {"price": {"r2": 0.5}}},
                "baseline": {"answer": [200.0]},
                "diagnostics": {"residuals": {"targets": {"price": {"bias": bias}}}},
            },
        )

    (note,) = found(-24.0, target_transform="log")
    assert "on average too low: price by 12.0 % of the mean" in note
    assert found(-1.0, target_transform="log") == found(24.0, target_transform="log") == found(-24.0) == []


def test_an_accuracy_of_the_baseline_with_a_good_roc_area_suggests_a_threshold() -> None:
    metrics, baseline = {"accuracy": 0.86}, {"answer": "no", "accuracy": 0.867}
    found = training(metrics=metrics, baseline=baseline, diagnostics={"roc": {"area": 0.761}})
    (note,) = find_outcome_notes(TrainSection(), found)
    assert "no better than that of always predicting 'no', but the ROC area is 0.761" in note
    assert "Choose one from the report, or write class_weights = 'balanced'" in note
    (note,) = find_outcome_notes(TrainSection(class_weights="balanced"), found)
    assert note.endswith("as is usual with class_weights: see recall and precision of each class")
    (note,) = find_outcome_notes(TrainSection(), found | {"diagnostics": {"roc": {"area": 0.51}}})
    assert "the columns tell little about the target" in note


def test_a_regression_that_is_no_better_than_the_mean_says_so() -> None:
    (note,) = find_outcome_notes(TrainSection(), training(metrics={"targets": {"y": {"r2": -0.01, "rmse": 1.0}}}))
    assert note.startswith("the RMSE of y is no better than that of always predicting the mean")


def test_a_linear_model_that_is_clearly_better_is_named() -> None:
    found = training(metrics={"targets": {"y": {"r2": 0.5, "rmse": 2.0}}}, linear={"targets": {"y": {"rmse": 1.9}}})
    (note,) = find_outcome_notes(TrainSection(), found)
    assert "a linear model of the same columns is better (RMSE of y 1.9 instead of 2)" in note
    assert find_outcome_notes(TrainSection(), found | {"linear": {"targets": {"y": {"rmse": 1.97}}}}) == []
    found = training(diagnostics={"calibration": {"log_loss": 0.3}}, linear={"accuracy": 0.9, "log_loss": 0.2})
    (note,) = find_outcome_notes(TrainSection(), found)
    assert "log loss 0.2 instead of 0.3" in note


def test_a_regression_without_error_names_the_columns_that_it_relies_on() -> None:
    (note,) = notes(0.998, {"registered": 1.2, "casual": 0.3, "hum": 0.005, "windspeed": None})
    assert note.startswith("R² 0.998 is unusually high: the model relies on registered, casual. If their values")
    assert notes(0.99, {"registered": 1.2, "casual": 0.3, "hum": 0.005}) == []
    assert notes(None, {"registered": 1.2, "hum": 0.005}) == []
    assert notes(0.998, {"a": 2.0, "b": 1.0}) == []  # all columns: there is nothing to exclude
    assert notes(0.998, {"row 1": 2.0, "row 2": 0.0}, grid=[1, 2]) == []
    assert find_outcome_notes(TrainSection(), training()) == []


def test_the_record_and_the_report_have_every_note_of_the_terminal(tmp_path: Path) -> None:
    table = "x,k,y\n" + "".join(f"{i % 7},1,{'ab'[i * i % 3 % 2]}\n" for i in range(90))
    prepared = prepare(job(tmp_path, table))
    outcome = train_and_evaluate(prepared)
    written = outcome.model.training["notes"]
    assert prepared.notes
    assert written == [*prepared.notes, *outcome.notes]
    assert TrainingRecord.parse(json.loads(json.dumps(outcome.model.training))).notes == written
    assert "column k has one value in all training rows" in render(outcome.model, "m/1")


def test_labels_that_are_never_found_are_named() -> None:
    labels = {
        "a": {"support": 3, "recall": 0.0},
        "b": {"support": 3, "recall": 0.5},
        "c": {"support": 0, "recall": 0.0},
    }
    metrics = {"exact_match": 0.5, "log_loss": 0.3, "labels": labels}
    record = training(metrics=metrics, baseline={"log_loss": 0.6})
    (note,) = find_outcome_notes(TrainSection(), record)
    assert note.startswith("never found the label a, whose probability stays below the threshold: write class_weights")
    (note,) = find_outcome_notes(TrainSection(class_weights="balanced"), record)
    assert "class_weights" not in note


def test_labels_no_better_than_their_frequencies_are_noted() -> None:
    metrics = {"exact_match": 0.5, "log_loss": 0.6, "labels": {"a": {"support": 3, "recall": 1.0}}}
    record = training(metrics=metrics, baseline={"log_loss": 0.6}, linear={"log_loss": 0.3})
    frequencies, linear = find_outcome_notes(TrainSection(), record)
    assert "no better than that of always predicting the frequency of each label" in frequencies
    assert "a linear model of the same columns is better (log loss 0.3 instead of 0.6)" in linear
