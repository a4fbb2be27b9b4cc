"""The linear model beside the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store.nn import Embedding, Linear
from training.losses import Loss, SigmoidBinaryCrossEntropy, SoftmaxCrossEntropy
from training.pipeline.job import from_dict, prepare, train_and_evaluate
from training.pipeline.linear_model import _logistic, fit_linear_model

RNG = np.random.default_rng


def write_table(folder: Path, rows: int, classes: bool) -> dict[str, Any]:
    """Write a table whose target depends on its columns linearly, and return a job."""
    x = RNG(0).normal(50, 20, (rows, 3))
    y = x @ [1.0, -2.0, 0.5] + RNG(1).normal(0, 1, rows)
    shown = np.where(y > np.median(y), "high", "low") if classes else y
    lines = [f"{a},{b},{c},{target}" for (a, b, c), target in zip(x, shown, strict=True)]
    (folder / "t.csv").write_text("\n".join(["a,b,c,y", *lines]))
    return {
        "model": {"name": "t"},
        "data": {"path": "t.csv", "target": "y"},
        "network": {"layers": [4, "relu"]},
        "train": {"epochs": 2},
    }


@pytest.mark.parametrize("scale", ["standard", "none"])
def test_a_linear_target_is_fitted_exactly(tmp_path: Path, scale: str) -> None:
    job = write_table(tmp_path, 500, classes=False)
    job["data"]["scale"] = scale
    prepared = prepare(from_dict(job, tmp_path))
    outcome = train_and_evaluate(prepared)
    found = outcome.model.training["linear"]["targets"]["y"]
    assert found["rmse"] == pytest.approx(1.0, abs=0.15)  # the noise
    network = fit_linear_model(prepared, RNG(0))
    assert network is not None
    assert len(network.modules) == 1


@pytest.mark.parametrize("limit", [1024, 20])
def test_categories_that_an_embedding_takes_are_fitted_as_one_hot_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr("training.pipeline.linear_model._MAX_RIDGE_FEATURES", limit)
    towns, streets, x = RNG(0).integers(0, 12, 800), RNG(1).integers(0, 11, 800), RNG(2).normal(0, 1, 800)
    y = 5 * RNG(3).normal(0, 1, 12)[towns] + 2 * (streets % 3) + x + RNG(4).normal(0, 0.1, 800)
    lines = [f"town {t},{n},street {s},{target}" for t, n, s, target in zip(towns, x, streets, y, strict=True)]
    (tmp_path / "t.csv").write_text("\n".join(["town,x,street,y", *lines]))
    job = {
        "model": {"name": "t"},
        "data": {"path": "t.csv", "target": "y"},
        "network": {"layers": [{"embedding": 3}, 4, "relu"]},
        "train": {"epochs": 1},
    }
    prepared = prepare(from_dict(job, tmp_path))
    network = fit_linear_model(prepared, RNG(0))
    assert network is not None
    assert [type(module) for module in network.modules] == [Embedding, Linear]
    errors = network(np.asarray(prepared.x_validation)) - prepared.encode_learned(prepared.split.validation)
    deviation = prepared.dataset.targets.std()
    assert np.sqrt((errors**2).mean()) * deviation < (0.15 if limit == 1024 else 1.0)  # exactly, or by gradient descent


def test_an_embedding_that_finds_no_categories_leaves_the_fit_exact(tmp_path: Path) -> None:
    job = write_table(tmp_path, 500, classes=False)
    job["network"]["layers"] = [{"embedding": 8}, 4, "relu"]
    found = train_and_evaluate(prepare(from_dict(job, tmp_path))).model.training["linear"]["targets"]["y"]
    assert found["rmse"] == pytest.approx(1.0, abs=0.15)


def test_a_linear_classifier_is_trained_without_hidden_layers(tmp_path: Path) -> None:
    outcome = train_and_evaluate(prepare(from_dict(write_table(tmp_path, 500, classes=True), tmp_path)))
    assert outcome.model.training["linear"]["accuracy"] > 0.95
    assert 0 < outcome.model.training["linear"]["log_loss"] < 0.15


@pytest.mark.parametrize("criterion", [SoftmaxCrossEntropy(), SigmoidBinaryCrossEntropy()])
def test_a_logistic_regression_minimizes_the_loss_and_its_ridge(criterion: Loss) -> None:
    x = RNG(0).standard_normal((300, 5))
    x -= x.mean(axis=0)
    y = np.eye(3)[np.argmax(x[:, :3] + RNG(1).standard_normal((300, 3)), axis=1)]
    weights, bias = _logistic(criterion, x, y, x[:0], y[:0])
    prime = criterion.loss_prime(y, x @ weights.T + bias)
    np.testing.assert_allclose(prime.T @ x + 0.01 * weights, 0, atol=1e-5)
    np.testing.assert_allclose(prime.sum(axis=0), 0, atol=1e-5)


def test_a_streamed_job_has_the_same_linear_model(tmp_path: Path) -> None:
    job = write_table(tmp_path, 500, classes=False)
    job["data"]["stream"] = True
    found = train_and_evaluate(prepare(from_dict(job, tmp_path))).model.training["linear"]["targets"]["y"]
    assert found["rmse"] == pytest.approx(1.0, abs=0.15)


def test_too_many_features_have_no_linear_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.pipeline.linear_model.MAX_FEATURES", 2)
    outcome = train_and_evaluate(prepare(from_dict(write_table(tmp_path, 100, classes=False), tmp_path)))
    assert "linear" not in outcome.model.training
