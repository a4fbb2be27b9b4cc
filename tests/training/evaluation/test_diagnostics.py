"""Diagnostics against values computed by hand, and their size limits."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model_store.nn import Module, Sequential, Sigmoid, Softmax
from model_store.schema.signature import (
    ClassificationOutput,
    NumberColumn,
    RegressionOutput,
    Signature,
)
from tests.training.evaluation.networks import last, line
from tests.training.streams import job, table
from training.engine.early_stopping import EarlyStopping
from training.evaluation import diagnostics, metrics
from training.evaluation.predictor import Predictor
from training.losses import BinaryCrossEntropy, CrossEntropy
from training.pipeline.job import prepare, train_and_evaluate

RNG = np.random.default_rng


def evaluated(network: Sequential, x: NDArray[Any], y: NDArray[Any]) -> diagnostics.EvaluatedRows:
    return diagnostics.EvaluatedRows(x, y, network(x), {"a": x[:, 0], "b": x[:, -1]}, lambda i: f"line {i + 2}")


def test_expected_calibration_error_weights_bins_by_their_rows() -> None:
    outputs = np.array([[0.2, 0.8], [0.2, 0.8], [0.2, 0.8], [0.2, 0.8], [0.65, 0.35]])
    found = diagnostics.calibration(("no", "yes"), np.array([1, 1, 1, 0, 0]), np.log(outputs))
    assert found["of"] == "yes"
    expected = [(0.3, 0.4, 1, 0.35, 0.0), (0.8, 0.9, 4, 0.8, 0.75)]
    assert [tuple(part.values()) for part in found["bins"]] == [pytest.approx(part) for part in expected]
    assert list(found["bins"][0]) == ["low", "high", "rows", "said", "found"]
    assert found["expected_error"] == pytest.approx((1 * 0.35 + 4 * 0.05) / 5)
    assert found["log_loss"] == pytest.approx(-(3 * np.log(0.8) + np.log(0.2) + np.log(0.65)) / 5)


def test_one_output_or_two_have_the_same_log_probabilities() -> None:
    one = metrics.log_probabilities(*last([[-3], [0.5], [40]], Sigmoid(), "float64"))
    two = metrics.log_probabilities(*last([[0, -3], [0, 0.5], [0, 40]], Softmax(), "float64"))
    assert one == pytest.approx(two, rel=1e-12, abs=1e-16)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_log_loss_is_exact_for_any_logits(dtype: str) -> None:
    """Computed from float32 probabilities, a single certain mistake cost 708."""
    network, x = last([[0, -200], [0, 5], [-1e4, 1e4], [3, 0]], Softmax(), dtype)
    found = metrics.log_loss(metrics.log_probabilities(network, x), np.array([1, 1, 0, 0]))
    assert found == pytest.approx((200 + math.log1p(math.exp(-5)) + 2e4 + math.log1p(math.exp(-3))) / 4, rel=1e-12)
    network, x = last([[200], [-200], [20]], Sigmoid(), dtype)
    found = metrics.log_loss(metrics.log_probabilities(network, x), np.array([0, 1, 0]))
    assert found == pytest.approx((400 + math.log1p(math.exp(20))) / 3, rel=1e-12)


def test_one_mistake_in_a_thousand_rows_costs_its_logit() -> None:
    """1,000 rows of logit 9 with one mistake of logit -110, whose float32 probability is 0: 0.110, not 0.708."""
    network, x = last([[0, 9]] * 999 + [[0, -110]], Softmax())
    signature = Signature((NumberColumn("a"), NumberColumn("b")), ClassificationOutput("kind", ("no", "yes")))
    found = diagnostics.diagnose(
        Predictor([network]), signature, evaluated(network, x, np.ones(1000, np.int64)), RNG(0), 1000
    )
    assert found["calibration"]["log_loss"] == pytest.approx((999 * math.log1p(math.exp(-9)) + 110) / 1000, rel=1e-12)


def test_the_roc_area_orders_rows_whose_probability_is_rounded_to_1() -> None:
    network, x = last([[20], [25], [30], [35]], Sigmoid())
    assert (network(x) == 1).all()
    signature = Signature((NumberColumn("a"),), ClassificationOutput("kind", ("no", "yes")))
    found = diagnostics.diagnose(
        Predictor([network]), signature, evaluated(network, x, np.array([0, 0, 1, 1])), RNG(0), 1000
    )
    assert found["roc"]["area"] == 1


@pytest.mark.parametrize(("logits", "activation"), [([[0, -200], [0, 5]], Softmax()), ([[-200], [5]], Sigmoid())])
def test_the_validation_loss_is_exact_for_any_logits(logits: list[list[float]], activation: Module) -> None:
    network, x = last(logits, activation)
    loss = CrossEntropy() if isinstance(activation, Softmax) else BinaryCrossEntropy()
    y = np.array([[0, 1], [0, 1]] if isinstance(activation, Softmax) else [[1], [1]], np.float32)
    early_stopping = EarlyStopping(network, loss, x, y)
    early_stopping(1, 1, 0.5)
    assert early_stopping.history[0].validation_loss == pytest.approx((200 + math.log1p(math.exp(-5))) / 2, rel=1e-7)


@pytest.mark.parametrize("stream", [False, True])
def test_the_recorded_log_loss_and_roc_area_are_those_of_the_logits(tmp_path: Path, stream: bool) -> None:
    columns = table(600)
    lines = [
        ",".join(columns),
        *(",".join(f'"{cell or 0}"' for cell in row) for row in zip(*columns.values(), strict=True)),
    ]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    prepared = prepare(job(tmp_path / "t.csv", data={"stream": stream}, train={"learning_rate": 5.0, "epochs": 2}))
    outcome = train_and_evaluate(prepared)
    z = outcome.model.network.without_last()(prepared.x_evaluation).astype(float)
    y = prepared.dataset.targets[prepared.split.test]
    losses = [
        math.log1p(math.exp(wrong - right))
        for wrong, right in zip(z[np.arange(len(z)), 1 - y], z[np.arange(len(z)), y], strict=True)
    ]
    found = outcome.model.training["diagnostics"]
    assert found["calibration"]["log_loss"] == pytest.approx(np.mean(losses), rel=1e-12)
    margin = z[:, 1] - z[:, 0]
    pairs = np.sign(margin[y == 1][:, None] - margin[y == 0])
    assert found["roc"]["area"] == pytest.approx((pairs.mean() + 1) / 2)


def test_an_overflowing_logit_has_a_finite_log_loss() -> None:
    network, x = last([[3e38], [-1]], Sigmoid())
    network.modules[0].weights[...] = 10
    with np.errstate(over="ignore"):
        found = diagnostics.calibration(("a", "b"), np.array([0, 0]), metrics.log_probabilities(network, x))
    assert json.dumps(found, allow_nan=False)


def test_with_more_than_two_labels_the_predicted_label_is_calibrated() -> None:
    outputs = np.array([[0.9, 0.05, 0.05], [0.1, 0.1, 0.8]])
    found = diagnostics.calibration(("a", "b", "c"), np.array([0, 0]), np.log(outputs))
    assert found["of"] is None
    assert [part["said"] for part in found["bins"]] == pytest.approx([0.8, 0.9])
    assert [part["found"] for part in found["bins"]] == [0, 1]


def test_a_certain_mistake_of_outputs_that_are_no_logits_has_a_finite_log_loss() -> None:
    log_p = metrics.log_probabilities(line(1), np.array([[1.0]]))
    found = diagnostics.calibration(("a", "b"), np.array([0]), log_p)
    assert found["log_loss"] == pytest.approx(708.4, abs=0.1)
    assert json.dumps(found, allow_nan=False)


def test_residuals_are_in_the_unit_of_the_target() -> None:
    output = RegressionOutput(("price",), (10.0,), (2.0,))
    outputs = np.array([[0.0], [1.0], [2.0]])  # 10, 12, 14
    found = diagnostics.residuals(output, np.array([[9.0], [12.0], [20.0]]), outputs, RNG(0), raw_values=True)
    assert found is not None
    price = found["targets"]["price"]
    assert (price["bias"], price["median"], price["rows"]) == (pytest.approx(-5 / 3), 1.0, 3)
    assert price["points"] == [[9.0, 10.0], [12.0, 12.0], [20.0, 14.0]]
    assert price["step"] is None
    assert sum(price["counts"]) + price["outside"] == 3
    assert (price["edges"][0], price["edges"][-1]) == (-6, 1)


def test_points_are_rounded_to_a_grid_unless_raw_values_may_be_published() -> None:
    output, y_true = RegressionOutput(("price",), (0.0,), (1.0,)), np.array([[9.0], [12.0], [20.0]])
    found = diagnostics.residuals(output, y_true, np.array([[10.0], [12.0], [14.0]]), RNG(0))
    assert found is not None
    price = found["targets"]["price"]
    assert price["step"] == 11 / 50
    for true, predicted in price["points"]:
        assert {true, predicted}.isdisjoint({9.0, 12.0, 20.0})
        for value in (true, predicted):
            assert (value - 9.0) / price["step"] % 1 == pytest.approx(0.5)
    assert np.abs(np.array(price["points"])[:, 0] - y_true[:, 0]).max() <= price["step"] / 2 * (1 + 1e-9)
    constant = diagnostics.residuals(output, np.full((3, 1), 5.0), np.full((3, 1), 5.0), RNG(0))
    assert constant is not None
    assert constant["targets"]["price"]["points"] == [[5.0, 5.0]] * 3


@pytest.mark.parametrize("size", [0.0, 1.0, 1e12, 1e-300])
def test_residuals_of_a_perfect_model_have_ascending_edges(size: float) -> None:
    y_true = np.full((300, 1), size)
    found = diagnostics.residuals(RegressionOutput(("y",), (0.0,), (1.0,)), y_true, y_true, RNG(0))
    assert found is not None
    assert np.diff(found["targets"]["y"]["edges"]).min() > 0


def test_overflowing_residuals_are_none_and_their_size_is_limited() -> None:
    assert (
        diagnostics.residuals(RegressionOutput(("y",), (0.0,), (1.0,)), np.array([[1e200]]), np.array([[0.0]]), RNG(0))
        is None
    )
    names = tuple(f"y{i}" for i in range(50))
    y_true = RNG(0).standard_normal((3000, 50))
    found = diagnostics.residuals(RegressionOutput(names, (0.0,) * 50, (1.0,) * 50), y_true, y_true * 0.9, RNG(0))
    assert found is not None
    assert list(found["targets"]) == list(names[:6])
    assert found["left_out"] == 44
    assert len(json.dumps(found)) < 100_000


def test_with_many_classes_mistakes_are_kept_and_the_matrix_is_not() -> None:
    labels = ClassificationOutput("word", tuple(range(5000)))
    y_true = np.arange(5000)
    outputs = np.zeros((5000, 5000), np.float32)
    outputs[y_true, np.where(y_true < 4000, y_true, 7)] = 1
    found = metrics.evaluate(labels, y_true, outputs)
    assert "confusion" not in found
    assert found["accuracy"] == 0.8
    assert found["mistakes"][0] == {"true": 4000, "answered": 7, "rows": 1}
    assert len(found["mistakes"]) == 20


def test_diagnostics_of_many_rows_use_a_sample_and_record_its_size() -> None:
    x = RNG(0).standard_normal((150_000, 1)).astype(np.float32)
    signature = Signature((NumberColumn("a"),), RegressionOutput(("y",), (0.0,), (1.0,)))
    found = diagnostics.diagnose(
        Predictor([line(1)]), signature, evaluated(line(1), x, x.astype(np.float64)), RNG(0), 1000
    )
    assert found["residuals"]["targets"]["y"]["rows"] == 100_000
    assert (found["importance"]["rows"], found["importance"]["repeats"]) == (200, 5)
    classes = Signature((NumberColumn("a"),), ClassificationOutput("kind", ("no", "yes")))
    found = diagnostics.diagnose(
        Predictor([line(1)]), classes, evaluated(line(1), x, (x[:, 0] > 0).astype(np.int64)), RNG(0), 1000
    )
    assert found["calibration"]["rows"] == 100_000
    assert sum(part["rows"] for part in found["calibration"]["bins"]) == 100_000
