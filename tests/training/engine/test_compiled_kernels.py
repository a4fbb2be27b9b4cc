"""Each kernel written by hand computes what the layer's own forward and backward compute."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store.nn import Array, BatchNorm, Conv2D, Dropout, Identity, LayerNorm, Linear, MaxPool2D, Module, ReLU
from model_store.nn.arrays import SMALL_FEATURES
from model_store.nn.layers.activations import ACTIVATIONS
from training import MAE, MSE, Huber, Loss
from training.engine.compiled import COMPILERS, LOSS_COMPILERS, compile_module
from training.engine.compiled.layout import SMALL_BATCH, empty_bias_augmented
from training.engine.compiled.losses import compile_loss
from training.losses import SigmoidBinaryCrossEntropy, SoftmaxCrossEntropy

SEEDS = st.integers(0, 2**32 - 1)


def run(calls: list) -> None:
    for function, operands in calls:
        function(*operands)


def passes(layer: Module, x: Array, dy: Array) -> list[Array]:
    """Outputs, input gradient, parameter gradients and saved arrays of the layer's own passes."""
    for gradient in layer.gradients():
        gradient.fill(0)
    return [layer.forward(x), layer.backward(dy), *layer.gradients(), *layer.arrays().values()]


def compiled_passes(layer: Module, inputs: Array, x: Array, dy: Array) -> list[Array]:
    """The same of the compiled layer, for a batch that lies in `inputs`."""
    compiled = compile_module(layer, inputs)
    output_grad = np.empty_like(compiled.outputs)
    input_grad, backward = compiled.backward(output_grad, True)
    inputs[...] = x
    run(compiled.forward)
    outputs = compiled.outputs.copy()
    output_grad[...] = dy
    run(backward)
    return [outputs, input_grad, *layer.gradients(), *layer.arrays().values()]


def check(make: Callable[[], Module], x: Array, dy: Array, inputs: Array, tolerance: float) -> None:
    expected, found = passes(make(), x, dy), compiled_passes(make(), inputs, x, dy)
    assert len(expected) == len(found)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=tolerance * max(1, np.abs(one).max()))


@settings(max_examples=60)
@given(SEEDS, st.integers(1, 40) | st.just(SMALL_BATCH + 1), st.data())
def test_the_kernel_of_a_dense_layer(seed: int, rows: int, data: st.DataObject) -> None:
    sizes = st.integers(1, 9) | st.sampled_from([SMALL_FEATURES, SMALL_FEATURES + 1])
    inputs, outputs = data.draw(sizes), data.draw(sizes)
    rng = np.random.default_rng(seed)
    x, dy = rng.standard_normal((rows, inputs)), rng.standard_normal((rows, outputs))
    array = empty_bias_augmented(x) if data.draw(st.booleans()) else np.empty_like(x)
    check(lambda: Linear(inputs, outputs, dtype=float, rng=np.random.default_rng(seed)), x, dy, array, 1e-12)


@settings(max_examples=40)
@given(SEEDS, st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2))
def test_the_kernel_of_a_convolution(
    seed: int, batch: int, channels: int, kernel: int, stride: int, padding: int
) -> None:
    rng = np.random.default_rng(seed)

    def make() -> Conv2D:
        return Conv2D((6, 5, channels), 2, kernel, stride, padding, dtype=float, rng=np.random.default_rng(seed))

    x = rng.standard_normal((batch, 6, 5, channels))
    dy = rng.standard_normal((batch, *make().output_shape(None)))
    check(make, x, dy, np.empty_like(x), 1e-12)


@settings(max_examples=40)
@given(SEEDS, st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(0, 3))
def test_the_kernel_of_max_pooling_is_bit_identical(
    seed: int, batch: int, channels: int, size: int, stride: int, padding: int
) -> None:
    rng = np.random.default_rng(seed)

    def make() -> MaxPool2D:
        return MaxPool2D((6, 5, channels), size, stride, min(padding, size - 1))

    x = rng.integers(0, 5, (batch, 6, 5, channels)).astype(float)  # with equal values in a window
    dy = rng.standard_normal((batch, *make().output_shape(None)))
    check(make, x, dy, np.empty_like(x), 0)


@settings(max_examples=60)
@given(SEEDS, st.sampled_from([LayerNorm, BatchNorm]), st.data())
def test_the_kernels_of_the_norms(seed: int, kind: type[LayerNorm] | type[BatchNorm], data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 5), min_size=2, max_size=4).filter(lambda s: len(s) != 3))
    rng = np.random.default_rng(seed)
    x, dy = rng.standard_normal(shape), rng.standard_normal(shape)

    def make() -> Module:
        layer, own = kind(shape[-1], epsilon=1e-3, dtype=float), np.random.default_rng(seed)
        layer.scale, layer.shift = own.standard_normal(shape[-1]), own.standard_normal(shape[-1])
        return layer

    check(make, x, dy, np.empty_like(x), 1e-9)


@given(SEEDS, st.sampled_from([np.float16, np.float32, np.float64]), st.integers(1, 9), st.integers(1, 40))
def test_the_kernels_of_relu_dropout_and_identity_are_bit_identical(
    seed: int, dtype: type, rows: int, columns: int
) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((rows, columns)) * rng.integers(0, 2, (rows, columns))).astype(dtype)
    dy = rng.standard_normal(x.shape).astype(dtype)
    for make in (ReLU, lambda: Dropout(0.3, rng=np.random.default_rng(seed)), Identity):
        check(make, x, dy, np.empty_like(x), 0)


@given(SEEDS, st.integers(1, 30), st.integers(2, 5), st.booleans())
def test_the_kernels_of_the_losses(seed: int, rows: int, columns: int, weighted: bool) -> None:
    rng = np.random.default_rng(seed)
    y = np.eye(columns)[rng.integers(0, columns, rows)]
    losses: list[Loss] = [MSE(), MAE(), Huber(0.5)]
    losses.append(SoftmaxCrossEntropy(rng.random(columns) if weighted else None))
    losses.append(SigmoidBinaryCrossEntropy(rng.random((2, columns) if rows % 2 else 2) if weighted else (1, 1)))
    assert {type(loss) for loss in losses} == LOSS_COMPILERS.keys()
    for loss in losses:
        z, error = np.empty_like(y), np.empty(())
        compiled = compile_loss(loss, y, z, error)
        z[...] = rng.standard_normal(y.shape) * 5
        run(compiled.calls)
        np.testing.assert_allclose(error * compiled.error_factor, loss.loss(y, z), rtol=1e-9, atol=1e-13)
        np.testing.assert_allclose(compiled.prime * compiled.prime_factor, loss.loss_prime(y, z), rtol=0, atol=1e-13)


def test_a_subclass_is_compiled_generically() -> None:
    assert COMPILERS.keys() >= set(ACTIVATIONS.values())
    for kind in COMPILERS:
        assert type(kind.__name__, (kind,), {}) not in COMPILERS
