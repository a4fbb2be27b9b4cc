"""Notes on a trained model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from model_store.evaluation.record import TrainingRecord
from model_store.report.page import render
from tests.training.tables import job
from training.config.settings import TrainSection
from training.pipeline.job import prepare, train_and_evaluate
from training.pipeline.outcome_notes import find_outcome_notes


def notes(r2: float | None, costs: dict[str, float | None], **more: Any) -> list[str]:
    parts = [{"name": name, "cost": cost, "deviation": 0.0} for name, cost in costs.items()]
    found = {"importance": {"measure": "rmse", "parts": parts, **more}}
    return find_outcome_notes(TrainSection(), [], {"targets": {"cnt": {"r2": r2}}}, found)


def test_a_regression_without_error_names_the_columns_that_it_relies_on() -> None:
    (note,) = notes(0.998, {"registered": 120.0, "casual": 30.0, "hum": 0.5, "windspeed": None})
    assert note.startswith("R² 0.998 is unusually high: the model relies on registered, casual. If their values")
    assert notes(0.99, {"registered": 120.0, "casual": 30.0, "hum": 0.5}) == []
    assert notes(None, {"registered": 120.0, "hum": 0.5}) == []
    assert notes(0.998, {"a": 2.0, "b": 1.0}) == []  # all columns: there is nothing to exclude
    assert notes(0.998, {"row 1": 2.0, "row 2": 0.0}, grid=[1, 2]) == []
    assert find_outcome_notes(TrainSection(), [], {"accuracy": 1.0}, None) == []


def test_the_record_and_the_report_have_every_note_of_the_terminal(tmp_path: Path) -> None:
    table = "x,k,y\n" + "".join(f"{i % 7},1,{'ab'[i * i % 3 % 2]}\n" for i in range(90))
    prepared = prepare(job(tmp_path, table))
    outcome = train_and_evaluate(prepared)
    written = outcome.model.training["notes"]
    assert prepared.notes
    assert written == [*prepared.notes, *outcome.notes]
    assert TrainingRecord.parse(json.loads(json.dumps(outcome.model.training))).notes == written
    assert "column k has one value in all training rows" in render(outcome.model, "m/1")
