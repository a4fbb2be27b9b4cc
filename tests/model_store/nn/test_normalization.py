"""Dropout and the normalization layers: in training, and in inference without randomness or other rows."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest

from model_store.nn import (
    Array,
    BatchNorm,
    ConstantInputs,
    Conv2D,
    Dropout,
    Flatten,
    LayerNorm,
    Linear,
    Sequential,
    Tanh,
    build,
)
from model_store.nn.arrays import SMALL_FEATURES
from training import MSE, SGD, check_gradients, train
from training.engine.batch_checks import SingleRowBatchWarning
from training.engine.compiled import CompiledStep, compile_module

SHAPES = [(5, 3), (2, 3, 4, 3)]


def filled(norm: BatchNorm | LayerNorm) -> BatchNorm | LayerNorm:
    norm.scale, norm.shift = [0.5, -1.0, 2.0], [0.1, 0.2, 0.3]
    return norm


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layer", [BatchNorm, LayerNorm])
def test_derivatives_are_the_finite_differences(
    layer: type[BatchNorm] | type[LayerNorm], shape: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(1)
    norm = filled(layer(3, dtype=np.float64))
    assert check_gradients(norm, rng.standard_normal(shape), rng=rng) < 1e-6


@pytest.mark.parametrize("shape", SHAPES)
def test_batch_norm_normalizes_each_feature_to_mean_0_and_deviation_1(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(2).normal(5, 3, shape)
    y = BatchNorm(3, epsilon=1e-12, dtype=np.float64).forward(x).reshape(-1, 3)
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(y.std(0), 1, rtol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_layer_norm_normalizes_each_row_to_mean_0_and_deviation_1(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(3).normal(5, 3, shape)
    norm = LayerNorm(3, epsilon=1e-12, dtype=np.float64)
    y = norm(x)
    np.testing.assert_allclose(y.mean(-1), 0, atol=1e-12)
    np.testing.assert_allclose(y.std(-1), 1, rtol=1e-9)
    assert y.tobytes() == norm.forward(x).tobytes()


def test_the_running_averages_approach_the_statistics_of_the_batches() -> None:
    rng = np.random.default_rng(4)
    norm = BatchNorm(2, dtype=np.float64)
    for _ in range(400):
        norm.forward(rng.normal([3, -1], [2, 0.5], (50, 2)))
    np.testing.assert_allclose(norm.running_mean, [3, -1], atol=0.2)
    np.testing.assert_allclose(norm.running_variance, [4, 0.25], rtol=0.2)
    y = norm(rng.normal([3, -1], [2, 0.5], (10_000, 2)))
    np.testing.assert_allclose([y.mean(0), y.std(0)], [[0, 0], [1, 1]], atol=0.15)


def test_inference_does_not_change_the_running_averages() -> None:
    norm = BatchNorm(2)
    norm(np.ones((4, 2), np.float32))
    assert (norm.running_mean.tolist(), norm.running_variance.tolist()) == ([0, 0], [1, 1])


def test_a_batch_of_one_row_is_normalized_by_the_running_averages() -> None:
    rng = np.random.default_rng(5)
    norm = filled(BatchNorm(3, dtype=np.float64))
    norm.forward(rng.standard_normal((6, 3)))
    before = copy.deepcopy(norm.arrays())
    x = rng.standard_normal((1, 3))
    np.testing.assert_allclose(norm.forward(x), norm(x), rtol=1e-12)
    assert all((before[name] == array).all() for name, array in norm.arrays().items())
    assert check_gradients(norm, x, rng=rng) < 1e-6


def test_running_averages_are_saved_but_not_trained() -> None:
    norm = BatchNorm(3)
    assert list(norm.arrays()) == ["scale", "shift", "running_mean", "running_variance"]
    assert len(norm.parameters()) == 2
    rng = np.random.default_rng(6)
    net = Sequential([Linear(2, 3, rng=rng), norm, Tanh(), Linear(3, 1, rng=rng)])
    assert np.shares_memory(norm.scale, net.parameter_vector)
    x = rng.standard_normal((8, 2)).astype(np.float32)
    train(net, x, x[:, :1], MSE(), SGD(net), 3, 4, on_epoch=None)
    again = build(net.config(), arrays=net.arrays())
    assert again(x).tobytes() == net(x).tobytes()
    assert norm.running_mean.any()


@pytest.mark.parametrize("shape", [(4, 3), (2, 3), (1, 3), (4, 2, 3, 3), (1, 2, 1, 3)])
@pytest.mark.parametrize("layer", [BatchNorm, LayerNorm])
def test_a_compiled_step_equals_forward_and_backward(
    layer: type[BatchNorm] | type[LayerNorm], shape: tuple[int, ...]
) -> None:
    def network() -> Sequential:
        return Sequential([filled(layer(3, dtype=np.float64)), Tanh(), filled(layer(3, dtype=np.float64))])

    subject, by_hand = network(), network()
    rng = np.random.default_rng(11)
    x, y = np.empty(shape), rng.standard_normal(shape)
    output, forward, compile_backward = compile_module(subject, x)
    output_grad = np.empty_like(y)
    input_grad, backward = compile_backward(output_grad, True)
    for _ in range(3):
        x[...] = rng.standard_normal(shape)
        for function, operands in forward:
            function(*operands)
        np.testing.assert_allclose(output, by_hand.forward(x), rtol=1e-9, atol=1e-11)
        output_grad[...] = y
        for function, operands in backward:
            function(*operands)
        by_hand.gradient_vector.fill(0)
        np.testing.assert_allclose(input_grad, by_hand.backward(y), rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(subject.gradient_vector, by_hand.gradient_vector, rtol=1e-8, atol=1e-10)
        for name, array in subject.arrays().items():
            np.testing.assert_allclose(array, by_hand.arrays()[name], rtol=1e-10)


def test_a_negative_running_variance_is_rejected() -> None:
    net = Sequential([Linear(2, 3), BatchNorm(3)])
    arrays = {**net.arrays(), "modules.1.running_variance": np.array([1, -1, 1], np.float32)}
    with pytest.raises(ValueError, match=r"modules\.1\.running_variance: expected no number below 0"):
        build(net.config(), arrays=arrays)


def test_dropout_drops_its_rate_and_keeps_the_mean() -> None:
    layer = Dropout(0.3, rng=np.random.default_rng(7))
    x = np.ones((200, 500))
    y = layer.forward(x)
    assert set(np.unique(y)) == {0, 1 / 0.7}
    assert (y == 0).mean() == pytest.approx(0.3, abs=0.01)
    assert y.mean() == pytest.approx(1, abs=0.01)
    assert layer.backward(np.full_like(x, 2)).tolist() == (2 * y).tolist()
    assert layer.forward(x).tobytes() != y.tobytes()


def test_inference_drops_nothing() -> None:
    layer = Dropout(0.9, rng=np.random.default_rng(8))
    x = np.ones((3, 4))
    assert layer(x) is x


class ByFeatures(Dropout):
    """Draws feature by feature, as the compiled step does after a small layer, whose outputs are feature-major."""

    def forward(self, inputs: Array) -> Array:
        drawn = self.rng.random(inputs.shape[::-1], np.float32).T
        stays = drawn >= np.float32(self.rate)
        self.mask = stays * inputs.dtype.type(1 / (1 - self.rate))
        return inputs * self.mask


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("width", "order"), [(6, ByFeatures), (SMALL_FEATURES + 1, Dropout)])
def test_a_compiled_step_drops_the_same_values_as_forward(dtype: type, width: int, order: type[Dropout]) -> None:
    def network(dropout: type[Dropout]) -> Sequential:
        rng = np.random.default_rng(9)
        layers = [Linear(4, width, dtype=dtype, rng=rng), dropout(0.4, rng=rng), Linear(width, 2, dtype=dtype, rng=rng)]
        return Sequential([*layers, dropout(0.2, rng=rng)])

    subject, by_hand = network(Dropout), network(order)
    x, y = np.random.default_rng(10).standard_normal((2, 5, 4)).astype(dtype), np.ones((5, 2), dtype)
    step = CompiledStep(subject, MSE(), x[0], y, 5, whole=True)
    subject.modules[1].rng.bit_generator.state = by_hand.modules[1].rng.bit_generator.state  # type: ignore[attr-defined]
    for _ in range(3):
        output = by_hand.forward(x[0])
        by_hand.gradient_vector.fill(0)
        by_hand.backward(MSE().loss_prime(y, output))
        assert step.run(x[0], y, 0, None) == pytest.approx(MSE().loss(y, output), rel=1e-6)
        rounding = 16 * np.finfo(dtype).eps * np.abs(by_hand.gradient_vector).max()  # of sums, in any order
        np.testing.assert_allclose(subject.gradient_vector, by_hand.gradient_vector, rtol=0, atol=rounding)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Dropout(1), r"Dropout.rate: expected a number in \[0, 1\), found 1"),
        (lambda: BatchNorm(3, epsilon=0), "BatchNorm.epsilon: expected a number above 0, found 0"),
        (lambda: LayerNorm(3, epsilon=-1), "LayerNorm.epsilon: expected a number above 0"),
        (lambda: BatchNorm(3, momentum=0), "BatchNorm.momentum: expected a number above 0 and at most 1, found 0"),
        (lambda: Sequential([Linear(2, 3), LayerNorm(4)]), r"modules.1.size: expected 3, .*; found 4"),
        (lambda: build([{"type": "Dropout", "rate": float("nan")}]), "modules.0.rate: expected a finite float"),
    ],
)
def test_an_invalid_setting_is_rejected(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", [BatchNorm, LayerNorm])
@pytest.mark.parametrize("value", [1e8, -3.3e7, 0.1, 12345.678])
def test_equal_values_of_any_size_are_normalized_to_0(
    kind: type[BatchNorm] | type[LayerNorm], shape: tuple[int, ...], value: float
) -> None:
    """The float32 mean of 1e8 is off by up to 8, and equal values were ±1."""
    layer, x = kind(3), np.full(shape, value, np.float32)
    assert not layer.forward(x).any()
    outputs, forward, _ = compile_module(kind(3), x)
    for function, operands in forward:
        function(*operands)
    assert not outputs.any()
    if isinstance(layer, BatchNorm):
        np.testing.assert_allclose(layer.running_mean, 0.1 * value, rtol=1e-6)
        np.testing.assert_allclose(layer.running_variance, 0.9, rtol=1e-6)
    else:
        assert not layer(x).any()


@pytest.mark.parametrize("kind", [BatchNorm, LayerNorm])
def test_a_small_spread_around_a_large_value_is_normalized_exactly(kind: type[BatchNorm] | type[LayerNorm]) -> None:
    x = (1e6 + np.random.default_rng(21).standard_normal((40, 40))).astype(np.float32)
    exact = x.astype(float)
    axis = 0 if kind is BatchNorm else 1
    exact -= exact.mean(axis, keepdims=True)
    exact /= np.sqrt((exact**2).mean(axis, keepdims=True) + 1e-5)
    outputs, forward, _ = compile_module(kind(40), x)
    for function, operands in forward:
        function(*operands)
    np.testing.assert_allclose(kind(40).forward(x), exact, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(outputs, exact, rtol=1e-4, atol=1e-5)


def test_a_network_with_batch_norm_rejects_batches_of_one_row() -> None:
    """Its running averages, which inference uses, would never change."""
    net = Sequential([Linear(3, 2), Sequential([Tanh(), BatchNorm(2)]), Linear(2, 1)])
    x, y = np.ones((7, 3)), np.ones(7)
    with pytest.raises(
        ValueError, match=r"train: expected batches of two rows or more for the BatchNorm at modules\.1\.modules\.1"
    ):
        train(net, x, y, MSE(), SGD(net), 1)
    with pytest.raises(ValueError, match="found batches of one; choose a larger batch_size"):
        train(net, x[:1], y[:1], MSE(), SGD(net), 1, 4)
    with pytest.warns(
        SingleRowBatchWarning, match=r"last batch of every epoch has one row, .* a batch size of 4 leaves"
    ):
        train(net, x, y, MSE(), SGD(net), 1, 3, on_epoch=None)
    train(net, x, y, MSE(), SGD(net), 1, 4, on_epoch=None)


def test_batch_norm_averages_one_image_over_its_pixels() -> None:
    net = Sequential([BatchNorm(2), Conv2D((3, 3, 2), 1, 3), Flatten((1, 1, 1))])
    train(net, np.random.default_rng(22).random((3, 18)), np.ones(3), MSE(), SGD(net), 1, on_epoch=None)
    assert (net.modules[0].arrays()["running_mean"] > 0).all()


def test_constant_inputs_are_held_at_their_values() -> None:
    layer = ConstantInputs(4, dtype=np.float64)
    layer.constant, layer.values = [0, 1, 1, 0], [0, 7, -1, 0]
    x = np.arange(8.0).reshape(2, 4)
    expected = [[0, 7, -1, 3], [4, 7, -1, 7]]
    assert layer(x).tolist() == layer.forward(x).tolist() == expected
    assert layer(x.reshape(2, 2, 2, 1)).shape == (2, 2, 2, 1)
    assert layer.backward(np.ones((2, 4))).tolist() == [[1, 0, 0, 1]] * 2
    assert check_gradients(layer, x, rng=np.random.default_rng(23)) < 1e-6
    net = Sequential([layer, Linear(4, 1, dtype=np.float64)])
    again = build(net.config(), np.float64, arrays=net.arrays())
    assert again(x).tolist() == net(x).tolist()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"modules.0.constant": np.full(4, 0.5)}, "modules.0.constant: expected only 0 and 1, found another number"),
        ({"modules.0.values": np.zeros(3)}, r"modules.0.values: expected \(4,\), found \(3,\)"),
    ],
)
def test_invalid_constant_inputs_are_rejected(change: dict[str, Array], expected: str) -> None:
    net = Sequential([ConstantInputs(4, dtype=np.float64), Linear(4, 1, dtype=np.float64)])
    with pytest.raises(ValueError, match=expected):
        build(net.config(), np.float64, arrays=net.arrays() | change)
    with pytest.raises(ValueError, match=r"size: expected the number of values of \(5,\); found 4"):
        Sequential([Linear(3, 5), ConstantInputs(4)])
    with pytest.raises(ValueError, match="expected at least one Linear layer, found none"):
        build([{"type": "ConstantInputs", "size": 4}])
