"""The prepared forward pass has the bits of the network's own."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from model_store.nn import (
    Array,
    Average,
    BatchNorm,
    Conv2D,
    Flatten,
    Identity,
    Linear,
    Module,
    ReLU,
    Sequential,
    Sigmoid,
    Softmax,
    Tanh,
)
from model_store.nn.forward_pass import ForwardPass

rng = np.random.default_rng(4)


class Doubled(Linear):
    """A subclass with an inference of its own."""

    def __call__(self, inputs: Array) -> Array:
        return 2 * super().__call__(inputs)


NETWORKS: dict[str, list[Module]] = {
    "tiny": [Linear(2, 3, rng=rng), Tanh(), Linear(3, 1, rng=rng), Tanh()],
    "tiny layers after wider ones": [Linear(30, 64, rng=rng), ReLU(), Linear(64, 10), Sigmoid(), Linear(10, 2)],
    "wide": [Linear(784, 256, rng=rng), ReLU(), Linear(256, 128, rng=rng), ReLU(), Linear(128, 10), Softmax()],
    "other layers": [Linear(5, 8), BatchNorm(8), Identity(), Doubled(8, 3)],
    "images": [Conv2D((28, 28, 1), 2, 3), Flatten((26, 26, 2)), Linear(2 * 26 * 26, 3)],
    "average": [Average([Sequential([Linear(4, 2, rng=rng)]), Sequential([Linear(4, 2, rng=rng)])])],
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("rows", [1, 2, 4, 7, 8, 9, 31, 32, 33, 70])
def test_a_prepared_pass_has_the_bits_of_the_network(name: str, rows: int) -> None:
    network = Sequential(NETWORKS[name])
    shape = (28, 28, 1) if name == "images" else (network.input_size,)
    inputs = rng.standard_normal((rows, *shape)).astype(network.dtype)
    assert ForwardPass(network)(inputs).tobytes() == network(inputs).tobytes()


def test_threads_may_share_a_prepared_pass() -> None:
    prepared = ForwardPass(Sequential(NETWORKS["tiny"]))
    inputs = rng.standard_normal((200, 3, 2)).astype(np.float32)
    expected = [prepared(rows).tobytes() for rows in inputs]
    wrong: list[int] = []

    def run() -> None:
        wrong.extend(i for i, rows in enumerate(inputs) if prepared(rows).tobytes() != expected[i])

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
