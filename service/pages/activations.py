"""One row through a network, layer by layer, and the formula of a neuron with the numbers that it computed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from model_store.errors import Fault, InputError
from model_store.nn import Array, Sequential
from model_store.nn.average import Average
from model_store.nn.sequential import infer
from model_store.schema.signature import Signature
from service.pages.network import MAX_LAYERS, Budget, count_members, layer_names, layers_of
from service.pages.neuron import Step, belongs_to, explain

MAX_VALUES = 50_000  # of activations in a response
MAX_EXACT = 1_024  # of a layer; more are rounded
_PICTURE_DIGITS = 3


def trace(network: Sequential, inputs: Array, member: int = 0, neuron: int | None = None) -> Iterator[Step]:
    """Yield the steps of one encoded row, in the order of `layers_of`. The last outputs have the bits of inference.

    Each network of an ensemble runs once; `member` is the one whose layers are steps. No step is kept: 470 outputs of
    4 MiB each, from a file of 12 kB, took 1.9 GB.
    """
    rows, _ = network.as_batch(inputs)
    for module in network.modules:
        if isinstance(module, Average):
            for step in _trace_average(module, rows, member, neuron):
                yield step
        else:
            step = Step(module, rows, infer(module, rows))
            yield step
        rows = step.outputs


def _trace_average(module: Average, rows: Array, member: int, neuron: int | None) -> Iterator[Step]:
    """Yield the steps of one network, then the average of all with the value of the neuron in each."""
    for step in trace(module.members[member], rows):
        yield step
    known = step.outputs
    members: list[float] = []

    def outputs() -> Iterator[Array]:
        for i, network in enumerate(module.members):
            found = known if i == member else network(rows)
            if neuron is not None and neuron < found.size:
                members.append(float(found.flat[neuron]))
            yield found

    after = module.mean(outputs())
    yield Step(module, rows, after, members)


def describe_activations(
    network: Sequential, signature: Signature, inputs: Array, asked: Asked
) -> tuple[Array, dict[str, Any]]:
    """Run one encoded row. Return the outputs of the network, and the values of the inputs and of each layer.

    With them are the explanations of a neuron if one was asked for. Outputs are described as the pass makes them.
    """
    budget = Budget(MAX_VALUES)
    values: list[dict[str, Any]] = []
    explained: list[dict[str, Any]] = []
    names = [] if asked.layer is None else layer_names(list(layers_of(network, asked.member)), signature)
    steps = trace(network, inputs, asked.member, asked.neuron)
    for i, step in enumerate(steps):
        if i == 0:
            values.append(_describe_values(step.inputs, budget))
        if i < MAX_LAYERS:
            values.append(_describe_values(step.outputs, budget))
        if (
            asked.layer is not None
            and asked.neuron is not None
            and i == asked.layer + len(explained)
            and belongs_to(explained, step.module)
        ):
            explained.append(explain(step, names[i], i, asked.neuron))
        outputs = step.outputs
    found: dict[str, Any] = {"inputs": values[0], "layers": values[1:]}
    return outputs, found | ({"neuron": explained} if explained else {})


def _describe_values(values: Array, budget: Budget) -> dict[str, Any]:
    """Return the shape of a sample's values, and the values in one list; None if the response has too many already.

    Many values are the pixels of a picture: they are rounded to three digits of the largest.
    """
    if not budget.take(values.size):
        return {"shape": values.shape[1:], "values": None}
    flat = values.ravel()
    if flat.size > MAX_EXACT and np.isfinite(largest := float(np.abs(flat).max())) and largest > 0:
        decimals = _PICTURE_DIGITS - 1 - math.floor(math.log10(largest))
        flat = np.round(flat.astype(np.float64), decimals)
    return {"shape": values.shape[1:], "values": flat.tolist()}


@dataclass(frozen=True)
class Asked:
    """What the body of a request asks for besides its row."""

    member: int
    layer: int | None
    neuron: int | None


def read_asked(body: dict[str, Any], network: Sequential) -> Asked:
    """Take what the body of a request has besides its row. InputError with all faults.

    `layer` counts from 0 in the order of the page, `neuron` from 0 in the flat values of that layer's output.
    """
    faults: list[Fault] = []
    rows = body.get("instances")
    if isinstance(rows, list) and len(rows) > 1:
        faults.append(Fault("instances", f"expected one row, found {len(rows)}", "send the rows one at a time"))
    member = _index(body, "member", count_members(network), faults) or 0
    layers = list(layers_of(network))[:MAX_LAYERS]
    layer = _index(body, "layer", len(layers), faults)
    shape = None if layer is None else layers[layer].after
    neuron = _index(body, "neuron", None if shape is None else math.prod(shape), faults)
    if (layer is None) != (neuron is None) and not faults:
        missing = "layer" if layer is None else "neuron"
        faults.append(Fault(missing, "expected layer and neuron together, found one of them", f"add {missing}"))
    if faults:
        raise InputError(faults)
    return Asked(member, layer, neuron)


def _index(body: dict[str, Any], key: str, count: int | None, faults: list[Fault]) -> int | None:
    value = body.pop(key, None)
    if value is None:
        return None
    if type(value) is not int or value < 0 or (count is not None and value >= count):
        most = "" if count is None else f" to {count - 1}"
        shown = value if isinstance(value, int | float | bool) and len(str(value)) < 30 else type(value).__name__
        faults.append(Fault(key, f"expected a whole number from 0{most}, found {shown}", "send one of those"))
        return None
    return value
