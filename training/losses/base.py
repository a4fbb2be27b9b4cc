"""The base class of losses, and the float types in which they are computed."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from model_store.nn import Array, Module


class Loss:
    """`E(Y*, Y)`: `y_true` and `y_pred` have one shape, (batch, outputs). Targets lie from `lowest` to `highest`."""

    lowest: ClassVar[float] = -math.inf
    highest: ClassVar[float] = math.inf
    above_lowest: ClassVar[bool] = False  # True if no target may be equal to it
    weight_columns: ClassVar[int] = 0  # of `y_true`, in addition to those of `y_pred`

    def find_invalid_targets(self, y_true: Array) -> Array:
        """Return a mask of the targets that are outside the range."""
        too_low = y_true <= self.lowest if self.above_lowest else y_true < self.lowest
        return np.asarray(too_low | (y_true > self.highest))

    @property
    def target_range(self) -> str:
        """The range in words: "from 0 to 1"."""
        if math.isfinite(self.highest):
            return f"from {self.lowest:g} to {self.highest:g}"
        return f"above {self.lowest:g}" if self.above_lowest else f"of at least {self.lowest:g}"

    def terms(self, y_true: Array, y_pred: Array) -> Array:
        """Return the loss of each element, shaped like `y_pred`: their mean is the loss, by default."""
        raise NotImplementedError(f"{type(self).__name__} has no loss()")

    def loss(self, y_true: Array, y_pred: Array) -> float:
        return float(np.mean(self.terms(y_true, y_pred)))

    def loss_prime(self, y_true: Array, y_pred: Array) -> Array:
        raise NotImplementedError(f"{type(self).__name__} has no loss_prime()")

    def fused(self, network: Module) -> tuple[Module, Loss]:
        """Return the network without its last module and an equal loss of that one's inputs, if the two simplify.

        Otherwise return the network and this loss unchanged.
        """
        return network, self


def as_pair(loss: Loss, y_true: npt.ArrayLike, y_pred: npt.ArrayLike) -> tuple[Array, Array, np.dtype[Any]]:
    """Return both as arrays of one floating type, float32 or wider, and the type of derivatives.

    ValueError if their shapes differ.
    """
    true, pred = np.asarray(y_true), np.asarray(y_pred)
    if true.shape != pred.shape:
        raise ValueError(
            f"{type(loss).__name__}: expected y_true of shape {pred.shape}, as y_pred has, found {true.shape}; "
            "reshape one of them"
        )
    dtype = pred.dtype if pred.dtype.kind == "f" else np.dtype(np.float64)
    wide = np.result_type(dtype, np.float32)
    return true.astype(wide, copy=False), pred.astype(wide, copy=False), dtype


def cast(prime: Array, dtype: np.dtype[Any]) -> Array:
    return prime.astype(dtype, copy=False)


def clip_positive(y: Array, dtype: np.dtype[Any]) -> Array:
    floored: Array = np.maximum(y, np.finfo(dtype).tiny)
    return floored
