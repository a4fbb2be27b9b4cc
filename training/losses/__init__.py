"""Losses: the distance between predictions and targets, each with its derivative.

`loss(y_true, y_pred)` is a mean over the batch, so gradients do not grow with it; `loss_prime` is `∂E/∂Y`, shaped
like `y_pred` (batch, outputs). Single samples may be the article's column vectors. Both raise ValueError if the
shapes of `y_true` and `y_pred` differ; NumPy would broadcast targets (3,) and predictions (3, 1) to nine distances.

Numbers are computed in float32 at least, because squares and sums of float16 overflow at 65504; derivatives have the
type of `y_pred`.
"""

from __future__ import annotations

from collections.abc import Callable

from training.losses.base import Loss
from training.losses.cross_entropy import (
    BinaryCrossEntropy,
    CrossEntropy,
    SigmoidBinaryCrossEntropy,
    SoftmaxCrossEntropy,
)
from training.losses.log_link import Gamma, LogGamma, LogPoisson, Poisson
from training.losses.regression import MAE, MSE, Huber, Pinball
from training.losses.row_weighted import RowWeighted

__all__ = [
    "LOSSES",
    "MAE",
    "MSE",
    "BinaryCrossEntropy",
    "CrossEntropy",
    "Gamma",
    "Huber",
    "LogGamma",
    "LogPoisson",
    "Loss",
    "Pinball",
    "Poisson",
    "RowWeighted",
    "SigmoidBinaryCrossEntropy",
    "SoftmaxCrossEntropy",
]

LOSSES: dict[str, Callable[..., Loss]] = {
    "mse": MSE,
    "mae": MAE,
    "huber": Huber,
    "pinball": Pinball,
    "poisson": Poisson,
    "gamma": Gamma,
    "cross_entropy": CrossEntropy,
    "binary_cross_entropy": BinaryCrossEntropy,
}
