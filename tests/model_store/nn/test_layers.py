"""Every layer: its formula, its derivative by finite differences, and its edge cases."""

import json
from collections.abc import Callable

import numpy as np
import pytest

from model_store.nn import (
    ELU,
    GELU,
    INITIALIZERS,
    Activation,
    BatchNorm,
    Conv2D,
    Dropout,
    ExactGELU,
    Identity,
    LayerNorm,
    LeakyReLU,
    Linear,
    MaxPool2D,
    Module,
    ReLU,
    Sequential,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
    build,
)
from model_store.nn.layers.activations import ACTIVATIONS
from training import check_gradients

MODULES: list[Module] = [*(layer() for layer in ACTIVATIONS.values()), LeakyReLU(0.2), ELU(0.3), Softmax()]


def by_name(value: object) -> str:
    return type(value).__name__


def away_from_zero(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Values so far from 0 that finite differences do not cross the corner of a ReLU."""
    return rng.uniform(0.1, 2, shape) * rng.choice([-1, 1], shape)


@pytest.mark.parametrize("module", MODULES, ids=by_name)
def test_activation_derivatives_are_the_finite_differences(module: Module) -> None:
    rng = np.random.default_rng(1)
    assert check_gradients(module, away_from_zero(rng, (4, 5)), rng=rng) < 1e-6


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3, 2), (6, 1, 4), (5, 4, 1)])
def test_linear_derivatives_are_the_finite_differences(shape: tuple[int, int, int]) -> None:
    batch, inputs, outputs = shape
    rng = np.random.default_rng(2)
    layer = Linear(inputs, outputs, dtype=np.float64, rng=rng)
    assert check_gradients(layer, rng.standard_normal((batch, inputs)), rng=rng) < 1e-6


@pytest.mark.parametrize("last", MODULES, ids=by_name)
def test_network_derivatives_are_the_finite_differences(last: Module) -> None:
    rng = np.random.default_rng(3)
    network = Sequential(
        [Linear(3, 4, dtype=np.float64, rng=rng), Tanh(), Linear(4, 2, dtype=np.float64, rng=rng), last]
    )
    assert check_gradients(network, rng.standard_normal((5, 3)), rng=rng) < 1e-6


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("module", MODULES, ids=by_name)
def test_values_and_derivatives_stay_finite_at_extreme_inputs(module: Module, dtype: type) -> None:
    x = np.array([[-1e4, 1e4, 0, -1e4], [1e4, 1e4, 1e4, 1e4]], dtype)
    y = module.forward(x)
    assert np.isfinite(y).all()
    assert y.dtype == dtype
    assert np.isfinite(module.backward(np.ones_like(x))).all()


@pytest.mark.parametrize(
    ("module", "x", "y"),
    [
        (Tanh(), 0.5, 0.46211715726000973),
        (Sigmoid(), -2.0, 0.11920292202211755),
        (Sigmoid(), -30.0, 9.357622968839299e-14),  # keeps its digits far from 0
        (ReLU(), -3.0, 0.0),
        (LeakyReLU(0.1), -3.0, -0.3),
        (GELU(), 1.0, 0.8411919906082768),
        (ExactGELU(), 1.0, 0.8413447460685429),
        (ExactGELU(), -3.0, -0.004049694095050284),
        (ExactGELU(), -8.0, -4.976768459479214e-15),
        (SiLU(), -2.0, -0.2384058440442351),
        (ELU(0.5), -1.0, -0.31606027941427883),
        (Softplus(), -40.0, 4.248354255291589e-18),
        (Identity(), 7.0, 7.0),
    ],
    ids=by_name,
)
def test_activations_have_their_textbook_values(module: Module, x: float, y: float) -> None:
    assert module(np.array([[x]]))[0, 0] == pytest.approx(y, rel=1e-12)


def test_linear_computes_x_times_w_transposed_plus_b() -> None:
    layer = Linear(2, 3, dtype=np.float64)
    layer.weights = [[1, 2], [3, 4], [5, 6]]
    layer.bias = [0.5, 0, -0.5]
    assert layer(np.array([[1.0, 10.0], [0.0, 1.0]])).tolist() == [[21.5, 43, 64.5], [2.5, 4, 5.5]]


def test_gradients_accumulate_until_they_are_set_to_zero() -> None:
    layer = Linear(2, 1, dtype=np.float64)
    for _ in range(2):
        layer.forward(np.array([[1.0, 2.0]]))
        layer.backward(np.array([[3.0]]))
    assert layer.weights_grad.tolist() == [[6, 12]]
    assert layer.bias_grad.tolist() == [6]


def test_softmax_rows_are_probabilities_and_ignore_a_common_shift() -> None:
    x = np.array([[1.0, 2.0, 3.0], [-5.0, 0.0, 5.0]])
    y = Softmax()(x)
    assert y.sum(axis=1) == pytest.approx([1, 1])
    assert Softmax()(x + 1000) == pytest.approx(y)


def test_a_column_vector_comes_out_as_a_column_vector() -> None:
    rng = np.random.default_rng(4)
    network = Sequential([Linear(3, 1, rng=rng), Tanh(), Linear(1, 4, rng=rng), Softmax()])
    column = rng.standard_normal((3, 1)).astype(np.float32)
    row = network.forward(column.T)
    assert network.forward(column).tolist() == row.T.tolist()
    assert network.backward(np.ones((4, 1), np.float32)).shape == (3, 1)
    assert network(column).shape == (4, 1)
    assert Linear(3, 2)(column).shape == (2, 1)
    assert Softmax()(row.T).sum() == pytest.approx(1)


def test_a_softmax_of_one_value_is_rejected_because_it_would_mix_rows() -> None:
    with pytest.raises(
        ValueError, match=r"modules\.1\.inputs: expected two values a row or more for a Softmax, found 1"
    ):
        Sequential([Linear(2, 1), Softmax()])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Linear(0, 3), r"Linear\.input_size: expected a positive int, found 0"),
        (lambda: Linear(2, 2.5), r"Linear\.output_size: expected a positive int, found 2\.5"),
        (
            lambda: Conv2D((8, 8, 1), 2, kernel=0),
            r"Conv2D\.kernel: expected an int from 1 to 255 or a list of 2 \(height, width\), found 0",
        ),
        (
            lambda: Conv2D((8, 8, 1), 2, stride=0),
            r"Conv2D\.stride: expected an int above 0 or a list of 2 \(height, width\), found 0",
        ),
        (
            lambda: Conv2D((8, 8, 1), 2, padding=-1),
            r"Conv2D\.padding: expected an int of at least 0 or a list of 4 \(top, left, bottom, right\), found -1",
        ),
        (
            lambda: MaxPool2D((8, 8, 1), 0),
            r"MaxPool2D\.size: expected an int from 1 to 255 or a list of 2 \(height, width\), found 0",
        ),
        (lambda: LayerNorm(3, np.inf), r"LayerNorm\.epsilon: expected a finite float, found inf"),
        (lambda: BatchNorm(0), r"BatchNorm\.size: expected a positive int, found 0"),
        (lambda: Dropout("a"), r"Dropout\.rate: expected a finite float, found 'a'"),
    ],
)
def test_a_layer_with_an_invalid_size_is_rejected(make: Callable[[], Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_numpy_integers_are_valid_sizes() -> None:
    """JSON, in which an artifact stores them, has no NumPy integers."""
    eight, three = np.array([8, 3])
    layers = [Conv2D((eight, eight, np.int8(1)), three), LayerNorm(three, np.float32(1e-5)), Dropout(np.float64(0.5))]
    for layer in [*layers, Linear(eight, three)]:
        assert json.dumps(layer.config())


@pytest.mark.parametrize("dtype", [int, bool, complex, object, np.longdouble])
def test_a_type_other_than_a_float_is_rejected(dtype: type) -> None:
    with pytest.raises(ValueError, match=r"Linear\.dtype: expected float32, float64 or float16, found "):
        Linear(2, 3, dtype=dtype)


def test_numbers_of_the_other_byte_order_are_converted() -> None:
    layer = Linear(2, 3, dtype=">f4")
    assert layer.dtype == layer(np.ones((1, 2), ">f8")).dtype == np.float32


def test_an_error_names_both_shapes_of_a_wrong_width() -> None:
    with pytest.raises(ValueError, match=r"expected inputs of shape \(batch, 3\), found \(4, 2\)"):
        Linear(3, 2)(np.zeros((4, 2)))
    with pytest.raises(ValueError, match=r"expected inputs of shape \(batch, 3\), found \(3,\)"):
        Sequential([Linear(3, 2)])(np.zeros(3))


def test_assigning_weights_of_another_shape_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"Linear.weights: expected shape \(2, 3\), found \(3, 2\)"):
        Linear(3, 2).weights = np.zeros((3, 2))


@pytest.mark.parametrize("initializer", INITIALIZERS)
def test_the_same_seed_draws_the_same_weights(initializer: str) -> None:
    one, two = (Linear(5, 4, rng=np.random.default_rng(7), initializer=initializer) for _ in range(2))
    assert (one.weights == two.weights).all()
    assert (one.bias == two.bias).all()


@pytest.mark.parametrize(
    ("initializer", "variance"),
    [
        ("normal", 1),
        ("lecun_normal", 1 / 300),
        ("lecun_uniform", 1 / 300),
        ("glorot_normal", 2 / 500),
        ("glorot_uniform", 2 / 500),
        ("he_normal", 2 / 300),
        ("he_uniform", 2 / 300),
        ("orthogonal", 1 / 300),
        ("zeros", 0),
    ],
)
def test_initializers_have_the_variance_of_their_papers(initializer: str, variance: float) -> None:
    layer = Linear(300, 200, rng=np.random.default_rng(8), initializer=initializer)
    assert layer.weights.var() == pytest.approx(variance, rel=0.03)
    if initializer.endswith("uniform"):
        assert np.abs(layer.weights).max() == pytest.approx(np.sqrt(3 * variance), rel=0.001)


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (5, 5)])
def test_orthogonal_weights_are_orthogonal(shape: tuple[int, int]) -> None:
    w = Linear(shape[1], shape[0], rng=np.random.default_rng(9), initializer="orthogonal", dtype=np.float64).weights
    gram = w @ w.T if shape[0] <= shape[1] else w.T @ w
    np.testing.assert_allclose(gram, np.eye(min(shape)), atol=1e-12)


def test_an_initializer_is_known_by_the_first_name_of_its_author() -> None:
    assert INITIALIZERS["xavier_uniform"] is INITIALIZERS["glorot_uniform"]
    assert INITIALIZERS["kaiming_normal"] is INITIALIZERS["he_normal"]


def test_an_error_for_an_unknown_initializer_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"expected one of normal, .*; found 'xavier'"):
        Linear(2, 2, initializer="xavier")


class Scale(Module):
    """A layer as a reader of the article would write it: forward and backward only."""

    def __init__(self) -> None:
        self.factor = np.array([2.0])
        self.factor_grad = np.zeros(1)

    def forward(self, inputs: np.ndarray) -> np.ndarray:
        self.inputs = inputs
        return inputs * self.factor

    def backward(self, output_grad: np.ndarray) -> np.ndarray:
        self.factor_grad += np.sum(output_grad * self.inputs)
        return output_grad * self.factor

    def parameters(self) -> list[np.ndarray]:
        return [self.factor]

    def gradients(self) -> list[np.ndarray]:
        return [self.factor_grad]


class Softplus(Activation):
    def activation(self, inputs: np.ndarray) -> np.ndarray:
        return np.logaddexp(0, inputs)

    def activation_prime(self, inputs: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-inputs))


def test_custom_layers_work_in_a_network() -> None:
    rng = np.random.default_rng(5)
    scale = Scale()
    network = Sequential([Linear(2, 3, dtype=np.float64, rng=rng), Softplus(), scale])
    assert check_gradients(network, rng.standard_normal((4, 2)), rng=rng) < 1e-6
    assert np.shares_memory(scale.factor, network.parameter_vector)


def test_calling_a_module_with_only_forward_changes_nothing() -> None:
    scale = Scale()
    assert scale(np.ones((1, 2))).tolist() == [[2, 2]]
    assert not hasattr(scale, "inputs")


def test_default_weights_have_glorots_variance_and_a_bias_of_0() -> None:
    """Standard normal weights of many inputs saturate the next activation."""
    rng = np.random.default_rng(30)
    for layer, fans in ((Linear(300, 200, rng=rng), 500), (Conv2D((9, 9, 20), 40, 5, rng=rng), 25 * 60)):
        assert layer.weights.var() == pytest.approx(2 / fans, rel=0.05)
        assert np.abs(layer.weights).max() <= np.sqrt(6 / fans)
        assert not layer.bias.any()
    built = build([{"type": "Linear", "input_size": 300, "output_size": 200}], rng=rng)
    assert built.arrays()["modules.0.weights"].var() == pytest.approx(2 / 500, rel=0.05)
