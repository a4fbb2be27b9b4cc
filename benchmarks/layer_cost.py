"""Time of each layer for one row and for each further row, divided by the operations that `model_store.nn.cost` counts.

    python -m benchmarks.layer_cost [LAYER ...]

An operation counts as `NANOSECONDS`. A quotient above 1 means that the layer is slower than it counts. Each layer
runs in float32 and float64 with inputs and arrays of every kind in `arguments`, because some functions take 40 times as
long where their result is subnormal or their argument large.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from model_store.nn import (
    LAYERS,
    BatchNorm,
    Conv2D,
    Dropout,
    Embedding,
    LayerNorm,
    LeakyReLU,
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
SIZES = (2, 16, 256, 4096, 65_536, 1 << 19, 1 << 22)
MAX_ROWS, MAX_VALUES = 64, 1 << 21  # of a batch
MIN_SECONDS = 0.002  # of a measurement, whose best of 3 counts


def arguments(dtype: np.dtype[Any]) -> Iterator[tuple[str, float | None, float | None]]:
    """Yield kinds of arguments: a name, the value of all inputs and that of all arrays, None for ordinary ones."""
    limits = np.finfo(dtype)
    subnormal, root = float(limits.tiny) / 4, float(limits.tiny) ** 0.5 / 2
    exponent = float(np.log(limits.tiny))
    yield "ordinary", None, None
    for value in (subnormal, exponent - 5, exponent + 0.3, -exponent + 5, -exponent, 1e4, float(limits.max) / 1e9):
        yield f"inputs {value:.3g}", value, None
    yield "inputs inf", math.inf, None
    yield "inputs nan", math.nan, None
    yield f"arrays {subnormal:.3g}", None, subnormal
    yield f"arrays {limits.max / 1e9:.3g}", None, float(limits.max) / 1e9
    yield f"subnormal products, both {root:.3g}", root, root


def cases(dtype: np.dtype[Any]) -> Iterator[tuple[Module, Shape]]:
    """Yield layers, each with the shape of a row."""
    sizes = [(1, 1), (16, 16), (1, 1024), (1024, 1), (64, 64), (256, 256), (1024, 1024)]
    yield from ((Linear(before, after, dtype=dtype), (before,)) for before, after in sizes)
    for kind in LAYER_COSTS:
        for size in SIZES:
            if kind.__name__ != "Flatten":
                given = [0.5] if kind is Dropout else [size] if "size" in kind.config_fields else []
                typed = {"dtype": dtype} if "dtype" in kind.build_options else {}
                yield kind(*given, **typed), (size,)
    yield from ((LeakyReLU(slope), (size,)) for slope in (0.999, 1e-30) for size in SIZES)
    for channels, side in [(1, 64), (2, 64), (16, 64), (1, 2048), (2, 2048), (16, 512)]:
        yield from ((kind(channels, dtype=dtype), (side, side, channels)) for kind in (BatchNorm, LayerNorm))
        if channels > 1:
            yield Softmax(), (side, side, channels)
    for name in ("selu", "mish", "gelu", "smooth_clip", "sigmoid"):
        yield from ((ParametricActivation(size, name, dtype=dtype), (size,)) for size in SIZES)
    for inputs, positions, size in [(1, 1, 1), (10, 3, 8), (1000, 10, 8), (1000, 1000, 8), (10_000, 10_000, 64)]:
        yield Embedding(inputs, range(positions), [5] * positions, size, dtype=dtype), (inputs,)
    waves = [
        (1, 1, 1, 2), (10, 3, 16, 4), (1000, 1000, 16, 4), (1000, 1000, 1, 2), (10, 1, 1000, 100), (1, 1, 3600, 2),
        (1, 1, 64_000, 2), (100, 100, 16, 2),
    ]  # fmt: skip
    for inputs, positions, count, size in waves:
        yield PeriodicEmbedding(inputs, range(positions), count, size, dtype=dtype), (inputs,)
    convolutions: list[tuple[Shape, *tuple[int, ...]]] = [
        ((1, 1, 1), 1, 1), ((8, 8, 1), 1, 3), ((8, 8, 1), 8, 3, 1, 1), ((28, 28, 1), 8, 3, 1, 1),
        ((28, 28, 8), 16, 3, 1, 1), ((28, 28, 3), 1, 3, 1, 1), ((128, 128, 16), 1, 1), ((128, 128, 1), 64, 1),
        ((256, 256, 3), 1, 3, 1, 1), ((1, 1, 1), 1, 1, 1, 255), ((64, 64, 1), 1, 32), ((128, 128, 1), 1, 2, 2),
        ((1024, 1024, 1), 1, 1), ((1024, 1024, 1), 2, 1), ((1024, 1024, 1), 4, 1), ((1024, 1024, 2), 1, 1),
        ((1024, 1024, 4), 1, 1), ((512, 512, 1), 1, 3), ((512, 512, 1), 3, 3), ((256, 256, 2), 2, 3),
        ((1, 1, 1), 1, 1, 1, 1000), ((64, 64, 64), 64, 3, 1, 1), ((2048, 2048, 1), 1, 1, 2048),
    ]  # fmt: skip
    for shape, *options in convolutions:
        yield Conv2D(shape, *options, dtype=dtype), shape
    for side, channels, size, stride in [
        (1, 1, 1, 1), (8, 1, 2, 2), (28, 8, 2, 2), (256, 16, 2, 2), (64, 1, 32, 1), (64, 1, 64, 1), (512, 1, 3, 1),
        (255, 1, 255, 255), (512, 1, 8, 64), (2048, 1, 1, 1), (2048, 1, 2, 1), (2048, 2, 2, 2),
    ]:  # fmt: skip
        yield MaxPool2D((side, side, channels), size, stride), (side, side, channels)


def best_seconds(call: Callable[[], object]) -> float:
    """Return the least processor time of a call."""
    count, found = 1, math.inf
    for _ in range(3):
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


def quotients(
    layer: Module, shape: Shape, dtype: np.dtype[Any], value: float | None, arrays: float | None
) -> tuple[float, float]:
    """Return time divided by count: of one row, and of each further row of a batch.

    All inputs but the first of a vector are `value`, all elements of the arrays are `arrays`.
    """
    if arrays is not None:
        for array in layer.arrays().values():
            array[...] = arrays
    after = layer.output_shape(shape) or shape
    cost = layer_cost(layer, shape, after, dtype)
    rows = max(2, min(MAX_ROWS, MAX_VALUES // max(math.prod(shape), math.prod(after))))
    x = np.random.default_rng(0).standard_normal((rows, *shape)).astype(dtype)
    if value is not None:
        x[...] = value
        if shape[-1] > 1:
            x[..., 0] = 0
    one, all_rows = (best_seconds(partial(layer, x[:count])) for count in (1, rows))
    unit = NANOSECONDS * 1e-9
    return one / (cost.one_row_operations * unit), (all_rows - one) / (rows - 1) / (max(1, cost.operations) * unit)


def main(names: list[str]) -> None:
    print("| layer | type | one row: most, with | further rows: most, with |\n| --- | --- | --- | --- |")
    for name in names or LAYERS:
        for dtype in map(np.dtype, (np.float32, np.float64)):
            found = [
                (quotients(layer, shape, dtype, inputs, arrays), f"{shape} {kind}")
                for layer, shape in cases(dtype)
                if type(layer).__name__ == name
                for kind, inputs, arrays in arguments(dtype)
                if arrays is None or layer.arrays()
            ]
            if found:
                worst = [max((pair[i], case) for pair, case in found) for i in (0, 1)]
                print(f"| {name} | {dtype} | {' | '.join(f'{most:.2g}, {case}' for most, case in worst)} |", flush=True)


if __name__ == "__main__":
    with threadpool_limits(1), np.errstate(all="ignore"):
        main(sys.argv[1:])
