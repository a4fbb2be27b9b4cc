"""Time of each layer for one row and for each further row, divided by the operations that `model_store.nn.cost` counts.

    python -m benchmarks.layer_cost

An operation counts as `NANOSECONDS`. A quotient above 1 means that the layer is slower than it counts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import numpy as np
from threadpoolctl import threadpool_limits

from model_store.nn import (
    LAYERS,
    BatchNorm,
    Conv2D,
    Embedding,
    LayerNorm,
    Linear,
    MaxPool2D,
    Module,
    ParametricActivation,
    PeriodicEmbedding,
)
from model_store.nn.cost import LAYER_COSTS, layer_cost
from model_store.nn.layers.activations import Softmax
from model_store.nn.module import Shape

NANOSECONDS = 0.05
SIZES = (2, 16, 256, 4096, 65_536)
MAX_ROWS, MAX_VALUES = 64, 1 << 21  # of a batch
MIN_SECONDS = 0.004  # of a measurement, whose best of 10 counts


def cases() -> Iterator[tuple[Module, Shape]]:
    """Yield layers, each with the shape of a row."""
    sizes = [(1, 1), (16, 16), (1, 1024), (1024, 1), (64, 64), (256, 256), (1024, 1024)]
    yield from ((Linear(before, after), (before,)) for before, after in sizes)
    for kind in LAYER_COSTS:
        for size in SIZES:
            if kind.__name__ != "Flatten":
                given = [0.5] if kind.__name__ == "Dropout" else [size] if "size" in kind.config_fields else []
                yield kind(*given), (size,)
    for channels in (1, 2, 16):
        yield from ((kind(channels), (64, 64, channels)) for kind in (BatchNorm, LayerNorm))
    yield Softmax(), (64, 64, 2)
    yield from ((ParametricActivation(size, name), (size,)) for name in ("selu", "mish", "gelu") for size in SIZES)
    for inputs, positions, size in [(1, 1, 1), (10, 3, 8), (1000, 10, 8), (1000, 1000, 8), (10_000, 10_000, 64)]:
        yield Embedding(inputs, range(positions), [5] * positions, size), (inputs,)
    waves = [(1, 1, 1, 2), (10, 3, 16, 4), (1000, 1000, 16, 4), (1000, 1000, 1, 2), (10, 1, 1000, 100)]
    for inputs, positions, count, size in waves:
        yield PeriodicEmbedding(inputs, range(positions), count, size), (inputs,)
    for shape, *options in [
        ((1, 1, 1), 1, 1), ((8, 8, 1), 1, 3), ((8, 8, 1), 8, 3, 1, 1), ((28, 28, 1), 8, 3, 1, 1),
        ((28, 28, 8), 16, 3, 1, 1), ((28, 28, 3), 1, 3, 1, 1), ((128, 128, 16), 1, 1), ((128, 128, 1), 64, 1),
        ((256, 256, 3), 1, 3, 1, 1), ((1, 1, 1), 1, 1, 1, 255), ((64, 64, 1), 1, 32), ((128, 128, 1), 1, 2, 2),
    ]:  # fmt: skip
        yield Conv2D(shape, *options), shape
    for side, channels, size, stride in [
        (1, 1, 1, 1), (8, 1, 2, 2), (28, 8, 2, 2), (256, 16, 2, 2), (64, 1, 32, 1), (64, 1, 64, 1), (512, 1, 3, 1),
        (255, 1, 255, 255), (512, 1, 8, 64),
    ]:  # fmt: skip
        yield MaxPool2D((side, side, channels), size, stride), (side, side, channels)


def best_seconds(call: Callable[[], object]) -> float:
    """Return the least processor time of a call."""
    count, found = 1, math.inf
    for _ in range(10):
        while True:
            start = time.thread_time()
            for _ in range(count):
                call()
            taken = time.thread_time() - start
            if taken >= MIN_SECONDS:
                break
            count *= 2
        found = min(found, taken / count)
    return found


def quotients(layer: Module, shape: Shape) -> tuple[float, float]:
    """Return time divided by count: of one row, and of each further row of a batch."""
    after = layer.output_shape(shape) or shape
    cost = layer_cost(layer, shape, after)
    rows = max(2, min(MAX_ROWS, MAX_VALUES // max(math.prod(shape), math.prod(after))))
    x = np.random.default_rng(0).standard_normal((rows, *shape)).astype(np.float32)
    one, all_rows = (best_seconds(lambda part=x[:count]: layer(part)) for count in (1, rows))
    unit = NANOSECONDS * 1e-9
    return one / (cost.one_row_operations * unit), (all_rows - one) / (rows - 1) / (max(1, cost.operations) * unit)


def main() -> None:
    measured: dict[str, list[tuple[float, float]]] = {}
    for layer, shape in cases():
        measured.setdefault(type(layer).__name__, []).append(quotients(layer, shape))
    print("| layer | one row: least, most | further rows: least, most |\n| --- | --- | --- |")
    for name in LAYERS:
        if found := measured.get(name):
            shown = (f"{min(column):.2g}, {max(column):.2g}" for column in zip(*found, strict=True))
            print(f"| {name} | {' | '.join(shown)} |")


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
