"""The page's training of XOR takes the steps of `training`, in QuickJS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store.nn import Linear, Sequential, Tanh
from training import MSE, SGD, train

quickjs = pytest.importorskip("quickjs")

SCRIPT = Path(__file__).parents[3] / "service" / "static" / "xor" / "training.js"
ROWS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], float)
TARGETS = np.array([[0], [1], [1], [0]], float)
TRAIN = """
const training = new Training(%d);
const parameters = () => [0, 2].flatMap((i) => [training.modules[i].weights, training.modules[i].bias]);
const initial = parameters();
for (let i = 0; i < %d; i += 1) training.finishStep(%r);
const outputs = ROWS.map(([x]) => training.evaluate(x));
JSON.stringify({ initial, found: parameters(), errors: training.errors, outputs })
"""


def run(code: str) -> Any:
    """Return the JSON value of code after the module."""
    return json.loads(quickjs.Context().eval(SCRIPT.read_text(encoding="utf-8").replace("export ", "") + code))


def network_of(parameters: list[Any]) -> Sequential:
    w1, b1, w2, b2 = (np.array(values, float) for values in parameters)
    return Sequential(
        [
            _trainable(Linear(2, 3, dtype=float), w1, b1),
            Tanh(),
            _trainable(Linear(3, 1, dtype=float), w2, b2),
            Tanh(),
        ]
    )


def _trainable(layer: Linear, weights: Any, bias: Any) -> Linear:
    layer.weights[...], layer.bias[...] = weights, bias
    return layer


@pytest.mark.parametrize(("seed", "rate"), [(1, 0.1), (2, 0.02), (7, 0.1)])
def test_the_parameters_and_losses_of_400_steps_are_those_of_training(seed: int, rate: float) -> None:
    page = run(TRAIN % (seed, 400, rate))
    network = network_of(page["initial"])
    errors = train(network, ROWS, TARGETS, MSE(), SGD(network, rate, momentum=0.0), 100, on_epoch=None)
    for found, expected in zip(page["found"], network.parameters(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(page["errors"], errors, rtol=0, atol=1e-12)
    np.testing.assert_allclose(page["outputs"], network(ROWS), rtol=0, atol=1e-12)


def test_the_gradients_are_those_of_the_network() -> None:
    code = """
const training = new Training(5);
const [first, , last] = training.modules;
const initial = [first.weights, first.bias, last.weights, last.bias];
["forward", "loss", "backward"].forEach(() => training.advance(0.1));
const found = [first.weightsGrad, first.biasGrad, last.weightsGrad, last.biasGrad];
JSON.stringify({ initial, found, inputGrad: first.inputGrad, error: training.error })
"""
    page = run(code)
    network = network_of(page["initial"])
    loss = MSE()
    outputs = network.forward(ROWS[:1])
    grad = network.backward(loss.loss_prime(TARGETS[:1], outputs))
    assert page["error"] == pytest.approx(loss.loss(TARGETS[:1], outputs), abs=1e-15)
    np.testing.assert_allclose(page["inputGrad"], grad[0], rtol=0, atol=1e-15)
    for found, expected in zip(page["found"], network.gradients(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-15)


def test_initial_parameters_are_standard_normal_and_depend_on_the_seed_alone() -> None:
    numbers = np.array(run("const draw = normal(7); JSON.stringify(Array.from({ length: 20000 }, draw))"))
    assert abs(numbers.mean()) < 0.03
    assert abs(numbers.std() - 1) < 0.03
    assert np.abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.03
    again = run("const draw = normal(7); JSON.stringify(Array.from({ length: 3 }, draw))")
    assert again == numbers[:3].tolist()


def test_the_default_run_learns_xor() -> None:
    page = run(TRAIN % (7, 4 * 1000, 0.1))
    assert page["errors"][-1] < 0.01
    assert np.abs(np.array(page["outputs"]) - TARGETS).max() < 0.1
