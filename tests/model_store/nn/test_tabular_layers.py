"""Layers for tables: embeddings of categories and numbers, scales of features, parametric activations, clips."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from model_store.nn import (
    Clip,
    Embedding,
    FeatureScale,
    Linear,
    Module,
    ParametricActivation,
    PeriodicEmbedding,
    Sequential,
    build,
)
from model_store.nn.cost import RowCost
from training import MSE, SGD, check_gradients, train

RNG = np.random.default_rng


def clip(size: int, dtype: Any = np.float64) -> Clip:
    layer = Clip(size, dtype=dtype)
    layer.low, layer.high = np.full(size, -0.7), np.full(size, 0.4)
    return layer


MAKERS: dict[str, Callable[[Any], Module]] = {
    "feature scale": lambda dtype: FeatureScale(4, dtype=dtype),
    "parametric selu": lambda dtype: ParametricActivation(4, "selu", dtype=dtype),
    "parametric mish": lambda dtype: ParametricActivation(4, "mish", dtype=dtype),
    "embedding": lambda dtype: Embedding(4, [1, 2], [3, 2], 3, dtype=dtype, rng=RNG(0)),
    "periodic": lambda dtype: PeriodicEmbedding(4, [0, 3], 5, 4, sigma=1, dtype=dtype, rng=RNG(0)),
    "periodic of one wave": lambda dtype: PeriodicEmbedding(4, [2], 1, 2, sigma=1, dtype=dtype, rng=RNG(0)),
    "clip": lambda dtype: clip(4, dtype),
}


def rows(name: str, count: int, dtype: Any = np.float64) -> np.ndarray:
    x = RNG(1).standard_normal((count, 4)).astype(dtype)
    if name == "embedding":
        x[:, [1, 2]] = RNG(2).integers(0, 2, (count, 2))
    return x


def network(name: str, dtype: Any = np.float32) -> Sequential:
    layer = MAKERS[name](dtype)
    (width,) = layer.output_shape((4,)) or ()
    return Sequential([layer, Linear(width, 2, dtype=dtype, rng=RNG(3))])


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "embedding"])
def test_derivatives_are_the_finite_differences(name: str) -> None:
    layer = MAKERS[name](np.float64)
    for array in layer.parameters():  # no special values such as 1
        array += 0.3 * RNG(4).standard_normal(array.shape)
    assert check_gradients(layer, rows(name, 5), rng=RNG(5)) < 1e-6


def test_an_embedding_passes_on_the_other_features_and_sums_gradients_by_category() -> None:
    layer = Embedding(3, [0, 2], [2, 3], 2, dtype=np.float64)
    layer.weights = np.arange(10).reshape(5, 2)
    x = np.array([[0, 0.5, 2], [1, -0.5, 2], [0, 7, 0]])
    assert layer.forward(x).tolist() == [[0.5, 0, 1, 8, 9], [-0.5, 2, 3, 8, 9], [7, 0, 1, 4, 5]]
    assert layer(x).tolist() == layer.forward(x).tolist()
    dx = layer.backward(np.arange(15.0).reshape(3, 5))
    assert dx.tolist() == [[0, 0, 0], [0, 5, 0], [0, 10, 0]]
    assert layer.weights_grad.tolist() == [[1 + 11, 2 + 12], [6, 7], [13, 14], [0, 0], [3 + 8, 4 + 9]]


@pytest.mark.parametrize("rows", [1, 5, 40])
def test_sums_by_table_row_equal_those_of_whole_rows(rows: int) -> None:
    layer = Embedding(9, [0, 3, 5], [4, 90, 2], 8, rng=RNG(0))
    table_rows = layer.table_rows(RNG(1).integers(0, 90, (rows, 9)).astype(np.float32))
    values, expected = RNG(2).standard_normal((rows, 24)).astype(np.float32), np.zeros((96, 8), np.float32)
    np.add.at(expected, table_rows, values.reshape(rows, 3, 8))
    assert (layer.sum_by_table_row(table_rows, values) == expected).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("waves", "size"), [(16, 4), (7, 3), (9, 2)])
def test_waves_of_many_rows_have_the_bits_of_single_rows(waves: int, size: int, dtype: Any) -> None:
    layer = PeriodicEmbedding(6, [0, 1, 4], waves, size, sigma=1, dtype=dtype, rng=RNG(0))
    x = RNG(1).standard_normal((70, 6)).astype(dtype)
    assert (layer(x) == np.concatenate([layer(row[None]) for row in x])).all()


def test_an_embedding_reads_a_number_outside_as_the_nearest_category() -> None:
    layer = Embedding(1, [0], [3], 2, rng=RNG(0))
    assert layer(np.float32([[-5], [99], [1.2]])).tolist() == layer(np.float32([[0], [2], [1]])).tolist()


def test_an_embedding_reads_nan_as_the_last_category() -> None:
    """NaN became the index -2**63: an IndexError for all rows of the batch."""
    layer = Embedding(1, [0], [3], 1, rng=RNG(0))
    assert layer(np.array([[np.nan]], np.float32)) == layer.weights[2]


@pytest.mark.parametrize("make", [lambda: Embedding(2**31, [0], [1], 1), lambda: PeriodicEmbedding(2**31, [0])])
def test_embeddings_take_no_memory_for_the_features_that_they_pass_on(make: Callable[[], Embedding]) -> None:
    """A model file of 1.4 kB with such a layer took 16 GB when it was read, before its arrays were missed."""
    tracemalloc.start()
    try:
        assert make().others_size == 2**31 - 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_a_parametric_activation_starts_as_the_activation_and_may_become_the_identity() -> None:
    layer = ParametricActivation(4, "mish", dtype=np.float64)
    x = rows("", 6)
    np.testing.assert_allclose(layer(x), layer.function(x), rtol=1e-12)
    layer.alpha = np.zeros(4)
    assert layer(x).tolist() == x.tolist()


def test_a_clip_limits_each_output() -> None:
    layer = Clip(2)
    layer.low, layer.high = [-1, 0], [1, 5]
    assert layer(np.float32([[-9, -9], [9, 9], [0.5, 2]])).tolist() == [[-1, 0], [1, 5], [0.5, 2]]


@pytest.mark.parametrize("name", MAKERS)
def test_inference_for_a_row_has_the_same_bits_in_any_batch(name: str) -> None:
    net, x = network(name), rows(name, 70, np.float32)
    alone = np.concatenate([net(row[None]) for row in x])
    order = RNG(6).permutation(70)
    assert net(x).tobytes() == alone.tobytes()
    assert net(x[order]).tobytes() == alone[order].tobytes()
    assert net(np.asfortranarray(x)).tobytes() == alone.tobytes()


@pytest.mark.parametrize("name", MAKERS)
def test_a_trained_network_is_rebuilt_from_its_configuration_and_arrays(name: str) -> None:
    net, x = network(name), rows(name, 40, np.float32)
    before = {key: array.copy() for key, array in net.arrays().items()}
    train(net, x, x[:, :2], MSE(), SGD(net, 0.1), 3, 8, on_epoch=None)
    assert all((array != before[key]).any() for key, array in net.arrays().items() if not key.endswith(("low", "high")))
    again = build(net.config(), arrays=net.arrays())
    assert again(x).tobytes() == net(x).tobytes()


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Embedding(3, [2, 1], [2, 2]), r"Embedding.positions: expected ascending positions below 3, found \[2"),
        (lambda: Embedding(3, [1, 1], [2, 2]), "Embedding.positions: expected ascending positions below 3"),
        (lambda: PeriodicEmbedding(3, [3]), r"PeriodicEmbedding.positions: expected ascending .* below 3, found \[3\]"),
        (lambda: Embedding(3, [], []), "Embedding.positions: expected a list of ints of at least 0"),
        (lambda: Embedding(3, [0], [2, 3]), "Embedding.counts: expected 1 numbers of at least 1, one for each"),
        (lambda: Embedding(3, [0], [0]), "Embedding.counts: expected 1 numbers of at least 1"),
        (lambda: PeriodicEmbedding(3, [0], 4, 1), "PeriodicEmbedding.size: expected at least 2, .*; found 1"),
        (lambda: ParametricActivation(3, "step"), "ParametricActivation.activation: expected one of tanh, .*'step'"),
        (lambda: FeatureScale(0), "FeatureScale.size: expected a positive int, found 0"),
        (lambda: Sequential([Linear(2, 4), Embedding(3, [0], [2])]), r"modules.1.input_size: expected \(4,\), .* 3"),
        (lambda: Sequential([Linear(2, 4), FeatureScale(3)]), r"modules.1.size: expected the number of values of \(4"),
    ],
)
def test_an_invalid_field_is_named(make: Callable[[], object], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        make()


def test_a_clip_whose_limits_cross_is_rejected() -> None:
    net = Sequential([Linear(3, 2), Clip(2)])
    arrays = net.arrays() | {"modules.1.low": np.float32([0, 1])}
    with pytest.raises(ValueError, match=r"modules.1.low: expected numbers of at most high, found a larger one"):
        build(net.config(), arrays=arrays)


@pytest.mark.parametrize(("size", "loop"), [(4, 620), (2, 120)])
def test_waves_cost_their_products(size: int, loop: int) -> None:
    found = Sequential([PeriodicEmbedding(5, [0, 1, 2], 16, size)]).row_cost
    operations = 400 + 50 * 5 + 3 * (150 + 16 * (loop + 20 * (size - 1)))
    assert found == RowCost(4 * 3 * 16 * size, 1 + operations, 2_000 + 16 * 15_000)


def test_embeddings_cost_their_features() -> None:
    found = Sequential([Embedding(10, [0, 1, 2], [5, 5, 5], 8)]).row_cost
    assert found == RowCost(4 * 31, 1 + 80 * 10 + 3 * (80 + 25 * 8), 2_000 + 12 * 15_000)
