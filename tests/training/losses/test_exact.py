"""Losses are exact at any logits, targets and weights: plain, fused and compiled forms against extended precision."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store.nn import Array, Linear, Sequential, Sigmoid, Softmax
from training import MAE, MSE, SGD, BinaryCrossEntropy, CrossEntropy, Huber, Loss, check_loss, train
from training.engine.compiled import CompiledStep
from training.engine.compiled.losses import compile_loss
from training.losses import SigmoidBinaryCrossEntropy, SoftmaxCrossEntropy

SEEDS = st.integers(0, 2**32 - 1)
DTYPES = st.sampled_from([np.float16, np.float32, np.float64])
TARGETS = st.sampled_from(["one-hot", "soft", "any sum"])
LOGITS = st.sampled_from([0.1, 1.0, 20.0, 1e4, 6e4, 1e30])
REGRESSIONS: list[Loss] = [MSE(), MAE(), Huber(), Huber(0.01)]


def targets(kind: str, rows: int, columns: int, rng: np.random.Generator) -> Array:
    if kind == "one-hot":
        return np.eye(columns)[rng.integers(0, columns, rows)]
    soft = rng.random((rows, columns)) * rng.integers(0, 2, (rows, columns))
    return soft / np.maximum(soft.sum(1, keepdims=True), 1e-3) if kind == "soft" else soft


def exact(loss: Loss, y_true: Array, y_pred: Array) -> tuple[np.longdouble, Array]:
    """Loss and derivative in extended precision, by the textbook's formulas."""
    y, z = y_true.astype(np.longdouble), y_pred.astype(np.longdouble)
    if isinstance(loss, SoftmaxCrossEntropy):
        weighted = y if loss.weights is None else y * loss.weights
        log_softmax = z - z.max(1, keepdims=True)
        log_softmax -= np.log(np.exp(log_softmax).sum(1, keepdims=True))
        prime = weighted.sum(1, keepdims=True) * np.exp(log_softmax) - weighted
        return -(weighted * log_softmax).sum() / len(z), prime / len(z)
    if isinstance(loss, SigmoidBinaryCrossEntropy):
        positive, negative = loss.positive_weight * y, loss.negative_weight * (1 - y)
        softplus, mirrored = np.logaddexp(0, z), np.logaddexp(0, -z)
        prime = negative * np.exp(-mirrored) - positive * np.exp(-softplus)
        return (positive * mirrored + negative * softplus).mean(), prime / z.size
    d = z - y
    if isinstance(loss, MSE):
        return (d * d).mean(), 2 * d / d.size
    if isinstance(loss, MAE):
        return np.abs(d).mean(), np.sign(d) / d.size
    assert isinstance(loss, Huber)
    near = np.clip(d, -loss.delta, loss.delta)
    return (near * (d - near / 2)).mean(), near / d.size


def compiled(loss: Loss, y: Array, z: Array, *, rows_sum_to_1: bool = False) -> tuple[float, Array]:
    error = np.empty((), np.result_type(z.dtype, np.float32))
    prime, calls, prime_factor, error_factor = compile_loss(loss, y, z, error, rows_sum_to_1=rows_sum_to_1)
    for function, operands in calls:
        function(*operands)
    return float(error) * error_factor, prime * prime.dtype.type(prime_factor)


def check(loss: Loss, y: Array, z: Array, *, rows_sum_to_1: bool = False) -> None:
    """Compare plain and compiled loss and derivative with extended precision, within roundings of the type."""
    expected, expected_prime = exact(loss, y, z)
    softmax = isinstance(loss, SoftmaxCrossEntropy)
    weight = float(loss.weights.max()) if softmax and loss.weights is not None else 1.0
    eps, wide = (float(np.finfo(dtype).eps) for dtype in (z.dtype, np.result_type(z.dtype, np.float32)))
    largest = float(np.abs(expected_prime).max())
    tolerance = 100 * eps * (largest + weight / z.size) + 2 * float(np.finfo(z.dtype).smallest_subnormal)
    rounding = 20 * wide * weight * float(y.sum(-1).max()) if softmax else 1e-30  # of ln(1 + x), x much below 1
    for found, prime in (
        (loss.loss(y, z), loss.loss_prime(y, z)),
        compiled(loss, y, z, rows_sum_to_1=rows_sum_to_1),
    ):
        assert prime.dtype == z.dtype
        assert found == pytest.approx(float(expected), rel=100 * wide, abs=rounding)
        np.testing.assert_allclose(prime.astype(float), expected_prime.astype(float), rtol=0, atol=tolerance)


@settings(max_examples=150)
@given(SEEDS, st.integers(1, 30), st.integers(2, 5), DTYPES, TARGETS, LOGITS, st.booleans())
def test_softmax_cross_entropy_is_exact(
    seed: int, rows: int, columns: int, dtype: type, kind: str, size: float, weighted: bool
) -> None:
    rng = np.random.default_rng(seed)
    y = targets(kind, rows, columns, rng).astype(dtype)
    z = np.clip(rng.standard_normal((rows, columns)) * size, *(np.finfo(dtype).max * np.array([-0.9, 0.9]))).astype(
        dtype
    )
    loss = SoftmaxCrossEntropy(rng.random(columns) * 10 if weighted else None)
    check(loss, y, z)
    if kind == "one-hot" and not weighted:
        check(loss, y, z, rows_sum_to_1=True)


@settings(max_examples=150)
@given(SEEDS, st.integers(1, 30), st.integers(1, 3), DTYPES, TARGETS, LOGITS, st.booleans())
def test_sigmoid_binary_cross_entropy_is_exact(
    seed: int, rows: int, columns: int, dtype: type, kind: str, size: float, weighted: bool
) -> None:
    rng = np.random.default_rng(seed)
    y = np.minimum(targets(kind, rows, columns + 1, rng)[:, 1:], 1).astype(dtype)
    z = np.clip(rng.standard_normal((rows, columns)) * size, *(np.finfo(dtype).max * np.array([-0.9, 0.9]))).astype(
        dtype
    )
    own = (2, columns) if rows % 2 else 2  # of each label, or of all
    check(SigmoidBinaryCrossEntropy(rng.random(own) * 10 if weighted else (1, 1)), y, z)


@settings(max_examples=100)
@given(SEEDS, st.integers(1, 30), st.integers(1, 3), DTYPES, st.sampled_from([0.01, 1.0, 1e3, 3e4]))
@pytest.mark.parametrize("loss", REGRESSIONS, ids=["mse", "mae", "huber", "huber 0.01"])
def test_regression_losses_are_exact(loss: Loss, seed: int, rows: int, columns: int, dtype: type, size: float) -> None:
    rng = np.random.default_rng(seed)
    limit = float(np.finfo(dtype).max)
    y, z = (np.clip(rng.standard_normal((rows, columns)) * size, -limit / 4, limit / 4).astype(dtype) for _ in range(2))
    check(loss, y, z)


@given(SEEDS, st.integers(1, 20), st.integers(2, 5), TARGETS, st.booleans())
def test_fused_losses_equal_their_plain_forms(seed: int, rows: int, columns: int, kind: str, weighted: bool) -> None:
    rng = np.random.default_rng(seed)
    y, z = targets(kind, rows, columns, rng), rng.standard_normal((rows, columns)) * 5
    for loss, last in (
        (CrossEntropy(rng.random(columns) if weighted else None), Softmax()),
        (BinaryCrossEntropy(rng.random((2, columns) if rows % 2 else 2) if weighted else (1, 1)), Sigmoid()),
    ):
        _, fused = loss.fused(Sequential([Linear(2, columns), last]))
        output = last.forward(z)
        assert fused.loss(y, z) == pytest.approx(loss.loss(y, output), rel=1e-9)
        prime = last.backward(loss.loss_prime(y, output))
        np.testing.assert_allclose(fused.loss_prime(y, z), prime, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("weights", [None, [0.5, 1, 3]])
def test_derivatives_at_targets_of_any_sum_are_the_finite_differences(weights: list[float] | None) -> None:
    y = np.array([[0.2, 0.1, 0.4], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    z = np.array([[0.3, -1.0, 2.0], [1.0, 2.0, 3.0], [-1.0, 0.0, 1.0]])
    assert check_loss(SoftmaxCrossEntropy(weights), y, z) < 1e-6
    assert check_loss(CrossEntropy(weights), y, Softmax()(z)) < 1e-6
    assert check_loss(SigmoidBinaryCrossEntropy(), y, z) < 1e-6


def test_a_step_weighs_samples_by_the_sum_of_their_targets() -> None:
    """The compiled step took every sum for 1: gradients were off by up to 0.43."""
    rng = np.random.default_rng(0)
    networks = [Sequential([Linear(3, 4, dtype=float, rng=np.random.default_rng(1)), Softmax()]) for _ in range(2)]
    x, y = rng.standard_normal((6, 3)), rng.random((6, 4))
    found = CompiledStep(networks[0], CrossEntropy(), x, y, 6, whole=True).run(x, y, 0, None)
    output = networks[1].forward(x)
    networks[1].backward(CrossEntropy().loss_prime(y, output))
    assert found == pytest.approx(CrossEntropy().loss(y, output))
    np.testing.assert_allclose(networks[0].gradient_vector, networks[1].gradient_vector)
    for share in (1.0, 0.5):  # sums of 1, which saves calls, and of others
        network = Sequential([Linear(3, 4, dtype=float, rng=np.random.default_rng(1)), Softmax()])
        y = np.eye(4)[[0, 1, 2, 3, 0, 1]] * share
        expected = CrossEntropy().loss(y, network(x))
        assert train(network, x, y, CrossEntropy(), SGD(network), 1, 6, on_epoch=None) == [pytest.approx(expected)]


@pytest.mark.parametrize(
    "loss",
    [*REGRESSIONS, CrossEntropy(), SoftmaxCrossEntropy(), BinaryCrossEntropy(), SigmoidBinaryCrossEntropy()],
    ids=lambda loss: type(loss).__name__,
)
def test_targets_are_not_broadcast(loss: Loss) -> None:
    """Three targets and a column of three predictions have nine distances."""
    for compare in (loss.loss, loss.loss_prime):
        with pytest.raises(ValueError, match=r"expected y_true of shape \(3, 1\), as y_pred has, found \(3,\)"):
            compare(np.ones(3), np.full((3, 1), 0.5))


@pytest.mark.parametrize(
    "loss", [MSE(), CrossEntropy([0.5, 2.5]), BinaryCrossEntropy([0.5, 2.5])], ids=lambda v: type(v).__name__
)
@pytest.mark.parametrize("kind", [np.uint8, np.int64, bool])
def test_whole_numbers_are_targets_as_floats_are(loss: Loss, kind: type) -> None:
    """Class weights of 0.5 became 0 with targets of integers."""
    y, p = np.eye(2)[[0, 1, 1]], np.array([[0.7, 0.3], [0.4, 0.6], [0.9, 0.1]])
    assert loss.loss(y.astype(kind), p) == loss.loss(y, p)
    assert loss.loss_prime(y.astype(kind), p).tolist() == loss.loss_prime(y, p).tolist()


def test_float16_has_finite_losses_where_squares_and_sums_do_not_fit_it() -> None:
    y, z = np.zeros((300, 1), np.float16), np.full((300, 1), 300, np.float16)
    for loss, expected in ((MSE(), 90_000), (MAE(), 300), (Huber(), 299.5)):
        assert loss.loss(y, z) == compiled(loss, y, z)[0] == expected
    network = Sequential([Linear(1, 1, dtype=np.float16, initializer="zeros")])
    assert train(network, np.zeros((300, 1)), z, MSE(), SGD(network, 1e-6), 1, 300, on_epoch=None) == [90_000]


def test_losses_of_logits_do_not_cancel() -> None:
    """`max(z, 0) + ln(1 + e^-|z|) - y z` of a logit of 12 is 6.2e-6 in float32 only if nothing cancels."""
    y, z = np.ones((4, 1), np.float32), np.full((4, 1), 12, np.float32)
    loss = SigmoidBinaryCrossEntropy()
    assert loss.loss(y, z) == pytest.approx(np.log1p(np.exp(-12)), rel=1e-6)
    assert compiled(loss, y, z)[0] == pytest.approx(np.log1p(np.exp(-12)), rel=1e-6)
    mixed_y, mixed_z = np.array([[1.0], [0.0]], np.float32), np.array([[1e4], [0.0]], np.float32)
    assert compiled(loss, mixed_y, mixed_z)[0] == pytest.approx(np.log(2) / 2, rel=1e-6)
