"""The distribution function of the standard normal distribution has its exact values to the rounding of its type."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.nn import ExactGELU
from model_store.nn.normal_distribution import normal_cdf, normal_density


def exact_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_distribution_function_has_the_digits_of_its_type(dtype: type[np.floating]) -> None:
    """Relative to the value. math.erfc(-x/√2), too, magnifies the rounding of x² far below 0."""
    x = np.linspace(-6, 6, 4001).astype(dtype)
    expected = np.array([exact_cdf(one) for one in x.tolist()])
    error = np.abs(normal_cdf(x).astype(np.float64) - expected) / expected / np.finfo(dtype).eps
    assert (error <= 4 + x.astype(np.float64) ** 2).all()
    assert normal_cdf(x).dtype == dtype


def test_half_precision_and_infinite_numbers_have_values() -> None:
    x = np.array([-np.inf, -3, 0, 1, np.inf], np.float16)
    np.testing.assert_allclose(normal_cdf(x), [0, 0.00135, 0.5, 0.8413, 1], atol=2e-3)
    assert normal_cdf(np.array([-1e300, 1e300])).tolist() == [0, 1]


@given(st.floats(-30, 30))
def test_the_exact_gelu_differs_by_at_most_one_unit_of_rounding(x: float) -> None:
    for dtype in (np.float32, np.float64):
        one = np.array([x], dtype)
        expected = float(one[0]) * exact_cdf(float(one[0]))
        error = abs(float(ExactGELU()(one)[0]) - expected)
        assert error <= np.finfo(dtype).eps * max(1, abs(x))


def test_the_density_is_the_derivative_of_the_distribution_function() -> None:
    x = np.linspace(-5, 5, 101)
    step = 1e-6
    found = (normal_cdf(x + step) - normal_cdf(x - step)) / (2 * step)
    np.testing.assert_allclose(normal_density(x), found, atol=1e-9)
