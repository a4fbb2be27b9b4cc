"""The network: one vector of parameters, pure calls, and batch-invariant inference."""

import copy
import inspect
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store.nn import (
    GELU,
    LAYERS,
    BatchNorm,
    Conv2D,
    Dropout,
    Flatten,
    LayerNorm,
    Linear,
    MaxPool2D,
    Module,
    ReLU,
    Sequential,
    Sigmoid,
    Softmax,
    Tanh,
    build,
)
from model_store.nn.layers import linear
from model_store.nn.sequential import infer
from training import MSE, SGD, check_gradients, train


def network(*sizes: int, dtype: type = np.float32, seed: int = 0) -> Sequential:
    rng = np.random.default_rng(seed)
    modules: list[Module] = []
    for inputs, outputs in pairwise(sizes):
        modules += [Linear(inputs, outputs, dtype=dtype, rng=rng, initializer="glorot_uniform"), Tanh()]
    return Sequential(modules)


def convolutional(shape: tuple[int, int, int], dtype: type = np.float32) -> Sequential:
    """Every layer that is not dense, between dense ones and images."""
    rng = np.random.default_rng(9)
    first = Conv2D(shape, 7, 3, 1, 1, dtype=dtype, rng=rng, initializer="lecun_normal")
    pool = MaxPool2D(first.output_shape(shape))
    second = Conv2D(pool.output_shape(first.output_shape(shape)), 20, 2, dtype=dtype, rng=rng, initializer="he_normal")
    flat = Flatten(second.output_shape(None))
    (width,) = flat.output_shape(None)
    modules: list[Module] = [LayerNorm(shape[2], dtype=dtype), first, GELU(), pool, second, Sigmoid()]
    modules += [BatchNorm(20, dtype=dtype), Dropout(0.5, rng=rng), flat, LayerNorm(width, dtype=dtype), Tanh()]
    modules += [Linear(width, 10, dtype=dtype, rng=rng, initializer="glorot_uniform"), LayerNorm(10, dtype=dtype)]
    net = Sequential([*modules, ReLU(), BatchNorm(10, dtype=dtype), Softmax()])
    for _ in range(3):
        net.forward(rng.standard_normal((20, *shape)))  # so that the running averages are not those of the start
    return net


# The widths cross the bounds between block sizes, and the sizes between BLAS kernels.
NETWORKS = [network(2, 3, 1), network(7, 1), network(64, 32, 10), network(300, 17, 5), network(784, 256, 10)]
NETWORKS += [network(600, 700, 3), network(30, 64, 1, dtype=np.float64)]
NETWORKS += [convolutional((9, 8, 1)), convolutional((14, 14, 3)), convolutional((7, 9, 5), np.float64)]


@settings(max_examples=60)
@given(st.sampled_from(NETWORKS), st.integers(0, 2**32 - 1), st.integers(1, 70), st.integers(0, 69), st.data())
def test_inference_for_a_row_is_bit_identical_in_any_batch(
    net: Sequential, seed: int, size: int, first: int, data: st.DataObject
) -> None:
    x = np.random.default_rng(seed).standard_normal((70 + size, net.input_size or 0)).astype(net.dtype)
    alone = np.concatenate([net(row.reshape(1, -1)) for row in x[first : first + 2]])
    together = net(x[first : first + size])
    assert together[:2].tobytes() == alone[: len(together)].tobytes()
    order = data.draw(st.permutations(range(min(size, 8))))
    rows = x[first : first + len(order)]
    assert net(rows[order]).tobytes() == net(rows)[order].tobytes()


@pytest.mark.parametrize("net", NETWORKS[:-3], ids=lambda net: "-".join(str(w.shape) for w in net.parameters()[::2]))
def test_forward_in_training_agrees_with_inference(net: Sequential) -> None:
    x = np.random.default_rng(1).standard_normal((50, net.input_size or 0)).astype(net.dtype)
    np.testing.assert_allclose(net.forward(x), net(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("net", NETWORKS, ids=lambda net: "-".join(str(w.shape) for w in net.parameters()[::2]))
def test_a_trained_network_has_the_same_bits_as_its_artifact(net: Sequential) -> None:
    """The weights of a small layer have another memory layout in training, by which a BLAS rounds differently."""
    arrays = {name: np.ascontiguousarray(array) for name, array in net.arrays().items()}
    served = build(net.config(), arrays=arrays, dtype=net.dtype)
    x = np.random.default_rng(3).standard_normal((50, net.input_size or 0)).astype(net.dtype)
    assert served(x).tobytes() == net(x).tobytes()


@pytest.mark.parametrize("rows", [1, 40])
def test_one_module_after_the_other_has_the_bits_of_inference(rows: int) -> None:
    rng = np.random.default_rng(0)
    net = Sequential([Linear(7, 40, rng=rng), LayerNorm(40), GELU(), Linear(40, 3, rng=rng)])
    inputs = rng.standard_normal((rows, 7), np.float32)
    found, _ = net.as_batch(inputs)
    np.testing.assert_array_equal(found, inputs)
    for module in net.modules:
        found = infer(module, found)
    np.testing.assert_array_equal(found, net(inputs))


def test_an_empty_batch_has_an_empty_output() -> None:
    assert network(4, 3)(np.zeros((0, 4))).shape == (0, 3)


def test_threads_share_a_network_without_mixing_their_outputs() -> None:
    net = network(20, 30, 5)
    batches = [np.random.default_rng(i).standard_normal((3, 20)).astype(np.float32) for i in range(8)]
    expected = [net(x).tobytes() for x in batches]
    wrong: list[int] = []

    def ask(i: int) -> None:
        wrong.extend(i for _ in range(200) if net(batches[i]).tobytes() != expected[i])

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


class Waiting(Module):
    """Remembers its inputs, waits for another thread to do the same, and returns what it remembers."""

    def __init__(self, barrier: threading.Barrier) -> None:
        self.barrier = barrier

    def forward(self, inputs: np.ndarray) -> np.ndarray:
        self.inputs = inputs
        self.barrier.wait(10)
        return self.inputs


class Residual(Module):
    """A custom module that contains modules."""

    def __init__(self, inner: Module, *others: Module) -> None:
        self.inner, self.others = inner, list(others)

    def forward(self, inputs: np.ndarray) -> np.ndarray:
        outputs = self.inner.forward(inputs)
        for other in self.others:
            outputs = other.forward(outputs)
        return inputs + outputs


def test_threads_share_a_module_that_contains_modules() -> None:
    barrier = threading.Barrier(2)
    net = Sequential([Residual(Waiting(barrier), Waiting(barrier), Residual(Waiting(barrier)))])
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda value: net(np.full((1, 2), value))[0, 0], [1.0, 10.0]))
    assert answers == [3.0, 30.0]


def test_all_parameters_are_views_of_one_vector_and_keep_their_values() -> None:
    rng = np.random.default_rng(2)
    layers = [Linear(4, 3, rng=rng), Linear(3, 2, rng=rng)]
    before = [array.copy() for layer in layers for array in layer.parameters()]
    net = Sequential([layers[0], Sequential([Tanh(), layers[1]])])
    assert net.parameter_vector is not None
    assert net.parameter_vector.size == 4 * 3 + 3 + 3 * 2 + 2
    for was, array, gradient in zip(before, net.parameters(), net.gradients(), strict=True):
        assert (was == array).all()
        assert np.shares_memory(array, net.parameter_vector)
        assert np.shares_memory(gradient, net.gradient_vector)


def test_vectors_begin_at_a_cache_line() -> None:
    for net in (network(2, 3, 1), network(30, 64, 1, dtype=np.float64), copy.deepcopy(network(300, 17, 5))):
        velocity = SGD(net)._slots["velocity"][0]
        for vector in (net.parameter_vector, net.gradient_vector, velocity):
            assert vector is not None
            assert vector.ctypes.data % 64 == 0


def test_assigned_weights_stay_views_and_are_trained() -> None:
    net = network(2, 2)
    first = net.modules[0]
    assert isinstance(first, Linear)
    first.weights = np.eye(2)
    train(net, [[1, 2]], [[0, 0]], MSE(), SGD(net, 0.1), 1, on_epoch=None)
    assert not (first.weights == np.eye(2)).all()


def pickled(net: Sequential) -> Sequential:
    again: Sequential = pickle.loads(pickle.dumps(net))  # noqa: S301  # its own pickle
    return again


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_a_copy_is_complete_and_independent(copied: Callable[[Sequential], Sequential]) -> None:
    net = network(3, 2)
    twin = copied(net)
    x = np.ones((1, 3), np.float32)
    assert twin(x).tobytes() == net(x).tobytes()
    train(twin, [[1, 2, 3]], [[0, 0]], MSE(), SGD(twin, 0.1), 1, on_epoch=None)
    assert twin(x).tobytes() != net(x).tobytes()


def test_an_unpickled_network_uses_the_block_size_of_its_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network(30, 20)
    net(np.ones((1, 30)))
    content = pickle.dumps(net)
    monkeypatch.setattr(linear, "block_rows", lambda *_: 1)
    assert net.block_rows > 1
    assert pickle.loads(content).block_rows == 1  # noqa: S301  # its own pickle


@pytest.mark.parametrize("where", [lambda layer: [layer, layer], lambda layer: [layer, Sequential([Tanh(), layer])]])
def test_a_module_occurs_once_in_a_network(where: Callable[[Module], list[Module]]) -> None:
    """It remembers one forward pass: a second occurrence would silently replace the first."""
    with pytest.raises(
        ValueError, match=r"modules\.1(\.modules\.1)?: expected a module of its own, found that of modules\.0"
    ):
        Sequential(where(Linear(2, 2)))


def trained_by(optimizer: SGD, net: Sequential) -> list[bool]:
    """Return which parameters of the network a training changes."""
    before = [array.copy() for array in net.parameters()]
    x = np.ones((4, net.input_size or 0))
    train(net, x, np.ones((4, net.output_size or 0)), MSE(), optimizer, 2, on_epoch=None)
    return [bool((was != array).any()) for was, array in zip(before, net.parameters(), strict=True)]


def test_consecutive_modules_of_a_network_form_a_network_in_the_same_vectors() -> None:
    net = network(4, 3, 2, 1)
    optimizer = SGD(net, 0.1)
    vector, first = net.parameter_vector, Sequential(net.modules[:2])
    assert vector is not None
    assert first.parameter_vector is not None
    assert first.parameter_vector.size == 4 * 3 + 3
    assert np.shares_memory(first.parameter_vector, vector)
    assert all(trained_by(optimizer, net))
    assert all(trained_by(SGD(first, 0.1), first))
    assert (first.parameter_vector == vector[: 4 * 3 + 3]).all()


def test_a_network_whose_modules_moved_to_another_still_trains_them() -> None:
    net = network(4, 3, 2)
    other = Sequential([*net.modules[:2], Linear(3, 1, rng=np.random.default_rng(1))])
    assert net.parameter_vector is None
    assert other.parameter_vector is not None
    assert all(trained_by(SGD(net, 0.1), net))
    assert all(trained_by(SGD(other, 0.1), other))


def test_a_nested_network_can_be_trained_separately() -> None:
    inner = network(4, 3)
    Sequential([inner, Linear(3, 2)])
    assert all(trained_by(SGD(inner, 0.1), inner))


def test_mixed_precision_keeps_separate_arrays_and_still_trains() -> None:
    rng = np.random.default_rng(3)
    net = Sequential([Linear(2, 2, rng=rng), Linear(2, 1, dtype=np.float64, rng=rng)])
    assert net.parameter_vector is None
    errors = train(net, [[0.0, 1.0], [1.0, 0.0]], [[0.0], [1.0]], MSE(), SGD(net, 0.05), 50, on_epoch=None)
    assert errors[-1] < errors[0]


def test_config_and_arrays_rebuild_the_same_network() -> None:
    rng = np.random.default_rng(4)
    net = Sequential([Linear(5, 4, rng=rng), ReLU(), LAYERS["LeakyReLU"](), Linear(4, 3, rng=rng), Softmax()])
    x = rng.standard_normal((6, 5)).astype(np.float32)
    again = build(net.config(), arrays=net.arrays())
    assert list(net.arrays()) == ["modules.0.weights", "modules.0.bias", "modules.3.weights", "modules.3.bias"]
    assert again(x).tobytes() == net(x).tobytes()
    assert np.shares_memory(again.parameters()[0], net.parameters()[0])


def test_a_network_on_read_only_arrays_cannot_be_trained() -> None:
    net = network(2, 1)
    again = build(net.config(), arrays=net.arrays())
    again.forward(np.ones((1, 2), np.float32))
    with pytest.raises(ValueError, match="read-only"):
        again.backward(np.ones((1, 1), np.float32))


def test_a_deep_copy_of_a_network_on_read_only_arrays_can_be_trained() -> None:
    net = network(3, 2)
    again = copy.deepcopy(build(net.config(), arrays=net.arrays()))
    assert all(trained_by(SGD(again, 0.1), again))
    assert again.parameter_vector is not None


def test_a_network_is_printed_as_source_code() -> None:
    net = Sequential(
        [Conv2D((4, 4, 1), 2), Flatten((2, 2, 2)), Sequential([Linear(8, 2), LAYERS["LeakyReLU"]()]), Widened()]
    )
    assert repr(net).splitlines() == [
        "Sequential([",
        "    Conv2D(input_shape=[4, 4, 1], filters=2, kernel=3, stride=1, padding=0),",
        "    Flatten(input_shape=[2, 2, 2]),",
        "    Sequential([",
        "        Linear(input_size=8, output_size=2),",
        "        LeakyReLU(slope=0.01),",
        "    ]),",
        "    Widened(),",
        "])",
    ]
    assert dict(inspect.getmembers(Linear))["weights"].name == "weights"


LINEAR = {"type": "Linear", "input_size": 2, "output_size": 3}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ([], "at least one Linear"),
        (["Linear"], "modules.0.type: expected one of"),
        ([{"type": "os.system"}], r"modules.0.type: expected one of Linear, .*; found 'os.system'"),
        ([{"type": ["Linear"]}], "modules.0.type"),
        ([{"type": "Linear", "input_size": 2}], "modules.0: expected the fields"),
        ([LINEAR | {"input_size": 0}], "modules.0.input_size: expected a positive int, found 0"),
        ([LINEAR | {"output_size": True}], "modules.0.output_size: expected a positive int, found True"),
        ([LINEAR | {"output_size": 2.0}], "modules.0.output_size"),
        ([LINEAR, LINEAR], "modules.1.input_size: expected 3, the width before it; found 2"),
        ([LINEAR, {"type": "LeakyReLU", "slope": 2}], r"modules.1.slope: expected a number in \[0, 1\), found 2"),
        ([LINEAR, {"type": "Tanh", "x": 1}], "modules.1: expected the fields"),
    ],
)
def test_an_error_names_the_location_of_an_invalid_layer(config: list[dict[str, object]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(config)


def test_an_error_names_expected_and_found_for_arrays_that_do_not_fit() -> None:
    weights, bias = np.zeros((3, 2), np.float32), np.zeros(3, np.float32)
    with pytest.raises(ValueError, match=r"modules.0.weights: expected \(3, 2\), found \(2, 3\)"):
        build([LINEAR], arrays={"modules.0.weights": weights.T, "modules.0.bias": bias})
    with pytest.raises(ValueError, match=r"modules.0.bias: expected an array of shape \(3,\), found none"):
        build([LINEAR], arrays={"modules.0.weights": weights})
    with pytest.raises(ValueError, match=r"modules\.0\.weights: expected float32, found float64"):
        build([LINEAR], arrays={"modules.0.weights": weights.astype(np.float64), "modules.0.bias": bias})
    with pytest.raises(ValueError, match="extra: expected no such array"):
        build([LINEAR], arrays={"modules.0.weights": weights, "modules.0.bias": bias, "extra": bias})


def test_a_first_layer_without_parameters_does_not_hide_the_input_size() -> None:
    net = Sequential([Tanh(), Linear(3, 1, dtype=np.float64)])
    assert net.input_size == 3
    assert check_gradients(net, np.random.default_rng(0).standard_normal((2, 3)), rng=np.random.default_rng(1)) < 1e-6


class Widened(Module):
    """A custom layer without shapes: nothing is assumed about it."""

    def forward(self, inputs: np.ndarray) -> np.ndarray:
        return np.concatenate([inputs, inputs], axis=1)

    def backward(self, output_grad: np.ndarray) -> np.ndarray:
        return np.add(*np.split(output_grad, 2, axis=1))


def test_a_network_of_layers_that_do_not_fit_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"modules.2.input_size: expected 3, the width before it; found 4"):
        Sequential([Linear(2, 3), Tanh(), Linear(4, 1)])
    with pytest.raises(ValueError, match=r"modules.1.modules.0.input_size: expected 3"):
        Sequential([Linear(2, 3), Sequential([Linear(2, 1)])])
    assert Sequential([Linear(2, 3), Widened(), Linear(6, 1)])(np.ones((4, 2))).shape == (4, 1)
