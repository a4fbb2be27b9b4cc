"""The benchmarks compare like with like."""

import numpy as np
import pytest

from benchmarks.per_sample import PerSample
from benchmarks.rounds import alternate
from model_store.nn import Linear, Sequential, Tanh
from training import MSE, SGD, train


def test_the_peer_of_the_training_benchmark_learns_what_train_learns():
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((20, 3)), rng.uniform(-1, 1, (20, 2))
    network = Sequential(
        [Linear(3, 4, dtype=np.float64, rng=rng), Tanh(), Linear(4, 2, dtype=np.float64, rng=rng), Tanh()]
    )
    peer = PerSample([3, 4, 2], rng, 0.05, 0.9)
    arrays = network.arrays()
    peer.weights = [arrays["modules.0.weights"].copy(), arrays["modules.2.weights"].copy()]
    peer.biases = [arrays["modules.0.bias"].reshape(-1, 1).copy(), arrays["modules.2.bias"].reshape(-1, 1).copy()]
    ours = train(network, x, y, MSE(), SGD(network, 0.05, 0.9), epochs=30, on_epoch=None)
    theirs = [peer.epoch(x[:, :, None], y[:, :, None]) for _ in range(30)]
    assert ours == pytest.approx(theirs, rel=1e-9)


def test_contestants_take_turns_and_medians_are_reported():
    turns = []

    def contestant(name, figures):
        remaining = iter(figures)

        def measure():
            turns.append(name)
            return {"figure": next(remaining)}

        return measure

    found = alternate({"a": contestant("a", [1, 9, 2]), "b": contestant("b", [5, 4, 6])}, rounds=3)
    assert found == {"a": {"figure": 2}, "b": {"figure": 5}}
    assert "".join(turns) == "abbaab"
