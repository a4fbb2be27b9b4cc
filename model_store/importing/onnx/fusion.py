"""Activations that exporters write as several nodes, such as `x/2 (1 + erf(x/√2))`, fused into one node each.

Which activation some element-wise nodes compute is found by what they compute: as a function of one value they are
evaluated at some numbers, and compared with the activations that our layers have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from model_store.importing.budget import Budget
from model_store.importing.onnx.values import DOUBLE, FLOAT
from model_store.nn import (
    ELU,
    GELU,
    SELU,
    Activation,
    Array,
    ExactGELU,
    LeakyReLU,
    Mish,
    ReLU,
    Sigmoid,
    SiLU,
    SmoothClip,
    Softplus,
)

DOMAIN = "fused"  # of the nodes that are made here
MAX_NODES = 16  # of an activation
_X = np.concatenate([np.linspace(-8, 8, 129), [-90, -40, -20, -12, 12, 20, 40, 80, -1]])
_SEARCH_VALUES = 4  # of the budget for a number of a node: NumPy's calls take longer than its numbers
_TOLERANCE = 2e-6  # the constants of the nodes are float32

_Function = Callable[..., Array]
_erf = np.vectorize(math.erf, otypes=[float])
# The operators of one value, or of several of one shape, as functions of NumPy.
_FUNCTIONS: dict[str, _Function] = {
    "Abs": np.abs,
    "Add": np.add,
    "Div": np.divide,
    "Erf": _erf,
    "Exp": np.exp,
    "Greater": np.greater,
    "Identity": np.array,
    "Less": np.less,
    "Log": np.log,
    "Max": np.maximum,
    "Min": np.minimum,
    "Mul": np.multiply,
    "Neg": np.negative,
    "Pow": np.power,
    "Reciprocal": np.reciprocal,
    "Relu": ReLU().activation,
    "Sigmoid": Sigmoid().activation,
    "Softplus": Softplus().activation,
    "Sqrt": np.sqrt,
    "Sub": np.subtract,
    "Tanh": np.tanh,
    "Where": np.where,
}
_ACTIVATIONS: tuple[Activation, ...] = (ExactGELU(), GELU(), SiLU(), Mish(), SELU(), Softplus(), SmoothClip())
_EXPECTED = np.array([one.activation(_X) for one in _ACTIVATIONS])


def fuse_activations(graph: Any, budget: Budget) -> tuple[list[Any], dict[str, Activation]]:
    """Return the nodes of a graph, in which the last of those that compute an activation is a node of it.

    The activation is in the second result, by the name of the node's output. The other nodes stay where they are, so
    that errors name the positions of the file; nothing needs them. BudgetError if all of that takes too long.
    """
    fusion = _Fusion(graph, budget)
    nodes, found = list(graph.node), {}
    for position, node in enumerate(nodes):
        match = fusion.match(position)
        if match is not None:
            source, activation = match
            found[node.output[0]] = activation
            nodes[position] = _node(node, type(activation).__name__, source)
    return nodes, found


def _node(node: Any, kind: str, source: str) -> Any:
    from onnx import helper  # noqa: PLC0415 - an extra

    return helper.make_node(kind, [source], [node.output[0]], name=node.name, domain=DOMAIN)


class _Fusion:
    """Finds the activations of a graph."""

    def __init__(self, graph: Any, budget: Budget) -> None:
        self.nodes = graph.node
        self.budget = budget
        self.constants = dict(_constants(graph))
        self.producers = {node.output[0]: i for i, node in enumerate(graph.node) if self._is_elementwise(node)}
        self.others = {tensor.name for tensor in graph.initializer} - self.constants.keys()

    def _is_elementwise(self, node: Any) -> bool:
        if node.domain not in {"", "ai.onnx"} or len(node.output) != 1 or not all(node.input):
            return False
        if node.op_type == "Cast":
            return all(one.i in {FLOAT, DOUBLE} for one in node.attribute if one.name == "to")
        return node.op_type in _FUNCTIONS and not node.attribute

    def match(self, position: int) -> tuple[str, Activation] | None:
        """Return a value, and the activation of it that a node computes, with as many nodes before it as possible.

        None if there is none. Activations of one node are read by their operators.
        """
        if self.producers.get(self.nodes[position].output[0], -1) != position:
            return None
        found: tuple[str, Activation] | None = None
        inside, is_joined = {position}, False
        sources = self._inputs(position)
        while True:
            is_joined |= len(sources) > 1
            if is_joined and len(sources) == 1:
                (source,) = sources
                activation = self._identify(sorted(inside), source)
                found = found if activation is None else (source, activation)
            last = max((self.producers.get(name, -1) for name in sources), default=-1)
            if last < 0 or last in inside or len(inside) == MAX_NODES:
                return found
            inside.add(last)
            sources = (sources - {self.nodes[last].output[0]}) | self._inputs(last)

    def _inputs(self, position: int) -> set[str]:
        return {name for name in self.nodes[position].input if name not in self.constants}

    def _identify(self, inside: Sequence[int], source: str) -> Activation | None:
        """Return the activation of `source` that these nodes compute, in their order; None for another function."""
        if source in self.others:
            return None
        self.budget.spend(_SEARCH_VALUES * _X.size * (len(inside) + len(_ACTIVATIONS)))
        values: dict[str, Any] = {**dict.fromkeys([source], _X)}
        with np.errstate(all="ignore"):
            for position in inside:
                node = self.nodes[position]
                arguments = [values.get(name, self.constants.get(name)) for name in node.input]
                values[node.output[0]] = _evaluate(node.op_type, arguments)
        found = values[self.nodes[inside[-1]].output[0]]
        if found is None or found.shape != _X.shape:
            return None
        agreeing = _agrees(found, _EXPECTED)
        if agreeing.any():
            return _ACTIVATIONS[int(agreeing.argmax())]
        return next((one for one in _with_slope(found) if _agrees(found, one.activation(_X))), None)


def _evaluate(operator: str, arguments: Sequence[Any]) -> Any:
    """Return what an operator computes; None if it cannot be computed from one that could not, or for a wrong count."""
    if any(one is None for one in arguments):
        return None
    if operator == "Cast":
        return arguments[0]
    try:
        return np.asarray(_FUNCTIONS[operator](*arguments))
    except (TypeError, ValueError):  # another number of inputs, or a condition that is a number
        return None


def _agrees(found: Array, expected: Array) -> Array:
    """Return whether the numbers of a function are those expected, of each function that is a row of `expected`."""
    with np.errstate(invalid="ignore"):
        close = np.abs(found - expected) <= _TOLERANCE * np.maximum(1, np.abs(expected))
    return np.asarray(close.all(axis=-1))


def _with_slope(found: Array) -> list[Activation]:
    """Return the activations with a setting that have the value at -1, which is the last one."""
    at_minus_one = float(found[-1])
    if not -1 < at_minus_one <= 0:
        return []
    return [LeakyReLU(-at_minus_one), ELU(at_minus_one / math.expm1(-1))]


def _constants(graph: Any) -> Mapping[str, Any]:
    """Return the constants of one number."""
    from onnx import numpy_helper  # noqa: PLC0415 - an extra

    tensors = [(tensor.name, tensor) for tensor in graph.initializer]
    for node in graph.node:
        if node.op_type == "Constant" and len(node.output) == 1:
            tensors += [(node.output[0], one.t) for one in node.attribute if one.name == "value"]
    found = {}
    for name, tensor in tensors:
        if len(tensor.dims) <= 1 and math.prod(tensor.dims) == 1 and tensor.data_type in {FLOAT, DOUBLE}:
            try:
                found[name] = numpy_helper.to_array(tensor).reshape(()).astype(np.float64)
            except (ValueError, TypeError, RuntimeError):
                continue  # the graph is read next, and says what is wrong
    return found
