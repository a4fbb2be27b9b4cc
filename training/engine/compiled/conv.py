"""Compilers of convolution and max pooling."""

from __future__ import annotations

from functools import partial

import numpy as np

from model_store.nn import Array, Conv2D, MaxPool2D
from training.engine.compiled.compilers import CompiledModule, compile_generic, register_compiler
from training.engine.compiled.layout import matmul_calls
from training.tracer import Call


@register_compiler(Conv2D)
def compile_conv(layer: Conv2D, inputs: Array) -> CompiledModule:
    if inputs.dtype != layer.dtype:
        return compile_generic(layer, inputs)
    window, batch, filters = layer.window, len(inputs), layer.filters
    padded = window.padded(batch, layer.dtype) if layer.padding else inputs
    buffer, patches = window.empty_patches(batch, layer.dtype)
    outputs = np.empty((batch * window.positions, filters), layer.dtype)
    biases = np.empty((window.positions, filters), layer.dtype)  # of one image: long runs are added faster

    def backward(output_grad: Array, needed: bool) -> tuple[Array, list[Call]]:
        dy, ones = output_grad.reshape(-1, filters), np.ones(len(patches), layer.dtype)
        calls = matmul_calls(dy.T, patches, layer.weights_grad.reshape(filters, -1))
        calls.append((ones.dot, (dy, layer.bias_grad)))
        if not needed:
            return inputs, calls
        input_grad = window.padded(batch, layer.dtype)
        share = np.empty((len(patches), window.channels), layer.dtype)
        calls.append((input_grad.fill, (0,)))
        for u, v in window.offsets:
            pixels = window.pixels(input_grad, u, v)
            calls += matmul_calls(dy, layer.weights[:, u, v], share)
            calls.append((np.add, (pixels, share.reshape(pixels.shape), pixels)))
        if layer.padding:
            whole, input_grad = input_grad, np.empty_like(inputs)
            calls.append((np.copyto, (input_grad, window.without_padding(whole))))
        return input_grad, calls

    rows = outputs.reshape(batch, -1)
    forward: list[Call] = [(np.copyto, (window.without_padding(padded), inputs))] if layer.padding else []
    forward.append((np.copyto, (buffer, window.patches(padded))))
    forward += matmul_calls(patches, layer.weights.reshape(filters, -1).T, outputs)
    forward += [(np.copyto, (biases, layer.bias)), (np.add, (rows, biases.reshape(-1), rows))]
    return CompiledModule(outputs.reshape(batch, window.rows, window.columns, filters), forward, backward)


@register_compiler(MaxPool2D)
def compile_max_pool(layer: MaxPool2D, inputs: Array) -> CompiledModule:
    window, is_padded = layer.window, any(layer.window.padding)
    images = window.padded(len(inputs), inputs.dtype, -np.inf) if is_padded else inputs
    first, *others = layer.pixels_by_offset(images)
    outputs, mask = np.empty(first.shape, inputs.dtype), np.empty(first.shape, np.bool_)
    largest, found = (np.empty(first.shape, layer.index_dtype) for _ in range(2))

    def backward(output_grad: Array, needed: bool) -> tuple[Array, list[Call]]:
        input_grad, share = np.empty_like(images), np.empty_like(output_grad)
        calls: list[Call] = [(input_grad.fill, (0,))]
        for number, pixels in enumerate(layer.pixels_by_offset(input_grad)):
            calls.append((np.equal, (largest, np.array(number, layer.index_dtype), mask)))
            if is_apart:
                calls.append((np.multiply, (output_grad, mask, pixels)))
            else:
                calls += [(np.multiply, (output_grad, mask, share)), (np.add, (pixels, share, pixels))]
        if is_padded:
            whole, input_grad = input_grad, np.empty_like(inputs)
            calls.append((np.copyto, (input_grad, window.without_padding(whole))))
        return input_grad, calls if needed else []

    extents = (1 + step * (size - 1) for step, size in zip(window.dilation, window.size, strict=True))
    is_apart = all(stride >= extent for stride, extent in zip(window.stride, extents, strict=True))  # no overlap
    forward: list[Call] = [(np.copyto, (window.without_padding(images), inputs))] if is_padded else []
    forward += [(np.copyto, (outputs, first)), (largest.fill, (0,))]
    for number, pixels in enumerate(others, 1):
        forward += [
            (np.greater, (pixels, outputs, mask)),
            (np.multiply, (mask, np.array(number, layer.index_dtype), found)),  # larger than any number before
            (partial(np.maximum, out=largest), (largest, found)),
            (partial(np.maximum, out=outputs), (outputs, pixels)),
        ]
    return CompiledModule(outputs, forward, backward)
