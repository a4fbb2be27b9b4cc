"""The cost of a row bounds memory and time before anything is computed."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from model_store.nn import Array, Conv2D, Flatten, Linear, MaxPool2D, Module, Sequential, Tanh, build, cost, sequential
from model_store.nn.cost import MAX_BATCH_VALUES, RowCost
from tests.model_store.nn.test_sequential import convolutional, network


def test_dense_layers_cost_inputs_times_outputs() -> None:
    assert Sequential([Linear(30, 64), Tanh(), Linear(64, 2)]).row_cost == RowCost(
        64, 1 + 30 * 64 + 16 * 64 + 16 * 64 + 64 * 2 + 16 * 2
    )


def test_image_layers_cost_their_windows() -> None:
    shape = (28, 28, 3)
    convolution = Sequential([Conv2D(shape, 8, 3, 1, 1)]).row_cost
    assert convolution == RowCost(28 * 28 * 27, 1 + 30 * 30 * 3 + 28 * 28 * 27 * 8)
    assert Sequential([MaxPool2D(shape, 2)]).row_cost == RowCost(
        28 * 28 * 3, 1 + 28 * 28 * 3 + 14 * 14 * 4 * 3 + 4 * 10_000
    )


def test_a_nested_network_costs_what_its_layers_cost() -> None:
    inner = network(10, 300, 5)
    assert Sequential([inner]).row_cost == RowCost(300, 1 + inner.row_cost.operations)


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
        ValueError, match=f"modules: expected at most {cost.MAX_ROW_OPERATIONS} operations a row, found 2"
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
    small, large = (Sequential([MaxPool2D([255, 255, 1], size, size)]).row_cost.operations for size in (1, 255))
    assert large - small > 255**2 * 9_000
