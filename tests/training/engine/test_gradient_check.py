"""The gradient check finds a wrong derivative and reports by how much."""

import numpy as np
import pytest

from model_store.nn import Array, Linear, Tanh
from training import MSE, GradientError, check_gradients, check_loss


class WrongTanh(Tanh):
    def activation_prime(self, inputs: Array) -> Array:
        return 1 - np.tanh(inputs)


class WrongLinear(Linear):
    def backward(self, output_grad: Array) -> Array:
        self.bias_grad += 1
        return super().backward(output_grad)


class WrongMSE(MSE):
    def loss_prime(self, y_true: Array, y_pred: Array) -> Array:
        return (y_pred - y_true) / np.size(y_true)


def test_a_wrong_derivative_is_shown_with_both_numbers() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(GradientError, match=r"inputs\[0, 0\]: analytic -?\d.*, numeric -?\d.*; they differ by"):
        check_gradients(WrongTanh(), np.full((2, 2), 0.5), rng=rng)
    with pytest.raises(GradientError, match=r"parameters.1\[0\]: analytic"):
        check_gradients(WrongLinear(2, 2, dtype=np.float64, rng=rng), np.ones((2, 2)), rng=rng)
    with pytest.raises(GradientError, match=r"y_pred\[0, 0\]: analytic 2, numeric 4"):
        check_loss(WrongMSE(), np.array([[1.0]]), np.array([[3.0]]))


def test_float32_is_rejected_for_its_rounding() -> None:
    with pytest.raises(TypeError, match="inputs: expected float64, found float32"):
        check_gradients(Tanh(), np.zeros((1, 1), np.float32), rng=np.random.default_rng(0))
    with pytest.raises(TypeError, match="parameters: expected float64"):
        check_gradients(Linear(1, 1), np.zeros((1, 1)), rng=np.random.default_rng(0))


def test_checked_arrays_may_be_read_only_and_do_not_change() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 2))
    x.flags.writeable = False
    layer = Linear(2, 2, dtype=np.float64, rng=rng)
    before = [array.copy() for array in layer.parameters()]
    assert check_gradients(layer, x, rng=rng) < 1e-6
    assert check_loss(MSE(), np.zeros((3, 2)), x) < 1e-6
    assert [array.tolist() for array in layer.parameters()] == [array.tolist() for array in before]
    assert not any(gradient.any() for gradient in layer.gradients())
