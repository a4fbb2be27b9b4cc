"""The calibration of a job's network: divided logits, equal labels, and what the record and the report say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store.evaluation.record import TrainingRecord
from model_store.report.page import render
from tests.training.tables import job
from training.pipeline.job import Outcome, prepare, train_and_evaluate

KEYS: dict[str, Any] = {"epochs": 60, "learning_rate": 0.05, "optimizer": "adam", "batch_size": 16}


def noisy_table(rows: int = 600, labels: str = "ab") -> str:
    """Return rows of which a fifth have a random label: a network that learns them by heart is too sure of itself."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, 4))
    y = np.where(rng.random(rows) < 0.2, rng.integers(0, len(labels), rows), (x[:, 0] > 0) * (len(labels) - 1))
    lines = (",".join(map(str, [*row, labels[k]])) for row, k in zip(x.round(4).tolist(), y.tolist(), strict=True))
    return "\n".join(["p,q,r,s,y", *lines]) + "\n"


def trained(tmp_path: Path, table: str, **sections: dict[str, Any]) -> tuple[Any, Outcome]:
    content: dict[str, Any] = {"split": {"validation": 0.3}, "network": {"layers": [32, "relu"]}, **sections}
    prepared = prepare(job(tmp_path, table, **content))
    return prepared, train_and_evaluate(prepared)


@pytest.mark.parametrize(
    ("labels", "sections"),
    [("ab", {}), ("ab", {"network": {"layers": [32, "relu"], "output": "sigmoid"}}), ("abc", {})],
)
def test_a_network_that_is_too_sure_is_divided_by_its_temperature(
    tmp_path: Path, labels: str, sections: dict[str, Any]
) -> None:
    table = noisy_table(labels=labels)
    prepared, scaled = trained(tmp_path, table, train=KEYS, **sections)
    _, plain = trained(tmp_path, table, train=KEYS, answers={"temperature": False}, **sections)
    found = scaled.model.training["temperature"]
    assert found["value"] > 1.2
    assert found["log_loss"]["after"] < found["log_loss"]["before"]
    assert found["rows"] == prepared.sizes["validation"]
    assert "temperature" not in plain.model.training
    last, before = scaled.model.network.modules[-2], plain.model.network.modules[-2]
    assert last.parameters()[0] == pytest.approx(before.parameters()[0] / found["value"], rel=1e-6)
    rows = prepared.evaluation_instances
    answers = [[one["label"] for one in outcome.model.predict(rows)] for outcome in (scaled, plain)]
    assert answers[0] == answers[1]
    assert scaled.metrics == plain.metrics
    diagnostics, other = scaled.model.training["diagnostics"], plain.model.training["diagnostics"]
    assert diagnostics["calibration"]["log_loss"] < other["calibration"]["log_loss"]
    assert diagnostics["uncalibrated"]["log_loss"] == pytest.approx(other["calibration"]["log_loss"], rel=1e-5)


def test_the_report_shows_the_diagram_before_and_after(tmp_path: Path) -> None:
    _, outcome = trained(tmp_path, noisy_table(), train=KEYS)
    page = render(outcome.model, "m/1")
    assert "Before temperature scaling" in page
    assert TrainingRecord.parse(outcome.model.training).temperature is not None


def test_the_probabilities_of_several_labels_have_a_temperature(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((600, 4))
    y = np.where(rng.random((600, 2)) < 0.2, rng.random((600, 2)) < 0.5, x[:, :2] > 0).astype(int)
    lines = [",".join(map(str, [*row, *own])) for row, own in zip(x.round(4).tolist(), y.tolist(), strict=True)]
    table = "\n".join(["p,q,r,s,y,z", *lines]) + "\n"
    data = {"target": ["y", "z"], "task": "multi_label"}
    _, outcome = trained(tmp_path, table, train=KEYS, data=data)
    assert outcome.model.training["temperature"]["value"] > 1.2
    diagnostics = outcome.model.training["diagnostics"]
    assert diagnostics["uncalibrated"]["log_loss"] > diagnostics["calibration"]["log_loss"]


@pytest.mark.parametrize(
    "sections",
    [
        {"split": {"validation": 0}},
        {"split": {"validation": 0.05}},  # 30 rows
        {"train": {**KEYS, "ensemble": 2}},
    ],
)
def test_without_enough_rows_of_its_own_a_network_keeps_its_logits(tmp_path: Path, sections: dict[str, Any]) -> None:
    _, outcome = trained(tmp_path, noisy_table(), **{"train": KEYS, **sections})
    assert "temperature" not in outcome.model.training


def test_a_regression_has_no_temperature(tmp_path: Path) -> None:
    table = "x,y\n" + "".join(f"{i},{2 * i}\n" for i in range(300))
    _, outcome = trained(tmp_path, table, train={"epochs": 2})
    assert "temperature" not in outcome.model.training
