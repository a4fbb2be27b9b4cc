"""The cost of a row bounds memory and time before anything is computed."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store.nn import (
    LAYERS,
    Array,
    Average,
    AveragePool2D,
    BatchNorm,
    Conv2D,
    Embedding,
    Flatten,
    Linear,
    MaxPool2D,
    Module,
    ParametricActivation,
    PeriodicEmbedding,
    Sequential,
    Softmax,
    Tanh,
    build,
    cost,
)
from model_store.nn.cost import (
    CALL_OPERATIONS,
    LAYER_COSTS,
    LAYER_OPERATIONS,
    MAX_ARRAY_BYTES,
    RowCost,
    layer_cost,
)
from model_store.nn.layers.activations import ACTIVATIONS, Exp, Mish, Sigmoid, SmoothClip
from tests.model_store.nn.test_sequential import convolutional, network

CALL = 15_000
FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


def test_dense_layers_cost_inputs_times_outputs() -> None:
    """One row is multiplied as a block of rows."""
    found = layer_cost(Linear(30, 64), (30,), (64,), FLOAT32)
    loads = 3 * 30 + 15 * 64
    assert found == RowCost(4 * 64, 30 * 64 + loads, 2_000 + 5 * CALL + 3 * 30 * 64 + 31 * loads)
    assert found.one_row_operations == 2_000 + 5 * CALL + 4 * 30 * 64 + 32 * loads
    network = Sequential([Linear(30, 64), Tanh(), Linear(64, 2)])
    dense = found, layer_cost(Linear(64, 2), (64,), (2,), FLOAT32)
    assert network.row_cost.operations == 1 + dense[0].operations + 16 * 64 + dense[1].operations
    assert network.row_cost.pass_operations == dense[0].pass_operations + dense[1].pass_operations + 2_000 + CALL


def test_image_layers_cost_their_windows() -> None:
    shape = (28, 28, 3)
    convolution = Sequential([Conv2D(shape, 8, 3, 1, 1)]).row_cost
    covered = 28 * 28 * 27
    copies = 4 * 30 * 30 * 3 + 80 * 28 * 28 * 3 + 13 * covered
    assert convolution == RowCost(
        4 * covered, 1 + 2 * CALL + copies + covered * 8 + 8 * 27 * 8 + (24 * 8 + 150) * 28 * 28, 2_000 + 20 * CALL
    )
    gray = layer_cost(Conv2D((28, 28, 1), 1, 3), (28, 28, 1), (26, 26, 1), FLOAT32)
    assert (
        gray.operations == 2 * CALL + 4 * 28 * 28 + 80 * 26 * 9 + 13 * 26 * 26 * 9 + 26 * 26 * 9 + 8 * 9 + 24 * 26 * 26
    )
    assert Sequential([MaxPool2D(shape, 2)]).row_cost == RowCost(
        4 * 28 * 28 * 3, 1 + 16 * 14 * 14 * 4 * 3 + 30 * 4 * 14 * 14, 2_000 + 8 * CALL
    )


def test_a_vector_of_few_values_costs_more_than_they_do() -> None:
    """A softmax over two channels of each pixel took 30 times as long as one over as many features."""
    assert layer_cost(Softmax(), (64, 64, 2), (64, 64, 2), FLOAT32).operations == 60 * 8192 + 1_100 * 4096
    assert layer_cost(Softmax(), (8192,), (8192,), FLOAT32).operations == 60 * 8192 + 1_100
    assert layer_cost(BatchNorm(1), (64, 64, 1), (64, 64, 1), FLOAT32).operations == 45 * 4096
    selu = layer_cost(ParametricActivation(7), (7,), (7,), FLOAT32)
    assert selu == RowCost(4 * 7, (50 + 20) * 7 + 100, 2_000 + 7 * CALL)


def test_every_layer_of_a_model_file_has_a_cost_of_its_own() -> None:
    formulas = {Linear, Conv2D, MaxPool2D, AveragePool2D, Embedding, PeriodicEmbedding, ParametricActivation, Average}
    assert {*LAYERS.values()} == {*LAYER_COSTS, *formulas}


def test_the_document_states_the_cost_of_every_layer() -> None:
    text = (Path(__file__).parents[3] / "docs" / "artifact-format.md").read_text(encoding="utf-8")
    table = text[text.index("### Operations of a row") :]
    assert f"Every layer counts {LAYER_OPERATIONS:,}, and {CALL_OPERATIONS:,} for each call" in table
    for kind, (calls, single, double, vector) in LAYER_COSTS.items():
        parts = [f"{single} for each value, {double:,} in float64"] * bool(single)
        parts += [f"{vector:,} for each vector"] * bool(vector)
        assert re.search(rf"`{kind.__name__}`[^|]*\| {calls} \| {', '.join(parts) or 0} \|", table), kind.__name__
    for kind in LAYERS:
        assert f"`{kind}`" in table


def test_a_pass_costs_the_same_for_one_row_as_for_a_batch() -> None:
    cost = RowCost(1, 100, 5_000)
    assert [cost.max_rows(limit) for limit in (0, 5_099, 5_100, 5_000 + 10_000)] == [0, 0, 1, 100]
    assert RowCost(MAX_ARRAY_BYTES, 100, 5_000).max_rows(5_000 + 51_000) == 10  # a batch is one row


def test_a_nested_network_costs_what_its_layers_cost() -> None:
    inner = network(10, 300, 5)
    assert Sequential([inner]).row_cost == inner.row_cost._replace(operations=1 + inner.row_cost.operations)


@pytest.mark.parametrize("make", [lambda: network(20, 50, 3), lambda: convolutional((6, 5, 2))])
def test_rows_in_several_batches_have_the_bits_of_one_batch(
    make: type[Sequential], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = make()
    rows = np.random.default_rng(0).standard_normal((100, net.input_size or 0)).astype(np.float32)
    expected = net(rows)
    for batch in (1, 7, 33, 99):
        monkeypatch.setattr(RowCost, "batch_rows", batch)
        assert net(rows).tobytes() == expected.tobytes()


def test_a_forward_pass_of_many_rows_takes_bounded_memory() -> None:
    """40 rows of one pixel with a padding of 1023 took 670 MB in one array, then 64 MB."""
    net = Sequential([Conv2D((1, 1, 1), 1, 3, 1024, 1023), Flatten((2, 2, 1)), Linear(4, 1)])
    assert net.row_cost.bytes == 4 * 2047**2
    rows = np.zeros((40, 1), np.float32)
    tracemalloc.start()
    try:
        assert net(rows).shape == (40, 1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.2 * MAX_ARRAY_BYTES


def test_the_arrays_of_a_batch_stay_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    class Counted(Tanh):
        def __call__(self, inputs: Array) -> Array:
            sizes.append(inputs.size)
            return super().__call__(inputs)

    monkeypatch.setattr(cost, "_BATCH_BYTES", 16_000)
    modules: list[Module] = [Linear(3, 100), Counted(), Linear(100, 2)]
    assert Sequential(modules)(np.zeros((90, 3), np.float32)).shape == (90, 2)
    assert sizes == [4000, 4000, 1000]


def test_a_batch_has_the_rows_of_a_block_and_bounded_bytes() -> None:
    """A large dense layer multiplies 32 rows in the time of one; no array of them exceeds the limit."""
    rows = {1: 2**20, 2**15: 32, 2**18: 32, 2**21: 32, 2**22: 16, MAX_ARRAY_BYTES: 1}
    assert {size: RowCost(size, 1).batch_rows for size in rows} == rows


def test_float64_counts_its_slowest_arguments() -> None:
    """10,000 rows of 30,000 sigmoids of 720 took 13 times as long as they counted: e⁻⁷²⁰ is subnormal."""
    for kind, least in ((Sigmoid, 600), (Mish, 600), (Exp, 600), (Softmax, 600), (SmoothClip, 200)):
        assert layer_cost(kind(), (1000,), (1000,), FLOAT64).operations >= least * 1000, kind


def test_waves_count_cosines_of_large_angles() -> None:
    """Waves of one number counted 10 operations each; cos 10³⁰ takes 5 ns in float32 and 45 in float64."""
    for dtype, least in ((FLOAT32, 100), (FLOAT64, 900)):
        layer = PeriodicEmbedding(1, [0], 3600, 2, dtype=dtype)
        assert layer_cost(layer, (1,), (2,), dtype).operations >= least * 3600


def test_many_waves_of_few_numbers_take_few_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call of NumPy for each of 64,000 waves, for 32 rows of one number, took 4 times as long as they counted."""
    calls, cos = [], np.cos
    monkeypatch.setattr(np, "cos", lambda x: calls.append(x.size) or cos(x))
    Sequential([PeriodicEmbedding(1, [0], 1000, 3)])(np.zeros((87, 1), np.float32))
    assert sum(calls) == 87 * 1000
    assert len(calls) <= 3


@pytest.mark.parametrize("make", [lambda t: Linear(64, 64, dtype=t), lambda t: Conv2D((64, 64, 1), 2, 1, dtype=t)])
def test_float64_costs_at_least_twice_as_much(make: Callable[[np.dtype[Any]], Module]) -> None:
    shape = make(FLOAT32).input_shape or ()
    single, double = (layer_cost(make(t), shape, make(t).output_shape(shape) or (), t) for t in (FLOAT32, FLOAT64))
    assert double.operations >= 2 * single.operations
    assert double.bytes == 2 * single.bytes


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_activation_in_pieces_has_the_bits_of_one_call(name: str, dtype: type[np.floating]) -> None:
    layer = ACTIVATIONS[name]()
    x = (np.random.default_rng(0).standard_normal((3, 7, 4001)) * 30).astype(dtype)
    found = layer(x)
    assert found.shape == x.shape
    assert found.tobytes() == layer.activation(x).tobytes()


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_an_activation_needs_no_more_than_its_outputs(name: str) -> None:
    """Mish of an image of 4095 x 4095 in float64 took 685 MB: five arrays of its size."""
    layer, x = ACTIVATIONS[name](), np.zeros((1, 1024, 1024, 1))
    tracemalloc.start()
    try:
        layer(x)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.1 * x.nbytes


def test_a_network_with_a_larger_array_for_a_row_is_rejected() -> None:
    """The limit of an image counts values; in float64 each has twice the bytes."""
    layers = [
        Conv2D((1, 1, 1), 1, 1, 4094, 2047).config(),
        Flatten((2, 2, 1)).config(),
        Linear(4, 1).config(),
    ]
    rng = np.random.default_rng(0)
    assert build(layers, np.float32, rng=rng).row_cost.bytes == 4 * 4095**2
    with pytest.raises(
        ValueError, match=r"modules: expected at most 67108864 bytes of a row in an array, found 134152200"
    ):
        build(layers, np.float64, rng=rng)


def test_a_network_whose_row_costs_too_much_is_rejected() -> None:
    layers = [{"type": "MaxPool2D", "input_shape": [4096, 4096, 1], "size": 128, "stride": 1}]
    layers += [
        {"type": "Flatten", "input_shape": [3969, 3969, 1]},
        {"type": "Linear", "input_size": 3969**2, "output_size": 1},
    ]
    with pytest.raises(
        ValueError, match=f"modules: expected at most {cost.MAX_ROW_OPERATIONS} operations a row, found 4"
    ):
        build(
            layers,
            arrays={
                name: np.broadcast_to(np.float32(0), shape)
                for name, shape in (("modules.2.weights", (1, 3969**2)), ("modules.2.bias", (1,)))
            },
        )


def test_pooling_counts_a_call_for_each_place_in_a_window() -> None:
    """A file of 1.4 MB with 1,500 windows of 255 x 255 took two minutes for a row: 65,025 calls each."""
    small, large = (Sequential([MaxPool2D([255, 255, 1], size, size)]).row_cost for size in (1, 255))
    assert large.pass_operations - small.pass_operations > 255**2 * 29_000
