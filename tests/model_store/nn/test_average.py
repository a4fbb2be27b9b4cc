"""The average of networks: the mean of their outputs, rebuilt from its configuration, with bounded cost."""

from __future__ import annotations

import copy
import tracemalloc
from typing import Any

import numpy as np
import pytest

from model_store.nn import Average, BatchNorm, Conv2D, Linear, ReLU, Sequential, Softmax, build
from model_store.nn.cost import MAX_ROW_OPERATIONS
from training.engine.gradient_check import check_gradients

RNG = np.random.default_rng(0)


def member(inputs: int = 3, outputs: int = 2, dtype: str = "float32") -> Sequential:
    return Sequential([Linear(inputs, 5, rng=RNG, dtype=dtype), ReLU(), Linear(5, outputs, rng=RNG, dtype=dtype)])


def test_the_output_is_the_mean_of_the_members() -> None:
    members = [Sequential([*member().modules, Softmax()]) for _ in range(3)]
    x = RNG.standard_normal((7, 3)).astype(np.float32)
    network = Sequential([Average(members)])
    np.testing.assert_allclose(network(x), np.mean([one(x) for one in members], axis=0), rtol=1e-6)
    np.testing.assert_allclose(network.forward(x), network(x), rtol=1e-6)
    assert (network.input_size, network.output_size, network.dtype) == (3, 2, np.float32)


def test_a_row_has_the_same_bits_regardless_of_the_others() -> None:
    network = Sequential([Average([member(), member()])])
    x = RNG.standard_normal((100, 3)).astype(np.float32)
    assert np.array_equal(np.concatenate([network(x[i : i + 1]) for i in range(100)]), network(x))


def test_the_gradient_is_that_of_the_mean() -> None:
    network = Sequential([Average([member(dtype="float64"), member(dtype="float64")])])
    assert check_gradients(network, RNG.standard_normal((4, 3)), rng=RNG) < 1e-6


def test_all_parameters_are_in_one_vector() -> None:
    network = Sequential([Average([member(), member()])])
    assert network.parameter_vector is not None
    assert network.parameter_vector.size == 2 * (3 * 5 + 5 + 5 * 2 + 2)
    x = np.ones((1, 3), np.float32)
    before = network(x)
    network.parameter_vector[...] *= 2
    assert not np.array_equal(network(x), before)
    assert np.array_equal(copy.deepcopy(network)(x), network(x))


def test_a_network_is_rebuilt_from_its_configuration_and_arrays() -> None:
    members = [Sequential([BatchNorm(3), *member().modules]) for _ in range(2)]
    network = Sequential([Average(members)])
    assert "modules.0.members.1.modules.1.weights" in network.arrays()
    again = build(network.config(), arrays=network.arrays())
    x = RNG.standard_normal((5, 3)).astype(np.float32)
    assert np.array_equal(again(x), network(x))
    assert repr(network).count("Linear(") == 4
    drawn = build(network.config(), rng=np.random.default_rng(1))
    assert drawn.arrays().keys() == network.arrays().keys()


def test_the_cost_of_a_row_is_that_of_all_members() -> None:
    one = member()
    network = Sequential([Average([member(), member(), member()])])
    assert network.row_cost.bytes == one.row_cost.bytes
    assert network.row_cost.operations == 3 * (one.row_cost.operations + 8 * (one.output_size or 0)) + 1
    assert network.row_cost.pass_operations == 3 * (one.row_cost.pass_operations + 2_000 + 15_000)
    wide = [{"type": "Linear", "input_size": 2**16, "output_size": 2**16}]
    assert MAX_ROW_OPERATIONS < 3 * 2**32
    arrays = {
        f"modules.0.members.{i}.modules.0.{name}": np.broadcast_to(np.float32(0), shape)
        for i in range(3)
        for name, shape in (("weights", (2**16, 2**16)), ("bias", (2**16,)))
    }
    with pytest.raises(ValueError, match=r"modules: expected at most .* operations a row"):
        build([{"type": "Average", "members": [wide] * 3}], arrays=arrays)


def test_few_outputs_of_members_are_in_memory_at_a_time() -> None:
    """64 convolutions with a padding of 1500 took 2.3 GB for a row, with one of 2047 4 GB."""
    side = 401
    members = [Sequential([Conv2D((1, 1, 1), 1, 1, padding=side // 2)]) for _ in range(64)]
    network = Sequential([Average(members)])
    tracemalloc.start()
    try:
        assert network(np.zeros((1, 1), np.float32)).shape == (1, side, side, 1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * 4 * side**2


def test_the_arrays_are_read_once_however_many_members_there_are() -> None:
    """A file of 150 averages of 64 members, 5 MB, took 28 s: each member looked for its arrays among all 9,602."""
    passes = []

    class Counted(dict[str, Any]):
        def items(self) -> Any:
            passes.append(1)
            return super().items()

    def count(members: int) -> int:
        network = Sequential([Average([member() for _ in range(members)])])
        passes.clear()
        build(network.config(), arrays=Counted(network.arrays()))
        return len(passes)

    assert count(20) == count(2)


LINEAR = {"type": "Linear", "input_size": 2, "output_size": 1}


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ([[LINEAR]], r"modules.0.members: expected a list of 2 to 64 networks"),
        ([[LINEAR]] * 65, r"modules.0.members: expected a list of 2 to 64 networks"),
        ([[LINEAR], "x"], r"modules.0.members: expected a list of 2 to 64 networks"),
        ([[LINEAR], [3]], r"modules.0.members.1.modules.0.type: expected one of"),
        ([[LINEAR], []], r"modules.0.members.1.modules: expected at least one Linear layer"),
        ([[LINEAR], [{**LINEAR, "input_size": 3}]], r"modules.0.members.1: expected shapes and type"),
        ([[LINEAR], [{**LINEAR, "output_size": 3}]], r"modules.0.members.1: expected shapes and type"),
        ([[LINEAR], [{"type": "Average", "members": [[LINEAR], [LINEAR]]}]], r"no Average inside an Average"),
        ([[LINEAR], [{**LINEAR, "size": 3}]], r"modules.0.members.1.modules.0: expected the fields"),
    ],
)
def test_members_that_do_not_fit_are_an_error(members: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        build([{"type": "Average", "members": members}], rng=np.random.default_rng(0))


def test_missing_and_unknown_arrays_of_members_are_an_error() -> None:
    network = Sequential([Average([member(), member()])])
    arrays = network.arrays()
    with pytest.raises(ValueError, match=r"modules.0.members.1.modules.0.bias: expected an array of shape"):
        build(network.config(), arrays={k: v for k, v in arrays.items() if k != "modules.0.members.1.modules.0.bias"})
    for name in ("modules.0.members.1.modules.7.bias", "modules.0.members.2.modules.0.bias", "modules.0.bias"):
        with pytest.raises(ValueError, match="expected no such array"):
            build(network.config(), arrays={**arrays, name: np.zeros(1, np.float32)})


def test_a_network_is_a_member_once() -> None:
    one = member()
    with pytest.raises(ValueError, match=r"Average.members: expected different networks"):
        Average([one, one])
