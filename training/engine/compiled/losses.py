"""Compilers of losses, by exact type, as for modules."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from model_store.nn import Array
from training.losses import MAE, MSE, Huber, Loss, SigmoidBinaryCrossEntropy, SoftmaxCrossEntropy
from training.tracer import Call, call_into, scalar


class CompiledLoss(NamedTuple):
    """A loss compiled for targets and predictions that always lie in the same arrays.

    `∂E/∂Y` is `prime` times `prime_factor`, which the step multiplies together with the other factors of the gradients.
    The loss is `error` times `error_factor`, which costs no call.
    """

    prime: Array
    calls: list[Call]  # fill `prime` and `error`
    prime_factor: float
    error_factor: float


LossCompiler = Callable[[Any, Array, Array, Array], CompiledLoss]  # of a loss, y_true, y_pred and the 0-d error


def compile_loss(
    loss: Loss, y_true: Array, y_pred: Array, error: Array, *, rows_sum_to_1: bool = False
) -> CompiledLoss:
    """Compile `loss` for targets in `y_true` and predictions in `y_pred`; its calls set the 0-d `error`.

    rows_sum_to_1: whether this is exactly true of all targets, which saves calls. Other types than float32 and float64
        are compiled generically: sums in float16 overflow.
    """
    if y_pred.dtype not in (np.float32, np.float64) or y_true.dtype != y_pred.dtype:
        return _compile_loss_generic(loss, y_true, y_pred, error)
    if rows_sum_to_1 and type(loss) is SoftmaxCrossEntropy and loss.weights is None:
        return _compile_softmax_cross_entropy(loss, y_true, y_pred, error, rows_sum_to_1=True)
    return LOSS_COMPILERS.get(type(loss), _compile_loss_generic)(loss, y_true, y_pred, error)


def _compile_loss_generic(loss: Loss, y_true: Array, y_pred: Array, error: Array) -> CompiledLoss:
    prime = np.empty_like(y_pred)
    calls = [call_into(error, loss.loss, y_true, y_pred), call_into(prime, loss.loss_prime, y_true, y_pred)]
    return CompiledLoss(prime, calls, 1.0, 1.0)


def _compile_mse(_: MSE, y_true: Array, y_pred: Array, error: Array) -> CompiledLoss:
    d = np.empty_like(y_pred)
    calls: list[Call] = [(np.subtract, (y_pred, y_true, d)), (d.reshape(-1).dot, (d.reshape(-1), error))]
    return CompiledLoss(d, calls, 2 / d.size, 1 / d.size)


def _compile_mae(_: MAE, y_true: Array, y_pred: Array, error: Array) -> CompiledLoss:
    d, prime = np.empty_like(y_pred), np.empty_like(y_pred)
    calls: list[Call] = [
        (np.subtract, (y_pred, y_true, d)),
        (np.sign, (d, prime)),
        (d.reshape(-1).dot, (prime.reshape(-1), error)),
    ]
    return CompiledLoss(prime, calls, 1 / d.size, 1 / d.size)


def _compile_huber(loss: Huber, y_true: Array, y_pred: Array, error: Array) -> CompiledLoss:
    """Compile `h(d) = c (d - c/2)`, `c = clip(d, -delta, delta)`: the signs cancel."""
    d, c, half = (np.empty_like(y_pred) for _ in range(3))
    calls: list[Call] = [
        (np.subtract, (y_pred, y_true, d)),
        (partial(np.minimum, out=c), (d, scalar(loss.delta, d))),
        (partial(np.maximum, out=c), (c, scalar(-loss.delta, d))),
        (np.multiply, (c, scalar(0.5, d), half)),
        (np.subtract, (d, half, d)),
        (d.reshape(-1).dot, (c.reshape(-1), error)),
    ]
    return CompiledLoss(c, calls, 1 / d.size, 1 / d.size)


def _compile_softmax_cross_entropy(
    loss: SoftmaxCrossEntropy, y_true: Array, y_pred: Array, error: Array, *, rows_sum_to_1: bool = False
) -> CompiledLoss:
    if y_pred.ndim != 2:
        return _compile_loss_generic(loss, y_true, y_pred, error)
    z, m = y_pred, len(y_pred)
    prime, transposed = np.empty_like(z), np.empty(z.shape[::-1], z.dtype)
    summed, logs = np.empty((m, 1), z.dtype), np.empty((m, 1), z.dtype)
    ones, c = np.ones(z.shape[1], z.dtype), np.ones((m, 1), z.dtype)
    true_sum, total = np.empty((), z.dtype), np.empty((), z.dtype)
    y, weigh = _smooth_labels(loss, y_true)
    softmax: list[Call] = [(np.divide, (prime, summed, prime))]
    if loss.weights is not None:
        weights, smoothed, y = loss.class_weight_vector(z.shape[1], z.dtype), y, np.empty_like(y_true)
        weigh.append((np.multiply, (smoothed, weights, y)))
    if not rows_sum_to_1:  # else c is 1
        weigh.append((y.dot, (ones, c[:, 0])))
        softmax.append((np.multiply, (prime, c, prime)))
    calls: list[Call] = [
        *weigh,
        (np.copyto, (transposed, z.T)),  # the maximum of 1024 rows of 10 takes 44 µs along rows, 4 µs along columns
        (partial(np.maximum.reduce, axis=0, out=summed[:, 0]), (transposed,)),
        (np.subtract, (z, summed, prime)),  # not in z itself: the gradient of an activation before it needs z
        (y.reshape(-1).dot, (prime.reshape(-1), true_sum)),
        (np.exp, (prime, prime)),
        (prime.dot, (ones, summed[:, 0])),
        (np.log, (summed, logs)),
        (c[:, 0].dot, (logs[:, 0], total)),
        (np.subtract, (total, true_sum, error)),
        *softmax,
        (np.subtract, (prime, y, prime)),
    ]
    return CompiledLoss(prime, calls, 1 / m, 1 / m)


def _smooth_labels(loss: SoftmaxCrossEntropy | SigmoidBinaryCrossEntropy, y_true: Array) -> tuple[Array, list[Call]]:
    """Return the array of `(1 - ε) y* + ε/k`, k classes, and the calls that fill it; without smoothing y* itself."""
    if not loss.label_smoothing:
        return y_true, []
    smoothed = np.empty_like(y_true)
    classes = y_true.shape[-1] if isinstance(loss, SoftmaxCrossEntropy) else 2
    return smoothed, [
        (np.multiply, (y_true, scalar(1 - loss.label_smoothing, y_true), smoothed)),
        (np.add, (smoothed, scalar(loss.label_smoothing / classes, y_true), smoothed)),
    ]


def _compile_sigmoid_binary_cross_entropy(
    loss: SigmoidBinaryCrossEntropy, y_true: Array, y_pred: Array, error: Array
) -> CompiledLoss:
    """Compile with `ln σ(±z) = min(±z, 0) - ln(1 + e^-|z|)`, in which nothing overflows or cancels.

    `min(-z, 0)` is `min(z, 0) - z`, and `-|z|` the sum of both: z or 0 is subtracted, so both are exact.
    """
    z, n = y_pred, y_pred.size
    negative, log_true, log_false, softplus, prime = (np.empty_like(z) for _ in range(5))
    true_sum, false_sum = np.empty((), z.dtype), np.empty((), z.dtype)
    y_true, smooth = _smooth_labels(loss, y_true)
    positive = y_true
    w0, w1 = (np.asarray(weights, z.dtype) for weights in (loss.negative_weight, loss.positive_weight))
    weigh: list[Call] = [*smooth, (np.subtract, (scalar(1, z), y_true, negative))]
    if (w0 != 1).any():
        weigh.append((np.multiply, (negative, w0, negative)))
    if (w1 != 1).any():
        positive = np.empty_like(z)
        weigh.append((np.multiply, (y_true, w1, positive)))
    calls: list[Call] = [
        *weigh,
        (partial(np.minimum, out=log_true), (z, np.zeros_like(z))),
        (np.subtract, (log_true, z, log_false)),
        (np.add, (log_true, log_false, softplus)),
        (np.exp, (softplus, softplus)),
        (np.log1p, (softplus, softplus)),
        (np.subtract, (log_true, softplus, log_true)),
        (np.subtract, (log_false, softplus, log_false)),
        (positive.reshape(-1).dot, (log_true.reshape(-1), true_sum)),
        (negative.reshape(-1).dot, (log_false.reshape(-1), false_sum)),
        (np.add, (true_sum, false_sum, error)),
        (np.exp, (log_true, log_true)),
        (np.exp, (log_false, log_false)),
        (np.multiply, (negative, log_true, prime)),
        (np.multiply, (positive, log_false, log_false)),
        (np.subtract, (prime, log_false, prime)),
    ]
    return CompiledLoss(prime, calls, 1 / n, -1 / n)


LOSS_COMPILERS: dict[type[Loss], LossCompiler] = {
    MSE: _compile_mse,
    MAE: _compile_mae,
    Huber: _compile_huber,
    SoftmaxCrossEntropy: _compile_softmax_cross_entropy,
    SigmoidBinaryCrossEntropy: _compile_sigmoid_binary_cross_entropy,
}
