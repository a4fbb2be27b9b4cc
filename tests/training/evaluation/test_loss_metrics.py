"""Metrics of the losses Poisson, gamma and pinball. The expected numbers are those of scikit-learn 1.9.1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store.evaluation.compare import compare
from model_store.evaluation.confidence import loss_ratio_deviation, student_quantile
from model_store.evaluation.record import HIGHER_IS_BETTER, LOWER_IS_BETTER, TARGET_METRICS, TrainingRecord
from model_store.registry.store import open_store
from model_store.report.page import render
from tests.training.tables import job, refusal
from training.config.defaults import METRIC_DIRECTIONS
from training.evaluation.loss_metrics import TargetLoss
from training.evaluation.metrics import evaluate_baseline, regression_metrics
from training.evaluation.outcome_notes import find_outcome_notes
from training.pipeline.cross_validation import headline_metrics
from training.pipeline.job import from_dict, prepare, run, train_and_evaluate

Y = np.array([0.0, 1, 3, 2, 7, 1, 0, 12, 4, 2])
P = np.array([0.5, 1.5, 2, 2.5, 5, 0.8, 0.25, 9, 6, 1])
W = np.array([1, 2, 0.5, 1, 3, 1, 0, 2, 1, 1.5])
RNG = np.random.default_rng(2)
X = RNG.normal(size=300)
COUNTS = RNG.poisson(np.exp(0.5 + 0.8 * X))
TABLE = "x,y\n" + "".join(f"{x:.5f},{y}\n" for x, y in zip(X, COUNTS, strict=True))
QUANTITY = {"data": {"task": "regression"}}


@pytest.mark.parametrize(
    ("loss", "true", "weights", "expected"),
    [
        (TargetLoss("poisson"), Y, None, {"poisson_deviance": 0.5419422238718423, "d2": 0.8480509801549221}),
        (TargetLoss("poisson"), Y, W, {"poisson_deviance": 0.5849218018103223, "d2": 0.8359242748069788}),
        (TargetLoss("gamma"), Y + 0.5, None, {"gamma_deviance": 0.30398788529371434, "d2": 0.6643716848174067}),
        (TargetLoss("gamma"), Y + 0.5, W, {"gamma_deviance": 0.2552621139630269, "d2": 0.6601449711517042}),
        (TargetLoss("pinball", 0.8), Y, None, {"pinball_loss": 0.651, "d2": 0.4833333333333333, "coverage": 0.5}),
        (
            TargetLoss("pinball", 0.8),
            Y,
            W,
            {"pinball_loss": 0.9353846153846157, "d2": 0.2630303030303026, "coverage": 5 / 13},
        ),
        (TargetLoss("mse"), Y, None, {}),
    ],
)
def test_metrics_of_a_loss_are_those_of_scikit_learn(
    loss: TargetLoss, true: Any, weights: Any, expected: dict[str, float]
) -> None:
    assert loss.metrics(true, P, weights) == pytest.approx(expected, rel=1e-12)
    found = regression_metrics(["y"], true[:, None], P[:, None], weights, loss)
    assert found["targets"]["y"].items() >= loss.metrics(true, P, weights).items()


def test_the_best_constant_explains_nothing_and_no_constant_is_better() -> None:
    for loss in (TargetLoss("poisson"), TargetLoss("gamma"), TargetLoss("pinball", 0.8)):
        true = Y + 0.5
        best = loss.best_constant(true, W)
        assert loss.metrics(true, np.full(10, best), W)["d2"] == 0
        assert all(loss.metrics(true, np.full(10, other), W)["d2"] <= 1e-12 for other in np.linspace(0.1, 13, 200))


def test_undefined_metrics_are_none() -> None:
    same = np.full((3, 1), 2.0)
    assert regression_metrics(["y"], same, same, None, TargetLoss("pinball"))["targets"]["y"]["d2"] is None
    zero = np.array([[0.0], [1.0]])
    found = regression_metrics(["y"], zero, zero + 1, None, TargetLoss("gamma"))["targets"]["y"]
    assert found["gamma_deviance"] is None


def test_the_baseline_of_a_pinball_loss_predicts_the_quantile(tmp_path: Path) -> None:
    prepared = prepare(job(tmp_path, TABLE, **QUANTITY))
    values = np.arange(1.0, 11.0)[:, None]
    found = evaluate_baseline(prepared.signature.output, values, values, loss=TargetLoss("pinball", 0.75))
    assert found["answer"] == [8.0]
    assert found["targets"]["y"]["coverage"] == 0.8


@pytest.mark.parametrize(
    ("loss", "metric", "stream"),
    [("poisson", "poisson_deviance", False), ("pinball", "pinball_loss", False), ("pinball", "d2", True)],
)
def test_a_job_reports_and_watches_the_metrics_of_its_loss(
    tmp_path: Path, loss: str, metric: str, stream: bool
) -> None:
    stopping = {"metric": metric, "patience": 5}
    train = {"loss": loss, "epochs": 15, "learning_rate": 0.05, "early_stopping": stopping}
    if loss == "pinball":
        train["quantile"] = 0.9
    outcome = train_and_evaluate(
        prepare(job(tmp_path, TABLE, data={"task": "regression", "stream": stream}, train=train))
    )
    record = outcome.model.training
    found = [point["validation_metric"] for point in record["history"]]
    assert found[record["best_epoch"] - 1] == (max if METRIC_DIRECTIONS[metric] else min)(found)
    row, baseline = record["metrics"]["targets"]["y"], record["baseline"]["targets"]["y"]
    assert row["d2"] > 0.1 > abs(baseline["d2"])
    importance, slices = (record["diagnostics"][key] for key in ("importance", "slices"))
    main = "pinball_loss" if loss == "pinball" else metric
    assert importance["measure"] == slices["measure"] == main
    assert importance["score"] == pytest.approx(1 - row["d2"], rel=1e-6)
    assert slices["error"] == pytest.approx(row[main])
    assert all(part["error"]["low"] <= part["error"]["value"] for part in slices["columns"][0]["slices"])
    page = render(outcome.model, "m/1")
    assert "/ that of the best constant, when a column is shuffled" in page
    if loss == "pinball":
        assert record["metrics"]["quantile"] == 0.9
        assert record["baseline"]["answer"] == [pytest.approx(np.quantile(COUNTS, 0.9), abs=1)]
        assert "Pinball loss of y" in page
        assert "always predicting the 0.9 quantile" in page
        assert "of the true values are at most the prediction; 90.0 % should be." in page
    else:
        assert "Poisson deviance of y" in page
        assert "always predicting the mean" in page
    parsed = TrainingRecord.parse(record)
    assert parsed.regression is not None
    assert parsed.regression["targets"]["y"] == row
    assert f"baseline {metric}".replace("d2", "pinball_loss") in headline_metrics(outcome.metrics, outcome.baseline)


def test_a_metric_of_another_loss_is_a_fault(tmp_path: Path) -> None:
    found = refusal(tmp_path, TABLE, **QUANTITY, train={"early_stopping": {"metric": "gamma_deviance"}})
    assert "'gamma_deviance' belongs to the loss gamma; found the loss 'mse' (use rmse, mae, r2)" in found
    train = {"loss": "poisson", "early_stopping": {"metric": "pinball_loss"}}
    assert "(use rmse, mae, r2, poisson_deviance, d2)" in refusal(tmp_path, TABLE, **QUANTITY, train=train)
    classes = refusal(
        tmp_path, TABLE, data={"task": "classification"}, train={"early_stopping": {"metric": "pinball_loss"}}
    )
    assert "use accuracy" in classes


def test_every_metric_of_a_loss_has_a_direction_except_coverage() -> None:
    assert set(TARGET_METRICS) - HIGHER_IS_BETTER - LOWER_IS_BETTER == {"coverage"}
    assert {name for name, higher in METRIC_DIRECTIONS.items() if higher} >= HIGHER_IS_BETTER & METRIC_DIRECTIONS.keys()
    assert not any(METRIC_DIRECTIONS.get(name) for name in LOWER_IS_BETTER)


def test_a_model_no_better_than_the_best_constant_is_reported_by_the_metric_of_its_loss(tmp_path: Path) -> None:
    record = {
        "history": [],
        "metrics": {"quantile": 0.9, "targets": {"y": {"r2": 0.5, "d2": -0.1, "pinball_loss": 3.0}}},
        "baseline": {"answer": [1.0]},
    }
    section = prepare(job(tmp_path, TABLE, **QUANTITY)).job.settings.train
    (note,) = find_outcome_notes(section, record)
    assert "the pinball loss of y is no better than that of always predicting the quantile" in note


@pytest.mark.parametrize("metric", ["pinball", "poisson"])
def test_the_interval_of_a_ratio_of_losses_covers_its_value_in_95_percent_of_samples(metric: str) -> None:
    """Two equally good models of counts: ln 1 is in the interval in about 95 % of 2,000 samples of 200 rows."""
    rng, rows, inside = np.random.default_rng(0), 200, 0
    for _ in range(2000):
        true = rng.poisson(4.0, (rows, 1)).astype(np.float64)
        predicted = [4.0 * np.exp(0.2 * rng.standard_normal((rows, 1))) for _ in range(2)]
        first, second = (TargetLoss(metric, 0.8 if metric == "pinball" else None).errors(true, y) for y in predicted)
        deviation = loss_ratio_deviation(first, second, rows)
        assert deviation is not None
        inside += abs(np.log(second.mean() / first.mean())) <= deviation * student_quantile(rows - 1)
    assert inside / 2000 == pytest.approx(0.95, abs=0.015)


def test_versions_of_a_job_are_compared_by_the_losses_of_their_rows(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(TABLE)
    store = open_store(tmp_path / "models")
    for size in (1, 16):
        train = {"loss": "poisson", "epochs": 60, "optimizer": "adam", "learning_rate": 0.02 if size > 1 else 1e-5}
        data = {"path": "t.csv", "target": "y", "task": "regression"}
        network = {"layers": [size, "tanh"]}
        run(from_dict({"model": {"name": "m"}, "data": data, "network": network, "train": train}, tmp_path), store)
    found = compare(*((f"m/{number}", store.manifest("m", number)[1]) for number in (1, 2))).verdict
    assert (found.better, found.significant, found.paired) == ("second", True, True)
    assert "Poisson deviance" in found.summary
    assert "ratio of the deviances in pairs, from the losses of the same 60 rows" in str(found.method)
