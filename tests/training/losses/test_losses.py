"""Every loss: its formula, its derivative, extreme predictions, and its fusion with an activation."""

from pathlib import Path

import numpy as np
import pytest

from model_store.nn import Array, Exp, Linear, Sequential, Sigmoid, Softmax, Tanh
from training import MAE, MSE, SGD, BinaryCrossEntropy, CrossEntropy, Huber, Loss, check_loss, train
from training.losses import (
    LOSSES,
    Gamma,
    LogGamma,
    LogPoisson,
    Pinball,
    Poisson,
    SigmoidBinaryCrossEntropy,
    SoftmaxCrossEntropy,
)

RNG = np.random.default_rng(0)
ONE_HOT = np.eye(3)[[0, 2, 1, 1]]
PROBABILITIES = Softmax()(RNG.standard_normal((4, 3)))
NUMBERS = RNG.standard_normal((4, 3)) * 2
COUNTS = RNG.poisson(2, (4, 3)).astype(float)
CASES = [
    (MSE(), NUMBERS, RNG.standard_normal((4, 3))),
    (MAE(), NUMBERS, NUMBERS + RNG.choice([-0.5, 0.5], (4, 3))),
    (Huber(), NUMBERS, NUMBERS + RNG.choice([-3.0, -0.4, 0.4, 3.0], (4, 3))),
    (Huber(0.3), NUMBERS, NUMBERS + RNG.choice([-3.0, -0.1, 0.1, 3.0], (4, 3))),
    (CrossEntropy(), ONE_HOT, PROBABILITIES),
    (SoftmaxCrossEntropy(), ONE_HOT, NUMBERS),
    (BinaryCrossEntropy(), ONE_HOT, PROBABILITIES),
    (SigmoidBinaryCrossEntropy(), ONE_HOT, NUMBERS),
    (CrossEntropy([0.5, 1, 3]), PROBABILITIES, PROBABILITIES[::-1]),
    (SoftmaxCrossEntropy([0.5, 1, 3]), PROBABILITIES, NUMBERS),
    (BinaryCrossEntropy([0.5, 3]), PROBABILITIES, PROBABILITIES[::-1]),
    (SigmoidBinaryCrossEntropy([0.5, 3]), PROBABILITIES, NUMBERS),
    (BinaryCrossEntropy([[0.5, 1, 2], [3, 1, 4]], 0.1), PROBABILITIES, PROBABILITIES[::-1]),
    (SigmoidBinaryCrossEntropy([[0.5, 1, 2], [3, 1, 4]]), PROBABILITIES, NUMBERS),
    (CrossEntropy([0.5, 1, 3], 0.2), PROBABILITIES, PROBABILITIES[::-1]),
    (SoftmaxCrossEntropy(None, 0.2), ONE_HOT, NUMBERS),
    (BinaryCrossEntropy([0.5, 3], 0.2), PROBABILITIES, PROBABILITIES[::-1]),
    (SigmoidBinaryCrossEntropy(label_smoothing=0.2), ONE_HOT, NUMBERS),
    (Pinball(0.8), NUMBERS, NUMBERS + RNG.choice([-0.5, 0.5], (4, 3))),
    (Poisson(), COUNTS, PROBABILITIES),
    (LogPoisson(), COUNTS, NUMBERS),
    (Gamma(), COUNTS + 0.5, PROBABILITIES),
    (LogGamma(), COUNTS + 0.5, NUMBERS),
]
PYTORCH = np.load(Path(__file__).parents[2] / "fixtures" / "pytorch_steps.npz")


@pytest.mark.parametrize(
    ("loss", "y_true", "y_pred"), CASES, ids=lambda v: type(v).__name__ if isinstance(v, Loss) else ""
)
def test_loss_derivatives_are_the_finite_differences(loss: Loss, y_true: Array, y_pred: Array) -> None:
    assert check_loss(loss, y_true, y_pred.copy()) < 1e-6


@pytest.mark.parametrize(
    ("name", "expected"), [("mse", 2.5), ("mae", 1.5), ("huber", (0.5 + 1.5) / 2), ("pinball", 0.75)], ids=str
)
def test_regression_losses_have_their_textbook_values(name: str, expected: float) -> None:
    assert LOSSES[name]().loss(np.array([[1.0, 2.0]]), np.array([[2.0, 0.0]])) == pytest.approx(expected)


def test_cross_entropies_have_their_textbook_values() -> None:
    y_true, y_pred = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[0.5, 0.5], [0.75, 0.25]])
    assert CrossEntropy().loss(y_true, y_pred) == pytest.approx((np.log(2) + np.log(4)) / 2)
    one = BinaryCrossEntropy().loss(np.array([[1.0], [0.0]]), np.array([[0.5], [0.25]]))
    assert one == pytest.approx((np.log(2) + np.log(4 / 3)) / 2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("logit", [-1e4, 1e4])
@pytest.mark.parametrize("loss", [CrossEntropy(), BinaryCrossEntropy()], ids=["softmax", "sigmoid"])
def test_losses_and_gradients_stay_finite_at_extreme_logits(loss: Loss, logit: float, dtype: type) -> None:
    """The gradient of a certain mistake has the right sign, fused or not."""
    last = Softmax() if isinstance(loss, CrossEntropy) else Sigmoid()
    z, y = np.array([[logit, 0.0]], dtype), np.array([[float(logit < 0), float(logit > 0)]], dtype)
    output = last.forward(z)
    assert np.isfinite(loss.loss(y, output))
    assert np.isfinite(last.backward(loss.loss_prime(y, output))).all()
    network, fused = loss.fused(Sequential([Linear(2, 2, dtype=dtype), last]))
    assert len(network.modules) == 1  # type: ignore[attr-defined]
    assert np.isfinite(fused.loss(y, z))
    assert np.sign(fused.loss_prime(y, z)[0, 0]) == np.sign(logit)


def test_separate_softmax_and_cross_entropy_give_the_fused_gradient() -> None:
    for z in (NUMBERS, np.array([[1e4, 0.0, -1e4]])):
        y = ONE_HOT[: len(z)][:, ::-1]
        softmax = Softmax()
        apart = softmax.backward(CrossEntropy().loss_prime(y, softmax.forward(z)))
        np.testing.assert_allclose(apart, SoftmaxCrossEntropy().loss_prime(y, z), atol=1e-12)


def test_a_column_vector_is_one_sample() -> None:
    column_true, column_pred = ONE_HOT[:1].T, PROBABILITIES[:1].T
    assert CrossEntropy().loss(column_true, column_pred) == CrossEntropy().loss(ONE_HOT[:1], PROBABILITIES[:1])
    prime = CrossEntropy().loss_prime(column_true, column_pred)
    assert prime.tolist() == CrossEntropy().loss_prime(ONE_HOT[:1], PROBABILITIES[:1]).T.tolist()


def test_a_loss_after_another_activation_is_not_fused() -> None:
    network = Sequential([Linear(2, 2), Tanh()])
    for loss in (MSE(), CrossEntropy(), BinaryCrossEntropy()):
        assert loss.fused(network) == (network, loss)


def test_the_pinball_loss_is_least_at_the_quantile() -> None:
    y = np.random.default_rng(1).exponential(size=(1001, 1))
    candidates = np.linspace(0, 4, 401)
    losses = [Pinball(0.9).loss(y, np.full_like(y, value)) for value in candidates]
    assert candidates[np.argmin(losses)] == pytest.approx(np.quantile(y, 0.9), abs=0.02)
    with pytest.raises(ValueError, match=r"Pinball.quantile: expected a number between 0 and 1, found 1"):
        Pinball(1)


@pytest.mark.parametrize("loss", [Poisson(), Gamma()], ids=["poisson", "gamma"])
def test_losses_of_means_are_fused_with_exp_and_least_at_the_mean(loss: Loss) -> None:
    y = COUNTS.reshape(-1, 1) + 0.5
    network, fused = loss.fused(Sequential([Linear(1, 1), Exp()]))
    assert len(network.modules) == 1  # type: ignore[attr-defined]
    z = np.full_like(y, np.log(y.mean()))
    assert fused.loss(y, z) == pytest.approx(loss.loss(y, np.exp(z)))
    assert fused.loss_prime(y, z).sum() == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(fused.loss_prime(y, z), loss.loss_prime(y, np.exp(z)) * np.exp(z), atol=1e-12)


@pytest.mark.parametrize(
    ("loss", "target", "expected"),
    [
        (Poisson(), -1, "expected targets of at least 0 for Poisson; found -1.0"),
        (Gamma(), 0, "expected targets above 0 for Gamma; found 0.0"),
        (BinaryCrossEntropy(), 2, "expected targets from 0 to 1 for BinaryCrossEntropy; found 1.0 to 2.0"),
    ],
)
def test_targets_outside_the_range_of_a_loss_are_rejected(loss: Loss, target: float, expected: str) -> None:
    last = Sigmoid() if isinstance(loss, BinaryCrossEntropy) else Exp()
    network = Sequential([Linear(1, 1), last])
    with pytest.raises(ValueError, match=expected):
        train(network, [[1.0], [2.0]], [[1.0], [target]], loss, SGD(network), 1, on_epoch=None)


def test_label_smoothing_equals_pytorchs() -> None:
    weights, classes, logits = (PYTORCH[name] for name in ("weights", "classes", "logits"))
    loss = SoftmaxCrossEntropy(weights, 0.1)
    assert loss.loss(np.eye(2)[classes], logits) == pytest.approx(float(PYTORCH["smoothed-loss"]), rel=1e-12)
    np.testing.assert_allclose(loss.loss_prime(np.eye(2)[classes], logits), PYTORCH["smoothed-grad"], rtol=1e-10)
    with pytest.raises(ValueError, match=r"label_smoothing: expected a number in \[0, 1\), found 1"):
        CrossEntropy(label_smoothing=1)


def test_huber_rejects_a_delta_that_is_not_above_zero() -> None:
    with pytest.raises(ValueError, match="expected a number above 0, found 0"):
        Huber(0)


def test_a_class_weight_equals_repeating_the_rows_of_the_class() -> None:
    rows = np.repeat(np.arange(4), [1, 3, 2, 2])  # of classes 0, 2, 1, 1
    often = CrossEntropy().loss(ONE_HOT[rows], PROBABILITIES[rows]) * len(rows)
    once = CrossEntropy([1, 2, 3]).loss(ONE_HOT, PROBABILITIES) * 4
    assert once == pytest.approx(often)
    positive = PROBABILITIES[:, :1]
    often = BinaryCrossEntropy().loss(np.eye(1, 3).T, positive[[0, 1, 1]]) * 3
    assert BinaryCrossEntropy([2, 1]).loss(np.eye(1, 2).T, positive[:2]) * 2 == pytest.approx(often)


def test_class_weights_equal_pytorchs() -> None:
    weights, classes, logits = (PYTORCH[name] for name in ("weights", "classes", "logits"))
    prime = SoftmaxCrossEntropy(weights).loss_prime(np.eye(2)[classes], logits)
    np.testing.assert_allclose(prime, PYTORCH["logits-grad"], rtol=1e-12, atol=1e-15)
    prime = SigmoidBinaryCrossEntropy(weights).loss_prime(classes[:, None].astype(float), logits[:, :1])
    np.testing.assert_allclose(prime, PYTORCH["score-grad"], rtol=1e-12, atol=1e-15)


def test_a_column_vector_is_weighted_by_class() -> None:
    loss = CrossEntropy([1, 2, 3])
    row, column = loss.loss(ONE_HOT[1:2], PROBABILITIES[1:2]), loss.loss(ONE_HOT[1:2].T, PROBABILITIES[1:2].T)
    assert row == pytest.approx(column)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: CrossEntropy([1, -1]), "weights: expected a number of at least 0 for each class"),
        (lambda: CrossEntropy(3), "weights: expected a number"),
        (lambda: BinaryCrossEntropy([1, 2, 3]), "weights: expected 2 numbers, of at least 0 for each class"),
        (lambda: BinaryCrossEntropy([1, np.inf]), "weights: expected 2 numbers"),
    ],
)
def test_invalid_class_weights_are_rejected(make: type[Loss], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        make()
