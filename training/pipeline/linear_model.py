"""A linear model of the same features, beside which a report shows the network: what do the hidden layers add?

A regression is fitted exactly, by ridge regression, and a classification by logistic regression with a ridge. Any other
network is trained without its hidden layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.nn import Embedding, Linear, Sequential
from training.config.layer_spec import LayerSpec
from training.config.settings import EarlyStoppingSection
from training.engine.early_stopping import EarlyStopping
from training.engine.loop import DivergedError, Samples, train
from training.losses import Loss, SigmoidBinaryCrossEntropy, SoftmaxCrossEntropy
from training.optim.optimizers import Adam
from training.pipeline.prepared_job import PreparedJob

MAX_ROWS = 20_000  # that the linear model is fitted on, a random sample of more
MAX_FEATURES = 4096
_MAX_RIDGE_FEATURES = 1024  # the eigenvectors take a third of a second; more one-hot features stay an embedding
_MAX_VALUES = 1 << 22  # of all rows together: 34 MB in float64
_RIDGES = (0.0, 1e-3, 1e-2, 0.1, 1.0)  # relative to the number of rows
_LOGISTIC_RIDGES = (1.0, 0.1, 1e-2, 1e-3, 1e-4)
_LOGISTIC_STEPS, _MAX_LOGISTIC_PRODUCTS = 40, 1 << 26  # for each ridge; and the multiply-adds of one step
# The greatest second derivative of a row's loss by a logit; of sigmoids, of the sum over the outputs.
_CURVATURES: dict[type[Loss], float] = {SoftmaxCrossEntropy: 0.5, SigmoidBinaryCrossEntropy: 0.25}
_STEPS, _BATCH, _LEARNING_RATE = 1000, 256, 0.01


def fit_linear_model(prepared: PreparedJob, rng: np.random.Generator) -> Sequential | None:
    """Return a network without hidden layers for the features of a job, fitted on its training rows.

    The numbers of categories, which an embedding takes, become one-hot features; if these are too many, they keep an
    embedding. The validation rows choose the strength of the ridge, or the epoch. None with more than `MAX_FEATURES`
    features, or if the training diverges.
    """
    width, layers = prepared.signature.width, list(prepared.network_spec.layers)
    codes = prepared.network_spec.features.codes if any(_is_embedding(layer) for layer in layers) else {}
    spec = replace(
        prepared.network_spec,
        layers=[],
        input_shape=(width,),
        class_weights=None,
        label_smoothing=None,
        clip_outputs=False,
    )
    if width - len(codes) + sum(codes.values()) > _MAX_RIDGE_FEATURES:
        spec, codes = replace(spec, layers=[layer for layer in layers if _is_embedding(layer)]), {}
    width += sum(codes.values()) - len(codes)
    if width > MAX_FEATURES:
        return None
    x, y = _training_rows(prepared, min(MAX_ROWS, _MAX_VALUES // width), rng)
    x_validation, y_validation = _validation_rows(prepared, _MAX_VALUES // width)
    weights = y[:, -1].astype(np.float64) if spec.weighted else None
    if weights is not None and not weights.any():
        return None
    x, x_validation = (_to_one_hot(rows, codes) for rows in (x, x_validation))
    network = replace(spec, input_shape=(width,)).build(rng)
    embeds = isinstance(network.modules[0], Embedding)
    mean, deviation = np.zeros(width), np.ones(width)
    if not embeds:
        mean = x.mean(axis=0, dtype=np.float64) if weights is None else np.average(x, axis=0, weights=weights)
        deviation = x.std(axis=0, dtype=np.float64)
        deviation[deviation == 0] = 1.0
    x, x_validation = (((rows - mean) / deviation).astype(network.dtype) for rows in (x, x_validation))
    linear: Any = network.modules[0]
    _, criterion = spec.criterion().fused(network)
    solvable = not embeds and width <= _MAX_RIDGE_FEATURES
    if solvable and spec.loss == "mse" and len(network.modules) == 1:
        linear.weights, linear.bias = _ridge(x, y, x_validation, y_validation, weighted=spec.weighted)
    elif solvable and type(criterion) in _CURVATURES and x.size * spec.output_size <= _MAX_LOGISTIC_PRODUCTS:
        linear.weights, linear.bias = _logistic(criterion, x, y, x_validation, y_validation)
    else:
        loss = spec.criterion()
        epochs = math.ceil(_STEPS * _BATCH / max(_BATCH, len(x)))
        stopping = EarlyStopping(network, loss, x_validation, y_validation, EarlyStoppingSection(patience=epochs))
        try:
            optimizer = Adam(network, learning_rate=_LEARNING_RATE)
            train(network, Samples(x, y), None, loss, optimizer, epochs, _BATCH, rng=rng, on_epoch=stopping)
        except DivergedError:
            return None
        stopping.restore_best()
    return network if embeds else _with_codes(_unscale(network, mean, deviation), codes)


def _is_embedding(layer: LayerSpec) -> bool:
    return isinstance(layer, dict) and "embedding" in layer


def _to_one_hot(x: NDArray[Any], codes: Mapping[int, int]) -> NDArray[Any]:
    """Return rows in which one-hot features, after all others, replace the numbers of categories at `codes`."""
    tables = [(x[:, position, None] == np.arange(count)).astype(x.dtype) for position, count in codes.items()]
    return np.concatenate([np.delete(x, list(codes), axis=1), *tables], axis=1)


def _with_codes(network: Sequential, codes: Mapping[int, int]) -> Sequential:
    """Return the network for rows before `_to_one_hot`: the weights of one-hot features become an embedding."""
    if not codes:
        return network
    first: Any = network.modules[0]
    others, outputs = first.input_size - sum(codes.values()), first.output_size
    embedding = Embedding(
        others + len(codes), list(codes), list(codes.values()), outputs,
        dtype=network.dtype, arrays={"weights": np.ascontiguousarray(first.weights[:, others:].T)},
    )  # fmt: skip
    weights = np.concatenate([first.weights[:, :others], *[np.eye(outputs, dtype=network.dtype)] * len(codes)], axis=1)
    arrays = {"weights": weights, "bias": first.bias}
    linear = Linear(weights.shape[1], outputs, dtype=network.dtype, arrays=arrays)
    return Sequential([embedding, linear, *network.modules[1:]])


def _training_rows(prepared: PreparedJob, count: int, rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return at most `count` training rows as the network takes them, and their targets as the loss takes them."""
    if prepared.block_loader is not None:
        return prepared.block_loader.sample(count, rng)
    training = prepared.split.training
    rows = training if len(training) <= count else np.sort(rng.permutation(training)[:count])
    return np.asarray(prepared.encode_rows(rows)), prepared.encode_learned(rows)


def _validation_rows(prepared: PreparedJob, count: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return at most `count` validation rows, evenly spaced, and their targets as the loss takes them."""
    rows = prepared.split.validation
    kept = np.arange(len(rows)) if len(rows) <= count else np.linspace(0, len(rows) - 1, count).astype(np.int64)
    return np.asarray(prepared.x_validation[kept]), prepared.encode_learned(rows[kept])


def _ridge(
    x: NDArray[Any], y: NDArray[Any], x_validation: NDArray[Any], y_validation: NDArray[Any], *, weighted: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return weights (outputs, features) and bias of `argmin |Y - X Wᵀ - b|² + λ |W|²`; X has columns of mean 0.

    If `weighted`, the last column of Y is not a target but the weights of the squared errors of the rows.

    With `XᵀX = V diag(s) Vᵀ`, `Wᵀ = V diag(1 / (s + λ)) Vᵀ XᵀY` for any λ; Hoerl & Kennard 1970. The λ with the least
    squared error on the validation rows is taken, or 0.01 of the number of rows without any.
    """
    y, amounts = (y[:, :-1], y[:, -1:].astype(np.float64)) if weighted else (y, np.ones((1, 1)))
    y_validation, validation_amounts = (
        (y_validation[:, :-1], y_validation[:, -1:]) if weighted else (y_validation, np.ones((1, 1)))
    )
    bias = (amounts * y).mean(axis=0, dtype=np.float64) / amounts.mean()
    x = x.astype(np.float64)
    values, vectors = np.linalg.eigh(x.T @ (amounts * x))
    projected = vectors.T @ (x.T @ (amounts * (y - bias)))
    found = []
    for ridge in _RIDGES if len(x_validation) else (0.01,):
        strength = values + max(ridge * len(x), 1e-9 * values[-1], 1e-9)
        weights = (vectors @ (projected / strength[:, None])).T
        errors = x_validation @ weights.T + bias - y_validation
        found.append((float((validation_amounts * errors**2).sum()), weights))
    return min(found, key=lambda one: one[0])[1], bias


def _logistic(
    criterion: Loss, x: NDArray[Any], y: NDArray[Any], x_validation: NDArray[Any], y_validation: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return weights (outputs, features) and bias of `argmin E(X Wᵀ + b, Y) + λ/2 |W|²`; X has columns of mean 0.

    The second derivatives of E, a mean over the rows, are at most `c XᵀX / rows`: Böhning 1992. With `XᵀX = V diag(s)
    Vᵀ` and `Wᵀ = V U` a step `U ← U - (∂E/∂U + λU) / (c s / rows + λ)` never overshoots. Nesterov's momentum speeds it
    up, from anew when it points uphill (O'Donoghue & Candès 2015). The λ with the least loss of the validation rows is
    taken, or 0.01 without any; each begins where the larger one before it ended.
    """
    values, vectors = np.linalg.eigh(x.T.astype(np.float64) @ x)
    vectors = vectors.astype(x.dtype)
    z, z_validation = (np.column_stack([rows @ vectors, np.ones(len(rows), x.dtype)]) for rows in (x, x_validation))
    share = 1 / y.shape[1] if isinstance(criterion, SigmoidBinaryCrossEntropy) else 1.0  # its mean is over outputs, too
    curvature = _CURVATURES[type(criterion)] * share * np.append(np.maximum(values, 0) / len(x), 1.0)[:, None]
    coefficients = np.zeros((z.shape[1], y.shape[1]), x.dtype)
    found = []
    for ridge in _LOGISTIC_RIDGES if len(x_validation) else (0.01,):
        penalty = np.append(np.full(len(values), ridge), 0.0)[:, None].astype(x.dtype)
        step = (1 / (curvature + penalty + 1e-9)).astype(x.dtype)
        ahead, momentum = coefficients, 0
        for _ in range(_LOGISTIC_STEPS):
            gradient = z.T @ criterion.loss_prime(y, z @ ahead) + penalty * ahead
            moved = ahead - step * gradient
            change = moved - coefficients
            momentum = 0 if (gradient * change).sum() > 0 else momentum + 1
            ahead, coefficients = moved + momentum / (momentum + 3) * change, moved
        loss = criterion.loss(y_validation, z_validation @ coefficients) if len(x_validation) else 0.0
        found.append((loss, coefficients))
    best = min(found, key=lambda one: one[0])[1]
    return (vectors @ best[:-1]).T, best[-1]


def _unscale(network: Sequential, mean: NDArray[np.float64], deviation: NDArray[np.float64]) -> Sequential:
    """Return a network for features x of one that takes `(x - mean) / deviation`."""
    first: Any = network.modules[0]
    weights = first.weights.astype(np.float64) / deviation
    arrays = {
        "weights": weights.astype(network.dtype),
        "bias": (first.bias - weights @ mean).astype(network.dtype),
    }
    linear = Linear(first.input_size, first.output_size, dtype=network.dtype, arrays=arrays)
    return Sequential([linear, *network.modules[1:]])
