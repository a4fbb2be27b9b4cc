"""The recipe of `train init`: an ensemble for small tables, one network for larger ones, a small one for `--fast`."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.cli.scaffold import draft_job
from training.config.recipe import MIN_ENSEMBLE_ROWS, MIN_SINGLE_ROWS, recommend
from training.pipeline.job import from_dict, prepare, train_and_evaluate


def sections(rows: int, columns: int = 5, *, classes: bool = False, fast: bool = False) -> dict[str, Any]:
    return tomllib.loads(recommend(rows, columns, "classification" if classes else "regression", fast=fast))


def test_the_network_depends_on_the_rows_and_the_task() -> None:
    for classes in (False, True):
        assert sections(MIN_ENSEMBLE_ROWS - 1, classes=classes)["network"] == {"layers": [32, "relu"]}
        assert sections(10**6, classes=classes, fast=True)["network"] == {"layers": [32, "relu"]}
    numbers, classes_of = (sections(MIN_SINGLE_ROWS, classes=classes) for classes in (False, True))
    assert {"parametric": "mish"} in numbers["network"]["layers"]
    assert "relu" in classes_of["network"]["layers"]
    assert numbers["train"]["loss"] == "mse"
    assert classes_of["train"]["loss"] == "cross_entropy"


@pytest.mark.parametrize("classes", [False, True])
def test_small_tables_get_an_ensemble_whose_training_takes_a_limited_number_of_steps(classes: bool) -> None:
    for rows in range(MIN_ENSEMBLE_ROWS, MIN_SINGLE_ROWS):
        train = sections(rows, classes=classes)["train"]
        assert train["ensemble"] == (8 if rows < 1000 else 5)
        trained = rows - rows // train["ensemble"]
        assert train["epochs"] == 20 or train["epochs"] * trained <= 1.05 * 400 * train["batch_size"]
        assert train["early_stopping"]["patience"] < train["epochs"] <= 100
    assert "ensemble" not in sections(MIN_SINGLE_ROWS, classes=classes)["train"]
    assert sections(500, 50, classes=classes)["train"]["ensemble"] == 5


@pytest.mark.parametrize("rows", [200, 5000])
def test_wide_tables_have_no_periodic_embedding_which_takes_most_of_the_time(rows: int) -> None:
    def periodic(columns: int) -> bool:
        found = sections(rows, columns)
        layers = any("periodic" in layer for layer in found["network"]["layers"] if isinstance(layer, dict))
        assert layers == ("periodic" in found["train"]["rate_factors"])
        return layers

    assert periodic(100)
    assert not periodic(101)


@pytest.mark.parametrize("classes", [False, True])
def test_more_rows_are_trained_for_fewer_epochs(classes: bool) -> None:
    for rows in (MIN_SINGLE_ROWS, 50_000, 200_000, 10**7):
        train = sections(rows, classes=classes)["train"]
        assert train["early_stopping"]["patience"] < train["epochs"]
        assert train["epochs"] == 10 or train["epochs"] * rows <= 16_000 * 256
    assert sections(10**7, classes=classes)["train"]["epochs"] == 10


@pytest.mark.parametrize("count", [600, 3000])
@pytest.mark.parametrize("classes", [False, True])
def test_the_default_predicts_better_than_the_fast_recipe(tmp_path: Path, classes: bool, count: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-3, 3, (count, 3))
    y = np.sin(3 * x[:, 0]) * x[:, 1] + np.abs(x[:, 2])
    target = np.where(y > 1, "high", "low") if classes else y.round(4)
    rows = [f"{a:.4f},{b:.4f},{c:.4f},{t}" for (a, b, c), t in zip(x, target, strict=True)]
    table, errors = tmp_path / "d.csv", []
    table.write_text("a,b,c,t\n" + "\n".join(rows) + "\n", encoding="utf-8")
    for fast in (True, False):
        content = tomllib.loads(draft_job(table, "t", tmp_path / "d.toml", fast=fast).text)
        outcome = train_and_evaluate(prepare(from_dict(content, tmp_path)), diagnostics=False)
        errors.append(1 - outcome.metrics["accuracy"] if classes else outcome.metrics["targets"]["t"]["rmse"])
    assert errors[1] < 0.9 * errors[0]
