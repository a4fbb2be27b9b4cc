"""Optimizers: how a gradient becomes a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from model_store.nn import Array, Module, Sequential
from model_store.nn.tape import Line, scalar


class Optimizer:
    """Changes a module's parameters in place, by its gradients.

    A `Sequential` whose parameters are one vector is one pair of `parameters` and `gradients` here, so a step is a
    few operations whatever the number of layers; any other module is a pair for each of its arrays.
    """

    learning_rate = 0.01  # may be set at any time; the next step takes it

    def __init__(self, module: Module) -> None:
        self.module = module
        self.parameters, self.gradients = module.parameters(), module.gradients()
        if isinstance(module, Sequential):
            vectors = (module.parameter_vector, module.gradient_vector)
            if vectors[0] is not None and vectors[1] is not None:
                self.parameters, self.gradients = [vectors[0]], [vectors[1]]

    def step(self) -> None:
        raise NotImplementedError(f"{type(self).__name__} has no step()")

    def zero_gradients(self) -> None:
        """Gradients accumulate (`+=`) until this sets them back to zero."""
        for gradient in self.gradients:
            gradient.fill(0)

    def state(self) -> dict[str, Array]:
        """What a training that is to be continued must keep, by name."""
        return {}

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Goes on from a `state` kept before."""


class SGD(Optimizer):
    """Gradient descent with momentum: `v ← momentum·v - learning_rate·∂E/∂w`, `w ← w + v`; Polyak 1964.

    Stochastic, mini-batch or plain gradient descent, by how many samples `train` passes before each step.
    """

    def __init__(self, module: Module, learning_rate: float = 0.01, momentum: float = 0.9) -> None:
        if not learning_rate > 0:
            raise ValueError(f"SGD.learning_rate: wanted a number above 0, found {learning_rate}")
        if not 0 <= momentum < 1:
            raise ValueError(f"SGD.momentum: wanted a number in [0, 1), found {momentum}")
        super().__init__(module)
        self.momentum = momentum
        self.velocities = [np.zeros_like(array) for array in self.parameters]
        self._rates = [scalar(learning_rate, array) for array in self.parameters]
        self._lines: list[Line] = []
        for w, g, v, rate in zip(self.parameters, self.gradients, self.velocities, self._rates, strict=True):
            step = np.empty_like(w)
            self._lines += [
                (np.multiply, (v, scalar(momentum, w), v)),
                (np.multiply, (g, rate, step)),
                (np.subtract, (v, step, v)),
                (np.add, (w, v, w)),
            ]
        self.learning_rate = learning_rate

    @property
    def learning_rate(self) -> float:
        """May be set at any time; the next step takes it."""
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._learning_rate = value
        for rate in self._rates:
            rate[...] = value

    def step(self) -> None:
        for function, operands in self._lines:
            function(*operands)

    def state(self) -> dict[str, Array]:
        return {f"velocities.{i}": velocity for i, velocity in enumerate(self.velocities)}

    def load_state(self, state: Mapping[str, Array]) -> None:
        for i, velocity in enumerate(self.velocities):
            velocity[...] = state[f"velocities.{i}"]


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {"sgd": SGD}
