"""Image layers: compared with loops and finite differences, compiled, and at the edges."""

from itertools import product

import numpy as np
import pytest

from model_store.nn import Array, Conv2D, Flatten, Linear, MaxPool2D, Module, Sequential, Softmax, build
from training import CrossEntropy, check_gradients
from training.engine.compiled import CompiledStep, compile_module

SHAPES = [(1, 1, 1), (5, 4, 1), (6, 7, 3), (8, 8, 2)]
# kernel, stride, padding
WINDOWS = [(1, 1, 0), (2, 1, 0), (3, 1, 1), (3, 2, 1), (2, 3, 0), (4, 4, 2)]


def fits(shape: tuple[int, ...], kernel: int, padding: int) -> bool:
    return kernel <= min(shape[:2]) + 2 * padding


CONVOLUTIONS = [(shape, *window) for shape in SHAPES for window in WINDOWS if fits(shape, window[0], window[2])]
POOLS = [(shape, size, stride) for shape in SHAPES for size in (1, 2, 3) for stride in (1, 2, 3) if size <= shape[1]]


@pytest.mark.parametrize(("shape", "kernel", "stride", "padding"), CONVOLUTIONS)
def test_convolution_is_its_definition(shape: tuple[int, ...], kernel: int, stride: int, padding: int) -> None:
    rng = np.random.default_rng(1)
    layer = Conv2D(shape, 3, kernel, stride, padding, dtype=np.float64, rng=rng)
    x = rng.standard_normal((2, *shape))
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    rows, columns, _ = layer.output_shape(shape)
    expected = np.empty((2, rows, columns, 3))
    for s, i, j, f in product(range(2), range(rows), range(columns), range(3)):
        window = padded[s, i * stride : i * stride + kernel, j * stride : j * stride + kernel]
        expected[s, i, j, f] = layer.bias[f] + np.sum(layer.weights[f] * window)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(layer.forward(x), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("shape", "kernel", "stride", "padding"), CONVOLUTIONS)
def test_convolution_derivatives_are_the_finite_differences(
    shape: tuple[int, ...], kernel: int, stride: int, padding: int
) -> None:
    rng = np.random.default_rng(2)
    layer = Conv2D(shape, 2, kernel, stride, padding, dtype=np.float64, rng=rng)
    assert check_gradients(layer, rng.standard_normal((2, *shape)), rng=rng) < 1e-6


@pytest.mark.parametrize(("shape", "size", "stride"), POOLS)
def test_pooling_returns_the_largest_value_and_its_gradient(shape: tuple[int, ...], size: int, stride: int) -> None:
    rng = np.random.default_rng(3)
    layer = MaxPool2D(shape, size, stride)
    x = rng.permutation(2 * np.prod(shape)).reshape(2, *shape).astype(float)  # no two within a finite difference
    rows, columns, _ = layer.output_shape(shape)
    expected = np.empty((2, rows, columns, shape[2]))
    for i, j in product(range(rows), range(columns)):
        expected[:, i, j] = x[:, i * stride : i * stride + size, j * stride : j * stride + size].max((1, 2))
    assert layer(x).tolist() == layer.forward(x).tolist() == expected.tolist()
    assert check_gradients(layer, x, rng=rng) < 1e-6


def test_the_first_of_equal_pixels_gets_the_gradient() -> None:
    layer = MaxPool2D((2, 2, 1))
    layer.forward(np.zeros((1, 2, 2, 1)))
    assert layer.backward(np.ones((1, 1, 1, 1))).ravel().tolist() == [1, 0, 0, 0]


class Doubled(Module):
    """A custom layer without shapes."""

    def forward(self, inputs: Array) -> Array:
        return 2 * inputs

    def backward(self, output_grad: Array) -> Array:
        return 2 * output_grad


def convolutional(padding: int, stride: int, dtype: type = np.float64) -> Sequential:
    rng = np.random.default_rng(4)
    first = Conv2D((7, 6, 1), 3, 3, 1, padding, dtype=dtype, rng=rng)
    second = Conv2D(first.output_shape(None), 2, 2, stride, padding, dtype=dtype, rng=rng)
    pool = MaxPool2D(second.output_shape(None), 2, stride)
    flat = Flatten(pool.output_shape(None))
    (width,) = flat.output_shape(None)
    return Sequential([Doubled(), first, second, pool, flat, Linear(width, 3, dtype=dtype, rng=rng), Softmax()])


@pytest.mark.parametrize(("padding", "stride"), [(0, 1), (1, 1), (1, 2), (2, 1)])
def test_a_compiled_step_of_a_convolutional_network_equals_forward_and_backward(padding: int, stride: int) -> None:
    subject, by_hand = convolutional(padding, stride), convolutional(padding, stride)
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((5, 7, 6, 1)), np.eye(3)[[0, 1, 2, 1, 0]]
    loss = CrossEntropy()
    for rows in (x, x.reshape(5, -1)):
        step = CompiledStep(subject, loss, rows, y, 4)
        for _ in range(2):
            order = rng.permutation(5)
            inner, fused = loss.fused(by_hand)
            output = inner.forward(rows[order[:4]])
            by_hand.gradient_vector.fill(0)
            inner.backward(fused.loss_prime(y[order[:4]], output))
            assert step.run(rows, y, 0, order) == pytest.approx(fused.loss(y[order[:4]], output), rel=1e-12)
            np.testing.assert_allclose(subject.gradient_vector, by_hand.gradient_vector, rtol=1e-9, atol=1e-12)


def test_the_gradient_by_the_images_is_compiled_too() -> None:
    subject, by_hand = convolutional(1, 2), convolutional(1, 2)
    rng = np.random.default_rng(6)
    x, dy = rng.standard_normal((3, 7, 6, 1)), rng.standard_normal((3, 3))
    _, forward, compile_backward = compile_module(subject, x)
    grad, backward = compile_backward(dy.copy(), True)
    for _ in range(2):  # whatever the step before left in the buffers
        for function, operands in [*forward, *backward]:
            function(*operands)
    by_hand.forward(x)
    np.testing.assert_allclose(grad, by_hand.backward(dy), rtol=1e-9, atol=1e-12)


def test_images_may_be_images_or_rows_and_gradients_have_the_same_shape() -> None:
    net = convolutional(0, 1)
    x = np.random.default_rng(7).standard_normal((2, 7, 6, 1))
    assert (net.input_shape, net.input_size, net.output_size) == ((7, 6, 1), 42, 3)
    assert net(x).tobytes() == net(x.reshape(2, 42)).tobytes()
    for rows in (x, x.reshape(2, 42)):
        net.forward(rows)
        assert net.backward(np.ones((2, 3))).shape == rows.shape
    with pytest.raises(ValueError, match=r"images of shape \(batch, 7, 6, 1\) or \(batch, 42\), found \(2, 6, 7, 1\)"):
        net(x.reshape(2, 6, 7, 1))
    assert net(np.zeros((0, 42))).shape == (0, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Conv2D((4, 4, 1), 2, 5), "Conv2D.kernel: expected a window within 4 x 4, found 5 x 5"),
        (lambda: MaxPool2D((4, 2, 1), 3), "MaxPool2D.size: expected a window within 4 x 2, found 3 x 3"),
        (lambda: Conv2D((4, 4), 2), "Conv2D.input_shape: expected a list of height, width and channels"),
        (lambda: Flatten((2**13, 2**13, 1)), "Flatten.input_shape: expected .* 16777216 values at most"),
        (lambda: Conv2D((4096, 4096, 1), 1, 64), "Conv2D.input_shape: expected 16777216 values an image at most"),
        (
            lambda: Sequential([Conv2D((5, 5, 1), 2), MaxPool2D((5, 5, 2))]),
            r"modules.1.input_shape: expected \(3, 3, 2\), the shape before it; found \(5, 5, 2\)",
        ),
        (
            lambda: Sequential([Conv2D((5, 5, 1), 2), Linear(18, 2)]),
            r"modules.1.input_size: expected a Flatten before it, for images of \(3, 3, 2\)",
        ),
    ],
)
def test_an_error_names_both_shapes_that_do_not_fit(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def test_config_and_arrays_rebuild_the_same_network() -> None:
    net = build(Sequential(convolutional(1, 2).modules[1:]).config())
    x = np.random.default_rng(8).standard_normal((3, 42)).astype(np.float32)
    again = build(net.config(), arrays=net.arrays())
    assert list(net.arrays())[:2] == ["modules.0.weights", "modules.0.bias"]
    assert net.config()[0] == {
        "type": "Conv2D",
        "input_shape": [7, 6, 1],
        "filters": 3,
        "kernel": 3,
        "stride": 1,
        "padding": 1,
    }
    assert again(x).tobytes() == net(x).tobytes()


CONV = {"type": "Conv2D", "input_shape": [5, 5, 1], "filters": 2, "kernel": 3, "stride": 1, "padding": 0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_shape": [5, 5]}, "modules.0.input_shape: expected a list of height, width and channels"),
        ({"input_shape": [5, 5, 0]}, "modules.0.input_shape: expected a list"),
        ({"input_shape": [5, 5, True]}, "modules.0.input_shape: expected a list"),
        ({"input_shape": [2**20, 2**20, 2**20]}, "modules.0.input_shape: expected a list"),
        ({"input_shape": "551"}, "modules.0.input_shape: expected a list"),
        ({"kernel": 6}, "modules.0.kernel: expected a window within 5 x 5, found 6 x 6"),
        ({"kernel": 3.0}, "modules.0.kernel: expected an int from 1 to 255 or a list of 2 .*, found 3.0"),
        (
            {"kernel": 256, "padding": 128},
            "modules.0.kernel: expected an int from 1 to 255 or a list of 2 .*, found 256",
        ),
        ({"stride": 0}, "modules.0.stride: expected an int above 0 or a list of 2 .*, found 0"),
        ({"padding": -1}, "modules.0.padding: expected an int of at least 0 or a list of 4 .*, found -1"),
        ({"padding": 2**31}, "modules.0.input_shape: expected 16777216 values an image at most"),
        ({"padding": 2**20, "stride": 2**20}, "modules.0.input_shape: expected 16777216 values an image at most"),
        ({"filters": 2**30}, "modules.0.input_shape: expected 16777216 values an image at most"),
        ({"filters": 3}, r"modules.0.weights: expected \(3, 3, 3, 1\), found \(2, 3, 3, 1\)"),
        ({"extra": 1}, "modules.0: expected the fields"),
    ],
)
def test_a_hostile_convolution_in_a_manifest_is_rejected_before_memory_is_allocated(
    change: dict[str, object], message: str
) -> None:
    arrays = {"modules.0.weights": np.zeros((2, 3, 3, 1), np.float32), "modules.0.bias": np.zeros(2, np.float32)}
    with pytest.raises(ValueError, match=message):
        build([CONV | change], arrays=arrays)


def test_a_hostile_pooling_layer_in_a_manifest_cannot_cover_millions_of_pixels() -> None:
    """It has no array: a file of 2 kB allocated 2.4 GB."""
    pool = {"type": "MaxPool2D", "input_shape": [4096, 4096, 1], "size": 4096, "stride": 1}
    with pytest.raises(
        ValueError, match=r"modules\.0\.size: expected an int from 1 to 255 or a list of 2 .*, found 4096"
    ):
        build([pool], arrays={})


@pytest.mark.parametrize(
    ("initializer", "variance"), [("he_normal", 2 / 72), ("glorot_uniform", 2 / (72 + 1800)), ("orthogonal", 1 / 200)]
)
def test_the_fan_in_of_a_convolution_is_one_window(initializer: str, variance: float) -> None:
    layer = Conv2D((9, 9, 8), 200, 3, rng=np.random.default_rng(9), initializer=initializer)
    assert layer.weights.var() == pytest.approx(variance, rel=0.05)
    assert not layer.bias.any()
