"""`target_transform` in a job: learned transformed, measured and served in the units of the target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store.artifact import npz
from model_store.registry.store import open_store
from model_store.report.page import render
from tests.training.tables import job, refusal
from training.data.fitting.target_transform import fit_quantiles
from training.errors import DataError, JobError
from training.pipeline.job import prepare, run, train_and_evaluate

RNG = np.random.default_rng(5)
X = RNG.normal(size=(400, 2))
PRICE = np.exp(2 + X[:, 0] + 0.2 * RNG.normal(size=400))
COUNT = np.floor(PRICE / 4)
ROWS = [f"{a:.6g},{b:.6g},{p:.6g},{c:.0f}" for (a, b), p, c in zip(X, PRICE, COUNT, strict=True)]
TABLE = "\n".join(["a,b,price,count", *ROWS]) + "\n"
DATA = {"target": "price", "columns": ["a", "b"], "task": "regression"}
TRAIN = {"epochs": 30, "learning_rate": 0.05, "batch_size": 16}


def settings(**data: Any) -> dict[str, Any]:
    return {"data": {**DATA, **data}, "train": TRAIN}


@pytest.mark.parametrize("transform", ["log", "log1p", "quantile"])
@pytest.mark.parametrize("stream", [False, True])
def test_metrics_and_predictions_are_in_the_units_of_the_target(tmp_path: Path, transform: str, stream: bool) -> None:
    prepared = prepare(job(tmp_path, TABLE, **settings(target_transform=transform, stream=stream)))
    encoded = prepared.encode_targets(prepared.split.test)
    assert abs(encoded.mean()) < 0.5
    assert 0.6 < encoded.std() < 1.4
    outcome = train_and_evaluate(prepared)
    rows = prepared.split.test
    predicted = np.array(outcome.model.predict(prepared.instances(rows)))
    errors = predicted - prepared.dataset.targets[rows, 0]
    found = outcome.metrics["targets"]["price"]
    assert found["rmse"] == pytest.approx(np.sqrt((errors**2).mean()))
    assert found["mae"] == pytest.approx(np.abs(errors).mean())
    assert found["r2"] > 0.7
    assert (predicted >= 0).all()
    charts = outcome.model.training["diagnostics"]
    assert charts["residuals"]["targets"]["price"]["bias"] == pytest.approx(errors.mean())
    assert abs(charts["worst_rows"][0]["error"]) == pytest.approx(np.abs(errors).max())
    assert charts["importance"]["parts"][0]["name"] == "a"
    assert 0 < charts["importance"]["score"] < 0.3
    assert f"target_transform = &quot;{transform}&quot;" in render(outcome.model, "m/1")


def test_a_published_model_predicts_the_same(tmp_path: Path) -> None:
    store = open_store(tmp_path / "models")
    several = settings(target=["price", "count"], target_transform="quantile")
    outcome = run(job(tmp_path, TABLE, **several), store)
    (path,) = (tmp_path / "models" / "m").glob("*.npz")
    loaded = npz.read(path)
    loaded.check_golden()
    instances = X[:5].tolist()
    assert loaded.predict(instances) == outcome.model.predict(instances)
    assert all(0 <= one["count"] <= COUNT.max() for one in loaded.predict(instances))


def test_a_target_that_cannot_be_transformed_is_a_fault_with_its_line(tmp_path: Path) -> None:
    for stream in (False, True):
        with pytest.raises(DataError, match=r"column count: expected a target above 0 for .*'log', found 0 .*'log1p'"):
            prepare(job(tmp_path, TABLE, **settings(target="count", target_transform="log", stream=stream)))
    prepare(job(tmp_path, TABLE, **settings(target="count", target_transform="log1p")))
    with pytest.raises(DataError, match=r"column a: expected a target of at least 0 .*\(write 'quantile'"):
        prepare(job(tmp_path, TABLE, **settings(target="a", columns=["b"], target_transform="log1p")))


@pytest.mark.parametrize("stream", [False, True])
def test_a_target_beyond_the_knots_of_a_model_file_is_a_fault_before_training(tmp_path: Path, stream: bool) -> None:
    table = "a,y\n" + "".join(f"{i},{'1.7e308' if i % 2 else i}\n" for i in range(200))
    found = settings(target="y", columns=["a"], target_transform="quantile", stream=stream)
    with pytest.raises(DataError, match=r"column y: expected a target from -1e\+300 to 1e\+300 .*found 1.7e\+308"):
        prepare(job(tmp_path, table, **found))


def test_a_transform_needs_a_regression_and_a_loss_of_transformed_targets(tmp_path: Path) -> None:
    classes = TABLE.replace("count", "kind")
    found = settings(target_transform="log", task="classification", target="kind")
    with pytest.raises(JobError, match=r"data.target_transform: only for regressions"):
        prepare(job(tmp_path, classes, **found))
    found = settings(target_transform="log")
    found["train"] = {**TRAIN, "loss": "gamma"}
    with pytest.raises(JobError, match=r"data.target_transform: 'gamma' is a loss of means"):
        prepare(job(tmp_path, TABLE, **found))
    assert "expected one of 'log', 'log1p', 'quantile'" in refusal(tmp_path, TABLE, **settings(target_transform="sqrt"))


def test_quantile_knots_are_quantiles_of_the_training_rows_at_normal_scores() -> None:
    y = np.exp(RNG.normal(size=(2000, 1)))
    found = fit_quantiles(y)
    assert len(found.scores) == len(found.values[0]) == 101
    assert found.values[0][0] == y.min()
    assert found.values[0][-1] == y.max()
    assert found.values[0][50] == pytest.approx(np.median(y))
    t = found.apply(y)
    assert (abs(t.mean()), t.std()) == pytest.approx((0, 1), abs=0.02)
    np.testing.assert_allclose(found.invert(t), y, rtol=1e-9)
    assert len(fit_quantiles(y[:30]).scores) == 11
    assert len(fit_quantiles(np.tile(y[:1000], 4000)).scores) == 50  # a manifest has 8 MiB
