"""The tracer's calls compute, bit for bit, what the traced formula computes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.nn import GELU, Activation, Array, LeakyReLU, Linear, Sequential, Sigmoid, Tanh
from training import Optimizer
from training.engine.compiled import compile_module
from training.optim.optimizers import OPTIMIZERS
from training.tracer import Tracer

TRACED: list[Callable[[], Activation]] = [Tanh, Sigmoid, LeakyReLU, lambda: LeakyReLU(0.3), GELU]
DTYPES = [np.float16, np.float32, np.float64]


def run(calls: list[Any]) -> None:
    for function, operands in calls:
        function(*operands)


@given(st.sampled_from(TRACED), st.sampled_from(DTYPES), st.integers(1, 9), st.integers(1, 40), st.data())
def test_a_traced_activation_is_bit_identical_to_its_forward_and_backward(
    make: Callable[[], Activation], dtype: type, rows: int, columns: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    x = np.empty((rows, columns), dtype)
    if data.draw(st.booleans()):
        x = np.empty((columns, rows), dtype).T
    layer, plain = make(), make()
    compiled = compile_module(layer, x)
    dy = np.empty_like(x)
    input_grad, backward = compiled.backward(dy, True)
    for _ in range(2):
        x[...] = rng.standard_normal(x.shape) * data.draw(st.sampled_from([0, 1, 20]))
        upstream = rng.standard_normal(x.shape).astype(dtype)
        run(compiled.forward)
        assert compiled.outputs.tobytes() == plain.forward(x).tobytes()
        dy[...] = upstream
        run(backward)
        assert input_grad.tobytes() == plain.backward(upstream).tobytes()


@given(
    st.sampled_from(sorted(OPTIMIZERS)),
    st.sampled_from([np.float32, np.float64]),
    st.sampled_from([{}, {"weight_decay": 0.1}, {"clip_value": 0.5}, {"clip_value": 0.5, "weight_decay": 0.1}]),
    st.integers(0, 2**32 - 1),
)
def test_a_traced_optimizer_is_bit_identical_to_its_update(
    name: str, dtype: type, options: dict[str, float], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    network = Sequential([Linear(7, 3, dtype=dtype, rng=rng)])
    optimizer: Optimizer = OPTIMIZERS[name](network, **options)
    w = optimizer.parameters[0].copy()
    slots = [np.zeros_like(w) for _ in optimizer.state_slots]
    for _ in range(3):
        g = rng.standard_normal(w.shape).astype(dtype)
        optimizer.gradients[0][...] = g
        coefficients = optimizer.coefficients()
        decay = np.array(optimizer.decay(), dtype)
        decayed, gradient = optimizer._regularize(w, g, np.ones((), dtype), decay, None)
        w, *slots = optimizer.update(decayed, gradient, *slots, **coefficients)
        optimizer.step()
        assert optimizer.parameters[0].tobytes() == w.tobytes()


def test_an_operation_that_occurs_twice_is_recorded_once() -> None:
    tracer = Tracer(np.zeros(3))
    x, out = tracer.input(np.arange(3.0)), np.empty(3)
    tracer.output(np.exp(x) * (1 - np.exp(x)), out)
    calls = tracer.calls()
    assert [function for function, _ in calls] == [np.exp, np.subtract, np.multiply]
    run(calls)
    assert out.tolist() == (np.exp(np.arange(3.0)) * (1 - np.exp(np.arange(3.0)))).tolist()


def test_tanh_takes_four_calls_and_two_arrays_forward_and_backward() -> None:
    x, dy = np.zeros((2, 3)), np.zeros((2, 3))
    compiled = compile_module(Tanh(), x)
    calls = [*compiled.forward, *compiled.backward(dy, True)[1]]
    assert [function for function, _ in calls] == [np.tanh, np.square, np.subtract, np.multiply]
    arrays = {id(one) for _, operands in calls for one in operands if one.shape == x.shape}
    assert len(arrays) == 4  # x, y, dy and one intermediate


def test_an_array_that_is_still_needed_is_not_reused() -> None:
    tracer = Tracer(np.zeros(4))
    x, out = tracer.input(np.array([1.0, 2, 3, 4])), np.empty(4)
    a = x + 1
    b = a * a
    c = b - x
    tracer.output(a * c, out)
    run(tracer.calls())
    assert out.tolist() == [2 * 3, 3 * 7, 4 * 13, 5 * 21]


def test_an_output_that_overwrites_an_input_in_use_is_rejected() -> None:
    array = np.ones(2)
    tracer = Tracer(array)
    x = tracer.input(array)
    first = x + 1
    tracer.output(first, array)
    tracer.output(x * first, np.empty(2))
    with pytest.raises(ValueError, match="tracer: expected an array that is no longer needed"):
        tracer.calls()


def test_a_reduction_is_rejected() -> None:
    tracer = Tracer(np.zeros(2))
    x: Any = tracer.input(np.zeros(2))
    with pytest.raises(TypeError, match=r"tracer: expected an element-wise operation, found add\.reduce"):
        np.add.reduce(x)


def test_a_traced_formula_keeps_its_error_state() -> None:
    x = np.full((1, 2), -1e5, np.float32)
    compiled = compile_module(Sigmoid(), x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(compiled.forward)
    assert compiled.outputs.tolist() == [[0, 0]]


def test_constants_are_of_the_type_of_the_arrays() -> None:
    x = np.ones(3, np.float32)
    tracer, out = Tracer(x), np.empty(3, np.float32)

    def formula(x: Array) -> Array:
        return np.maximum(0.1 * x, np.float32(0.2)) + 1

    tracer.output(formula(tracer.input(x)), out)  # type: ignore[arg-type]
    run(tracer.calls())
    assert out.tobytes() == formula(x).tobytes()
