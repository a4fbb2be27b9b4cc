"""The learning-rate range test: its curve, and a suggested rate that trains."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from model_store.nn import Array, Linear, Sequential
from training import MSE, SGD, train
from training.pipeline.lr_range_test import RateCurve, find_learning_rate


def problem(seed: int = 0) -> tuple[Sequential, Array, Array]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((200, 3))
    return Sequential([Linear(3, 1, dtype=np.float64, rng=rng)]), x, x @ np.array([[1.0], [-2.0], [3.0]])


def curve_of(scale: float = 1.0) -> RateCurve:
    net, x, y = problem()
    return find_learning_rate(net, scale * x, scale * y, MSE(), SGD(net, momentum=0), 16, np.random.default_rng(1))


def test_the_rates_rise_evenly_and_end_where_the_loss_explodes() -> None:
    curve = curve_of()
    assert curve.rates[0] == pytest.approx(1e-6)
    ratios = np.array(curve.rates[1:]) / curve.rates[:-1]
    np.testing.assert_allclose(ratios, 1e7 ** (1 / 199))
    assert len(curve.rates) == len(curve.losses) < 200
    assert curve.losses[-1] > 2 * min(curve.losses)


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_the_suggested_rate_trains_and_a_hundred_times_as_large_one_does_not(scale: float) -> None:
    rate = curve_of(scale).suggestion
    assert rate is not None

    def last(rate: float) -> float:
        net, x, y = problem()
        with np.errstate(all="ignore"):
            try:
                return train(net, scale * x, scale * y, MSE(), SGD(net, rate, 0), 20, 16, on_epoch=None)[-1]
            except ArithmeticError:
                return np.inf

    start = last(1e-9)
    assert last(rate) < start / 100
    assert last(100 * rate) > start


def test_the_curve_repeats_bit_for_bit() -> None:
    assert curve_of() == curve_of()


def test_no_rate_is_suggested_if_none_lowers_the_loss() -> None:
    net, x, y = problem()
    net.parameter_vector[:] = [1, -2, 3, 0]  # type: ignore[index]  # the optimum
    curve = find_learning_rate(net, x, y, MSE(), SGD(net), 16, np.random.default_rng(1))
    assert curve.suggestion is None


def test_the_command_shows_the_curve_and_publishes_nothing(train: Callable[..., Result], job_file: Path) -> None:
    found = train(job_file, "--find-rate")
    assert found.exit_code == 0, found.output
    assert "Suggested: --set train.learning_rate=" in found.stdout
    assert "1e-06" in found.stdout
    assert not (job_file.parent / "models").exists()
    as_data = json.loads(train(job_file, "--find-rate", "--json").stdout)
    assert as_data.keys() == {"model", "rates", "losses", "suggestion"}
    assert f"learning_rate={as_data['suggestion']:g} (" in found.stdout
