"""Optimizers: how a gradient becomes a step.

Each is a rule for parameters w and their gradients g: the formula is in the docstring and in `update`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import ClassVar, Unpack

import numpy as np

from model_store.nn import Array, Module
from training.optim.base import Optimizer, OptimizerOptions
from training.stored_arrays import checked_array
from training.tracer import Call


class SGD(Optimizer):
    """Gradient descent with momentum: `v ← momentum·v + g`, `w ← w - learning_rate·v`; Polyak 1964.

    With `nesterov` one step ahead, `w ← w - learning_rate (g + momentum·v)`; Nesterov 1983, as Sutskever et al. 2013
    write it. The number of samples that `train` passes before each step makes it stochastic, mini-batch or plain.

    Stored is the article's velocity, `V = learning_rate·v`: `V ← momentum·V + learning_rate·g`, `w ← w - V`. That is
    three calls if the gradients are already multiplied by the rate, as they are from `train` unless they are clipped or
    decay is added: 84,060 parameters and a batch of one take 38 µs, not 44. When the rate changes, V is multiplied by
    the ratio of the rates first.
    """

    state_slots: tuple[str, ...] = ("velocity",)

    def __init__(
        self,
        module: Module,
        learning_rate: float = 0.01,
        momentum: float = 0.9,
        nesterov: bool = False,
        **options: Unpack[OptimizerOptions],
    ) -> None:
        self._check_fraction(momentum=momentum)
        self._check("nesterov", momentum > 0 or not nesterov, "a momentum above 0 to go with it", momentum)
        self.momentum, self.nesterov = momentum, nesterov
        if not momentum:
            self.state_slots = ()
        self._velocity_rate = learning_rate
        self._smallest_rate = learning_rate * 2.0**-60
        super().__init__(module, learning_rate, **options)
        # Clipping, decay, factors and the step of a subclass need the gradients as they are.
        unscaled = self.clip_norm or self.clip_value or self.weight_decay or self._factors or type(self) is not SGD
        self._scaled_calls = self._calls if unscaled else self._compile(self._scaled_update)

    def update(self, w: Array, g: Array, *slots: Array, rate: float) -> tuple[Array, ...]:  # type: ignore[override]
        return self._scaled_update(w, rate * g, *slots)

    def _scaled_update(self, w: Array, g: Array, *slots: Array, **_: float) -> tuple[Array, ...]:
        """Return the new w and V for gradients that are multiplied by the learning rate."""
        if not slots:
            return (w - g,)
        velocity = self.momentum * slots[0] + g
        return (w - g - self.momentum * velocity if self.nesterov else w - velocity), velocity

    def coefficients(self) -> dict[str, float]:
        """Return the rate. A rate of 0 would lose V: in its place is one so small that no sum changes."""
        return {"rate": self.learning_rate or self._smallest_rate}

    @property
    def gradient_scale(self) -> float:  # type: ignore[override]  # a constant of other optimizers
        return 1.0 if self._scaled_calls is self._calls else self._rate

    def set_coefficients(self) -> None:
        super().set_coefficients()
        self._rate = self.coefficients()["rate"]

    def step(self) -> None:
        self._advance(self._calls)

    def scaled_step(self) -> None:
        if self._scaled_calls is self._calls:
            self.step()
        else:
            self._advance(self._scaled_calls)

    def _advance(self, calls: list[Call]) -> None:
        if self._rate != self._velocity_rate:
            for velocity in self._slots.get("velocity", ()):
                velocity *= self._rate / self._velocity_rate
            self._velocity_rate = self._rate
        self.steps += 1
        for function, operands in calls:
            function(*operands)

    def load_state(self, state: Mapping[str, Array]) -> None:
        super().load_state(state)
        self._velocity_rate = float(checked_array(state, "rate", np.float64))

    def _state_arrays(self) -> dict[str, Array]:
        return {**super()._state_arrays(), "rate": np.array(self._velocity_rate, np.float64)}


class RMSProp(Optimizer):
    """`v ← smoothing·v + (1 - smoothing) g²`, `w ← w - learning_rate·g / (√v + epsilon)`; Tieleman & Hinton 2012.

    With momentum, `b ← momentum·b + g / (√v + epsilon)`, `w ← w - learning_rate·b`. As PyTorch's `RMSprop`.

    Stored is `V = v / (1 - smoothing)`, so its factor moves to epsilon and the rate and costs no call.
    """

    state_slots: tuple[str, ...] = ("squares", "velocity")

    def __init__(
        self,
        module: Module,
        learning_rate: float = 0.01,
        momentum: float = 0.0,
        *,
        smoothing: float = 0.99,
        epsilon: float = 1e-8,
        **options: Unpack[OptimizerOptions],
    ) -> None:
        self._check_fraction(momentum=momentum, smoothing=smoothing)
        self._check_positive(epsilon=epsilon)
        self.momentum, self.smoothing, self.epsilon = momentum, smoothing, epsilon
        if not momentum:
            self.state_slots = ("squares",)
        super().__init__(module, learning_rate, **options)

    def update(self, w: Array, g: Array, *slots: Array, rate: float) -> tuple[Array, ...]:  # type: ignore[override]
        squares, *velocity = slots
        squares = self.smoothing * squares + g * g
        step = g / (np.sqrt(squares) + self.epsilon / math.sqrt(1 - self.smoothing))
        if not velocity:
            return w - rate * step, squares
        step = self.momentum * velocity[0] + step
        return w - rate * step, squares, step

    def coefficients(self) -> dict[str, float]:
        return {"rate": self.learning_rate / math.sqrt(1 - self.smoothing)}


class Adam(Optimizer):
    """`m ← beta1·m + (1 - beta1) g`, `v ← beta2·v + (1 - beta2) g²`; Kingma & Ba 2015, algorithm 1.

    `w ← w - learning_rate·m̂ / (√v̂ + epsilon)`, `m̂ = m / (1 - beta1ᵗ)`, `v̂ = v / (1 - beta2ᵗ)` in step t, from 1.

    Stored are `M = m / (1 - beta1)` and `V = v / (1 - beta2)`, sums without factors, which saves three calls of 13:
    with `k = √((1 - beta2) / (1 - beta2ᵗ))` the step is `rate·M / (√V + epsilon / k)`,
    `rate = learning_rate (1 - beta1) / (1 - beta1ᵗ) / k`.
    """

    state_slots: tuple[str, ...] = ("means", "squares")
    coefficient_names: ClassVar[tuple[str, ...]] = ("rate", "epsilon")

    def __init__(
        self,
        module: Module,
        learning_rate: float = 0.001,
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        **options: Unpack[OptimizerOptions],
    ) -> None:
        self._check_fraction(beta1=beta1, beta2=beta2)
        self._check_positive(epsilon=epsilon)
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        super().__init__(module, learning_rate, **options)

    def update(  # type: ignore[override]
        self, w: Array, g: Array, means: Array, squares: Array, *, rate: float, epsilon: float
    ) -> tuple[Array, ...]:
        means = self.beta1 * means + g
        squares = self.beta2 * squares + g * g
        return w - rate * (means / (np.sqrt(squares) + epsilon)), means, squares

    def coefficients(self) -> dict[str, float]:
        t = self.steps + 1
        k = math.sqrt((1 - self.beta2) / (1 - self.beta2**t))
        return {
            "rate": self.learning_rate * (1 - self.beta1) / (1 - self.beta1**t) / k,
            "epsilon": self.epsilon / k,
        }

    def step(self) -> None:
        self.set_coefficients()
        super().step()


class AdamW(Adam):
    """Adam with decay apart from the gradient: first `w ← w (1 - learning_rate·weight_decay)`, then Adam's step.

    Loshchilov & Hutter 2019.
    """

    default_weight_decay: ClassVar[float] = 0.01

    def decay(self) -> float:
        shrink = self.learning_rate * super().decay()
        return shrink if "decay_factors" in self._factors else 1 - shrink

    def _decay(self, w: Array, g: Array, decay: Array, factors: Array | None) -> tuple[Array, Array]:
        return (decay * w if factors is None else w - decay * (factors * w)), g


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {"sgd": SGD, "rmsprop": RMSProp, "adam": Adam, "adamw": AdamW}
