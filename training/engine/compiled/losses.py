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


def compile_loss(loss: Loss, y_true: Array, y_pred: Array, error: Array) -> CompiledLoss:
    """Compile `loss` for targets in `y_true` and predictions in `y_pred`; its calls set the 0-d `error`."""
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
    loss: SoftmaxCrossEntropy, y_true: Array, y_pred: Array, error: Array
) -> CompiledLoss:
    z, m, y = y_pred, len(y_pred), y_true
    prime, transposed = np.empty_like(z), np.empty(z.shape[::-1], z.dtype)
    summed, logs = np.empty((m, 1), z.dtype), np.empty((m, 1), z.dtype)
    ones, c = np.ones(z.shape[1], z.dtype), np.ones((m, 1), z.dtype)
    true_sum, total = np.empty((), z.dtype), np.empty((), z.dtype)
    weigh: list[Call] = []
    softmax: list[Call] = [(np.divide, (prime, summed, prime))]
    if loss.weights is not None:
        y = np.empty_like(y_true)
        w = loss.class_weight_vector(z.shape[1], z.dtype)
        weigh = [(np.multiply, (y_true, w, y)), (y.dot, (ones, c[:, 0]))]
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


def _compile_sigmoid_binary_cross_entropy(
    loss: SigmoidBinaryCrossEntropy, y_true: Array, y_pred: Array, error: Array
) -> CompiledLoss:
    """Compile with `sigmoid z = (1 + tanh z/2) / 2`, in which nothing overflows."""
    z, n = y_pred, y_pred.size
    y, c, sigmoid, prime, softplus = (np.empty_like(z) for _ in range(5))
    half, true_sum, total = scalar(0.5, z), np.empty((), z.dtype), np.empty((), z.dtype)
    calls: list[Call] = [
        (np.multiply, (y_true, scalar(loss.positive_weight, z), y)),
        (np.multiply, (y_true, scalar(loss.positive_weight - loss.negative_weight, z), c)),
        (np.add, (c, scalar(loss.negative_weight, z), c)),
        (np.multiply, (z, half, sigmoid)),
        (np.tanh, (sigmoid, sigmoid)),
        (np.multiply, (sigmoid, half, sigmoid)),
        (np.add, (sigmoid, half, sigmoid)),
        (np.absolute, (z, softplus)),
        (np.negative, (softplus, softplus)),
        (np.exp, (softplus, softplus)),
        (np.log1p, (softplus, softplus)),
        (partial(np.maximum, out=prime), (z, np.zeros_like(z))),
        (np.add, (softplus, prime, softplus)),
        (softplus.reshape(-1).dot, (c.reshape(-1), total)),
        (y.reshape(-1).dot, (z.reshape(-1), true_sum)),
        (np.subtract, (total, true_sum, error)),
        (np.multiply, (sigmoid, c, prime)),
        (np.subtract, (prime, y, prime)),
    ]
    return CompiledLoss(prime, calls, 1 / n, 1 / n)


LOSS_COMPILERS: dict[type[Loss], LossCompiler] = {
    MSE: _compile_mse,
    MAE: _compile_mae,
    Huber: _compile_huber,
    SoftmaxCrossEntropy: _compile_softmax_cross_entropy,
    SigmoidBinaryCrossEntropy: _compile_sigmoid_binary_cross_entropy,
}
