"""The calibration of a job's network: divided logits, equal labels, and what the record and the report say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store.artifact import npz
from model_store.evaluation.record import TrainingRecord
from model_store.report.page import render
from tests.training.tables import job
from training.errors import JobError
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


def rare_table(rows: int = 800) -> str:
    """Return rows of which a tenth are `b`, by chance: at a probability of 1/2, hardly any is predicted."""
    rng = np.random.default_rng(2)
    x = rng.standard_normal((rows, 2))
    y = rng.random(rows) < 0.35 / (1 + np.exp(-3 * x[:, 0]))
    return "p,q,y\n" + "".join(f"{a:.4f},{b:.4f},{'ab'[k]}\n" for (a, b), k in zip(x, y.astype(int), strict=True))


@pytest.mark.parametrize("sections", [{}, {"network": {"output": "sigmoid"}}, {"train": {**KEYS, "ensemble": 2}}])
def test_the_threshold_of_a_job_decides_the_labels(tmp_path: Path, sections: dict[str, Any]) -> None:
    content = {"train": KEYS, **sections}
    prepared, outcome = trained(tmp_path, rare_table(), answers={"threshold": "f1"}, **content)
    _, plain = trained(tmp_path, rare_table(), **content)
    found = outcome.model.training["threshold"]
    output: Any = outcome.model.signature.output
    assert output.threshold == found["value"] < 0.5
    assert found["by"] == "f1"
    assert found["rows"] == (640 if "ensemble" in content["train"] else prepared.sizes["validation"])
    answers = outcome.model.predict(prepared.evaluation_instances)
    assert [one["label"] for one in answers] == ["ab"[one["probabilities"]["b"] >= found["value"]] for one in answers]
    right = sum(one["label"] == label for one, label in zip(answers, prepared.evaluation_labels, strict=True))
    assert outcome.metrics["accuracy"] == right / len(answers)
    assert outcome.metrics["classes"]["b"]["recall"] > plain.metrics["classes"]["b"]["recall"]
    assert "threshold" not in plain.model.training
    reason = f"which has the largest F1 on {found['rows']} rows that it was not trained on"
    assert reason in render(outcome.model, "m/1")
    assert "The model predicts" not in render(plain.model, "m/1")


def test_a_fixed_threshold_needs_no_validation_rows(tmp_path: Path) -> None:
    _, outcome = trained(tmp_path, rare_table(), answers={"threshold": 0.2}, split={"validation": 0}, train=KEYS)
    assert outcome.model.signature.config()["output"]["threshold"] == 0.2
    assert "The model predicts “b” from a probability of 0.2" in render(outcome.model, "m/1")


BLIND = "x,y\n" + "".join(f"{i % 2},{'ab'[i // 2 % 2]}\n" for i in range(400))  # x says nothing of y


@pytest.mark.parametrize(
    ("table", "sections", "message"),
    [
        (noisy_table(labels="abc"), {}, "answers.threshold: only for two classes, found 3"),
        ("x,y\n" + "".join(f"{i},{2 * i}\n" for i in range(300)), {}, "answers.threshold: only for two classes"),
        (noisy_table(), {"split": {"validation": 0}}, "expected validation rows to choose it on, found none"),
        (BLIND, {"answers": {"threshold": {"precision": 1.0}}}, "expected a precision of 1.0, found 0."),
    ],
)
def test_a_threshold_that_cannot_be_chosen_is_refused(
    tmp_path: Path, table: str, sections: dict[str, Any], message: str
) -> None:
    with pytest.raises(JobError) as caught:
        trained(tmp_path, table, **{"train": {"epochs": 1}, "answers": {"threshold": "f1"}, **sections})
    assert message in str(caught.value)


@pytest.mark.parametrize("rule", ["f2", 1, {"precision": 0}, {"cost": {"false_positive": 1}}])
def test_a_rule_that_does_not_exist_is_a_fault_of_the_job(tmp_path: Path, rule: Any) -> None:
    with pytest.raises(JobError, match=r"answers\.threshold: expected"):
        trained(tmp_path, noisy_table(), answers={"threshold": rule})


def growing_table(rows: int = 1500) -> str:
    """Return a target whose deviation grows with it, and a group for each three rows."""
    rng = np.random.default_rng(5)
    x = rng.uniform(1, 10, rows)
    y = x + x / 4 * rng.standard_normal(rows)
    return "x,group,y\n" + "".join(f"{a:.4f},g{i // 3},{b:.4f}\n" for i, (a, b) in enumerate(zip(x, y, strict=True)))


def test_a_regression_with_calibration_rows_holds_scores_and_their_coverage(tmp_path: Path) -> None:
    split = {"test": 0.3, "validation": 0.2, "calibration": 0.2}
    keys = {**KEYS, "epochs": 20}
    prepared, outcome = trained(tmp_path, growing_table(), train=keys, split=split, data={"columns": ["x"]})
    assert prepared.sizes == {"training": 450, "validation": 300, "test": 450, "calibration": 300}
    rows = np.concatenate([getattr(prepared.split, part) for part in prepared.sizes])
    assert sorted(rows.tolist()) == list(range(1500))
    conformal = outcome.model.conformal
    assert conformal is not None
    assert conformal.method == "normalized"
    assert conformal.scores.shape == (1, 300)
    table = outcome.model.training["coverage"]
    assert len(table["levels"]) == 10
    for one in table["levels"]:
        assert (
            abs(one["covered"] - one["level"]) <= 4 * (one["level"] * (1 - one["level"]) * (1 / 300 + 1 / 450)) ** 0.5
        )
    page = render(outcome.model, "m/1")
    assert "Promised and measured" in page
    assert "By prediction" in page
    npz.write(tmp_path / "m.npz", outcome.model)
    found = npz.read(tmp_path / "m.npz").conformal
    assert found is not None
    values = np.array([[2.0], [8.0]])
    assert np.array_equal(found.intervals(values, 0.9), conformal.intervals(values, 0.9))


@pytest.mark.parametrize("train", [KEYS, {**KEYS, "ensemble": 2}])
def test_a_classifier_with_calibration_rows_holds_scores_and_their_coverage(
    tmp_path: Path, train: dict[str, Any]
) -> None:
    split = {"test": 0.3, "validation": 0.2, "calibration": 0.2}
    prepared, outcome = trained(tmp_path, noisy_table(900, "abc"), train=train, split=split)
    conformal = outcome.model.conformal
    assert conformal is not None
    assert conformal.method == "aps"
    assert conformal.rows == prepared.sizes["calibration"] == 180
    assert not set(prepared.split.calibration) & set(prepared.split.training)
    assert "By true class" in render(outcome.model, "m/1")
    for one in outcome.model.training["coverage"]["levels"]:
        slack = 4 * (one["level"] * (1 - one["level"]) * (1 / 180 + 1 / 270)) ** 0.5
        assert one["covered"] >= one["level"] - slack


def test_groups_stay_together_in_the_calibration_rows(tmp_path: Path) -> None:
    split = {"by": "group", "column": "group", "test": 0.2, "validation": 0.1, "calibration": 0.2}
    prepared = prepare(job(tmp_path, growing_table(), split=split, data={"columns": ["x"]}))
    parts = [set((getattr(prepared.split, part) // 3).tolist()) for part in prepared.sizes]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 500
    assert len(prepared.split.calibration) == pytest.approx(300, abs=6)


def test_without_the_key_no_rows_are_held_out_for_calibration(tmp_path: Path) -> None:
    _, outcome = trained(tmp_path, noisy_table(), train={"epochs": 1})
    assert outcome.model.conformal is None
    assert set(outcome.model.training["split"]) == {"training", "validation", "test"}
    assert "calibration" not in outcome.model.training["job"]["split"]


def test_too_few_calibration_rows_are_refused_before_the_training(tmp_path: Path) -> None:
    message = r"split\.calibration: expected 9 rows or more, to promise the level 0\.9; found 6"
    with pytest.raises(JobError, match=message):
        trained(tmp_path, noisy_table(), split={"calibration": 0.01}, train={"epochs": 1})


def test_a_stream_holds_out_no_calibration_rows(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"split\.calibration: no rows of a stream"):
        trained(tmp_path, noisy_table(), split={"calibration": 0.2}, data={"stream": True}, train={"epochs": 1})


def test_parts_that_leave_no_training_rows_are_a_fault_of_the_job(tmp_path: Path) -> None:
    message = r"expected test \+ validation \+ calibration below 1, found 0\.5 \+ 0\.3 \+ 0\.2"
    with pytest.raises(JobError, match=message):
        trained(tmp_path, noisy_table(), split={"test": 0.5, "validation": 0.3, "calibration": 0.2})
