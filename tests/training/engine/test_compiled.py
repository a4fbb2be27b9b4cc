"""A compiled step computes what forward and backward compute, for any modules, loss and batch."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store.nn import (
    Activation,
    Array,
    BatchNorm,
    Clip,
    Embedding,
    Exp,
    FeatureScale,
    Flatten,
    Identity,
    LayerNorm,
    Linear,
    MaxPool2D,
    Module,
    ParametricActivation,
    PeriodicEmbedding,
    ReLU,
    Sequential,
    Sigmoid,
    Softmax,
    Tanh,
)
from model_store.nn.arrays import SMALL_FEATURES
from model_store.nn.layers.activations import ACTIVATIONS
from training import MAE, MSE, SGD, BinaryCrossEntropy, CrossEntropy, Huber, Loss, train
from training.engine.compiled import CompiledStep, compile_module
from training.engine.compiled.layout import SMALL_BATCH, bias_augmented, empty_bias_augmented, matmul_calls
from training.losses import Poisson

LAYERS_WITHOUT_SIZES: list[type[Module]] = [*ACTIVATIONS.values(), Softmax]
LOSSES: list[tuple[Loss, type[Module]]] = [
    (MSE(), Tanh),
    (MAE(), Identity),
    (Huber(), Identity),
    (CrossEntropy(), Softmax),
    (BinaryCrossEntropy(), Sigmoid),
    (CrossEntropy([0.5, 3]), Softmax),
    (BinaryCrossEntropy([0.5, 3]), Sigmoid),
    (CrossEntropy(), Sigmoid),
    (CrossEntropy(label_smoothing=0.1), Softmax),
    (CrossEntropy([0.5, 3], 0.1), Softmax),
    (BinaryCrossEntropy([0.5, 3], 0.1), Sigmoid),
    (BinaryCrossEntropy([[0.5, 1], [3, 2]], 0.1), Sigmoid),
    (Poisson(), Exp),
]


class Doubled(Activation):
    """A custom activation, traced by no compiler."""

    def activation(self, inputs: Array) -> Array:
        return 2 * inputs

    def activation_prime(self, inputs: Array) -> Array:
        return np.full_like(inputs, 2)


def network(hidden: type[Module], last: type[Module], seed: int) -> Sequential:
    rng = np.random.default_rng(seed)
    wide = [Linear(3, 5, dtype=np.float64, rng=rng), hidden(), Doubled()]
    return Sequential([*wide, Sequential([Linear(5, 2, dtype=np.float64, rng=rng), last()])])


@pytest.mark.parametrize("hidden", LAYERS_WITHOUT_SIZES)
@pytest.mark.parametrize(("loss", "last"), LOSSES, ids=lambda v: getattr(v, "__name__", type(v).__name__))
def test_a_compiled_step_has_the_loss_and_gradients_of_forward_and_backward(
    loss: Loss, last: type[Module], hidden: type[Module]
) -> None:
    compiled, by_hand = network(hidden, last, 1), network(hidden, last, 1)
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((7, 3)), np.eye(2)[rng.integers(0, 2, 7)]
    step = CompiledStep(compiled, loss, x, y, 4)
    for order in (None, rng.permutation(7)):
        rows = np.arange(4) + 2 if order is None else order[2:6]
        inner, fused = loss.fused(by_hand)
        output = inner.forward(x[rows])
        by_hand.gradient_vector.fill(0)
        inner.backward(fused.loss_prime(y[rows], output))
        assert step.run(x, y, 2, order) == pytest.approx(fused.loss(y[rows], output), rel=1e-12)
        np.testing.assert_allclose(compiled.gradient_vector, by_hand.gradient_vector, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("rows", [1, 4, SMALL_BATCH, SMALL_BATCH + 1])
@pytest.mark.parametrize("width", [1, 5, SMALL_FEATURES, SMALL_FEATURES + 1])
@pytest.mark.parametrize("between", [Tanh, ReLU, BatchNorm, LayerNorm, Softmax])
@pytest.mark.parametrize("whole", [True, False])
def test_small_and_large_layers_learn_alike_with_any_layer_between(
    rows: int, width: int, between: type[Module], whole: bool
) -> None:
    """Small layers have the bias in the product, and another memory layout."""

    def made() -> Sequential:
        rng = np.random.default_rng(width)
        modules: list[Module] = []
        for inputs, outputs in ((5, width), (width, 3), (3, SMALL_FEATURES + 1), (SMALL_FEATURES + 1, 2)):
            modules.append(Linear(inputs, outputs, dtype=np.float64, rng=rng))
            if between is not Softmax or outputs > 1:
                modules.append(between(outputs, dtype=np.float64) if between in (BatchNorm, LayerNorm) else between())
        return Sequential(modules)

    compiled, by_hand = made(), made()
    rng = np.random.default_rng(rows)
    x, y = rng.standard_normal((rows if whole else 2 * rows, 5)), rng.standard_normal((rows if whole else 2 * rows, 2))
    first = 0 if whole else rows
    for order in (None, rng.permutation(len(x))):
        step = CompiledStep(compiled, MSE(), x, y, rows, whole=whole)
        some = slice(first, first + rows) if order is None else order[first : first + rows]
        output = by_hand.forward(x[some])
        by_hand.gradient_vector.fill(0)
        by_hand.backward(MSE().loss_prime(y[some], output))
        assert step.run(x, y, first, order) == pytest.approx(MSE().loss(y[some], output), rel=1e-12)
        np.testing.assert_allclose(compiled.gradient_vector, by_hand.gradient_vector, rtol=1e-7, atol=1e-10)


@settings(max_examples=60)
@given(st.data())
def test_a_compiled_step_of_any_network_has_the_gradients_of_forward_and_backward(data: st.DataObject) -> None:
    """To six digits: the fused sigmoid rounds probabilities near 0 differently."""
    rows, seed = data.draw(st.integers(1, 40) | st.just(SMALL_BATCH + 1)), data.draw(st.integers(0, 2**32 - 1))
    widths = data.draw(st.lists(st.sampled_from([1, 2, 5, SMALL_FEATURES, SMALL_FEATURES + 1]), min_size=2, max_size=4))
    between = [BatchNorm, LayerNorm, Doubled, *LAYERS_WITHOUT_SIZES]
    chosen = [data.draw(st.lists(st.sampled_from(between), max_size=2)) for _ in widths[1:]]
    loss, last = data.draw(st.sampled_from(LOSSES))

    def made() -> Sequential:
        rng = np.random.default_rng(seed)
        modules: list[Module] = []
        for inputs, outputs, kinds in zip(widths[:-1], [*widths[1:-1], 2], chosen, strict=True):
            modules.append(Linear(inputs, outputs, dtype=np.float64, rng=rng, initializer="glorot_normal"))
            kinds = [kind for kind in kinds if kind is not Softmax or outputs > 1]
            modules += [kind(outputs, dtype=float) if kind in (BatchNorm, LayerNorm) else kind() for kind in kinds]
        return Sequential([*modules, last()])

    compiled, by_hand = made(), made()
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((rows, widths[0])), np.eye(2)[rng.integers(0, 2, rows)]
    inner, fused = loss.fused(by_hand)
    output = inner.forward(x)
    inner.backward(fused.loss_prime(y, output))
    assert CompiledStep(compiled, loss, x, y, rows, whole=True).run(x, y, 0, None) == pytest.approx(
        fused.loss(y, output), rel=1e-6
    )
    size = max(1, np.abs(by_hand.gradient_vector).max())
    np.testing.assert_allclose(compiled.gradient_vector / size, by_hand.gradient_vector / size, rtol=0, atol=1e-6)


TABULAR: dict[str, Callable[[np.random.Generator], list[Module]]] = {
    "feature scale": lambda _: [FeatureScale(4, dtype=np.float64)],
    "parametric selu": lambda _: [ParametricActivation(4, "selu", dtype=np.float64)],
    "parametric mish": lambda _: [ParametricActivation(4, "mish", dtype=np.float64)],
    "clip": lambda _: [Clip(4, dtype=np.float64)],
    "embedding": lambda rng: [Embedding(4, [1], [3], 2, dtype=np.float64, rng=rng)],
    "embedding of all": lambda rng: [Embedding(4, [0, 1, 2, 3], [3, 2, 1, 2], 3, dtype=np.float64, rng=rng)],
    "periodic": lambda rng: [PeriodicEmbedding(4, [0, 2], 3, 2, dtype=np.float64, rng=rng)],
    "periodic of all": lambda rng: [PeriodicEmbedding(4, [0, 1, 2, 3], 5, 4, dtype=np.float64, rng=rng)],
    "embedding, periodic": lambda rng: [
        Embedding(4, [1, 2], [3, 30], 4, dtype=np.float64, rng=rng),
        PeriodicEmbedding(10, [0, 1], 3, 4, dtype=np.float64, rng=rng),
    ],
    "norm before an embedding": lambda rng: [
        LayerNorm(4, dtype=np.float64),  # whose gradient is computed in place
        Embedding(4, [1], [3], 2, dtype=np.float64, rng=rng),
    ],
}


@pytest.mark.parametrize("hidden", [True, False])
@pytest.mark.parametrize("name", TABULAR)
def test_a_compiled_step_with_layers_for_tables_has_the_gradients_of_forward_and_backward(
    name: str, hidden: bool
) -> None:
    def made() -> Sequential:
        rng = np.random.default_rng(0)
        layers = TABULAR[name](rng)
        width = (Sequential(layers).output_shape((4,)) or ())[0]
        before: list[Module] = [Linear(4, 4, dtype=np.float64, rng=rng), Tanh()] if hidden else []
        net = Sequential([*before, *layers, Linear(width, 2, dtype=np.float64, rng=rng)])
        for array in net.parameters():
            array += 0.1 * rng.standard_normal(array.shape)
        return net

    compiled, by_hand = made(), made()
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((20, 4)), rng.standard_normal((20, 2))
    step, order = CompiledStep(compiled, MSE(), x, y, 8), rng.permutation(20)
    for start in (0, 8):
        rows = order[start : start + 8]
        output = by_hand.forward(x[rows])
        by_hand.gradient_vector.fill(0)
        by_hand.backward(MSE().loss_prime(y[rows], output))
        assert step.run(x, y, start, order) == pytest.approx(MSE().loss(y[rows], output), rel=1e-12)
        np.testing.assert_allclose(compiled.gradient_vector, by_hand.gradient_vector, rtol=1e-10, atol=1e-13)


class Steep(Tanh):
    """`tanh 2x`."""

    def activation(self, inputs: Array) -> Array:
        return super().activation(2 * inputs)

    def activation_prime(self, inputs: Array) -> Array:
        return 2 * super().activation_prime(2 * inputs)


class NoBias(Module):
    """A mixin."""

    def forward(self, inputs: Array) -> Array:
        return super().forward(inputs) - vars(self)["_bias"]

    def backward(self, output_grad: Array) -> Array:
        input_grad = super().backward(output_grad)
        vars(self)["bias_grad"].fill(0)
        return input_grad


class Straight(NoBias, Linear):
    pass


class Smoothed(CrossEntropy):
    """Cross-entropy with a tenth of label smoothing."""

    def loss(self, y_true: Array, y_pred: Array) -> float:
        return super().loss(0.9 * y_true + 0.05, y_pred)

    def loss_prime(self, y_true: Array, y_pred: Array) -> Array:
        return super().loss_prime(0.9 * y_true + 0.05, y_pred)


class Doubt(MSE):
    """Half the error."""

    def loss(self, y_true: Array, y_pred: Array) -> float:
        return super().loss(y_true, y_pred) / 2

    def loss_prime(self, y_true: Array, y_pred: Array) -> Array:
        return super().loss_prime(y_true, y_pred) / 2


@pytest.mark.parametrize("rows", [4, SMALL_BATCH + 1])
@pytest.mark.parametrize(
    ("layer", "middle", "loss"),
    [(Linear, Steep, MSE()), (Straight, Tanh, MSE()), (Linear, Tanh, Smoothed()), (Linear, Tanh, Doubt())],
)
def test_a_subclass_is_trained_by_its_own_passes(
    layer: type[Linear], middle: type[Tanh], loss: Loss, rows: int
) -> None:
    def made() -> Sequential:
        rng = np.random.default_rng(8)
        return Sequential([layer(3, 2, dtype=np.float64, rng=rng), middle(), Softmax()])

    compiled, by_hand = made(), made()
    rng = np.random.default_rng(9)
    x, y = rng.standard_normal((rows, 3)), np.eye(2)[rng.integers(0, 2, rows)]
    output = by_hand.forward(x)
    by_hand.backward(loss.loss_prime(y, output))
    assert CompiledStep(compiled, loss, x, y, rows, whole=True).run(x, y, 0, None) == pytest.approx(
        loss.loss(y, output), rel=1e-12
    )
    np.testing.assert_allclose(compiled.gradient_vector, by_hand.gradient_vector, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("make", [lambda: LayerNorm(3, dtype=float), lambda: BatchNorm(3, dtype=float), Tanh, Doubled])
def test_a_single_layer_is_trained_in_any_memory_layout(make: Callable[[], Module]) -> None:
    """Also for feature-major inputs or outputs, and for a second batch."""
    compiled, by_hand = make(), make()
    rng = np.random.default_rng(11)
    step = CompiledStep(compiled, MSE(), rng.standard_normal((6, 3)), rng.standard_normal((6, 3)), 6, whole=True)
    for _ in range(2):
        x, y = rng.standard_normal((6, 3)), rng.standard_normal((6, 3))
        output = by_hand.forward(x)
        for gradient in by_hand.gradients():
            gradient.fill(0)
        by_hand.backward(MSE().loss_prime(y, output))
        assert step.run(x, y, 0, None) == pytest.approx(MSE().loss(y, output), rel=1e-9)
        for gradient, expected in zip(compiled.gradients(), by_hand.gradients(), strict=True):
            np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-12)


def test_a_small_layer_takes_one_product_forward_and_one_for_its_gradients() -> None:
    """These are all calls of the article's XOR network."""
    net = Sequential([Linear(2, 3), Tanh(), Linear(3, 1), Tanh()])
    step = CompiledStep(net, MSE(), np.zeros((4, 2), np.float32), np.zeros((4, 1), np.float32), 4, whole=True)
    names = [function.__name__ for function, _ in step.calls]
    assert names == [
        *("dot", "tanh", "dot", "tanh"),
        *("subtract", "dot", "multiply"),
        *("square", "subtract", "multiply", "dot", "dot"),
        *("square", "subtract", "multiply", "dot"),
    ]


def test_only_a_bias_augmented_array_is_recognized_as_one() -> None:
    room = empty_bias_augmented(np.zeros((4, 3)))
    room[...] = 7
    whole = bias_augmented(room)
    assert whole is not None
    assert whole.tolist() == [[7, 7, 7, 1]] * 4
    for other in (np.zeros((4, 3)), np.zeros((4, 4)).T[:-1].T, np.zeros((3, 4)).T, room[1:], room[:, 1:]):
        assert bias_augmented(other) is None


@settings(max_examples=60)
@given(st.integers(1, 300), st.integers(1, 1200), st.integers(1, 300), st.sampled_from([np.float32, np.float64]))
def test_a_product_in_row_blocks_equals_the_product(rows: int, inner: int, columns: int, dtype: type) -> None:
    rng = np.random.default_rng(rows)
    a, b, out = (
        rng.standard_normal((rows, inner)),
        rng.standard_normal((columns, inner)),
        np.full((rows, columns), np.nan),
    )
    a, b, out = (array.astype(dtype) for array in (a, b, out))
    for function, operands in matmul_calls(a, b.T, out):
        function(*operands)
    np.testing.assert_allclose(out, a @ b.T, rtol=1e-4, atol=1e-3)


def test_layers_before_the_first_with_parameters_have_no_backward_pass() -> None:
    """The gradient with respect to the data is not needed."""

    class Watched(Tanh):
        def backward(self, output_grad: Array) -> Array:
            raise AssertionError("derived for nothing")

        def activation_prime(self, inputs: Array) -> Array:
            raise AssertionError("derived for nothing")

    rng = np.random.default_rng(3)
    net = Sequential([Watched(), Linear(2, 1, rng=rng)])
    errors = train(net, [[0.0, 1.0]], [[1.0]], MSE(), SGD(net), 3, on_epoch=None)
    assert errors[-1] < errors[0]


def test_images_may_be_pooled_before_the_first_layer_with_parameters() -> None:
    """Layers without parameters before them compute no input gradient, of any shape."""
    first: list[Module] = [MaxPool2D((4, 4, 1), 2), Flatten((2, 2, 1))]
    compiled, by_hand = (
        Sequential([*first, Linear(4, 1, dtype=np.float64, rng=np.random.default_rng(3))]) for _ in "ab"
    )
    x, y = np.random.default_rng(4).standard_normal((5, 16)), np.ones((5, 1))
    CompiledStep(compiled, MSE(), x, y, 5, whole=True).run(x, y, 0, None)
    by_hand.backward(MSE().loss_prime(y, by_hand.forward(x)))
    np.testing.assert_allclose(compiled.gradient_vector, by_hand.gradient_vector, rtol=1e-12)


def test_existing_gradients_do_not_affect_a_training() -> None:
    one, two = network(Tanh, Identity, 4), network(Tanh, Identity, 4)
    two.gradient_vector[:] = 1e6
    x, y = np.eye(3), np.ones((3, 2))
    assert train(one, x, y, MSE(), SGD(one), 3, on_epoch=None) == train(two, x, y, MSE(), SGD(two), 3, on_epoch=None)
    assert not two.gradient_vector.any()


def test_the_learning_rate_may_change_between_steps() -> None:
    net = Sequential([Linear(1, 1, dtype=np.float64, rng=np.random.default_rng(5))])
    optimizer = SGD(net, 0.5, momentum=0)
    before = net.parameter_vector.copy()
    net.gradient_vector[:] = 1
    optimizer.learning_rate = 0.25
    optimizer.step()
    assert optimizer.learning_rate == 0.25
    assert net.parameter_vector.tolist() == (before - 0.25).tolist()


def test_a_learning_rate_set_after_an_epoch_applies_to_the_next() -> None:
    class Own(SGD):
        """Takes gradients without the rate."""

    found = []
    for kind in (SGD, Own):
        net = network(Tanh, Identity, 4)
        optimizer = kind(net, 0.1, 0.9)

        def slow_down(epoch: int, epochs: int, error: float, optimizer: SGD = optimizer) -> None:
            optimizer.learning_rate = 0.1 / (epoch + 1)

        train(net, np.eye(3), np.ones((3, 2)), MSE(), optimizer, 5, 2, on_epoch=slow_down)
        found.append(net.parameter_vector)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-12)


def test_compiling_a_layer_does_not_change_it() -> None:
    class Counting(Doubled):
        calls = 0

        def forward(self, inputs: Array) -> Array:
            self.calls += 1
            return super().forward(inputs)

    counting = Counting()
    net = Sequential([Linear(2, 2, rng=np.random.default_rng(6)), counting])
    train(net, np.ones((4, 2)), np.ones((4, 2)), MSE(), SGD(net), 3, 2, on_epoch=None)
    assert counting.calls == 6


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("times", [1, 2, 3, 5, 64])
def test_relu_passes_gradients_only_where_its_input_is_above_zero(dtype: type, times: int) -> None:
    """For any length, because a vector loop treats its remainder differently: -0.0 must become 0.0 there too."""
    tiny = np.finfo(dtype).smallest_subnormal
    x = np.tile(np.array([[-0.0, -1, -tiny, 0.0, tiny, 1, 3, np.inf, -0.0]], dtype), times)
    outputs, forward, compile_backward = compile_module(ReLU(), x)
    dy = np.linspace(-2, 2, x.size, dtype=dtype).reshape(x.shape)
    _, backward = compile_backward(dy, True)
    expected = dy * (x > 0)
    for function, operands in [*forward, *backward]:
        function(*operands)
    assert outputs.tolist() == np.maximum(x, 0).tolist()
    assert not np.signbit(outputs).any()
    assert dy.tolist() == expected.tolist()


@pytest.mark.parametrize(("rows", "outputs"), [(1, 1), (1, 3), (5, 1), (5, 3), (900, 3)])
def test_every_way_of_adding_a_bias_is_correct(rows: int, outputs: int) -> None:
    rng = np.random.default_rng(7)
    layer, x = Linear(2, outputs, dtype=np.float64, rng=rng), rng.standard_normal((rows, 2))
    found, forward, _ = compile_module(layer, x)
    for function, operands in forward:
        function(*operands)
    np.testing.assert_allclose(found, x @ layer.weights.T + layer.bias, rtol=1e-12, atol=1e-15)
