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


class SGD(Optimizer):
    """Gradient descent with momentum: `v ← momentum·v + learning_rate·g`, `w ← w - v`.

    Polyak 1964, as Goodfellow, Bengio & Courville 2016, algorithm 8.2, and the article write it; without momentum
    `w ← w - learning_rate·g`. With `nesterov` one step ahead, `w ← w - learning_rate·g - momentum·v`; Nesterov 1983,
    as Sutskever et al. 2013 write it. The number of samples that `train` passes before each step makes it stochastic,
    mini-batch or plain.

    `train` multiplies the gradients by the rate where it averages them, which costs no call, unless they are clipped or
    changed by a decay: 84,060 parameters and a batch of one take 38 µs, not 44.
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
        super().__init__(module, learning_rate, **options)
        # Clipping, decay, factors and the step of a subclass need the gradients as they are.
        unscaled = self.clip_norm or self.clip_value or self.weight_decay or self._factors or type(self) is not SGD
        self._scaled_calls = None if unscaled else self._compile(self._update)

    def update(self, w: Array, g: Array, *slots: Array, rate: float) -> tuple[Array, ...]:  # type: ignore[override]
        return self._update(w, rate * g, *slots)

    def _update(self, w: Array, g: Array, *slots: Array, **_: float) -> tuple[Array, ...]:
        """Return the new w and v for g that are multiplied by the learning rate."""
        if not slots:
            return (w - g,)
        v = self.momentum * slots[0] + g
        return (w - g - self.momentum * v if self.nesterov else w - v), v

    @property
    def gradient_scale(self) -> float:  # type: ignore[override]  # a constant of other optimizers
        return 1.0 if self._scaled_calls is None else self.learning_rate

    def scaled_step(self) -> None:
        if self._scaled_calls is None:
            self.step()
        else:
            self._run(self._scaled_calls)

    def load_state(self, state: Mapping[str, Array]) -> None:
        # States of older versions have the rate of the last step, too.
        super().load_state({name: array for name, array in state.items() if name != "rate"})


class RMSProp(Optimizer):
    """`v ← smoothing·v + (1 - smoothing) g²`, `w ← w - learning_rate·g / (√v + epsilon)`; Tieleman & Hinton 2012.

    With momentum, `b ← momentum·b + g / (√v + epsilon)`, `w ← w - learning_rate·b`. As PyTorch's `RMSprop`.
    """

    state_slots: tuple[str, ...] = ("mean_squares", "velocity")

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
            self.state_slots = ("mean_squares",)
        super().__init__(module, learning_rate, **options)

    def update(self, w: Array, g: Array, *slots: Array, rate: float) -> tuple[Array, ...]:  # type: ignore[override]
        v, *velocity = slots
        v = self.smoothing * v + (1 - self.smoothing) * (g * g)
        step = g / (np.sqrt(v) + self.epsilon)
        if not velocity:
            return w - rate * step, v
        b = self.momentum * velocity[0] + step
        return w - rate * b, v, b

    def load_state(self, state: Mapping[str, Array]) -> None:
        super().load_state(_with_new_names(state))
        if "squares.0" in state:
            factor = 1 - self.smoothing
            self._multiply_slots(mean_squares=factor, velocity=1 / math.sqrt(factor))


class Adam(Optimizer):
    """`m ← beta1·m + (1 - beta1) g`, `v ← beta2·v + (1 - beta2) g²`; Kingma & Ba 2015, algorithm 1.

    `w ← w - learning_rate·m̂ / (√v̂ + epsilon)`, `m̂ = m / (1 - beta1ᵗ)`, `v̂ = v / (1 - beta2ᵗ)` in step t, from 1.
    The corrections of the means are numbers, so they are applied as the end of the paper's section 2 does:
    `w ← w - rate·m / (√v + epsilon·k)` with `k = √(1 - beta2ᵗ)` and `rate = learning_rate·k / (1 - beta1ᵗ)`.
    """

    state_slots: tuple[str, ...] = ("means", "mean_squares")
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
        self, w: Array, g: Array, m: Array, v: Array, *, rate: float, epsilon: float
    ) -> tuple[Array, ...]:
        m = self.beta1 * m + (1 - self.beta1) * g
        v = self.beta2 * v + (1 - self.beta2) * (g * g)
        return w - rate * (m / (np.sqrt(v) + epsilon)), m, v

    def coefficients(self) -> dict[str, float]:
        t = self.steps + 1
        k = math.sqrt(1 - self.beta2**t)
        return {"rate": self.learning_rate * k / (1 - self.beta1**t), "epsilon": self.epsilon * k}

    def step(self) -> None:
        self.set_coefficients()
        super().step()

    def load_state(self, state: Mapping[str, Array]) -> None:
        super().load_state(_with_new_names(state))
        if "squares.0" in state:
            self._multiply_slots(means=1 - self.beta1, mean_squares=1 - self.beta2)


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


def _with_new_names(state: Mapping[str, Array]) -> dict[str, Array]:
    """Rename the slots of a state of an older version, where `squares` are sums without the factor of the mean."""
    return {f"mean_{name}" if name.startswith("squares.") else name: array for name, array in state.items()}
