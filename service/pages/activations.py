"""One row through a network, layer by layer, and the formula of a neuron with the numbers that it computed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from model_store.errors import Fault, InputError
from model_store.nn import Array, Sequential
from model_store.nn.average import Average
from model_store.schema.signature import Signature
from service.pages.network import MAX_LAYERS, Budget, count_members, layer_names, layers_of
from service.pages.neuron import Step, explain

MAX_VALUES = 50_000  # of activations in a response


def trace(network: Sequential, inputs: Array, member: int = 0) -> list[Step]:
    """Return the steps of one encoded row, in the order of `layers_of`. The last outputs have the bits of inference."""
    steps: list[Step] = []
    before, *others = network.activations(inputs)
    for module, after in zip(network.modules, others, strict=True):
        if isinstance(module, Average):
            steps += trace(module.members[member], before)
        steps.append(Step(module, before, after))
        before = after
    return steps


def describe_activations(network: Sequential, signature: Signature, steps: list[Step], asked: Asked) -> dict[str, Any]:
    """Return the values of the inputs and of each layer, and the explained neuron if one was asked for."""
    budget = Budget(MAX_VALUES)
    outputs = [step.outputs for step in steps[:MAX_LAYERS]]
    inputs, *layers = [_describe_values(values, budget) for values in [steps[0].inputs, *outputs]]
    found: dict[str, Any] = {"inputs": inputs, "layers": layers}
    if asked.layer is not None and asked.neuron is not None:
        names = layer_names(list(layers_of(network, asked.member)), signature)
        found["neuron"] = explain(steps, names, asked.layer, asked.neuron)
    return found


def _describe_values(values: Array, budget: Budget) -> dict[str, Any]:
    """Return the shape of a sample's values, and the values in one list; None if the response has too many already."""
    return {"shape": values.shape[1:], "values": values.ravel().tolist() if budget.take(values.size) else None}


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
