"""The compiler of dense layers."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import as_strided

from model_store.nn import Array, Linear
from model_store.nn.arrays import SMALL_FEATURES
from training.engine.compiled.compilers import CompiledModule, compile_generic, register_compiler
from training.engine.compiled.layout import SMALL_BATCH, bias_augmented, is_feature_major, matmul_calls, row_major
from training.tracer import Call

# Up to this many outputs it is faster to write the bias out for every row and add arrays of one shape than to
# broadcast: 0.6 instead of 0.95 µs for 4 rows of 3.
_MAX_WRITTEN_OUT = 2048


@register_compiler(Linear, feature_major=True)
def compile_linear(layer: Linear, inputs: Array) -> CompiledModule:
    if inputs.dtype != layer.dtype:  # a network of mixed precision converts between its layers
        return compile_generic(layer, inputs)
    augmented_weights = _bias_augmented_weights(layer.weights, layer.bias)
    augmented_weights_grad = _bias_augmented_weights(layer.weights_grad, layer.bias_grad)
    if augmented_weights is not None and augmented_weights_grad is not None and len(inputs) <= SMALL_BATCH:
        return _compile_bias_augmented(layer, inputs, augmented_weights, augmented_weights_grad)
    rows, forward = row_major(inputs)
    outputs = np.empty((len(rows), layer.output_size), layer.dtype)
    ones = np.ones((len(rows), 1), layer.dtype)  # ones·D is the sum over the batch, computed by the BLAS

    def backward(output_grad: Array, needed: bool) -> tuple[Array, list[Call]]:
        if is_feature_major(layer.weights_grad):
            calls = matmul_calls(rows.T, output_grad, layer.weights_grad.T)
        else:
            calls = matmul_calls(output_grad.T, rows, layer.weights_grad)
        calls.append((ones[:, 0].dot, (output_grad, layer.bias_grad)))
        input_grad = np.empty_like(rows)
        if needed:
            calls += matmul_calls(output_grad, layer.weights, input_grad)
        return input_grad, calls

    if outputs.size > _MAX_WRITTEN_OUT:
        forward += [*matmul_calls(rows, layer.weights.T, outputs), (np.add, (outputs, layer.bias, outputs))]
        return CompiledModule(outputs, forward, backward)
    product = np.empty_like(outputs)  # in place, adding one number takes NumPy 0.6 µs; from array to array, 0.2
    forward += matmul_calls(rows, layer.weights.T, product)
    biases: Array = np.empty_like(outputs)
    if layer.output_size == 1:
        biases = layer.bias.reshape(())
    elif len(rows) == 1:
        biases = layer.bias.reshape(1, -1)
    else:
        forward.append((ones.dot, (layer.bias.reshape(1, -1), biases)))
    return CompiledModule(outputs, [*forward, (np.add, (product, biases, outputs))], backward)


def _compile_bias_augmented(
    layer: Linear, inputs: Array, augmented_weights: Array, augmented_weights_grad: Array
) -> CompiledModule:
    """Compile a small layer: `Y = [X 1] [Wᵀ; b]`, one product, and one product for both gradients."""
    forward: list[Call] = []
    augmented = bias_augmented(inputs)
    if augmented is None:
        augmented = np.ones((len(inputs), layer.input_size + 1), layer.dtype)
        forward.append((np.copyto, (augmented[:, :-1], inputs)))
    outputs = np.empty((layer.output_size, len(inputs)), layer.dtype).T
    forward.append((augmented_weights.T.dot, (augmented.T, outputs.T)))

    def backward(output_grad: Array, needed: bool) -> tuple[Array, list[Call]]:
        calls: list[Call] = [(augmented.T.dot, (output_grad, augmented_weights_grad))]
        input_grad = np.empty_like(inputs)
        if needed and is_feature_major(input_grad):
            calls.append((augmented_weights[:-1].dot, (output_grad.T, input_grad.T)))
        elif needed:
            calls.append((output_grad.dot, (augmented_weights[:-1].T, input_grad)))
        return input_grad, calls

    return CompiledModule(outputs, forward, backward)


def _bias_augmented_weights(weights: Array, bias: Array) -> Array | None:
    """Return `[Wᵀ; b]`, (inputs + 1, outputs), if a network's vector stores them so: for small layers. Else None."""
    same_vector = weights.base is not None and weights.base is bias.base
    small = max(weights.shape) <= SMALL_FEATURES
    if not (same_vector and small and is_feature_major(weights)):
        return None
    if weights.ctypes.data + weights.nbytes != bias.ctypes.data:
        return None
    return as_strided(weights.T, (weights.shape[1] + 1, weights.shape[0]))
