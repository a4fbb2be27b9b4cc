"""The cost of a row bounds memory and time before anything is computed."""

from __future__ import annotations

import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from model_store.nn import (
    LAYERS,
    Array,
    Average,
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
    sequential,
)
from model_store.nn.cost import (
    CALL_OPERATIONS,
    LAYER_COSTS,
    LAYER_OPERATIONS,
    MAX_BATCH_VALUES,
    RowCost,
    layer_cost,
)
from tests.model_store.nn.test_sequential import convolutional, network

CALL = 15_000


def test_dense_layers_cost_inputs_times_outputs() -> None:
    """One row is multiplied as a block of rows."""
    found = layer_cost(Linear(30, 64), (30,), (64,))
    loads = 3 * 30 + 15 * 64
    assert found == RowCost(64, 30 * 64 + loads, 2_000 + 5 * CALL + 3 * 30 * 64 + 31 * loads)
    assert found.one_row_operations == 2_000 + 5 * CALL + 4 * 30 * 64 + 32 * loads
    network = Sequential([Linear(30, 64), Tanh(), Linear(64, 2)])
    dense = found, layer_cost(Linear(64, 2), (64,), (2,))
    assert network.row_cost.operations == 1 + dense[0].operations + 8 * 64 + dense[1].operations
    assert network.row_cost.pass_operations == dense[0].pass_operations + dense[1].pass_operations + 2_000 + CALL


def test_image_layers_cost_their_windows() -> None:
    shape = (28, 28, 3)
    convolution = Sequential([Conv2D(shape, 8, 3, 1, 1)]).row_cost
    covered = 28 * 28 * 27
    copies = 2 * 30 * 30 * 3 + 80 * 28 * 28 * 3 + 5 * covered
    assert convolution == RowCost(
        covered, 1 + 2 * CALL + copies + covered * 8 + 8 * 27 * 8 + 10 * 28 * 28 * 8, 2_000 + 20 * CALL
    )
    gray = layer_cost(Conv2D((28, 28, 1), 1, 3), (28, 28, 1), (26, 26, 1))
    assert (
        gray.operations == 2 * CALL + 2 * 28 * 28 + 80 * 26 * 9 + 5 * 26 * 26 * 9 + 26 * 26 * 9 + 8 * 9 + 10 * 26 * 26
    )
    assert Sequential([MaxPool2D(shape, 2)]).row_cost == RowCost(
        28 * 28 * 3, 1 + 12 * 14 * 14 * 4 * 3 + 30 * 4 * 14 * 14, 2_000 + 8 * CALL
    )


def test_a_vector_of_few_values_costs_more_than_they_do() -> None:
    """A softmax over two channels of each pixel took 30 times as long as one over as many features."""
    assert layer_cost(Softmax(), (64, 64, 2), (64, 64, 2)).operations == 25 * 8192 + 1_100 * 4096
    assert layer_cost(Softmax(), (8192,), (8192,)).operations == 25 * 8192 + 1_100
    assert layer_cost(BatchNorm(1), (64, 64, 1), (64, 64, 1)).operations == 15 * 4096
    selu = layer_cost(ParametricActivation(7), (7,), (7,))
    assert selu == RowCost(7, (35 + 10) * 7 + 100, 2_000 + 7 * CALL)


def test_every_layer_of_a_model_file_has_a_cost_of_its_own() -> None:
    formulas = {Linear, Conv2D, MaxPool2D, Embedding, PeriodicEmbedding, ParametricActivation, Average}
    assert {*LAYERS.values()} == {*LAYER_COSTS, *formulas}


def test_the_document_states_the_cost_of_every_layer() -> None:
    text = (Path(__file__).parents[3] / "docs" / "artifact-format.md").read_text(encoding="utf-8")
    table = text[text.index("### Operations of a row") :]
    assert f"Every layer counts {LAYER_OPERATIONS:,}, and {CALL_OPERATIONS:,} for each call" in table
    for kind, (calls, value, vector) in LAYER_COSTS.items():
        parts = [f"{value} for each value"] * bool(value) + [f"{vector:,} for each vector"] * bool(vector)
        assert re.search(rf"`{kind.__name__}`[^|]*\| {calls} \| {', '.join(parts) or 0} \|", table), kind.__name__
    for kind in LAYERS:
        assert f"`{kind}`" in table


def test_a_pass_costs_the_same_for_one_row_as_for_a_batch() -> None:
    cost = RowCost(1, 100, 5_000)
    assert [cost.max_rows(limit) for limit in (0, 5_099, 5_100, 5_000 + 10_000)] == [0, 0, 1, 100]
    assert RowCost(MAX_BATCH_VALUES, 100, 5_000).max_rows(5_000 + 51_000) == 10  # a batch is one row


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
        monkeypatch.setattr(sequential, "MAX_BATCH_VALUES", batch * net.row_cost.values)
        assert net(rows).tobytes() == expected.tobytes()


def test_a_forward_pass_of_many_rows_takes_bounded_memory() -> None:
    """40 rows of one pixel with a padding of 1023 took 670 MB in one array."""
    net = Sequential([Conv2D((1, 1, 1), 1, 3, 1024, 1023), Flatten((2, 2, 1)), Linear(4, 1)])
    assert net.row_cost.values == 2047**2
    rows = np.zeros((40, 1), np.float32)
    tracemalloc.start()
    try:
        assert net(rows).shape == (40, 1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.2 * 4 * MAX_BATCH_VALUES


def test_no_batch_has_more_values_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    class Counted(Tanh):
        def __call__(self, inputs: Array) -> Array:
            sizes.append(inputs.size)
            return super().__call__(inputs)

    monkeypatch.setattr(sequential, "MAX_BATCH_VALUES", 1000)
    modules: list[Module] = [Linear(3, 100), Counted(), Linear(100, 2)]
    assert Sequential(modules)(np.zeros((57, 3), np.float32)).shape == (57, 2)
    assert sizes == [1000] * 5 + [700]


def test_a_network_whose_row_costs_too_much_is_rejected() -> None:
    layers = [{"type": "MaxPool2D", "input_shape": [4096, 4096, 1], "size": 128, "stride": 1}]
    layers += [
        {"type": "Flatten", "input_shape": [3969, 3969, 1]},
        {"type": "Linear", "input_size": 3969**2, "output_size": 1},
    ]
    with pytest.raises(
        ValueError, match=f"modules: expected at most {cost.MAX_ROW_OPERATIONS} operations a row, found 3"
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
