"""The per-sample baseline of the training benchmark: the same mathematics for one column vector at a time.

A layer is `y = W x + b` with a column `x` (inputs, 1), followed by tanh. After every sample a step of gradient descent
with momentum changes each array separately. Written for this comparison from the formulas in docs/, as a reader of the
article would write it.
"""

from itertools import pairwise

import numpy as np

from model_store.nn import Array


class PerSample:
    def __init__(self, sizes: list[int], rng: np.random.Generator, learning_rate: float, momentum: float) -> None:
        self.weights = [rng.standard_normal((out, inn)) / np.sqrt(inn) for inn, out in pairwise(sizes)]
        self.biases = [np.zeros((out, 1)) for out in sizes[1:]]
        self.velocities = [np.zeros_like(array) for array in self.weights + self.biases]
        self.learning_rate, self.momentum = learning_rate, momentum

    def epoch(self, x: Array, y: Array) -> float:
        """Train on (n, inputs, 1) and (n, outputs, 1) once; return the mean of the squared errors before each step."""
        error = 0.0
        for column, target in zip(x, y, strict=True):
            outputs = [column]
            for weights, bias in zip(self.weights, self.biases, strict=True):
                outputs.append(np.tanh(weights @ outputs[-1] + bias))
            error += float(np.mean((outputs[-1] - target) ** 2))
            slope = 2 * (outputs[-1] - target) / target.size
            of_weights, of_biases = [], []
            for layer in reversed(range(len(self.weights))):
                delta = slope * (1 - outputs[layer + 1] ** 2)
                of_weights.insert(0, delta @ outputs[layer].T)
                of_biases.insert(0, delta)
                slope = self.weights[layer].T @ delta
            self._step(of_weights + of_biases)
        return error / len(x)

    def _step(self, gradients: list[Array]) -> None:
        for array, gradient, velocity in zip(self.weights + self.biases, gradients, self.velocities, strict=True):
            velocity *= self.momentum
            velocity -= self.learning_rate * gradient
            array += velocity
