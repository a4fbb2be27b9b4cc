"""Permutation importance against values computed by hand, and its limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from model_store.nn import Sequential, Softmax
from model_store.schema.columns import Column
from model_store.schema.signature import (
    ArrayColumn,
    CategoryColumn,
    ClassificationOutput,
    NumberColumn,
    RegressionOutput,
    Signature,
)
from tests.training.evaluation.networks import last, line
from training.evaluation import importance
from training.evaluation.importance import permutation_importance
from training.evaluation.predictor import Predictor

RNG = np.random.default_rng


def test_the_importance_of_pixels_is_a_difference_of_exact_log_losses() -> None:
    network, x = last([[0, -150], [0, -300]] * 2, Softmax())
    signature = Signature((ArrayColumn("x", (2,)),), ClassificationOutput("kind", ("no", "yes")))
    found = permutation_importance(Predictor([network]), signature, x, np.ones(4, np.int64), RNG(0), 1000)
    assert found is not None
    assert (found["measure"], found["score"]) == ("log_loss", 225)


def test_an_unused_column_has_zero_importance_and_the_main_column_the_highest() -> None:
    x = RNG(0).standard_normal((400, 3))
    signature = Signature(
        (NumberColumn("idle"), NumberColumn("main"), NumberColumn("minor")), RegressionOutput(("y",), (0.0,), (2.0,))
    )
    y_true = 2 * (x @ [0.0, 3.0, 1.0]).reshape(-1, 1)
    found = permutation_importance(Predictor([line(0, 3, 1)]), signature, x, y_true, RNG(1), 10_000)
    assert found is not None
    assert [part["name"] for part in found["parts"]] == ["main", "minor", "idle"]
    assert found["parts"][2] == {"name": "idle", "cost": 0.0, "low": 0.0, "high": 0.0}
    assert found["parts"][0]["cost"] == pytest.approx(2 * 9 / 10, rel=0.1)  # two draws of 3·x, of a variance of 9 + 1
    assert (found["measure"], found["score"], found["rows"], found["repeats"]) == ("squared_error", 0.0, 400, 5)


@pytest.mark.parametrize("inputs", [(NumberColumn("a"), NumberColumn("b")), (ArrayColumn("x", (2,)),)])
def test_cost_is_the_increase_of_the_log_loss_over_that_without_shuffling(inputs: tuple[Column, ...]) -> None:
    """A model predicts the class of its first feature with probability 0.8 and is right for three rows in four."""
    named, idle = np.tile([0.2, 0.8], 1000), RNG(0).random(2000)
    y_true = (named > 0.5).astype(np.int64) ^ (np.arange(2000) % 8 < 2)
    signature = Signature(inputs, ClassificationOutput("kind", ("no", "yes")))
    found = permutation_importance(
        Predictor([line(1, 0)]), signature, np.column_stack([named, idle]), y_true, RNG(1), 40_000
    )
    assert found is not None
    assert (found["measure"], found["score"]) == ("log_loss", pytest.approx(-np.log(0.8) * 0.75 - np.log(0.2) * 0.25))
    costs = [part["cost"] for part in found["parts"]]
    assert costs == [pytest.approx(0.25 * np.log(4), abs=0.03), pytest.approx(0, abs=1e-12)]


def test_changes_that_cancel_out_have_a_mean_of_exactly_0() -> None:
    assert importance._mean(np.array([0.1, 0.2, -0.3]), None) == 0.0 != np.mean([0.1, 0.2, -0.3])
    assert importance._mean(np.array([1e-30, 3e-30]), None) == 2e-30


def test_the_interval_of_a_cost_holds_the_cost_of_many_rows_in_19_of_20_samples() -> None:
    signature = Signature((NumberColumn("a"), NumberColumn("b")), RegressionOutput(("y",), (0.0,), (1.0,)))

    def cost_of(seed: int, rows: int) -> dict[str, Any]:
        x = RNG(seed).standard_normal((rows, 2))
        y = x[:, :1] + RNG(seed + 1000).standard_normal((rows, 1))
        found = permutation_importance(Predictor([line(1, 0.2)]), signature, x, y, RNG(seed), 20_000)
        assert found is not None
        return dict(next(part for part in found["parts"] if part["name"] == "a"))

    expected = np.mean([cost_of(5000 + seed, 2000)["cost"] for seed in range(20)])
    found = [cost_of(seed, 200) for seed in range(200)]
    inside = sum(one["low"] <= expected <= one["high"] for one in found)
    assert 0.88 < inside / len(found) < 0.99


def test_importance_does_not_change_its_input_and_is_reproducible() -> None:
    x = RNG(0).standard_normal((50, 2))
    signature = Signature((NumberColumn("a"), NumberColumn("b")), RegressionOutput(("y",), (0.0,), (1.0,)))
    before = x.copy()
    found = [permutation_importance(Predictor([line(1, 2)]), signature, x, x[:, :1], RNG(7), 10_000) for _ in range(2)]
    assert found[0] == found[1]
    assert (x == before).all()


def test_the_features_of_a_category_are_shuffled_together() -> None:
    x = np.eye(3)[RNG(0).integers(0, 3, 90)]
    signature = Signature(
        (CategoryColumn("colour", ("red", "white", "blue")),), RegressionOutput(("y",), (0.0,), (1.0,))
    )
    batches = []

    class Spy(Sequential):
        def __call__(self, inputs):
            batches.append(inputs.copy())
            return super().__call__(inputs)

    permutation_importance(Predictor([Spy(line(1, 2, 3).modules)]), signature, x, x[:, :1], RNG(0), 10_000)
    assert all((rows.sum(axis=1) == 1).all() and (rows.sum(axis=0) == x.sum(axis=0)).all() for rows in batches)


def test_importance_keeps_within_its_budget_and_keeps_the_30_most_important_columns() -> None:
    x = RNG(0).standard_normal((5000, 40))
    signature = Signature(tuple(NumberColumn(f"c{i}") for i in range(40)), RegressionOutput(("y",), (0.0,), (1.0,)))
    found = permutation_importance(Predictor([line(*range(40))]), signature, x, x[:, :1], RNG(0), 40_000)
    assert found is not None
    assert found["rows"] * found["repeats"] * 40 <= 40_000
    assert (len(found["parts"]), found["left_out"]) == (30, 10)
    assert found["parts"][0]["name"] == "c39"


@pytest.mark.parametrize(
    ("shape", "grid", "patch"),
    [((8, 8), [8, 8], [1, 1]), ((28, 28), [7, 7], [4, 4]), ((5, 30, 3), [5, 8], [1, 4]), ((3, 3), [3, 3], [1, 1])],
)
def test_an_image_is_shuffled_by_patch(shape, grid, patch) -> None:
    size = int(np.prod(shape))
    x = RNG(0).standard_normal((20, size))
    signature = Signature((ArrayColumn("image", shape),), RegressionOutput(("y",), (0.0,), (1.0,)))
    found = permutation_importance(Predictor([line(*np.ones(size))]), signature, x, x[:, :1], RNG(0), 1000)
    assert found is not None
    assert (found["grid"], found["patch"]) == (grid, patch)
    assert len(found["parts"]) == grid[0] * grid[1]
    assert all(part["cost"] != 0 for part in found["parts"])  # each pixel is in a patch


def test_a_long_array_is_shuffled_in_ranges() -> None:
    x = RNG(0).standard_normal((20, 1000))
    signature = Signature((ArrayColumn("spectrum", (1000,)),), RegressionOutput(("y",), (0.0,), (1.0,)))
    found = permutation_importance(Predictor([line(*np.ones(1000))]), signature, x, x[:, :1], RNG(0), 1000)
    assert found is not None
    assert len(found["parts"]) + found["left_out"] == 64
    assert found["parts"][0]["name"].startswith("spectrum ")


def test_one_row_has_no_importance() -> None:
    signature = Signature((NumberColumn("a"),), RegressionOutput(("y",), (0.0,), (1.0,)))
    assert (
        permutation_importance(Predictor([line(1)]), signature, np.ones((1, 1)), np.ones((1, 1)), RNG(0), 100) is None
    )
