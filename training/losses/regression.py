"""Losses of regressions with any targets: squared, absolute, Huber's and the pinball loss of a quantile."""

from __future__ import annotations

import numpy as np

from model_store.nn import Array
from training.losses.base import Loss, as_pair, cast


class MSE(Loss):
    """`E = 1/n Σ (y* - y)²`, `∂E/∂y = 2/n (y - y*)`; n counts all elements."""

    def terms(self, y_true: Array, y_pred: Array) -> Array:
        y_true, y_pred, _ = as_pair(self, y_true, y_pred)
        return np.asarray((y_true - y_pred) ** 2)

    def loss_prime(self, y_true: Array, y_pred: Array) -> Array:
        y_true, y_pred, dtype = as_pair(self, y_true, y_pred)
        return cast(2 * (y_pred - y_true) / y_true.size, dtype)


class MAE(Loss):
    """`E = 1/n Σ |y* - y|`, `∂E/∂y = sign(y - y*) / n`, 0 where they are equal."""

    def terms(self, y_true: Array, y_pred: Array) -> Array:
        y_true, y_pred, _ = as_pair(self, y_true, y_pred)
        return np.asarray(np.abs(y_true - y_pred))

    def loss_prime(self, y_true: Array, y_pred: Array) -> Array:
        y_true, y_pred, dtype = as_pair(self, y_true, y_pred)
        return cast(np.sign(y_pred - y_true) / y_true.size, dtype)


class Huber(Loss):
    """`E = 1/n Σ h(y - y*)`, `h(d) = d²/2 if |d| ≤ delta else delta (|d| - delta/2)`; Huber 1964.

    `∂E/∂y = clip(y - y*, -delta, delta) / n`: quadratic near the target, linear far from it.
    """

    def __init__(self, delta: float = 1.0) -> None:
        if not delta > 0:
            raise ValueError(f"Huber.delta: expected a number above 0, found {delta}")
        self.delta = delta

    def terms(self, y_true: Array, y_pred: Array) -> Array:
        y_true, y_pred, _ = as_pair(self, y_true, y_pred)
        distance = np.abs(y_pred - y_true)
        near = np.minimum(distance, self.delta)
        return np.asarray(near * (distance - near / 2))

    def loss_prime(self, y_true: Array, y_pred: Array) -> Array:
        y_true, y_pred, dtype = as_pair(self, y_true, y_pred)
        return cast(np.clip(y_pred - y_true, -self.delta, self.delta) / y_true.size, dtype)


class Pinball(Loss):
    """`E = 1/n Σ max(q d, (q - 1) d)`, `d = y* - y`, for the quantile q; Koenker & Bassett 1978.

    `∂E/∂y = (1 - q if y > y* else -q) / n`, 0 where they are equal. The best prediction is above a share q of the
    targets: q = 0.5 is half the `MAE`, for the median.
    """

    def __init__(self, quantile: float = 0.5) -> None:
        if not 0 < quantile < 1:
            raise ValueError(f"Pinball.quantile: expected a number between 0 and 1, found {quantile}")
        self.quantile = quantile

    def terms(self, y_true: Array, y_pred: Array) -> Array:
        y_true, y_pred, _ = as_pair(self, y_true, y_pred)
        d = y_true - y_pred
        return np.asarray(np.maximum(self.quantile * d, (self.quantile - 1) * d))

    def loss_prime(self, y_true: Array, y_pred: Array) -> Array:
        y_true, y_pred, dtype = as_pair(self, y_true, y_pred)
        prime = (1 - self.quantile) * (y_pred > y_true) - self.quantile * (y_pred < y_true)
        return cast(prime / y_true.size, dtype)
