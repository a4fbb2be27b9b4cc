"""Losses of positive means: Poisson for counts, gamma for amounts. After an `Exp` they are computed from its inputs."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from model_store.nn import Array, Exp, Module, Sequential
from training.losses.base import Loss, as_pair, cast, clip_positive


class _LogLinkLoss(Loss):
    """The base of losses of positive means, which after an `Exp` are computed from its inputs, in one step."""

    of_logarithms: ClassVar[type[Loss]]

    def fused(self, network: Module) -> tuple[Module, Loss]:
        if type(self) in (Poisson, Gamma) and isinstance(network, Sequential) and type(network.modules[-1]) is Exp:
            return network.without_last(), self.of_logarithms()
        return network, self


class LogPoisson(Loss):
    """The Poisson loss of logarithms z of means: `E = 1/n Σ (eᶻ - y* z)`, `∂E/∂z = (eᶻ - y*) / n`."""

    lowest = 0.0

    def terms(self, y_true: Array, y_pred: Array) -> Array:
        y_true, z, _ = as_pair(self, y_true, y_pred)
        return np.asarray(np.exp(z) - y_true * z)

    def loss_prime(self, y_true: Array, y_pred: Array) -> Array:
        y_true, z, dtype = as_pair(self, y_true, y_pred)
        return cast((np.exp(z) - y_true) / z.size, dtype)


class Poisson(_LogLinkLoss):
    """`E = 1/n Σ (y - y* ln y)`, `∂E/∂y = (1 - y*/y) / n`: for counts y* ≥ 0 with means y > 0.

    The negative log likelihood without terms that only depend on y*. A y below the smallest normal number counts as
    that number.
    """

    lowest = 0.0
    of_logarithms = LogPoisson

    def terms(self, y_true: Array, y_pred: Array) -> Array:
        y_true, y_pred, dtype = as_pair(self, y_true, y_pred)
        return np.asarray(y_pred - y_true * np.log(clip_positive(y_pred, dtype)))

    def loss_prime(self, y_true: Array, y_pred: Array) -> Array:
        y_true, y_pred, dtype = as_pair(self, y_true, y_pred)
        return cast((1 - y_true / clip_positive(y_pred, dtype)) / y_true.size, dtype)


class LogGamma(Loss):
    """The gamma loss of logarithms z of means: `E = 1/n Σ (y* e⁻ᶻ + z)`, `∂E/∂z = (1 - y* e⁻ᶻ) / n`."""

    lowest, above_lowest = 0.0, True

    def terms(self, y_true: Array, y_pred: Array) -> Array:
        y_true, z, _ = as_pair(self, y_true, y_pred)
        return np.asarray(y_true * np.exp(-z) + z)

    def loss_prime(self, y_true: Array, y_pred: Array) -> Array:
        y_true, z, dtype = as_pair(self, y_true, y_pred)
        return cast((1 - y_true * np.exp(-z)) / z.size, dtype)


class Gamma(_LogLinkLoss):
    """`E = 1/n Σ (y*/y + ln y)`, `∂E/∂y = (1 - y*/y) / y / n`: for amounts y* > 0 whose spread grows with the mean y.

    The negative log likelihood, per shape parameter, without terms that only depend on y*. A y below the smallest
    normal number counts as that number.
    """

    lowest, above_lowest = 0.0, True
    of_logarithms = LogGamma

    def terms(self, y_true: Array, y_pred: Array) -> Array:
        y_true, y_pred, dtype = as_pair(self, y_true, y_pred)
        y = clip_positive(y_pred, dtype)
        return np.asarray(y_true / y + np.log(y))

    def loss_prime(self, y_true: Array, y_pred: Array) -> Array:
        y_true, y_pred, dtype = as_pair(self, y_true, y_pred)
        y = clip_positive(y_pred, dtype)
        return cast((1 - y_true / y) / y / y.size, dtype)
