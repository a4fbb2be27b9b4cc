"""The average of networks: an ensemble as one module."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from model_store.nn.arrays import Array
from model_store.nn.config_fields import Field
from model_store.nn.cost import average_cost
from model_store.nn.module import Module, Shape
from model_store.nn.sequential import Sequential

MAX_MEMBERS = 64


def _is_list_of_networks(value: Any) -> bool:
    return isinstance(value, list) and 2 <= len(value) <= MAX_MEMBERS and all(isinstance(one, list) for one in value)


class Average(Module):
    """`Y = 1/k Σ fᵢ(X)` of k networks with equal shapes: the mean of probabilities, or of values.

    The expected squared error of the average is at most the mean of the members', less the variance of their
    outputs; Krogh & Vedelsby 1994. ValueError if shapes differ, or a network is a member twice.
    """

    config_fields: ClassVar = {"members": Field(f"a list of 2 to {MAX_MEMBERS} networks", _is_list_of_networks)}
    batch_invariant: ClassVar[bool] = True

    def __init__(self, members: Sequence[Sequential]) -> None:
        self.members = list(members)
        if not 2 <= len(self.members) <= MAX_MEMBERS:
            raise ValueError(f"Average.members: expected 2 to {MAX_MEMBERS} networks, found {len(self.members)}")
        if len(set(map(id, self.members))) < len(self.members):
            raise ValueError("Average.members: expected different networks, found one twice")
        shapes = [(member.input_shape, member.output_shape(None), member.dtype) for member in self.members]
        for i, found in enumerate(shapes):
            if found != shapes[0]:
                raise ValueError(f"Average.members.{i}: expected shapes and type {shapes[0]}, found {found}")
        outputs = math.prod(self.members[0].output_shape(None) or (0,))
        self.row_cost = average_cost([member.row_cost for member in self.members], outputs)

    @property
    def input_shape(self) -> Shape | None:
        return self.members[0].input_shape

    def output_shape(self, input_shape: Shape | None) -> Shape | None:
        return self.members[0].output_shape(input_shape)

    @property
    def block_rows(self) -> int:
        return max(member.block_rows for member in self.members)

    def forward(self, inputs: Array) -> Array:
        return self.mean(member.forward(inputs) for member in self.members)

    def backward(self, output_grad: Array) -> Array:
        """`∂E/∂X = Σ fᵢ'(X) ∂E/∂Y / k`."""
        share = output_grad / output_grad.dtype.type(len(self.members))
        total = self.members[0].backward(share).copy()
        for member in self.members[1:]:
            total += member.backward(share)
        return total

    def __call__(self, inputs: Array) -> Array:
        return self.mean(member(inputs) for member in self.members)

    def mean(self, outputs: Iterable[Array]) -> Array:
        """Return the mean of one output of each member, of which few are in memory at a time."""
        outputs = iter(outputs)
        total = next(outputs).copy()
        for output in outputs:
            total += output
        total /= total.dtype.type(len(self.members))
        return total

    def parameters(self) -> list[Array]:
        return [array for member in self.members for array in member.parameters()]

    def gradients(self) -> list[Array]:
        return [array for member in self.members for array in member.gradients()]

    def arrays(self) -> dict[str, Array]:
        """Return every array by its location: `members.0.modules.0.weights`, ..."""
        return {
            f"members.{i}.{name}": array
            for i, member in enumerate(self.members)
            for name, array in member.arrays().items()
        }

    def bind(self, parameters: Sequence[Array], gradients: Sequence[Array]) -> bool:
        moved = True
        for member in self.members:
            count = len(member.parameters())
            moved &= member.bind(parameters[:count], gradients[:count])
            parameters, gradients = parameters[count:], gradients[count:]
        return moved

    def summarize(self) -> str:
        """Return the number of networks, and the layers of the first one."""
        return f"{len(self.members)} networks: {', '.join(type(one).__name__ for one in self.members[0].modules)}"

    def config(self) -> dict[str, Any]:
        return {"type": type(self).__name__, "members": [member.config() for member in self.members]}

    def __repr__(self) -> str:
        return f"Average([{', '.join(map(repr, self.members))}])"
