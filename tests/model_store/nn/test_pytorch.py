"""Layers, losses and ten steps of a network equal PyTorch's, recorded in tests/fixtures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store.nn import LAYERS, Array, Dropout, Exp, Sequential, Sigmoid, Softmax
from training import SGD, CrossEntropy, Huber, train
from training.losses import LOSSES, Pinball

FILE = Path(__file__).parents[2] / "fixtures" / "pytorch_layers.npz"
with np.load(FILE) as archive:
    FIGURES: dict[str, Array] = dict(archive)


def below(location: str) -> dict[str, Array]:
    return {name.removeprefix(location): array for name, array in FIGURES.items() if name.startswith(location)}


def names(location: str) -> list[str]:
    return sorted({name.split("/")[1] for name in FIGURES if name.startswith(location)})


def network(case: dict[str, Array]) -> Sequential:
    """Our network, with PyTorch's initial arrays."""
    modules = []
    for layer in json.loads(str(case["config"])):
        kind = LAYERS[layer.pop("type")]
        modules.append(kind(**layer, **({"dtype": np.float64} if "dtype" in kind.build_options else {})))
    net = Sequential(modules)
    for name, array in net.arrays().items():
        array[...] = case[f"before/{name}"]
    return net


def assert_same(found: Any, expected: Array) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)


def test_every_layer_and_loss_is_compared_with_pytorch() -> None:
    """Flatten is part of the ten steps; Dropout and Average have tests of their own."""
    configs = [json.loads(str(array)) for name, array in FIGURES.items() if name.endswith("/config")]
    compared = {layer["type"] for layers in configs for layer in layers}
    assert compared | {"Dropout", "ConstantInputs", "Average"} == set(LAYERS)
    assert set(names("loss/")) == set(LOSSES)


@pytest.mark.parametrize("name", names("layer/"))
def test_a_layer_has_pytorchs_values_and_gradients(name: str) -> None:
    case = below(f"layer/{name}/")
    (layer,) = network(case).modules
    assert_same(layer(case["x"]), case["inference"])
    assert_same(layer.forward(case["x"]), case["y"])
    assert_same(layer.backward(case["dy"]), case["dx"])
    learned = list(layer.arrays())[: len(layer.parameters())]
    for array, gradient in zip(learned, layer.gradients(), strict=True):
        assert_same(gradient, case[f"gradient/modules.0.{array}"])
    for array, value in layer.arrays().items():
        assert_same(value, case[f"after/modules.0.{array}"])


@pytest.mark.parametrize("name", names("loss/"))
def test_a_loss_has_pytorchs_value_and_gradient(name: str) -> None:
    case = below(f"loss/{name}/")
    loss = {"huber": Huber(0.7), "pinball": Pinball(0.8)}.get(name) or LOSSES[name]()
    last = {"cross_entropy": Softmax(), "binary_cross_entropy": Sigmoid(), "poisson": Exp(), "gamma": Exp()}.get(name)
    if last is not None:  # the entropies of PyTorch take logits, its Poisson loss logarithms
        y = last.forward(case["y_pred"])
        assert_same(loss.loss(case["y_true"], y), case["loss"])
        assert_same(last.backward(loss.loss_prime(case["y_true"], y)), case["prime"])
        _, loss = loss.fused(Sequential([last]))
    assert_same(loss.loss(case["y_true"], case["y_pred"]), case["loss"])
    assert_same(loss.loss_prime(case["y_true"], case["y_pred"]), case["prime"])


class Replayed(np.random.Generator):
    """A generator that drops what PyTorch dropped."""

    def __init__(self, stays: Array) -> None:
        super().__init__(np.random.PCG64(0))
        self.stays = stays

    def random(self, *_: Any) -> Any:
        return self.stays.astype(np.float32)


def test_dropout_scales_like_pytorchs() -> None:
    case = below("dropout/")
    layer = Dropout(0.3, rng=Replayed(case["y"] != 0))
    assert_same(layer.forward(case["x"]), case["y"])
    assert_same(layer.backward(case["dy"]), case["dx"])


def test_ten_steps_of_a_network_equal_pytorchs() -> None:
    case = below("steps/")
    net = network(case)
    optimizer = SGD(net, learning_rate=0.05, momentum=0.9)
    losses = train(net, case["x"], case["y_true"], CrossEntropy(), optimizer, 10, 12, on_epoch=None)
    assert_same(losses, case["losses"])
    for name, array in net.arrays().items():
        np.testing.assert_allclose(array, case[f"after/{name}"], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(net(case["x"]), case["inference"], rtol=1e-6)
