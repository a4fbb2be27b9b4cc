"""Layers of an exported file: the formulas of inference. X and Y have a row for each sample, or images.

The products are those of `model_store.nn`, operation by operation, so that they have the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from model_store.nn.arrays import Array
from model_store.nn.batch_invariant import block_rows, multiply_in_blocks
from model_store.nn.layers.window import Sizes, Window
from model_store.nn.normal_distribution import normal_cdf


def linear(x: Array, weights: Array, bias: Array) -> Array:
    """Y = X Wᵀ + b; W (outputs, inputs)."""
    outputs, inputs = weights.shape
    y = multiply_in_blocks(np.ascontiguousarray(x), weights.T, block_rows(inputs, outputs, x.dtype))
    y += bias
    return y


def tanh(x: Array) -> Array:
    """Y = tanh X."""
    return np.asarray(np.tanh(x))


def sigmoid(x: Array) -> Array:
    """Y = 1 / (1 + e⁻ˣ)."""
    with np.errstate(over="ignore"):
        return np.asarray(1 / (1 + np.exp(-x)))


def relu(x: Array) -> Array:
    """Y = max(0, X)."""
    return np.asarray(np.maximum(x, 0))


def leaky_relu(x: Array, slope: float = 0.01) -> Array:
    """Y = X where it is above 0, else slope · X."""
    return np.asarray(np.maximum(x, slope * x))


def gelu(x: Array) -> Array:
    """Y = X/2 (1 + tanh(√(2/π) (X + 0.044715 X³)))."""
    return np.asarray(0.5 * x * (1 + np.tanh(float(np.sqrt(2 / np.pi)) * (x + 0.044715 * x * x * x))))


def exact_gelu(x: Array) -> Array:
    """Y = X Φ(X)."""
    return np.asarray(x * normal_cdf(x))


def silu(x: Array) -> Array:
    """Y = X / (1 + e⁻ˣ)."""
    return np.asarray(x * sigmoid(x))


def elu(x: Array, alpha: float = 1.0) -> Array:
    """Y = X where it is above 0, else α (eˣ - 1)."""
    return np.asarray(np.maximum(x, 0) + alpha * np.expm1(np.minimum(x, 0)))


def softplus(x: Array) -> Array:
    """Y = ln(1 + eˣ)."""
    return np.asarray(np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))))


def selu(x: Array) -> Array:
    """Y = λ X where it is above 0, else λ α (eˣ - 1)."""
    below_zero = np.expm1(np.minimum(x, 0))
    return np.asarray(1.0507009873554805 * (np.maximum(x, 0) + 1.6732632423543772 * below_zero))


def mish(x: Array) -> Array:
    """Y = X tanh(ln(1 + eˣ)) = X p / (p + 2), p = eˣ (eˣ + 2)."""
    n = np.exp(np.minimum(x, 20))
    p = n * (n + 2)
    return np.asarray(x * (p / (p + 2)))


def smooth_clip(x: Array) -> Array:
    """Y = X / √(1 + (X/3)²)."""
    return np.asarray(x * (1 / np.hypot(x / 3, 1)))


def identity(x: Array) -> Array:
    """Y = X."""
    return x


def exp(x: Array) -> Array:
    """Y = eˣ."""
    return np.asarray(np.exp(x))


def softmax(x: Array) -> Array:
    """Y = e^(X - max X) / Σ e^(X - max X) over each row."""
    y = np.exp(x - x.max(axis=-1, keepdims=True))
    y /= y.sum(axis=-1, keepdims=True)
    return np.asarray(y)


def parametric(x: Array, alpha: Array, activation: Any) -> Array:
    """Y = X + α (f(X) - X)."""
    y = activation(x) - x
    y *= alpha
    y += x
    return np.asarray(y)


def batch_norm(x: Array, scale: Array, shift: Array, mean: Array, variance: Array, epsilon: float) -> Array:
    """Y = (X - mean) / √(variance + ε) scale + shift, with mean and variance of training."""
    y = (x - mean) * (scale / np.sqrt(variance + epsilon))
    y += shift
    return np.asarray(y)


def layer_norm(x: Array, scale: Array, shift: Array, epsilon: float) -> Array:
    """Y = (X - mean) / √(variance + ε) scale + shift, with mean and variance of each row."""
    centred = x - x[..., :1]
    centred -= centred.mean(-1, keepdims=True)
    centred /= np.sqrt((centred * centred).mean(-1, keepdims=True) + epsilon)
    return np.asarray(centred * scale + shift)


def constant_inputs(x: Array, constant: Array, values: Array) -> Array:
    """Y = the values where a feature was constant in training, else X."""
    return np.where(constant != 0, values, x.reshape(len(x), -1)).reshape(x.shape)


def feature_scale(x: Array, scale: Array) -> Array:
    """Y = X ⊙ s."""
    return np.asarray(x * scale)


def clip(x: Array, low: Array, high: Array) -> Array:
    """Y = min(max(X, low), high)."""
    return np.asarray(np.minimum(np.maximum(x, low), high))


def embedding(x: Array, weights: Array, positions: Sequence[int], counts: Sequence[int]) -> Array:
    """Y = [the other features, E₁[x at the first position], E₂[x at the second], ...]."""
    chosen, sizes = np.array(positions), np.array(counts)
    codes = np.fmax(np.fmin(np.rint(x[:, chosen]), sizes - 1), 0).astype(np.intp)
    embedded = weights[codes + np.cumsum(sizes) - sizes].reshape(len(x), -1)
    return np.concatenate([np.delete(x, chosen, axis=1), embedded], axis=1)


def periodic_embedding(
    x: Array, frequencies: Array, phases: Array, weights: Array, bias: Array, positions: Sequence[int]
) -> Array:
    """Y = [the other features, cos(2π w x + b) V + c and x for the number x at each position]."""
    chosen = np.array(positions)
    numbers = x[:, chosen].T
    scaled = frequencies * x.dtype.type(2 * np.pi)
    waves = np.cos(numbers[:, :, None] * scaled[:, None, :] + phases[:, None, :])
    embedded = (waves[..., None] * weights[:, None]).sum(axis=2) + bias[:, None, :]
    joined = np.concatenate([embedded, numbers[:, :, None]], axis=2).transpose(1, 0, 2).reshape(len(x), -1)
    return np.concatenate([np.delete(x, chosen, axis=1), joined], axis=1)


def convolution(x: Array, weights: Array, bias: Array, stride: Sizes, padding: Sizes) -> Array:
    """Y[i, j, f] = b[f] + Σ W[f, u, v, c] X[i·stride + u - padding, j·stride + v - padding, c]."""
    filters = len(weights)
    window = Window("kernel", x.shape[1:], weights.shape[1:3], stride, padding)
    buffer, patches = window.empty_patches(1, x.dtype)
    y = np.empty((len(x), window.positions, filters), x.dtype)
    for image, output in zip(window.patches(window.pad(x)), y, strict=True):
        np.copyto(buffer[0], image)
        patches.dot(weights.reshape(filters, -1).T, output)
    y += bias
    return y.reshape(-1, window.rows, window.columns, filters)


def max_pool(x: Array, size: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes) -> Array:
    """Y = the largest value of each window, channel by channel."""
    window = Window("size", x.shape[1:], size, stride, padding, dilation)
    images = window.pad(x, -np.inf)
    return np.asarray(np.maximum.reduce([window.pixels(images, u, v) for u, v in window.offsets]))


def average_pool(x: Array, size: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, include_padding: bool) -> Array:
    """Y = the mean of the pixels of the image in each window, channel by channel, or with a border of zeros."""
    window = Window("size", x.shape[1:], size, stride, padding, dilation)
    images = window.pad(x)
    y = np.zeros((len(x), window.rows, window.columns, window.channels), x.dtype)
    for u, v in window.offsets:
        y += window.pixels(images, u, v)
    if include_padding or not any(window.padding):
        y /= window.places
        return y
    for count in window.counts():
        y /= count.astype(x.dtype)
    return y


def gather(x: Array, index: Array, shape: Sequence[int]) -> Array:
    """Y = the values of each row at the index, in this shape."""
    return x.reshape(len(x), -1).take(index.astype(np.intp), axis=1).reshape(-1, *shape)


def flatten(x: Array) -> Array:
    """Y = each image as one row."""
    return x.reshape(len(x), -1)


def average(outputs: Sequence[Array]) -> Array:
    """Y = 1/k Σ Yᵢ of the outputs of k networks."""
    total = outputs[0].copy()
    for output in outputs[1:]:
        total += output
    total /= total.dtype.type(len(outputs))
    return total
