"""Losses: the distance between predictions and targets, each with its derivative.

`loss(y_true, y_pred)` is a mean over the batch, so gradients do not grow with it; `loss_prime` is `∂E/∂Y`, shaped
like `y_pred` (batch, outputs). Single samples may be the article's column vectors. Both raise ValueError if the
shapes of `y_true` and `y_pred` differ; NumPy would broadcast targets (3,) and predictions (3, 1) to nine distances.

Numbers are computed in float32 at least, because squares and sums of float16 overflow at 65504; derivatives have the
type of `y_pred`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from model_store.nn import Array, Exp, Linear, Module, Sequential, Sigmoid, Softmax


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


class MSE(Loss):
    """`E = 1/n Σ (y* - y)²`, `∂E/∂y = 2/n (y - y*)`; n counts all elements."""

    def terms(self, y_true: Array, y_pred: Array) -> Array:
        y_true, y_pred, _ = _as_pair(self, y_true, y_pred)
        return np.asarray((y_true - y_pred) ** 2)

    def loss_prime(self, y_true: Array, y_pred: Array) -> Array:
        y_true, y_pred, dtype = _as_pair(self, y_true, y_pred)
        return _cast(2 * (y_pred - y_true) / y_true.size, dtype)


class MAE(Loss):
    """`E = 1/n Σ |y* - y|`, `∂E/∂y = sign(y - y*) / n`, 0 where they are equal."""

    def terms(self, y_true: Array, y_pred: Array) -> Array:
        y_true, y_pred, _ = _as_pair(self, y_true, y_pred)
        return np.asarray(np.abs(y_true - y_pred))

    def loss_prime(self, y_true: Array, y_pred: Array) -> Array:
        y_true, y_pred, dtype = _as_pair(self, y_true, y_pred)
        return _cast(np.sign(y_pred - y_true) / y_true.size, dtype)


class Huber(Loss):
    """`E = 1/n Σ h(y - y*)`, `h(d) = d²/2 if |d| ≤ delta else delta (|d| - delta/2)`; Huber 1964.

    `∂E/∂y = clip(y - y*, -delta, delta) / n`: quadratic near the target, linear far from it.
    """

    def __init__(self, delta: float = 1.0) -> None:
        if not delta > 0:
            raise ValueError(f"Huber.delta: expected a number above 0, found {delta}")
        self.delta = delta

    def terms(self, y_true: Array, y_pred: Array) -> Array:
        y_true, y_pred, _ = _as_pair(self, y_true, y_pred)
        distance = np.abs(y_pred - y_true)
        near = np.minimum(distance, self.delta)
        return np.asarray(near * (distance - near / 2))

    def loss_prime(self, y_true: Array, y_pred: Array) -> Array:
        y_true, y_pred, dtype = _as_pair(self, y_true, y_pred)
        return _cast(np.clip(y_pred - y_true, -self.delta, self.delta) / y_true.size, dtype)


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
        y_true, y_pred, _ = _as_pair(self, y_true, y_pred)
        d = y_true - y_pred
        return np.asarray(np.maximum(self.quantile * d, (self.quantile - 1) * d))

    def loss_prime(self, y_true: Array, y_pred: Array) -> Array:
        y_true, y_pred, dtype = _as_pair(self, y_true, y_pred)
        prime = (1 - self.quantile) * (y_pred > y_true) - self.quantile * (y_pred < y_true)
        return _cast(prime / y_true.size, dtype)


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
        y_true, z, _ = _as_pair(self, y_true, y_pred)
        return np.asarray(np.exp(z) - y_true * z)

    def loss_prime(self, y_true: Array, y_pred: Array) -> Array:
        y_true, z, dtype = _as_pair(self, y_true, y_pred)
        return _cast((np.exp(z) - y_true) / z.size, dtype)


class Poisson(_LogLinkLoss):
    """`E = 1/n Σ (y - y* ln y)`, `∂E/∂y = (1 - y*/y) / n`: for counts y* ≥ 0 with means y > 0.

    The negative log likelihood without terms that only depend on y*. A y below the smallest normal number counts as
    that number.
    """

    lowest = 0.0
    of_logarithms = LogPoisson

    def terms(self, y_true: Array, y_pred: Array) -> Array:
        y_true, y_pred, dtype = _as_pair(self, y_true, y_pred)
        return np.asarray(y_pred - y_true * np.log(_clip_positive(y_pred, dtype)))

    def loss_prime(self, y_true: Array, y_pred: Array) -> Array:
        y_true, y_pred, dtype = _as_pair(self, y_true, y_pred)
        return _cast((1 - y_true / _clip_positive(y_pred, dtype)) / y_true.size, dtype)


class LogGamma(Loss):
    """The gamma loss of logarithms z of means: `E = 1/n Σ (y* e⁻ᶻ + z)`, `∂E/∂z = (1 - y* e⁻ᶻ) / n`."""

    lowest, above_lowest = 0.0, True

    def terms(self, y_true: Array, y_pred: Array) -> Array:
        y_true, z, _ = _as_pair(self, y_true, y_pred)
        return np.asarray(y_true * np.exp(-z) + z)

    def loss_prime(self, y_true: Array, y_pred: Array) -> Array:
        y_true, z, dtype = _as_pair(self, y_true, y_pred)
        return _cast((1 - y_true * np.exp(-z)) / z.size, dtype)


class Gamma(_LogLinkLoss):
    """`E = 1/n Σ (y*/y + ln y)`, `∂E/∂y = (1 - y*/y) / y / n`: for amounts y* > 0 whose spread grows with the mean y.

    The negative log likelihood, per shape parameter, without terms that only depend on y*. A y below the smallest
    normal number counts as that number.
    """

    lowest, above_lowest = 0.0, True
    of_logarithms = LogGamma

    def terms(self, y_true: Array, y_pred: Array) -> Array:
        y_true, y_pred, dtype = _as_pair(self, y_true, y_pred)
        y = _clip_positive(y_pred, dtype)
        return np.asarray(y_true / y + np.log(y))

    def loss_prime(self, y_true: Array, y_pred: Array) -> Array:
        y_true, y_pred, dtype = _as_pair(self, y_true, y_pred)
        y = _clip_positive(y_pred, dtype)
        return _cast((1 - y_true / y) / y / y.size, dtype)


class CrossEntropy(Loss):
    """`E = -1/batch Σ w y* ln y` over probabilities y, `∂E/∂y = -w y* / y / batch`.

    `y_true` has a row of probabilities a sample: one-hot, usually; its sum weighs the sample. A y below the smallest
    normal number counts as that number, so that the loss of a certain mistake stays finite. After a `Softmax` both are
    computed in one step. Arrays (n, 1) are one sample of n classes, the article's column, so a network needs two
    outputs: `BinaryCrossEntropy` is for one.

    weights: w, a number for each class; default 1. The mean is over the batch, not over its weights, which would cancel
        in a batch of one.
    label_smoothing: ε; targets y* of k classes become `(1 - ε) y* + ε/k`, so that no probability is driven to 0 or 1;
        Szegedy et al. 2016, section 7.
    """

    lowest = 0.0

    def __init__(self, weights: npt.ArrayLike | None = None, label_smoothing: float = 0.0) -> None:
        self.weights = None if weights is None else _class_weights(weights)
        self.label_smoothing = _check_label_smoothing(label_smoothing)

    def loss(self, y_true: Array, y_pred: Array) -> float:
        return float(np.sum(self.terms(y_true, y_pred)) / _batch_size(np.asarray(y_pred)))

    def terms(self, y_true: Array, y_pred: Array) -> Array:
        y_true, y_pred, dtype = _as_pair(self, y_true, y_pred)
        logs = np.log(_clip_positive(y_pred, dtype))
        return np.asarray(-(self._apply_class_weights(y_true) * logs))

    def loss_prime(self, y_true: Array, y_pred: Array) -> Array:
        y_true, y_pred, dtype = _as_pair(self, y_true, y_pred)
        return _cast(-self._apply_class_weights(y_true) / _clip_positive(y_pred, dtype) / _batch_size(y_pred), dtype)

    def fused(self, network: Module) -> tuple[Module, Loss]:
        if type(self) is not CrossEntropy:  # a subclass may have another formula
            return network, self
        if isinstance(network, Sequential) and type(network.modules[-1]) is Softmax:
            return network.without_last(), SoftmaxCrossEntropy(self.weights, self.label_smoothing)
        _check_ending(self, network, Softmax)
        return network, self

    def _apply_class_weights(self, y_true: Array) -> Array:
        """Return `w y*`, y* smoothed. A single class is meaningless, so an (n, 1) array is the article's column."""
        column = y_true.shape[-1] == 1
        if self.label_smoothing:
            classes = y_true.shape[-2 if column else -1]
            y_true = y_true * (1 - self.label_smoothing) + self.label_smoothing / classes
        if self.weights is None:
            return y_true
        w = self.class_weight_vector(y_true.shape[-2 if column else -1], y_true.dtype)
        weighted: Array = y_true * (w.reshape(-1, 1) if column else w)
        return weighted

    def class_weight_vector(self, classes: int, dtype: npt.DTypeLike) -> Array:
        """Return the weight of each class. ValueError if their number is not `classes`."""
        w = np.ones(classes) if self.weights is None else self.weights
        if len(w) != classes:
            raise ValueError(f"CrossEntropy.weights: expected {classes} numbers, one for each class; found {len(w)}")
        return w.astype(dtype)


class SoftmaxCrossEntropy(CrossEntropy):
    """Cross-entropy of the softmax of logits z: `E = 1/batch Σ w y* (ln Σⱼ e^zⱼ - z)`.

    `∂E/∂z = (c softmax z - w y*) / batch`, `c = Σᵢ wᵢ y*ᵢ` of the row. Exact at any logits: nothing is divided by a
    probability that underflowed.
    """

    _softmax = Softmax()

    def terms(self, y_true: Array, y_pred: Array) -> Array:
        y_true, z, _ = _as_pair(self, y_true, y_pred)
        axis = _class_axis(z)
        shifted = z - z.max(axis=axis, keepdims=True)
        log_sum = np.log(np.exp(shifted).sum(axis=axis, keepdims=True))
        return np.asarray(self._apply_class_weights(y_true) * (log_sum - shifted))

    def loss_prime(self, y_true: Array, y_pred: Array) -> Array:
        y_true, z, dtype = _as_pair(self, y_true, y_pred)
        y = self._apply_class_weights(y_true)
        return _cast((y.sum(axis=_class_axis(y), keepdims=True) * self._softmax(z) - y) / _batch_size(z), dtype)


class BinaryCrossEntropy(Loss):
    """`E = -1/n Σ (w₁ y* ln y + w₀ (1 - y*) ln(1 - y))`; n counts all elements.

    `∂E/∂y = (w₀ (1 - y*)/(1 - y) - w₁ y*/y) / n`. Probabilities are clipped to a rounding error from 0 and 1. After a
    `Sigmoid` both are computed in one step.

    weights: w₀ of the negative class and w₁ of the positive one; default 1 and 1.
    label_smoothing: ε; targets y* become `(1 - ε) y* + ε/2`, as in `CrossEntropy`.
    """

    lowest, highest = 0.0, 1.0

    def __init__(self, weights: npt.ArrayLike = (1, 1), label_smoothing: float = 0.0) -> None:
        self.negative_weight, self.positive_weight = _class_weights(weights, 2).tolist()
        self.label_smoothing = _check_label_smoothing(label_smoothing)

    def terms(self, y_true: Array, y_pred: Array) -> Array:
        y_true, y_pred, dtype = _as_pair(self, y_true, y_pred)
        y, (positive, negative) = _clip_probability(y_pred, dtype), self._apply_class_weights(y_true)
        return np.asarray(-(positive * np.log(y) + negative * np.log1p(-y)))

    def loss_prime(self, y_true: Array, y_pred: Array) -> Array:
        y_true, y_pred, dtype = _as_pair(self, y_true, y_pred)
        y, (positive, negative) = _clip_probability(y_pred, dtype), self._apply_class_weights(y_true)
        return _cast((negative / (1 - y) - positive / y) / y.size, dtype)

    def fused(self, network: Module) -> tuple[Module, Loss]:
        if type(self) is not BinaryCrossEntropy:  # a subclass may have another formula
            return network, self
        if isinstance(network, Sequential) and type(network.modules[-1]) is Sigmoid:
            weights = self.negative_weight, self.positive_weight
            return network.without_last(), SigmoidBinaryCrossEntropy(weights, self.label_smoothing)
        _check_ending(self, network, Sigmoid)
        return network, self

    def _apply_class_weights(self, y_true: Array) -> tuple[Array, Array]:
        """Return `w₁ y*` and `w₀ (1 - y*)`, y* smoothed."""
        if self.label_smoothing:
            y_true = y_true * (1 - self.label_smoothing) + self.label_smoothing / 2
        return self.positive_weight * y_true, self.negative_weight * (1 - y_true)


class SigmoidBinaryCrossEntropy(BinaryCrossEntropy):
    """Binary cross-entropy of the sigmoid of logits z: `E = -1/n Σ (w₁ y* ln σ(z) + w₀ (1 - y*) ln σ(-z))`.

    `∂E/∂z = (w₀ (1 - y*) σ(z) - w₁ y* σ(-z)) / n`, with `ln σ(z) = min(z, 0) - ln(1 + e^-|z|)`. Exact at any logits:
    all terms of E have one sign, so that none cancels another.
    """

    def terms(self, y_true: Array, y_pred: Array) -> Array:
        y_true, z, _ = _as_pair(self, y_true, y_pred)
        positive, negative = self._apply_class_weights(y_true)
        return np.asarray(-(positive * _log_sigmoid(z) + negative * _log_sigmoid(-z)))

    def loss_prime(self, y_true: Array, y_pred: Array) -> Array:
        y_true, z, dtype = _as_pair(self, y_true, y_pred)
        positive, negative = self._apply_class_weights(y_true)
        return _cast((negative * np.exp(_log_sigmoid(z)) - positive * np.exp(_log_sigmoid(-z))) / z.size, dtype)


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


def _check_ending(loss: Loss, network: Module, expected: type[Module]) -> None:
    """Raise ValueError for logits, to which other libraries' losses apply the softmax or sigmoid themselves."""
    if isinstance(network, Sequential) and network.modules and isinstance(network.modules[-1], Linear):
        raise ValueError(
            f"{type(loss).__name__}: expected probabilities, found a network that ends in Linear; "
            f"add {expected.__name__}()"
        )


def _check_label_smoothing(value: float) -> float:
    if not 0 <= value < 1:
        raise ValueError(f"label_smoothing: expected a number in [0, 1), found {value}")
    return value


def _class_weights(weights: npt.ArrayLike, count: int | None = None) -> Array:
    found = np.asarray(weights, np.float64)
    if found.ndim != 1 or not np.isfinite(found).all() or (found < 0).any() or count not in (None, len(found)):
        what = "a number" if count is None else f"{count} numbers,"
        raise ValueError(f"weights: expected {what} of at least 0 for each class, found {weights!r}")
    return found


def _as_pair(loss: Loss, y_true: npt.ArrayLike, y_pred: npt.ArrayLike) -> tuple[Array, Array, np.dtype[Any]]:
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


def _cast(prime: Array, dtype: np.dtype[Any]) -> Array:
    return prime.astype(dtype, copy=False)


def _clip_positive(y: Array, dtype: np.dtype[Any]) -> Array:
    floored: Array = np.maximum(y, np.finfo(dtype).tiny)
    return floored


def _clip_probability(y: Array, dtype: np.dtype[Any]) -> Array:
    eps = np.finfo(dtype).eps
    clipped: Array = np.clip(y, eps, 1 - eps)
    return clipped


def _log_sigmoid(z: Array) -> Array:
    logs: Array = np.minimum(z, 0) - np.log1p(np.exp(-np.abs(z)))
    return logs


def _class_axis(y: Array) -> int:
    """Return the axis of the classes, as `Softmax` finds it."""
    return -2 if y.ndim >= 2 and y.shape[-1] == 1 else -1


def _batch_size(y: Array) -> int:
    """Return the number of samples in `y`. A single class is meaningless: an (n, 1) array is one column sample."""
    return 1 if y.shape[-1] == 1 or y.ndim < 2 else y.shape[0]
