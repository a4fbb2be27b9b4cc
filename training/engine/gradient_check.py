"""Gradient checking: compare the derivatives of a module or a loss with central finite differences.

`f'(x) ≈ (f(x + ε) - f(x - ε)) / 2ε`, whose error is of order ε². Use float64: in float32 rounding drowns it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from model_store.nn import Array, Module
from training.losses import Loss


class GradientError(AssertionError):
    """An analytic gradient differs from the numeric one; the message shows both numbers and their location."""


def check_gradients(
    module: Module,
    inputs: Array,
    *,
    rng: np.random.Generator,
    epsilon: float = 1e-6,
    tolerance: float = 1e-6,
) -> float:
    """Check `∂E/∂X` and every `∂E/∂W` of `module` at `inputs` (batch, features), for `E = Σ R ⊙ Y` with random R.

    Return the largest error, `|analytic - numeric| / max(1, |analytic|, |numeric|)`; GradientError if it is above
    `tolerance`. Parameters and inputs do not change; gradients are zero afterwards.
    """
    inputs = _require_float64(inputs, "inputs").copy()
    for parameter in module.parameters():
        _require_float64(parameter, "parameters")
    for gradient in module.gradients():
        gradient.fill(0)
    weighting = rng.standard_normal(module.forward(inputs).shape)
    input_grad = module.backward(weighting)
    pairs = [("inputs", inputs, input_grad)]
    for i, (parameter, gradient) in enumerate(zip(module.parameters(), module.gradients(), strict=True)):
        pairs.append((f"parameters.{i}", parameter, gradient.copy()))
        gradient.fill(0)

    def error() -> float:
        return float(np.sum(weighting * module.forward(inputs)))

    return max(_check_derivatives(name, array, analytic, error, epsilon, tolerance) for name, array, analytic in pairs)


def check_loss(loss: Loss, y_true: Array, y_pred: Array, *, epsilon: float = 1e-6, tolerance: float = 1e-6) -> float:
    """Check `loss_prime` against `loss` at `y_pred`. Return the largest error; GradientError above `tolerance`."""
    y_pred = _require_float64(y_pred, "y_pred").copy()
    analytic = loss.loss_prime(y_true, y_pred)
    return _check_derivatives("y_pred", y_pred, analytic, lambda: loss.loss(y_true, y_pred), epsilon, tolerance)


def _check_derivatives(
    name: str, array: Array, analytic: Array, error: Callable[[], float], epsilon: float, tolerance: float
) -> float:
    if analytic.shape != array.shape:
        raise GradientError(f"{name}: expected a gradient of shape {array.shape}, found {analytic.shape}")
    worst = 0.0
    for location in np.ndindex(array.shape):
        kept = array[location]
        array[location] = kept + epsilon
        above = error()
        array[location] = kept - epsilon
        below = error()
        array[location] = kept
        numeric = (above - below) / (2 * epsilon)
        found = float(analytic[location])
        difference = abs(found - numeric) / max(1.0, abs(found), abs(numeric))
        if not difference <= tolerance:  # a NaN is not within any tolerance either
            raise GradientError(
                f"{name}[{', '.join(map(str, location))}]: analytic {found:.10g}, numeric {numeric:.10g}; "
                f"they differ by {difference:.3g}, allowed {tolerance:g}"
            )
        worst = max(worst, difference)
    return worst


def _require_float64(array: Array, name: str) -> Array:
    if array.dtype != np.float64:
        raise TypeError(f"{name}: expected float64, found {array.dtype}: finite differences drown in its rounding")
    return array
