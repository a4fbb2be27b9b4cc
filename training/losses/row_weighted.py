"""Losses of rows with weights."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from model_store.nn import Array, Module
from training.losses.base import Loss
from training.losses.cross_entropy import CrossEntropy


class RowWeighted(Loss):
    """The `loss` of rows with weights: `E = 1/batch Σ wᵢ Eᵢ`, `∂E/∂yᵢ = wᵢ ∂Eᵢ/∂yᵢ / batch`.

    `y_true` has a column more than `y_pred`, the last one: w.
    """

    weight_columns: ClassVar[int] = 1

    def __init__(self, loss: Loss) -> None:
        self.unweighted = loss

    def loss(self, y_true: Array, y_pred: Array) -> float:
        terms = self.unweighted.terms(y_true[:, :-1], y_pred)
        rows = terms.sum(axis=1) if isinstance(self.unweighted, CrossEntropy) else terms.mean(axis=1)
        return float(np.mean(rows * y_true[:, -1]))

    def loss_prime(self, y_true: Array, y_pred: Array) -> Array:
        return np.asarray(self.unweighted.loss_prime(y_true[:, :-1], y_pred) * y_true[:, -1:])

    def fused(self, network: Module) -> tuple[Module, Loss]:
        shorter, loss = self.unweighted.fused(network)
        return shorter, RowWeighted(loss)
