"""Accuracy on digits by the distribution of the initial weights, and the share of seeds that learn the article's XOR.

python -m benchmarks.initializers
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from model_store.nn import Conv2D, Flatten, Linear, Module, ReLU, Sequential, Softmax, Tanh
from training import MSE, SGD, CrossEntropy, train

DIGITS = Path(__file__).parent.parent / "examples" / "digits.npz"
TEST_ROWS, SEEDS, XOR_SEEDS = 360, 5, 40
INITIALIZERS = ("normal", "glorot_uniform", "he_normal")


def dense(activation: type[Module]) -> Callable[..., list[Module]]:
    return lambda **options: [Linear(64, 32, **options), activation(), Linear(32, 10, **options), Softmax()]


def convolution(**options: Any) -> list[Module]:
    return [Conv2D((8, 8, 1), 8, 3, **options), ReLU(), Flatten((6, 6, 8)), Linear(288, 10, **options), Softmax()]


NETWORKS: dict[str, Callable[..., list[Module]]] = {
    "64-32-10, tanh": dense(Tanh),
    "64-32-10, relu": dense(ReLU),
    "8 filters of 3 x 3, relu, dense": convolution,
}


def accuracy(layers: Callable[..., list[Module]], seed: int, **options: Any) -> float:
    """Return the accuracy on test rows after 10 epochs of SGD."""
    rng = np.random.default_rng(seed)
    with np.load(DIGITS) as data:
        order = rng.permutation(len(data["x"]))
        x, y = data["x"].reshape(len(order), -1)[order] / 16, data["y"][order].astype(int)
    network = Sequential(layers(rng=rng, **options))
    train(network, x[TEST_ROWS:], y[TEST_ROWS:], CrossEntropy(), SGD(network, 0.01), 10, 32, rng=rng, on_epoch=None)
    return float((network(x[:TEST_ROWS]).argmax(1) == y[:TEST_ROWS]).mean())


def learns_xor(seed: int, **options: Any) -> bool:
    """Return True if the article's program has an error below 0.05 after its 1000 epochs."""
    rng = np.random.default_rng(seed)
    x, y = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([[0], [1], [1], [0]])
    network = Sequential([Linear(2, 3, rng=rng, **options), Tanh(), Linear(3, 1, rng=rng, **options), Tanh()])
    return train(network, x, y, MSE(), SGD(network), 1000, on_epoch=None)[-1] < 0.05


def main() -> None:
    print(f"Accuracy on {TEST_ROWS} test rows of the digits after 10 epochs of SGD, means of {SEEDS} seeds")
    print(f"{'network':>32}" + "".join(f"{name:>16}" for name in INITIALIZERS))
    for network, layers in NETWORKS.items():
        means = [np.mean([accuracy(layers, seed, initializer=name) for seed in range(SEEDS)]) for name in INITIALIZERS]
        print(f"{network:>32}" + "".join(f"{mean:>16.1%}" for mean in means))
    learned = [sum(learns_xor(seed, initializer=name) for seed in range(XOR_SEEDS)) for name in INITIALIZERS]
    print(f"{f'XOR, seeds of {XOR_SEEDS}':>32}" + "".join(f"{count:>16}" for count in learned))


if __name__ == "__main__":
    main()
