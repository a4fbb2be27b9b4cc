"""Optimizers: how a gradient becomes a step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from model_store.nn import Module, Sequential


class Optimizer:
    """Changes a module's parameters in place, by its gradients.

    A `Sequential` whose parameters are one vector is one pair of `parameters` and `gradients` here, so a step is a
    few operations whatever the number of layers; any other module is a pair for each of its arrays.
    """

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
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.velocities = [np.zeros_like(array) for array in self.parameters]

    def step(self) -> None:
        for parameter, gradient, velocity in zip(self.parameters, self.gradients, self.velocities, strict=True):
            velocity *= self.momentum
            velocity -= self.learning_rate * gradient
            parameter += velocity


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {"sgd": SGD}
