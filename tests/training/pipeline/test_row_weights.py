"""Weights of rows: a weight of 2 counts as two equal rows, one of 0 as none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store.evaluation.record import TrainingRecord
from model_store.nn import Linear, Sequential, Sigmoid, Softmax
from model_store.schema.columns import CategoryColumn
from model_store.schema.signature import RegressionOutput
from tests.training.tables import job, refusal
from training.evaluation.diagnostics import calibration, residuals
from training.evaluation.error_analysis import error_slices
from training.evaluation.metrics import classification_metrics, evaluate_baseline, regression_metrics
from training.evaluation.threshold_curves import threshold_curves
from training.losses import LOSSES, CrossEntropy, RowWeighted
from training.pipeline.job import prepare, train_and_evaluate

RNG = np.random.default_rng(0)
W = np.array([2, 0, 1, 3])
TABLE = "x,w,y\n" + "".join(f"{i % 13},{i % 4},{'ab'[(i % 13) > 6]}\n" for i in range(120))


def repeated(values: np.ndarray) -> np.ndarray:
    return np.repeat(values, W, axis=0)


CLASS_LOSSES = ("binary_cross_entropy", "cross_entropy")


@pytest.mark.parametrize(
    ("name", "settings"),
    [*((name, {}) for name in LOSSES), *((name, {"weights": (1.0, 3.0)}) for name in CLASS_LOSSES)],
)
def test_a_weighted_loss_is_that_of_repeated_rows(name: str, settings: dict[str, Any]) -> None:
    loss = LOSSES[name](**settings)
    outputs = 1 if name == "binary_cross_entropy" else 2
    y = np.eye(2)[[0, 1, 1, 0]] if isinstance(loss, CrossEntropy) else RNG.random((4, outputs))
    ending = {"cross_entropy": [Softmax()], "binary_cross_entropy": [Sigmoid()]}.get(name, [])
    network = Sequential([Linear(3, outputs, rng=RNG, dtype=np.float64), *ending])
    shorter, weighted = RowWeighted(loss).fused(network)
    _, plain = loss.fused(network)
    p = shorter(RNG.standard_normal((4, 3)))
    if name in ("poisson", "gamma"):
        p = np.exp(p)
    targets = np.column_stack([y, W / W.mean()])
    assert weighted.loss(targets, p) == pytest.approx(plain.loss(repeated(y), repeated(p)))
    own = plain.loss_prime(repeated(y), repeated(p))
    summed = [own[end - count : end].sum(axis=0) for count, end in zip(W, W.cumsum(), strict=True)]
    np.testing.assert_allclose(weighted.loss_prime(targets, p), np.array(summed) * len(own) / 4 / W.mean(), atol=1e-12)


def test_weighted_metrics_are_those_of_repeated_rows() -> None:
    y, p = np.array([0, 1, 1, 0]), np.array([0, 0, 1, 1])
    found, expected = classification_metrics("ab", y, p, W), classification_metrics("ab", repeated(y), repeated(p))
    assert found["accuracy"] == pytest.approx(expected["accuracy"])
    for label in "ab":
        for key in ("precision", "recall", "f1"):
            assert found["classes"][label][key] == pytest.approx(expected["classes"][label][key])
    assert [row["support"] for row in found["classes"].values()] == [2, 2]
    assert found["confusion"] == [[1, 1], [1, 1]]
    y, p = RNG.random((4, 1)), RNG.random((4, 1))
    assert regression_metrics(["y"], y, p, W)["targets"]["y"] == pytest.approx(
        regression_metrics(["y"], repeated(y), repeated(p))["targets"]["y"]
    )


def test_weighted_charts_are_those_of_repeated_rows() -> None:
    positive = np.array([True, False, True, False])
    log_p = np.log([[0.4, 0.6], [0.7, 0.3], [0.35, 0.65], [0.45, 0.55]])
    y = positive.astype(int)
    found, expected = calibration("ab", y, log_p, W), calibration("ab", repeated(y), repeated(log_p))
    for key in ("log_loss", "expected_error"):
        assert found[key] == pytest.approx(expected[key])
    pairs = zip(found["bins"], expected["bins"], strict=True)
    assert all((a["said"], a["found"]) == pytest.approx((b["said"], b["found"])) for a, b in pairs)
    odds = log_p[:, 1] - log_p[:, 0]
    curves = threshold_curves("b", positive, odds, W.astype(float))
    repeats = threshold_curves("b", repeated(positive), repeated(odds))
    assert curves["roc"]["area"] == pytest.approx(repeats["roc"]["area"])
    assert curves["precision_recall"]["average"] == pytest.approx(repeats["precision_recall"]["average"])
    assert curves["costs"]["options"] == repeats["costs"]["options"]
    assert threshold_curves("b", positive, odds, np.array([1.0, 0, 1, 0])) == {}


def test_weighted_residuals_and_slices_are_those_of_repeated_rows() -> None:
    weights = np.repeat(W, 10).astype(float)
    y, p = RNG.random((40, 1)), RNG.random((40, 1))
    output = RegressionOutput(("y",), (0.0,), (1.0,))
    counts = weights.astype(int)
    found = residuals(output, y, p, RNG, weights=weights)
    expected = residuals(output, y.repeat(counts, 0), p.repeat(counts, 0), RNG)
    assert found is not None
    assert expected is not None
    one, other = found["targets"]["y"], expected["targets"]["y"]
    assert one["bias"] == pytest.approx(other["bias"])
    absolute = np.sort(np.abs(p - y).repeat(counts, 0)[:, 0])
    assert one["median"] in absolute[[29, 30]]
    assert one["rows"] == 40
    kind = np.array(["a", "b"] * 20, object)
    errors = (p - y)[:, 0]
    column = CategoryColumn("kind", ("a", "b"))
    weighted = error_slices({"kind": kind}, errors, "rmse", [column], weights)
    repeats = error_slices({"kind": kind.repeat(counts)}, errors.repeat(counts), "rmse", [column])
    assert weighted is not None
    assert repeats is not None
    assert weighted["error"] == pytest.approx(repeats["error"])
    slices = zip(weighted["columns"][0]["slices"], repeats["columns"][0]["slices"], strict=True)
    for part, repeat in slices:
        assert part["error"]["value"] == pytest.approx(repeat["error"]["value"])
        assert part["bias"] == pytest.approx(repeat["bias"])
        assert part["rows"] == 20


def test_the_charts_of_a_weighted_job_agree_with_its_metrics(tmp_path: Path) -> None:
    outcome = train_and_evaluate(prepare(job(tmp_path, TABLE, data={"weight": "w"}, split={"test": 0.5})))
    record = TrainingRecord.parse(outcome.model.training)
    assert record.slices is not None
    assert 1 - record.slices["error"] == pytest.approx(outcome.metrics["accuracy"])
    assert record.costs is not None
    assert record.calibration is not None
    assert record.importance is not None
    assert record.importance["score"] == pytest.approx(record.calibration["log_loss"])
    half = next(one for one in record.costs["options"] if one["threshold"] == 0.5)
    wrong = half["false_positives"] + half["false_negatives"]
    assert 1 - wrong / record.costs["rows"] == pytest.approx(outcome.metrics["accuracy"])


@pytest.mark.parametrize("target", ["y", "z"])
def test_the_linear_model_beside_is_weighted_too(tmp_path: Path, target: str) -> None:
    lines = [f"{i % 13},1,{'ab'[(i % 13) > 6]},{i % 13 * 2.0}\n" for i in range(200)]
    lines += [f"{i % 13},0,{'ba'[(i % 13) > 6]},{-(i % 13) * 9.0}\n" for i in range(200)]  # the opposite
    data = {
        "weight": "w",
        "target": target,
        "columns": ["x"],
        "task": "classification" if target == "y" else "regression",
    }
    outcome = train_and_evaluate(prepare(job(tmp_path, "x,w,y,z\n" + "".join(lines), data=data)))
    assert outcome.linear is not None
    if target == "y":
        assert outcome.linear["accuracy"] > 0.95
    else:
        assert outcome.linear["targets"]["z"]["rmse"] < 1e-3


def test_a_weighted_job_trains_and_says_so(tmp_path: Path) -> None:
    prepared = prepare(job(tmp_path, TABLE, data={"weight": "w"}, train={"epochs": 30, "learning_rate": 0.1}))
    assert prepared.signature.names == ("x",)
    outcome = train_and_evaluate(prepared)
    metrics = outcome.model.training["metrics"]
    assert metrics["weight"] == "w"
    rows = prepared.split.test
    predicted = [one["label"] for one in outcome.model.predict(prepared.instances(rows))]
    right = [one == label for one, label in zip(predicted, prepared.labels(rows), strict=True)]
    weights = np.array([float(str(cell)) for cell in prepared.dataset.extra["w"]])[rows]
    assert metrics["accuracy"] == pytest.approx(np.average(right, weights=weights))
    assert "held_out" not in outcome.model.training
    assert any("loss, metrics and charts are weighted by w" in note for note in outcome.model.training["notes"])
    output, train_weights = prepared.signature.output, np.array([1.0, 1.0, 3.0])
    baseline = evaluate_baseline(output, np.array([0, 1]), np.array([0, 0, 1]), None, train_weights)
    assert baseline["answer"] == "b"


@pytest.mark.parametrize("sections", [{}, {"network": {"output": "sigmoid"}}, {"train": {"class_weights": "balanced"}}])
def test_rows_of_weight_0_are_not_learned(tmp_path: Path, sections: dict[str, dict[str, Any]]) -> None:
    lines = [f"{i % 13},1,{'ab'[(i % 13) > 6]}\n" for i in range(200)]
    lines += [f"{i % 13},0,{'ba'[(i % 13) > 6]}\n" for i in range(200)]  # the opposite
    sections = {**sections, "train": {"epochs": 60, "learning_rate": 0.2, **sections.get("train", {})}}
    weighted = prepare(job(tmp_path, "x,w,y\n" + "".join(lines), data={"weight": "w"}, **sections))
    assert train_and_evaluate(weighted).metrics["accuracy"] > 0.95


def test_equal_weights_change_nothing_but_rounding(tmp_path: Path) -> None:
    cells = [line.split(",") for line in TABLE.splitlines()[1:]]
    even = "x,w,y\n" + "".join(f"{x},7,{y}\n" for x, _, y in cells)
    vectors = [
        train_and_evaluate(prepare(job(tmp_path, even, data=data))).model.network.parameter_vector
        for data in ({"weight": "w"}, {"columns": ["x"]})
    ]
    np.testing.assert_allclose(vectors[0], vectors[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("cell", "fault"),
    [
        ("-1", "line 122, column w: expected a weight of at least 0, found '-1'"),
        ("heavy", "found 'heavy'"),
        ("", "found none"),
    ],
)
def test_a_weight_that_is_no_number_of_at_least_0_is_located(tmp_path: Path, cell: str, fault: str) -> None:
    assert fault in refusal(tmp_path, TABLE + f"1,{cell},a\n", data={"weight": "w"})


def test_a_weight_is_neither_input_nor_target(tmp_path: Path) -> None:
    found = refusal(tmp_path, TABLE, data={"weight": "w", "columns": ["x", "w"]})
    assert "data.columns: 'w' is the weight of the rows, which is no input" in found
    assert "data.weight: 'y' is the target" in refusal(tmp_path, TABLE, data={"weight": "y"})
    assert "data.weight: unknown column 'v'" in refusal(tmp_path, TABLE, data={"weight": "v"})
    zero = "x,w,y\n" + "".join(f"{i},0,{'ab'[i % 2]}\n" for i in range(40))
    assert "all training rows have a weight of 0" in refusal(tmp_path, zero, data={"weight": "w"})
