"""Metrics of what a regression is trained to predict: a mean of counts or amounts, or a quantile.

    poisson_deviance  2/n Σ (y* ln(y*/y) - y* + y), with 0 ln 0 = 0
    gamma_deviance    2/n Σ (y*/y - 1 - ln(y*/y))
    pinball_loss      1/n Σ max(q d, (q - 1) d), d = y* - y, for the quantile q
    coverage          the share of rows with y* ≤ y, which the quantile q should be
    d2                1 - E(y) / E(c): the share of the deviance, or of the pinball loss, that predictions explain; c is
                      the best constant for the same rows, their mean or their quantile. R² is that of squared errors

Deviances: McCullagh & Nelder 1989, section 2.3. D² of the pinball loss: Koenker & Machado 1999. The numbers are those
of scikit-learn's `mean_poisson_deviance`, `mean_gamma_deviance`, `mean_pinball_loss`, `d2_tweedie_score` and
`d2_pinball_score`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.utils.values import exact_unit

Numbers = NDArray[np.float64]

_SMALLEST = float(np.finfo(np.float32).tiny)  # a predicted mean below it counts as it, as in the loss


@dataclass(frozen=True)
class TargetLoss:
    """The loss that a regression is trained with, and the quantile of the loss pinball."""

    name: str = "mse"
    quantile: float | None = None

    def metrics(self, true: Numbers, predicted: Numbers, weights: Numbers | None) -> dict[str, float]:
        """Return the metrics of one target (n,) that belong to the loss; none for one that RMSE and MAE describe."""
        if self.metric is None:
            return {}
        with np.errstate(all="ignore"):  # an undefined deviance is None in the metrics
            error, least = np.average(self.errors(true, predicted), weights=weights), self.least(true, weights)
            found = {self.metric: float(error), "d2": float(1 - error / least) if least > 0 else np.nan}
        if self.name == "pinball":
            found["coverage"] = float(np.average(true <= predicted, weights=weights))
        return found

    def best_constant(self, values: Numbers, weights: Numbers | None) -> float:
        """Return the number that predicts values (n,) best: their mean, or with the loss pinball their quantile."""
        if self.name == "pinball":
            return float(np.quantile(values, self.level, weights=weights, method="inverted_cdf"))
        unit = exact_unit(values)
        return float(np.average(values / unit, weights=weights) * unit)

    @property
    def level(self) -> float:
        """The quantile that the loss pinball predicts, by default the median."""
        return 0.5 if self.quantile is None else self.quantile

    @property
    def metric(self) -> str | None:
        """The metric of the loss; None if it has none of its own."""
        return _METRICS[self.name][0] if self.name in _METRICS else None

    def errors(self, true: Numbers, predicted: Numbers) -> Numbers:
        """Return the deviance or the pinball loss of each value, whose mean is the metric of the loss."""
        return _METRICS[self.name][1](true, predicted, self.level)

    def least(self, true: Numbers, weights: Numbers | None) -> float:
        """Return the metric of the best constant for values (n,)."""
        constant = np.full_like(true, self.best_constant(true, weights))
        return float(np.average(self.errors(true, constant), weights=weights))


SQUARED_ERROR = TargetLoss()


def _poisson(true: Numbers, predicted: Numbers, _: float) -> Numbers:
    y = np.maximum(predicted, _SMALLEST)
    logs = np.log(np.where(true > 0, true / y, 1.0))
    return np.asarray(2 * (true * logs - true + y))


def _gamma(true: Numbers, predicted: Numbers, _: float) -> Numbers:
    ratio = true / np.maximum(predicted, _SMALLEST)
    return np.asarray(2 * (ratio - 1 - np.log(ratio)))


def _pinball(true: Numbers, predicted: Numbers, quantile: float) -> Numbers:
    d = true - predicted
    return np.asarray(np.maximum(quantile * d, (quantile - 1) * d))


_METRICS: dict[str, tuple[str, Callable[[Any, Any, float], Numbers]]] = {
    "poisson": ("poisson_deviance", _poisson),
    "gamma": ("gamma_deviance", _gamma),
    "pinball": ("pinball_loss", _pinball),
}
