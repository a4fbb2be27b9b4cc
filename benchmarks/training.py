"""Training throughput in samples/s: `training.train` compared with the per-sample loop of per_sample.py.

    python -m benchmarks.training

Both use float64, momentum, one BLAS thread and the same rows. The loop steps after every sample at any batch size.
"""

from collections.abc import Callable
from itertools import pairwise
from time import perf_counter

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.per_sample import PerSample
from benchmarks.rounds import alternate, machine, unpin
from model_store.nn import Array, Linear, Sequential, Tanh
from training import MSE, SGD, train

ROUNDS = 7
LEARNING_RATE, MOMENTUM = 0.01, 0.9
CASES = [  # layer sizes, rows, batch size, epochs a round
    ([2, 3, 1], 4, 1, 500),
    ([2, 3, 1], 4, 4, 500),
    ([30, 64, 32, 1], 2048, 1, 2),
    ([30, 64, 32, 1], 2048, 32, 2),
]


def ours(sizes: list[int], x: Array, y: Array, batch_size: int, epochs: int) -> Callable[[], dict[str, float]]:
    rng = np.random.default_rng(0)
    layers = [
        layer
        for inn, out in pairwise(sizes)
        for layer in (Linear(inn, out, dtype=np.float64, rng=rng, initializer="glorot_uniform"), Tanh())
    ]
    network = Sequential(layers)
    optimizer = SGD(network, learning_rate=LEARNING_RATE, momentum=MOMENTUM)

    def measure() -> dict[str, float]:
        begin = perf_counter()
        train(network, x, y, MSE(), optimizer, epochs, batch_size, on_epoch=None)
        return {"speed": len(x) * epochs / (perf_counter() - begin)}

    return measure


def loop(sizes: list[int], x: Array, y: Array, epochs: int) -> Callable[[], dict[str, float]]:
    network = PerSample(sizes, np.random.default_rng(0), LEARNING_RATE, MOMENTUM)
    columns, targets = x[:, :, None], y[:, :, None]

    def measure() -> dict[str, float]:
        begin = perf_counter()
        for _ in range(epochs):
            network.epoch(columns, targets)
        return {"speed": len(x) * epochs / (perf_counter() - begin)}

    return measure


def main() -> None:
    print(f"Training, samples/s, float64, median of {ROUNDS} alternating rounds")
    with threadpool_limits(1, user_api="blas"):
        print(machine())
        print(f"{'network':>14} {'batch':>5} {'per sample':>12} {'train':>12} {'ratio':>7}")
        for sizes, rows, batch_size, epochs in CASES:
            rng = np.random.default_rng(1)
            x = rng.standard_normal((rows, sizes[0]))
            y = np.tanh(x[:, :1] * x[:, 1:2])
            contestants = {"loop": loop(sizes, x, y, epochs), "ours": ours(sizes, x, y, batch_size, epochs)}
            found = alternate(contestants, ROUNDS)
            name = "-".join(map(str, sizes))
            ours_speed, loop_speed = found["ours"]["speed"], found["loop"]["speed"]
            print(
                f"{name:>14} {batch_size:>5} {loop_speed:>12,.0f} {ours_speed:>12,.0f} {ours_speed / loop_speed:>6.1f}x"
            )


if __name__ == "__main__":
    unpin()
    main()
