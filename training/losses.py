"""Losses: how far a prediction is from the truth, each beside its derivative.

`loss(y_true, y_pred)` is a mean over the batch, so gradients do not grow with it; `loss_prime` is `∂E/∂Y`, shaped
like `y_pred` (batch, outputs). Single samples may be the article's column vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from model_store.nn import Array, Linear, Module, Sequential, Sigmoid, Softmax
from model_store.nn.tape import Line, copied, scalar, unless_changed

Recorded = tuple[Array, list[Line], float, float]


class Loss:
    """`E(Y*, Y)`: `y_true` and `y_pred` have one shape, (batch, outputs)."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        unless_changed(cls, Loss, {"loss", "loss_prime"}, {"record", "fused"})

    def loss(self, y_true: Array, y_pred: Array) -> float:
        raise NotImplementedError(f"{type(self).__name__} has no loss()")

    def loss_prime(self, y_true: Array, y_pred: Array) -> Array:
        raise NotImplementedError(f"{type(self).__name__} has no loss_prime()")

    def record(self, y_true: Array, y_pred: Array, error: Array) -> Recorded:
        """This loss's part of a tape: an array, the calls that fill it and the 0-d `error`, and two factors.

        `∂E/∂Y` is the array times the first, the loss is `error` times the second. So the one is multiplied by together
        with whatever else the gradients are to be multiplied by, and the other costs no call.
        """
        prime = np.empty_like(y_pred)
        lines = [
            copied(self.loss, y_true, y_pred, out=error),
            copied(self.loss_prime, y_true, y_pred, out=prime),
        ]
        return prime, lines, 1.0, 1.0

    def fused(self, network: Module) -> tuple[Module, Loss]:
        """The network short of its last module and the loss of what comes out there, where the two simplify.

        Otherwise the network and this loss, as they are.
        """
        return network, self


class MSE(Loss):
    """`E = 1/n Σ (y* - y)²`, `∂E/∂y = 2/n (y - y*)`; n counts all elements."""

    def loss(self, y_true: Array, y_pred: Array) -> float:
        return float(np.mean((y_true - y_pred) ** 2))

    def loss_prime(self, y_true: Array, y_pred: Array) -> Array:
        prime: Array = 2 * (y_pred - y_true) / np.size(y_true)
        return prime

    def record(self, y_true: Array, y_pred: Array, error: Array) -> Recorded:
        d = np.empty_like(y_pred)
        lines: list[Line] = [(np.subtract, (y_pred, y_true, d)), (d.reshape(-1).dot, (d.reshape(-1), error))]
        return d, lines, 2 / d.size, 1 / d.size


class MAE(Loss):
    """`E = 1/n Σ |y* - y|`, `∂E/∂y = sign(y - y*) / n`, 0 where they meet."""

    def loss(self, y_true: Array, y_pred: Array) -> float:
        return float(np.mean(np.abs(y_true - y_pred)))

    def loss_prime(self, y_true: Array, y_pred: Array) -> Array:
        prime: Array = np.sign(y_pred - y_true) / np.size(y_true)
        return prime

    def record(self, y_true: Array, y_pred: Array, error: Array) -> Recorded:
        d, prime = np.empty_like(y_pred), np.empty_like(y_pred)
        lines: list[Line] = [
            (np.subtract, (y_pred, y_true, d)),
            (np.sign, (d, prime)),
            (d.reshape(-1).dot, (prime.reshape(-1), error)),
        ]
        return prime, lines, 1 / d.size, 1 / d.size


class Huber(Loss):
    """`E = 1/n Σ h(y - y*)`, `h(d) = d²/2 if |d| ≤ delta else delta (|d| - delta/2)`; Huber 1964.

    `∂E/∂y = clip(y - y*, -delta, delta) / n`: square near the truth, straight far from it.
    """

    def __init__(self, delta: float = 1.0) -> None:
        if not delta > 0:
            raise ValueError(f"Huber.delta: expected a number above 0, found {delta}")
        self.delta = delta

    def loss(self, y_true: Array, y_pred: Array) -> float:
        distance = np.abs(y_pred - y_true)
        near = np.minimum(distance, self.delta)
        return float(np.mean(near * (distance - near / 2)))

    def loss_prime(self, y_true: Array, y_pred: Array) -> Array:
        prime: Array = np.clip(y_pred - y_true, -self.delta, self.delta) / np.size(y_true)
        return prime

    def record(self, y_true: Array, y_pred: Array, error: Array) -> Recorded:
        """`h(d) = c (d - c/2)`, `c = clip(d, -delta, delta)`: the signs cancel."""
        d, c, half = (np.empty_like(y_pred) for _ in range(3))
        lines: list[Line] = [
            (np.subtract, (y_pred, y_true, d)),
            (partial(np.minimum, out=c), (d, scalar(self.delta, d))),
            (partial(np.maximum, out=c), (c, scalar(-self.delta, d))),
            (np.multiply, (c, scalar(0.5, d), half)),
            (np.subtract, (d, half, d)),
            (d.reshape(-1).dot, (c.reshape(-1), error)),
        ]
        return c, lines, 1 / d.size, 1 / d.size


class CrossEntropy(Loss):
    """`E = -1/batch Σ w y* ln y` over probabilities y, `∂E/∂y = -w y* / y / batch`.

    `y_true` has a row of probabilities a sample: one-hot, usually. A y below the smallest normal number counts as
    that number, so that the loss of a certain mistake stays finite. Behind a `Softmax` the two are one step.

    weights: w, a number for each class, or 1. The mean is over the batch, not over its weights: those of a batch of one
    would cancel.
    """

    def __init__(self, weights: npt.ArrayLike | None = None) -> None:
        self.weights = None if weights is None else _class_weights(weights)

    def loss(self, y_true: Array, y_pred: Array) -> float:
        return float(-np.sum(self._weighted(y_true) * np.log(_above_zero(y_pred))) / _batch(y_pred))

    def loss_prime(self, y_true: Array, y_pred: Array) -> Array:
        prime: Array = -self._weighted(y_true) / _above_zero(y_pred) / _batch(y_pred)
        return prime

    def fused(self, network: Module) -> tuple[Module, Loss]:
        if isinstance(network, Sequential) and isinstance(network.modules[-1], Softmax):
            return network.without_last(), SoftmaxCrossEntropy(self.weights)
        _check_ending(self, network, Softmax)
        return network, self

    def _weighted(self, y_true: Array) -> Array:
        """`w y*`. One class alone means nothing, so an (n, 1) array is the article's column."""
        if self.weights is None:
            return y_true
        column = y_true.shape[-1] == 1
        w = self._weights_of(y_true.shape[-2 if column else -1], y_true.dtype)
        weighted: Array = y_true * (w.reshape(-1, 1) if column else w)
        return weighted

    def _weights_of(self, classes: int, dtype: npt.DTypeLike) -> Array:
        w = np.ones(classes) if self.weights is None else self.weights
        if len(w) != classes:
            raise ValueError(f"CrossEntropy.weights: expected {classes} numbers, one for each class; found {len(w)}")
        return w.astype(dtype)


class SoftmaxCrossEntropy(CrossEntropy):
    """Cross-entropy of the softmax of logits z: `E = 1/batch Σ w y* (ln Σⱼ e^zⱼ - z)`.

    `∂E/∂z = (c softmax z - w y*) / batch`, `c = Σᵢ wᵢ y*ᵢ` of the row, 1 without weights: the rows of `y_true` sum
    to 1. Exact at any logits: nothing is divided by a probability that underflowed.
    """

    _softmax = Softmax()

    def loss(self, y_true: Array, y_pred: Array) -> float:
        shifted = y_pred - y_pred.max(axis=-1, keepdims=True)
        log_sum = np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
        return float(np.sum(self._weighted(y_true) * (log_sum - shifted)) / _batch(y_pred))

    def loss_prime(self, y_true: Array, y_pred: Array) -> Array:
        y = self._weighted(y_true)
        prime: Array = (y.sum(axis=-1, keepdims=True) * self._softmax(y_pred) - y) / _batch(y_pred)
        return prime

    def record(self, y_true: Array, y_pred: Array, error: Array) -> Recorded:
        z, m, y = y_pred, len(y_pred), y_true
        prime, turned = np.empty_like(z), np.empty(z.shape[::-1], z.dtype)
        summed, logs = np.empty((m, 1), z.dtype), np.empty((m, 1), z.dtype)
        classes, c = np.ones(z.shape[1], z.dtype), np.ones((m, 1), z.dtype)
        met, total = np.empty((), z.dtype), np.empty((), z.dtype)
        weigh: list[Line] = []
        softmax: list[Line] = [(np.divide, (prime, summed, prime))]
        if self.weights is not None:
            y = np.empty_like(y_true)
            w = self._weights_of(z.shape[1], z.dtype)
            weigh = [(np.multiply, (y_true, w, y)), (y.dot, (classes, c[:, 0]))]
            softmax.append((np.multiply, (prime, c, prime)))
        lines: list[Line] = [
            *weigh,
            (np.copyto, (turned, z.T)),  # the maximum of 1024 rows of 10 takes 44 µs along rows, 4 µs along columns
            (partial(np.maximum.reduce, axis=0, out=summed[:, 0]), (turned,)),
            (np.subtract, (z, summed, prime)),  # not in z itself: an activation behind it derives itself by it
            (y.reshape(-1).dot, (prime.reshape(-1), met)),
            (np.exp, (prime, prime)),
            (prime.dot, (classes, summed[:, 0])),
            (np.log, (summed, logs)),
            (c[:, 0].dot, (logs[:, 0], total)),
            (np.subtract, (total, met, error)),
            *softmax,
            (np.subtract, (prime, y, prime)),
        ]
        return prime, lines, 1 / m, 1 / m


class BinaryCrossEntropy(Loss):
    """`E = -1/n Σ (w₁ y* ln y + w₀ (1 - y*) ln(1 - y))`; n counts all elements.

    `∂E/∂y = (w₀ (1 - y*)/(1 - y) - w₁ y*/y) / n`. Probabilities are kept a rounding error away from 0 and 1. Behind a
    `Sigmoid` the two are one step.

    weights: w₀ of the class that y speaks against and w₁ of the one it speaks for, or 1 and 1.
    """

    def __init__(self, weights: npt.ArrayLike = (1, 1)) -> None:
        self.against, self.towards = _class_weights(weights, 2).tolist()

    def loss(self, y_true: Array, y_pred: Array) -> float:
        y = _inside(y_pred)
        return float(-np.mean(self.towards * y_true * np.log(y) + self.against * (1 - y_true) * np.log1p(-y)))

    def loss_prime(self, y_true: Array, y_pred: Array) -> Array:
        y = _inside(y_pred)
        prime: Array = (self.against * (1 - y_true) / (1 - y) - self.towards * y_true / y) / np.size(y_true)
        return prime

    def fused(self, network: Module) -> tuple[Module, Loss]:
        if isinstance(network, Sequential) and isinstance(network.modules[-1], Sigmoid):
            return network.without_last(), SigmoidBinaryCrossEntropy((self.against, self.towards))
        _check_ending(self, network, Sigmoid)
        return network, self


class SigmoidBinaryCrossEntropy(BinaryCrossEntropy):
    """Binary cross-entropy of the sigmoid of logits z: `E = 1/n Σ (c (max(z, 0) + ln(1 + e^-|z|)) - w₁ y* z)`.

    `∂E/∂z = (c sigmoid z - w₁ y*) / n`, `c = w₁ y* + w₀ (1 - y*)`. Exact at any logits.
    """

    _sigmoid = Sigmoid()

    def loss(self, y_true: Array, y_pred: Array) -> float:
        y, c = self._weighted(y_true)
        z = y_pred
        return float(np.mean(c * (np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))) - y * z))

    def loss_prime(self, y_true: Array, y_pred: Array) -> Array:
        y, c = self._weighted(y_true)
        prime: Array = (c * self._sigmoid(y_pred) - y) / np.size(y_true)
        return prime

    def record(self, y_true: Array, y_pred: Array, error: Array) -> Recorded:
        z, n = y_pred, y_pred.size
        y, c, likely, prime, soft = (np.empty_like(z) for _ in range(5))
        flat, met, total = soft.reshape(-1), np.empty((), z.dtype), np.empty((), z.dtype)
        lines: list[Line] = [
            (np.multiply, (y_true, scalar(self.towards, z), y)),
            (np.multiply, (y_true, scalar(self.towards - self.against, z), c)),
            (np.add, (c, scalar(self.against, z), c)),
            *self._sigmoid.lines(z, likely),
            (np.absolute, (z, soft)),
            (np.negative, (soft, soft)),
            (np.exp, (soft, soft)),
            (np.log1p, (soft, soft)),
            (partial(np.maximum, out=prime), (z, np.zeros_like(z))),
            (np.add, (soft, prime, soft)),
            (flat.dot, (c.reshape(-1), total)),
            (y.reshape(-1).dot, (z.reshape(-1), met)),
            (np.subtract, (total, met, error)),
            (np.multiply, (likely, c, prime)),
            (np.subtract, (prime, y, prime)),
        ]
        return prime, lines, 1 / n, 1 / n

    def _weighted(self, y_true: Array) -> tuple[Array, Array]:
        y = self.towards * y_true
        return y, y + self.against * (1 - y_true)


LOSSES: dict[str, Callable[..., Loss]] = {
    "mse": MSE,
    "mae": MAE,
    "huber": Huber,
    "cross_entropy": CrossEntropy,
    "binary_cross_entropy": BinaryCrossEntropy,
}


def _check_ending(loss: Loss, network: Module, expected: type[Module]) -> None:
    """ValueError for logits, of which other libraries' losses take the softmax or sigmoid themselves."""
    if isinstance(network, Sequential) and network.modules and isinstance(network.modules[-1], Linear):
        raise ValueError(
            f"{type(loss).__name__}: expected probabilities, found a network that ends in Linear; "
            f"add {expected.__name__}()"
        )


def _class_weights(weights: npt.ArrayLike, count: int | None = None) -> Array:
    found = np.asarray(weights, np.float64)
    if found.ndim != 1 or not np.isfinite(found).all() or (found < 0).any() or count not in (None, len(found)):
        what = "a number" if count is None else f"{count} numbers,"
        raise ValueError(f"weights: expected {what} of at least 0 for each class, found {weights!r}")
    return found


def _above_zero(y: Array) -> Array:
    floored: Array = np.maximum(y, np.finfo(y.dtype).tiny)
    return floored


def _inside(y: Array) -> Array:
    eps = np.finfo(y.dtype).eps
    clipped: Array = np.clip(y, eps, 1 - eps)
    return clipped


def _batch(y: Array) -> int:
    """Samples in `y`. One class alone means nothing, so an (n, 1) array is one sample, the article's column."""
    return 1 if y.shape[-1] == 1 or y.ndim < 2 else y.shape[0]
