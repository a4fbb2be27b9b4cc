"""Optimizers: how a gradient becomes a step.

Each is a rule for an array of parameters w and their gradients g: the formula in the docstring, its NumPy calls in
`rule` (see descent.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Unpack

import numpy as np

from model_store.nn import Array, Module
from model_store.nn.tape import Line, scalar
from training.optim.base import Descent, Optimizer, Options


class SGD(Descent):
    """Gradient descent with momentum: `v ← momentum·v + g`, `w ← w - learning_rate·v`; Polyak 1964.

    With `nesterov` a step ahead, `w ← w - learning_rate (g + momentum·v)`; Nesterov 1983, as Sutskever et al. 2013
    write it. The article's velocity is `-learning_rate·v`, which is the same as long as the rate is.

    Stochastic, mini-batch or plain gradient descent, by how many samples `train` passes before each step.

    What is kept is `V = learning_rate·v`, so `V ← momentum·V + learning_rate·g`, `w ← w - V`: three calls where the
    gradients come multiplied by the rate, as they do from `train` unless they are clipped or decay is added. 84,060
    parameters and a batch of one take 38 µs so, 44 otherwise. The rate in V is the one of the last step; where another
    follows, V is multiplied by their ratio first.
    """

    memory: tuple[str, ...] = ("velocity",)

    def __init__(
        self,
        module: Module,
        learning_rate: float = 0.01,
        momentum: float = 0.9,
        nesterov: bool = False,
        **options: Unpack[Options],
    ) -> None:
        self._shares(momentum=momentum)
        self._check("nesterov", momentum > 0 or not nesterov, "a momentum above 0 to go with it", momentum)
        self.momentum, self.nesterov = momentum, nesterov
        if not momentum:
            self.memory = ()
        self._rate = self._rate_kept = learning_rate
        self._least = learning_rate * 2.0**-60
        super().__init__(module, learning_rate, **options)
        # Clipping, decay and a `step` of somebody's own go by the gradients as they are.
        as_they_are = self.clip_norm or self.clip_value or self.weight_decay or type(self) is not SGD
        self._scaled_lines = self._lines if as_they_are else self._written(self._scaled_rule)

    @property
    def scale(self) -> float:  # type: ignore[override]  # of others it is a constant
        return 1.0 if self._scaled_lines is self._lines else self._rate

    def tune(self) -> None:
        """A rate of 0 would lose the velocity: it counts as so little of the first one that no sum sees it."""
        self._rate = self.learning_rate or self._least
        self.assign(rate=self._rate)

    def step(self) -> None:
        self._advance(self._lines)

    def scaled_step(self) -> None:
        if self._scaled_lines is self._lines:
            self.step()
        else:
            self._advance(self._scaled_lines)

    def _advance(self, lines: list[Line]) -> None:
        if self._rate != self._rate_kept:
            for v in self._memory.get("velocity", ()):
                v *= self._rate / self._rate_kept
            self._rate_kept = self._rate
        self.steps += 1
        for function, operands in lines:
            function(*operands)

    def rule(self, w: Array, g: Array, s: Array, *memory: Array) -> list[Line]:
        return [(np.multiply, (g, self.operand("rate", w), s)), *self._scaled_rule(w, s, s, *memory)]

    def _scaled_rule(self, w: Array, g: Array, s: Array, *memory: Array) -> list[Line]:
        """The rule where g has the learning rate in it."""
        lines: list[Line] = []
        for v in memory:  # none without momentum
            mu = scalar(self.momentum, w)
            lines += [(np.multiply, (v, mu, v)), (np.add, (v, g, v))]
            if self.nesterov:
                return [*lines, (np.subtract, (w, g, w)), (np.multiply, (v, mu, s)), (np.subtract, (w, s, w))]
            g = v
        return [*lines, (np.subtract, (w, g, w))]

    def load_state(self, state: Mapping[str, Array]) -> None:
        super().load_state(state)
        self._rate_kept = float(state["rate"])

    def _kept(self) -> dict[str, Array]:
        return {**super()._kept(), "rate": np.array(self._rate_kept)}


class RMSProp(Descent):
    """`v ← smoothing·v + (1 - smoothing) g²`, `w ← w - learning_rate·g / (√v + epsilon)`; Tieleman & Hinton 2012.

    With momentum, `b ← momentum·b + g / (√v + epsilon)`, `w ← w - learning_rate·b`. As PyTorch's `RMSprop`.

    What is kept is `V = v / (1 - smoothing)`, so the factor is taken once, at epsilon and the rate.
    """

    memory: tuple[str, ...] = ("squares", "velocity")

    def __init__(
        self,
        module: Module,
        learning_rate: float = 0.01,
        momentum: float = 0.0,
        *,
        smoothing: float = 0.99,
        epsilon: float = 1e-8,
        **options: Unpack[Options],
    ) -> None:
        self._shares(momentum=momentum, smoothing=smoothing)
        self._positive(epsilon=epsilon)
        self.momentum, self.smoothing, self.epsilon = momentum, smoothing, epsilon
        if not momentum:
            self.memory = ("squares",)
        super().__init__(module, learning_rate, **options)

    def tune(self) -> None:
        self.assign(rate=self.learning_rate / math.sqrt(1 - self.smoothing))

    def rule(self, w: Array, g: Array, s: Array, *memory: Array) -> list[Line]:
        squares, *velocity = memory
        lines: list[Line] = [
            *_decayed_squares(squares, g, s, self.smoothing),
            (np.add, (s, scalar(self.epsilon / math.sqrt(1 - self.smoothing), s), s)),
            (np.divide, (g, s, s)),
        ]
        along = s
        for b in velocity:
            lines += [(np.multiply, (b, scalar(self.momentum, b), b)), (np.add, (b, s, b))]
            along = b
        return [*lines, (np.multiply, (along, self.operand("rate", w), s)), (np.subtract, (w, s, w))]


class Adam(Descent):
    """`m ← beta1·m + (1 - beta1) g`, `v ← beta2·v + (1 - beta2) g²`; Kingma & Ba 2015, algorithm 1.

    `w ← w - learning_rate·m̂ / (√v̂ + epsilon)`, `m̂ = m / (1 - beta1ᵗ)`, `v̂ = v / (1 - beta2ᵗ)` in step t, from 1.

    What is kept is `M = m / (1 - beta1)` and `V = v / (1 - beta2)`, sums without their factors, which saves three calls
    of thirteen: with `k = √((1 - beta2) / (1 - beta2ᵗ))` the step is `rate·M / (√V + epsilon / k)`,
    `rate = learning_rate (1 - beta1) / (1 - beta1ᵗ) / k`.
    """

    memory: tuple[str, ...] = ("means", "squares")

    def __init__(
        self,
        module: Module,
        learning_rate: float = 0.001,
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        **options: Unpack[Options],
    ) -> None:
        self._shares(beta1=beta1, beta2=beta2)
        self._positive(epsilon=epsilon)
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        super().__init__(module, learning_rate, **options)

    def tune(self) -> None:
        t = self.steps + 1
        k = math.sqrt((1 - self.beta2) / (1 - self.beta2**t))
        self.assign(rate=self.learning_rate * (1 - self.beta1) / (1 - self.beta1**t) / k, epsilon=self.epsilon / k)

    def step(self) -> None:
        self.tune()
        super().step()

    def rule(self, w: Array, g: Array, s: Array, *memory: Array) -> list[Line]:
        means, squares = memory
        return [
            (np.multiply, (means, scalar(self.beta1, w), means)),
            (np.add, (means, g, means)),
            *_decayed_squares(squares, g, s, self.beta2),
            (np.add, (s, self.operand("epsilon", w), s)),
            (np.divide, (means, s, s)),
            (np.multiply, (s, self.operand("rate", w), s)),
            (np.subtract, (w, s, w)),
        ]


class AdamW(Adam):
    """Adam with the decay beside the gradient: first `w ← w (1 - learning_rate·weight_decay)`, then Adam's step.

    Loshchilov & Hutter 2019.
    """

    default_weight_decay = 0.01

    def __init__(
        self,
        module: Module,
        learning_rate: float = 0.001,
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        **options: Unpack[Options],
    ) -> None:
        options.setdefault("weight_decay", self.default_weight_decay)
        super().__init__(module, learning_rate, beta1=beta1, beta2=beta2, epsilon=epsilon, **options)

    def tune(self) -> None:
        super().tune()
        self.assign(kept=1 - self.learning_rate * self.weight_decay)

    def decayed(self, w: Array, g: Array, room: Array, s: Array) -> tuple[list[Line], Array]:
        return [(np.multiply, (w, self.operand("kept", w), w))], g


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {"sgd": SGD, "rmsprop": RMSProp, "adam": Adam, "adamw": AdamW}


def _decayed_squares(squares: Array, g: Array, s: Array, beta: float) -> list[Line]:
    """`squares ← beta·squares + g²`, and its root in `s`."""
    return [
        (np.multiply, (squares, scalar(beta, squares), squares)),
        (np.multiply, (g, g, s)),
        (np.add, (squares, s, squares)),
        (np.sqrt, (squares, s)),
    ]
