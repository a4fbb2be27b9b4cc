"""Integrated gradients: how much each input contributed to the difference between an answer and a baseline's.

    cᵢ = (xᵢ - bᵢ) ∫₀¹ ∂F/∂xᵢ (b + t (x - b)) dt        Sundararajan, Taly & Yan 2017, equation 1

The contributions add up to `F(x) - F(b)`. A sum over gradients at single points misses that: with ReLUs, which bend at
hundreds of places of the path, by 1e-2 of the difference for 64 Gauss-Legendre nodes. So the path is cut into segments,
and `backward` passes back the mean derivative of each layer between its inputs at both ends of a segment:

- linear layers have the same derivative everywhere;
- an element-wise `y = f(x)` has the mean `(f(x₁) - f(x₀)) / (x₁ - x₀)`, which is exact at every bend;
- others (Softmax, LayerNorm, MaxPool2D) have the mean along the line from x₀ to x₁ (Gauss-Legendre), and the rest that
  is missing to `∂E/∂Y · (y₁ - y₀)` along that line, as in a discrete gradient (Gonzalez 1996).

The chain rule holds for such quotients (Shrikumar, Greenside & Kundaje 2017, "Rescale"), so each segment adds up to the
difference of its ends, but for rounding; with many segments the means become the derivatives of integrated gradients.
The error falls with the square of the number, so sums of 32 and of 16 segments are extrapolated (Richardson 1911).

An `Embedding` has no derivative to its numbers of categories. Its vectors go straight from those of the baseline to
those of the row, and what they contribute is the contribution of the number.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from model_store.nn.arrays import Array
from model_store.nn.average import Average
from model_store.nn.cost import layer_cost
from model_store.nn.layers.activations import Activation, Identity, Softmax
from model_store.nn.layers.conv import Conv2D, Flatten
from model_store.nn.layers.dropout import Dropout
from model_store.nn.layers.embeddings import Embedding, PeriodicEmbedding
from model_store.nn.layers.feature_layers import Clip, ParametricActivation
from model_store.nn.layers.linear import Linear
from model_store.nn.layers.normalization import BatchNorm, LayerNorm
from model_store.nn.layers.pooling import MaxPool2D
from model_store.nn.module import Module, Shape
from model_store.nn.parametrized import ParametrizedModule
from model_store.nn.sequential import Sequential

SEGMENTS = 32  # of a path, and then half as many: 48 backward passes, and two forward passes more
# Operations of a point, as in cost.py, measured on layers of 4 to 123,000 values: those of the forward pass twice, and
# for each value of a layer that is no matrix product the conversions to float64, and the mean of three more passes.
_FORWARD_PASSES, _SECANT_OPERATIONS, _LINE_MEAN_OPERATIONS = 2, 250, 600
_POOLING_PASSES = 12  # of a MaxPool2D: 3 places on the line, forward and backward, each of which visits all windows
_CALLS = 10  # of a layer, in those of its inference, for the segments of a batch
MAX_KEPT_BYTES = 2**28  # of what the layers remember of two points
_BATCH_BYTES = 2**24  # of what they remember of a batch
_COPIES = 8  # float32 arrays of the largest size that a layer keeps, or makes, for its backward pass
_SMALLEST_STEP = 1e-6  # of an input in float64 whose quotient is exact enough; else the derivative is taken
_NODES, _WEIGHTS = (0.5 - 0.15**0.5, 0.5, 0.5 + 0.15**0.5), (5 / 18, 8 / 18, 5 / 18)  # Gauss-Legendre from 0 to 1


_MIXING = (Softmax, LayerNorm, MaxPool2D)  # their inputs, and not linearly
_PRODUCTS = (Linear, Conv2D, Flatten)


class ExplanationTooLargeError(ValueError):
    """A network needs more memory for its backward pass than a server gives it."""


@dataclass
class _Path:
    """The points that a batch has of each row's path: their shares t from 0 to 1, (points,)."""

    shares: Array
    at_ends: bool = False  # True while the only points are both ends, which embeddings remember
    has_embeddings: bool = False

    def segments(self, values: Array) -> tuple[Array, Array]:
        """Return the values of the points (rows · points, ...) at the starts and at the ends of the segments."""
        by_row = values.reshape(-1, len(self.shares), *values.shape[1:])
        return by_row[:, :-1].reshape(-1, *values.shape[1:]), by_row[:, 1:].reshape(-1, *values.shape[1:])


class _Secant(Module):
    """An element-wise function; `∂E/∂X = ∂E/∂Y ⊙ (f(x₁) - f(x₀)) / (x₁ - x₀)`."""

    def __init__(self, path: _Path, function: Callable[[Array], Array], prime: Callable[[Array], Array]) -> None:
        self._path, self._function, self._prime = path, function, prime

    def forward(self, inputs: Array) -> Array:
        self.inputs = inputs.astype(np.float64)
        self.outputs = self._function(self.inputs)
        return self.outputs.astype(inputs.dtype)

    def backward(self, output_grad: Array) -> Array:
        return (output_grad * self.slopes()).astype(output_grad.dtype)

    def slopes(self) -> Array:
        (x0, x1), (y0, y1) = map(self._path.segments, (self.inputs, self.outputs))
        step = x1 - x0
        is_small = np.abs(step) <= _SMALLEST_STEP * np.maximum(1, np.abs(x0))
        slopes: Array = (y1 - y0) / np.where(is_small, 1, step)
        if is_small.any():
            slopes[is_small] = self._prime(x0 + step / 2)[is_small]
        return slopes


class _LineMean(Module):
    """A layer that mixes its inputs: its mean derivative along the line between them."""

    def __init__(self, path: _Path, layer: Module) -> None:
        self._path, self._layer = path, layer

    def forward(self, inputs: Array) -> Array:
        self.inputs, self.outputs = inputs, self._layer.forward(inputs)
        return self.outputs

    def backward(self, output_grad: Array) -> Array:
        (x0, x1), (y0, y1) = map(self._path.segments, (self.inputs, self.outputs))
        step, mean = x1 - x0, np.zeros(x0.shape, np.float64)
        for node, weight in zip(_NODES, _WEIGHTS, strict=True):
            self._layer.forward((x0 + node * step).astype(x0.dtype))
            mean += weight * self._layer.backward(output_grad)
        axes = tuple(range(1, x0.ndim))
        wide = step.astype(np.float64)
        missing = _dot(output_grad, y1.astype(np.float64) - y0) - (mean * wide).sum(axes)
        length = (wide * wide).sum(axes)
        share = np.divide(missing, length, out=np.zeros_like(length), where=length > 0)
        mean += share.reshape(-1, *(1 for _ in axes)) * wide
        return mean.astype(output_grad.dtype)


class _StraightEmbedding(Module):
    """An Embedding whose vectors go straight from one end of the path to the other."""

    def __init__(self, path: _Path, layer: Embedding) -> None:
        self._path, self._layer, path.has_embeddings = path, layer, True
        self._others = layer.is_other()

    def forward(self, inputs: Array) -> Array:
        self.inputs = inputs
        outputs = self._layer(inputs)
        vectors = outputs[:, self._layer.others_size :]
        by_row = vectors.reshape(-1, len(self._path.shares), vectors.shape[1])
        if self._path.at_ends:
            self.start, self.change = by_row[:, :1].copy(), by_row[:, 1:] - by_row[:, :1]
        else:
            by_row[...] = self.start + self._path.shares[:, None].astype(inputs.dtype) * self.change
            outputs[:, self._layer.others_size :] = by_row.reshape(vectors.shape)
        self.outputs = outputs
        return outputs

    def backward(self, output_grad: Array) -> Array:
        (x0, x1), (y0, y1) = map(self._path.segments, (self.inputs, self.outputs))
        layer, others = self._layer, self._layer.others_size
        input_grad = np.zeros((len(output_grad), layer.input_size), output_grad.dtype)
        input_grad[:, self._others] = output_grad[:, :others]
        by_number = (output_grad * (y1 - y0))[:, others:].reshape(len(output_grad), -1, layer.size).sum(axis=2)
        step = (x1 - x0)[:, layer.chosen]
        input_grad[:, layer.chosen] = np.divide(by_number, step, out=np.zeros_like(by_number), where=step != 0)
        return input_grad


class _PeriodicSecant(Module):
    """A PeriodicEmbedding whose cosines have the mean derivative between two angles."""

    def __init__(self, path: _Path, layer: PeriodicEmbedding) -> None:
        self._path, self._layer = path, copy.copy(layer)

    def forward(self, inputs: Array) -> Array:
        return self._layer.forward(inputs)

    def backward(self, output_grad: Array) -> Array:
        layer = self._layer
        n, batch = len(layer.positions), len(output_grad)
        cosines = _Secant(self._path, np.cos, lambda angles: -np.sin(angles))
        cosines.forward(layer.angles.transpose(1, 0, 2))
        dz = output_grad[:, layer.others_size :].reshape(batch, n, layer.size)
        da = cosines.backward((dz[:, :, None, :-1] @ layer.weights.transpose(0, 2, 1))[:, :, 0])
        input_grad = np.zeros((batch, layer.input_size), output_grad.dtype)
        input_grad[:, layer.is_other()] = output_grad[:, : layer.others_size]
        two_pi = layer.dtype.type(2 * np.pi)
        input_grad[:, layer.chosen] = two_pi * (da * layer.frequencies).sum(axis=2) + dz[:, :, -1]
        return input_grad


class _FixedNorm(Module):
    """The inference of a BatchNorm, `Y = (X - mean) ⊙ factor + shift`; `∂E/∂X = ∂E/∂Y ⊙ factor`."""

    def __init__(self, norm: BatchNorm) -> None:
        self._norm = norm

    def forward(self, inputs: Array) -> Array:
        return self._norm(inputs)

    def backward(self, output_grad: Array) -> Array:
        norm = self._norm
        input_grad: Array = output_grad * (norm.scale / np.sqrt(norm.running_variance + norm.epsilon))
        return input_grad


class _Mean(Module):
    """The mean of the members of an Average."""

    def __init__(self, members: list[_PathNetwork]) -> None:
        self._members = members

    def forward(self, inputs: Array) -> Array:
        total = self._members[0].forward(inputs).copy()
        for member in self._members[1:]:
            total += member.forward(inputs)
        total /= total.dtype.type(len(self._members))
        return total

    def backward(self, output_grad: Array) -> Array:
        share = output_grad / output_grad.dtype.type(len(self._members))
        total = self._members[0].backward(share).copy()
        for member in self._members[1:]:
            total += member.backward(share)
        return total


class _PathNetwork(Module):
    """A copy of a network that shares its arrays but no state: `forward` of points, `backward` of segments."""

    def __init__(self, network: Sequential, path: _Path) -> None:
        self._shape = network.input_shape
        self._modules = [_on_path(module, path) for module in network.modules]

    def forward(self, inputs: Array) -> Array:
        outputs = inputs if self._shape is None else inputs.reshape(-1, *self._shape)
        for module in self._modules:
            outputs = module.forward(outputs)
        return outputs

    def backward(self, output_grad: Array) -> Array:
        for module in reversed(self._modules):
            output_grad = module.backward(output_grad)
        return output_grad


def _on_path(module: Module, path: _Path) -> Module:
    """Return the layer, or another one of the same inference, whose `backward` takes segments."""
    if isinstance(module, Dropout | Identity):
        return _Linear()
    if isinstance(module, BatchNorm):
        return _FixedNorm(module)
    if isinstance(module, Embedding):
        return _StraightEmbedding(path, module)
    if isinstance(module, PeriodicEmbedding):
        return _PeriodicSecant(path, module)
    if isinstance(module, Average):
        return _Mean([_PathNetwork(member, path) for member in module.members])
    if isinstance(module, Activation):
        return _Secant(path, module.activation, module.activation_prime)
    if isinstance(module, Clip):
        low, high = module.low, module.high
        return _Secant(path, module, lambda x: ((x >= low) & (x <= high)).astype(np.float64))
    if isinstance(module, ParametricActivation):
        function, alpha = module.function, module.alpha
        return _Secant(path, module, lambda x: 1 + alpha * (function.activation_prime(x) - 1))
    twin = copy.copy(module)
    if isinstance(twin, ParametrizedModule):
        twin.learns = False
    return _LineMean(path, twin) if isinstance(module, _MIXING) else twin


class _Linear(Module):
    """`Y = X`."""

    def forward(self, inputs: Array) -> Array:
        return inputs

    def backward(self, output_grad: Array) -> Array:
        return output_grad


def integrated_gradients(
    network: Sequential,
    rows: Array,
    baseline: Array,
    outputs: Array,
    value: Callable[[Array], Array] = lambda output: output,
    segments: int = SEGMENTS,
) -> Array:
    """Return the contributions of the inputs (n, inputs) to `value(y)`, in float64, of one output y of each row.

    rows (n, inputs) and baseline (inputs,) are encoded; outputs (n,) are indices of outputs; `value` is a function of
    each number. An even number of segments. Thread-safe.
    ExplanationTooLargeError if the network needs too much memory.
    """
    if not can_integrate(network):
        problem = f"expected a network whose layers keep {MAX_KEPT_BYTES} bytes of two rows for their backward pass"
        raise ExplanationTooLargeError(f"{problem}, found {2 * _kept_bytes(network)}")
    points = _batch_points(network)
    group = _group_rows(points, segments)
    found = np.empty(rows.shape, np.float64)
    for start in range(0, len(rows), group):
        some = slice(start, start + group)
        fine, coarse = (
            _integrate(network, rows[some], baseline, outputs[some], value, count, points)
            for count in (segments, segments // 2)
        )
        found[some] = (4 * fine - coarse) / 3
    return found


def _integrate(
    network: Sequential,
    rows: Array,
    baseline: Array,
    outputs: Array,
    value: Callable[[Array], Array],
    segments: int,
    points: int,
) -> Array:
    """Return the contributions for a few rows. If their whole paths are too large for a batch, they come in pieces."""
    shares = np.linspace(0, 1, segments + 1)
    path = _Path(shares[[0, -1]], at_ends=True)
    twin = _PathNetwork(network, path)
    change = rows.astype(np.float64) - baseline
    if path.has_embeddings:
        twin.forward(_points(rows, baseline, change, path.shares, network))
    path.at_ends = False
    total = np.zeros_like(change)
    size = max(1, points // len(rows) - 1)
    for start in range(0, segments, size):
        path.shares = shares[start : start + size + 1]
        found = twin.forward(_points(rows, baseline, change, path.shares, network))
        several = len(path.shares) - 1
        chosen = np.repeat(outputs, len(path.shares))
        answer = _Secant(path, value, lambda y: (value(y + 1e-4) - value(y - 1e-4)) / 2e-4)
        answer.forward(found[np.arange(len(found)), chosen])
        output_grad = np.zeros((len(rows) * several, found.shape[1]), found.dtype)
        output_grad[np.arange(len(output_grad)), np.repeat(outputs, several)] = 1
        gradients = twin.backward(output_grad).reshape(len(output_grad), -1).astype(np.float64)
        gradients *= answer.slopes()[:, None]
        total += gradients.reshape(len(rows), several, -1).sum(axis=1)
    return total * change / segments


def _points(rows: Array, baseline: Array, change: Array, shares: Array, network: Sequential) -> Array:
    """Return the points of the paths, (rows · shares, inputs), in the network's type; both ends have their own bits."""
    found: Array = (baseline + shares[:, None] * change[:, None, :]).astype(network.dtype)
    found[:, shares == 1] = rows[:, None]
    return found.reshape(-1, rows.shape[1])


def _dot(first: Array, second: Array) -> Array:
    total: Array = (first * second).sum(axis=tuple(range(1, first.ndim)))
    return total


def can_integrate(network: Sequential) -> bool:
    """Return True if the backward pass of a network needs little enough memory."""
    return 2 * _kept_bytes(network) <= MAX_KEPT_BYTES


def max_explained_rows(network: Sequential, operations: int) -> int:
    """Return how many rows are explained in so many operations, 0 if even one needs more.

    An operation is that of `RowCost`.
    """
    points = _batch_points(network)
    of_point, of_pass = 0, 0
    for module, before, after in _layers(network):
        cost = layer_cost(module, before, after, network.dtype)
        values = max(math.prod(before), math.prod(after))
        each = _LINE_MEAN_OPERATIONS if isinstance(module, _MIXING) else _SECANT_OPERATIONS
        passes = _POOLING_PASSES if isinstance(module, MaxPool2D) else _FORWARD_PASSES
        of_point += passes * cost.operations + (0 if isinstance(module, _PRODUCTS) else each * values)
        of_pass += _CALLS * cost.pass_operations
    of_row = (SEGMENTS + SEGMENTS // 2 + 4) * of_point
    of_group = of_pass * sum(-(-count // max(1, points - 1)) for count in (SEGMENTS, SEGMENTS // 2))
    if of_row + of_group > operations:
        return 0
    return max(1, (operations - of_group) // (of_row + of_group // _group_rows(points, SEGMENTS)))


def _batch_points(network: Sequential) -> int:
    return max(2, _BATCH_BYTES // max(_kept_bytes(network), 1))


def _group_rows(points: int, segments: int) -> int:
    """Return the rows whose whole paths, or else pieces of them, are a batch of points."""
    return max(1, points // (segments + 1))


def _kept_bytes(network: Sequential) -> int:
    """Return about how many bytes the layers keep of a row: several times the largest array of each."""
    return sum(
        _COPIES * layer_cost(module, before, after, network.dtype).bytes for module, before, after in _layers(network)
    )


def _layers(network: Sequential, before: Shape | None = None) -> Iterator[tuple[Module, Shape, Shape]]:
    """Yield the layers, of an Average those of its members, and their input and output shapes."""
    for module, (shape, after) in zip(network.modules, network.shapes(before), strict=True):
        if isinstance(module, Average):
            for member in module.members:
                yield from _layers(member, shape)
        else:
            yield module, shape or (0,), after or (0,)
