"""Compilers of the normalization layers; for the formulas see model_store/nn/layers/normalization.py."""

from __future__ import annotations

import numpy as np

from model_store.nn import Array, BatchNorm, LayerNorm
from training.engine.compiled.compilers import CompiledModule, compile_generic, register_compiler
from training.tracer import Call, scalar


@register_compiler(LayerNorm)
def compile_layer_norm(layer: LayerNorm, inputs: Array) -> CompiledModule:
    if inputs.dtype != layer.dtype:
        return compile_generic(layer, inputs)
    broadcast, x = _Broadcast(inputs), inputs.reshape(-1, layer.size)
    normalized, outputs, work = (np.empty_like(x) for _ in range(3))
    sigma, mean = (np.empty((len(x), 1), layer.dtype) for _ in range(2))
    shares = np.full(layer.size, 1 / layer.size, layer.dtype)  # a row times these is its mean

    def mean_of(rows: Array, out: Array) -> Call:
        return rows.dot, (shares, out[:, 0])

    def backward(output_grad: Array, needed: bool) -> tuple[Array, list[Call]]:
        dy = output_grad.reshape(x.shape)
        calls = _parameter_gradients(layer, dy, normalized, work)
        if needed:
            calls += [
                *broadcast(np.multiply, output_grad.reshape(broadcast.rows.shape), layer.scale),
                (np.multiply, (dy, normalized, work)),
                mean_of(work, mean),
                (np.multiply, (normalized, mean, work)),
                mean_of(dy, mean),
                (np.subtract, (dy, mean, dy)),
                (np.subtract, (dy, work, dy)),
                (np.divide, (dy, sigma, dy)),
            ]
        return output_grad, calls

    flat = [array.reshape(broadcast.rows.shape) for array in (normalized, outputs)]
    forward: list[Call] = [
        (np.subtract, (x, x[:, :1], normalized)),
        mean_of(normalized, mean),
        (np.subtract, (normalized, mean, normalized)),
        (np.multiply, (normalized, normalized, work)),
        mean_of(work, sigma),
        (np.add, (sigma, scalar(layer.epsilon, sigma), sigma)),
        (np.sqrt, (sigma, sigma)),
        (np.divide, (normalized, sigma, normalized)),
        *broadcast(np.multiply, flat[0], layer.scale, flat[1]),
        *broadcast(np.add, flat[1], layer.shift),
    ]
    return CompiledModule(outputs.reshape(inputs.shape), forward, backward)


@register_compiler(BatchNorm)
def compile_batch_norm(layer: BatchNorm, inputs: Array) -> CompiledModule:
    count = inputs.size // layer.size
    if inputs.dtype != layer.dtype or count == 1:
        return compile_generic(layer, inputs)
    sums, broadcast = np.ones(count, layer.dtype), _Broadcast(inputs)
    centred, outputs, work = (np.empty_like(broadcast.rows) for _ in range(3))  # x̂ is never written: centred / σ
    mean, variance, inverse, change = (np.empty(layer.size, layer.dtype) for _ in range(4))
    share, momentum = scalar(1 / count, mean), scalar(layer.momentum, mean)
    reference, gain = inputs.reshape(count, layer.size)[0], np.empty(layer.size, layer.dtype)

    def mean_of(array: Array, out: Array) -> list[Call]:
        return [(sums.dot, (array.reshape(count, layer.size), out)), (np.multiply, (out, share, out))]

    def update(running: Array, measured: Array) -> list[Call]:
        """`running ← running + momentum (measured - running)`."""
        step: list[Call] = [(np.subtract, (measured, running, change)), (np.multiply, (change, momentum, change))]
        return [*step, (np.add, (running, change, running))]

    def backward(output_grad: Array, needed: bool) -> tuple[Array, list[Call]]:
        dy = output_grad.reshape(centred.shape)
        matrices = [array.reshape(count, layer.size) for array in (dy, centred, work)]
        calls = _parameter_gradients(layer, *matrices)
        calls.append((np.multiply, (layer.scale_grad, inverse, layer.scale_grad)))
        if needed:  # (D - mean D - x̂ ⊙ mean(D ⊙ x̂)) / σ; the scale, a factor of D, is multiplied last
            calls += [
                (np.multiply, (layer.scale_grad, share, change)),
                (np.multiply, (change, inverse, change)),
                *broadcast(np.multiply, centred, change, work),
                (np.subtract, (dy, work, dy)),
                (np.multiply, (layer.shift_grad, share, change)),
                *broadcast(np.subtract, dy, change),
                (np.multiply, (layer.scale, inverse, change)),
                *broadcast(np.multiply, dy, change),
            ]
        return output_grad, calls

    forward: list[Call] = [
        *broadcast(np.subtract, broadcast.rows, reference, centred),
        *mean_of(centred, mean),
        *broadcast(np.subtract, centred, mean),
        (np.add, (mean, reference, mean)),
        (np.multiply, (centred, centred, work)),
        *mean_of(work, variance),
        *update(layer.running_mean, mean),
        (np.multiply, (variance, scalar(count / (count - 1), mean), inverse)),
        *update(layer.running_variance, inverse),
        (np.add, (variance, scalar(layer.epsilon, mean), inverse)),
        (np.sqrt, (inverse, inverse)),
        (np.reciprocal, (inverse, inverse)),
        (np.multiply, (inverse, layer.scale, gain)),
        *broadcast(np.multiply, centred, gain, outputs),
        *broadcast(np.add, outputs, layer.shift),
    ]
    return CompiledModule(outputs.reshape(inputs.shape), forward, backward)


def _parameter_gradients(layer: LayerNorm | BatchNorm, dy: Array, normalized: Array, work: Array) -> list[Call]:
    """Return the calls of `∂E/∂shift = Σ ∂E/∂Y`, `∂E/∂scale = Σ ∂E/∂Y ⊙ x̂`; all arrays are (values, size)."""
    sums = np.ones(len(dy), layer.dtype)
    return [
        (sums.dot, (dy, layer.shift_grad)),
        (np.multiply, (dy, normalized, work)),
        (sums.dot, (work, layer.scale_grad)),
    ]


class _Broadcast:
    """Makes the calls of a ufunc between a batch and a vector of its features.

    A few channels are too short a run to broadcast fast, so the vector is written out for all pixels of an image.
    """

    def __init__(self, inputs: Array) -> None:
        self.rows = inputs.reshape(len(inputs), -1)
        self.written_out = np.empty((self.rows.shape[1] // inputs.shape[-1], inputs.shape[-1]), inputs.dtype)

    def __call__(self, ufunc: np.ufunc, rows: Array, vector: Array, out: Array | None = None) -> list[Call]:
        """Return the calls of `ufunc(rows, vector)` into `out`, or into `rows`."""
        out = rows if out is None else out
        if len(self.written_out) == 1:
            return [(ufunc, (rows, vector, out))]
        return [(np.copyto, (self.written_out, vector)), (ufunc, (rows, self.written_out.reshape(-1), out))]
