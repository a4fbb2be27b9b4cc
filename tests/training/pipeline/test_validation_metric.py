"""Early stopping by a metric that is reported."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store.schema.signature import ClassificationOutput, RegressionOutput
from tests.training.tables import job, refusal, rows
from training.config.settings import EarlyStoppingSection
from training.pipeline.job import prepare, train_and_evaluate
from training.pipeline.validation_metric import make_metric

BINARY = ClassificationOutput("y", ("a", "b"))
VALUES = RegressionOutput(("y",), (10.0,), (2.0,))
QUANTITY = "x,y\n" + "".join(f"{i % 13},{i % 13 * 2 + i % 3}.5\n" for i in range(120))


def measure(name: str, output: Any, y_true: Any, outputs: Any) -> float:
    found = make_metric(EarlyStoppingSection(metric=name), output, np.array(y_true))
    assert found is not None
    return found.measure(np.array(outputs, np.float32))


def test_metrics_of_classes_are_those_that_are_reported() -> None:
    y, p = [0, 0, 1, 1], [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]]
    single = [[row[1]] for row in p]
    for outputs in (p, single):
        assert measure("accuracy", BINARY, y, outputs) == 0.75
        assert measure("macro_f1", BINARY, y, outputs) == pytest.approx((2 / 3 + 4 / 5) / 2)
        expected = -sum(map(math.log, (0.9, 0.4, 0.8, 0.7))) / 4
        assert measure("log_loss", BINARY, y, outputs) == pytest.approx(expected, rel=1e-6)
        assert measure("roc_auc", BINARY, y, outputs) == 1.0
    assert measure("roc_auc", BINARY, [0, 0], p[:2]) == -math.inf  # undefined: never the best epoch


def test_metrics_of_quantities_are_in_their_units() -> None:
    y, outputs = [[10.0], [14.0]], [[0.5], [1.5]]  # 11 and 13
    assert measure("rmse", VALUES, y, outputs) == 1.0
    assert measure("mae", VALUES, y, outputs) == 1.0
    assert measure("r2", VALUES, y, outputs) == 0.75
    assert measure("r2", VALUES, [[10.0], [10.0]], outputs) == -math.inf


@pytest.mark.parametrize(
    ("table", "metric", "higher"),
    [(rows(120), "accuracy", True), (rows(120), "log_loss", False), (QUANTITY, "r2", True), (QUANTITY, "mae", False)],
)
def test_the_best_epoch_is_the_first_of_the_best_metric(tmp_path: Path, table: str, metric: str, higher: bool) -> None:
    sections = {"train": {"epochs": 12, "early_stopping": {"metric": metric, "patience": 3}, "learning_rate": 0.1}}
    record = train_and_evaluate(prepare(job(tmp_path, table, **sections))).model.training
    found = [point["validation_metric"] for point in record["history"]]
    best = (max if higher else min)(found)
    assert record["best_epoch"] == found.index(best) + 1
    assert record["epochs"] in (12, record["best_epoch"] + 3)
    assert record["job"]["train"]["early_stopping"] == {"metric": metric, "patience": 3, "min_delta": 0.0}


@pytest.mark.parametrize(
    ("metric", "sections", "fault"),
    [
        ("rmse", {}, "train.early_stopping.metric: expected a metric of the task, found 'rmse'"),
        ("accuracy", {"split": {"validation": 0}}, "train.early_stopping.metric: expected validation rows"),
        ("acuracy", {}, "train.early_stopping.metric: expected one of 'loss', 'accuracy'"),
    ],
)
def test_a_metric_that_does_not_fit_is_an_error(
    tmp_path: Path, metric: str, sections: dict[str, Any], fault: str
) -> None:
    assert fault in refusal(tmp_path, rows(60), train={"early_stopping": {"metric": metric}}, **sections)


def test_roc_auc_is_for_two_classes(tmp_path: Path) -> None:
    table = "x,y\n" + "".join(f"{i},{'abc'[i % 3]}\n" for i in range(60))
    found = refusal(tmp_path, table, train={"early_stopping": {"metric": "roc_auc"}})
    assert "'roc_auc' is for two classes, found 3" in found
