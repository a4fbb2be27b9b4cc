"""Cross-entropies of classes: of probabilities, and of the logits before a `Softmax` or a `Sigmoid`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from model_store.nn import Array, Linear, Module, Sequential, Sigmoid, Softmax
from training.losses.base import Loss, as_pair, cast, clip_positive


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
        y_true, y_pred, dtype = as_pair(self, y_true, y_pred)
        logs = np.log(clip_positive(y_pred, dtype))
        return np.asarray(-(self._apply_class_weights(y_true) * logs))

    def loss_prime(self, y_true: Array, y_pred: Array) -> Array:
        y_true, y_pred, dtype = as_pair(self, y_true, y_pred)
        return cast(-self._apply_class_weights(y_true) / clip_positive(y_pred, dtype) / _batch_size(y_pred), dtype)

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
        y_true, z, _ = as_pair(self, y_true, y_pred)
        axis = _class_axis(z)
        shifted = z - z.max(axis=axis, keepdims=True)
        log_sum = np.log(np.exp(shifted).sum(axis=axis, keepdims=True))
        return np.asarray(self._apply_class_weights(y_true) * (log_sum - shifted))

    def loss_prime(self, y_true: Array, y_pred: Array) -> Array:
        y_true, z, dtype = as_pair(self, y_true, y_pred)
        y = self._apply_class_weights(y_true)
        return cast((y.sum(axis=_class_axis(y), keepdims=True) * self._softmax(z) - y) / _batch_size(z), dtype)


class BinaryCrossEntropy(Loss):
    """`E = -1/n Σ (w₁ y* ln y + w₀ (1 - y*) ln(1 - y))`; n counts all elements.

    `∂E/∂y = (w₀ (1 - y*)/(1 - y) - w₁ y*/y) / n`. Probabilities are clipped to a rounding error from 0 and 1. After a
    `Sigmoid` both are computed in one step.

    weights: w₀ of the negative class and w₁ of the positive one; default 1 and 1. For y of several labels, (batch,
        labels), they may be (2, labels): w₀ and w₁ of each label.
    label_smoothing: ε; targets y* become `(1 - ε) y* + ε/2`, as in `CrossEntropy`.
    """

    lowest, highest = 0.0, 1.0

    def __init__(self, weights: npt.ArrayLike = (1, 1), label_smoothing: float = 0.0) -> None:
        several = np.ndim(weights) == 2 and np.shape(weights)[0] == 2
        found = _class_weights(np.ravel(weights)).reshape(2, -1) if several else _class_weights(weights, 2)
        self.negative_weight, self.positive_weight = found
        self.label_smoothing = _check_label_smoothing(label_smoothing)

    def terms(self, y_true: Array, y_pred: Array) -> Array:
        y_true, y_pred, dtype = as_pair(self, y_true, y_pred)
        y, (positive, negative) = _clip_probability(y_pred, dtype), self._apply_class_weights(y_true)
        return np.asarray(-(positive * np.log(y) + negative * np.log1p(-y)))

    def loss_prime(self, y_true: Array, y_pred: Array) -> Array:
        y_true, y_pred, dtype = as_pair(self, y_true, y_pred)
        y, (positive, negative) = _clip_probability(y_pred, dtype), self._apply_class_weights(y_true)
        return cast((negative / (1 - y) - positive / y) / y.size, dtype)

    def fused(self, network: Module) -> tuple[Module, Loss]:
        if type(self) is not BinaryCrossEntropy:  # a subclass may have another formula
            return network, self
        if isinstance(network, Sequential) and type(network.modules[-1]) is Sigmoid:
            weights = np.array([self.negative_weight, self.positive_weight])
            return network.without_last(), SigmoidBinaryCrossEntropy(weights, self.label_smoothing)
        _check_ending(self, network, Sigmoid)
        return network, self

    def _apply_class_weights(self, y_true: Array) -> tuple[Array, Array]:
        """Return `w₁ y*` and `w₀ (1 - y*)`, y* smoothed."""
        if self.label_smoothing:
            y_true = y_true * (1 - self.label_smoothing) + self.label_smoothing / 2
        positive, negative = (w.astype(y_true.dtype) for w in (self.positive_weight, self.negative_weight))
        return positive * y_true, negative * (1 - y_true)


class SigmoidBinaryCrossEntropy(BinaryCrossEntropy):
    """Binary cross-entropy of the sigmoid of logits z: `E = -1/n Σ (w₁ y* ln σ(z) + w₀ (1 - y*) ln σ(-z))`.

    `∂E/∂z = (w₀ (1 - y*) σ(z) - w₁ y* σ(-z)) / n`, with `ln σ(z) = min(z, 0) - ln(1 + e^-|z|)`. Exact at any logits:
    all terms of E have one sign, so that none cancels another.
    """

    def terms(self, y_true: Array, y_pred: Array) -> Array:
        y_true, z, _ = as_pair(self, y_true, y_pred)
        positive, negative = self._apply_class_weights(y_true)
        return np.asarray(-(positive * _log_sigmoid(z) + negative * _log_sigmoid(-z)))

    def loss_prime(self, y_true: Array, y_pred: Array) -> Array:
        y_true, z, dtype = as_pair(self, y_true, y_pred)
        positive, negative = self._apply_class_weights(y_true)
        return cast((negative * np.exp(_log_sigmoid(z)) - positive * np.exp(_log_sigmoid(-z))) / z.size, dtype)


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
