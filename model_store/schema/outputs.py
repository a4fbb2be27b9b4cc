"""The outputs of a model: what the values of its network mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from model_store.nn import Array
from model_store.schema.multi_label import MultiLabelOutput
from model_store.schema.target_transform import TargetTransform
from model_store.utils.values import list_names

_NAME_CHARACTERS = 32  # a longer name of a label or target counts as several values


@dataclass(frozen=True)
class ClassificationOutput:
    """The output of a classifier: one of `labels`, with a probability for each.

    The network has one output for each label, or for two labels a single one: the probability of the second. The most
    probable label is predicted. With a `threshold`, for two labels, it is the second one if its probability is at least
    the threshold.
    """

    name: str
    labels: tuple[str | int, ...]
    kind: Literal["classes"] = "classes"
    threshold: float | None = None

    newer_attributes = ("threshold",)

    def __post_init__(self) -> None:
        """Raise ValueError for a threshold of more than two labels: which of them would it be of?"""
        if self.threshold is not None and len(self.labels) != 2:
            raise ValueError(f"signature.output.threshold: expected two labels, found {len(self.labels)}")

    def predicted(self, outputs: Array) -> Array:
        """Return the indices of the predicted labels (n,) of raw outputs (n, labels), or (n, 1) for two labels."""
        second = outputs[:, -1]
        if self.threshold is not None:
            return (second >= np.float64(self.threshold)).astype(np.intp)
        return (second > 1 - second).astype(np.intp) if outputs.shape[1] == 1 else outputs.argmax(axis=1)

    def public_details(self) -> dict[str, Any]:
        """Return what callers see of the output."""
        details: dict[str, Any] = {"kind": self.kind, "name": self.name, "labels": list(self.labels)}
        return details if self.threshold is None else details | {"threshold": self.threshold}


@dataclass(frozen=True)
class RegressionOutput:
    """The output of a regression: `output · scale + offset`, in the units of the targets.

    With a `transform` these are transformed targets, which its inverse turns into those units.
    """

    names: tuple[str, ...]
    offset: tuple[float, ...]
    scale: tuple[float, ...]
    kind: Literal["values"] = "values"
    transform: TargetTransform | None = None

    newer_attributes = ("transform",)

    def __post_init__(self) -> None:
        """Raise ValueError if two targets have the same name: a prediction would lose one of them."""
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"signature.output.names: expected unique names, found {list_names(self.names)}")

    def encode(self, values: Array) -> Array:
        """Return targets (n, targets) as the outputs that a network learns, in float64."""
        transformed = values if self.transform is None else self.transform.apply(values)
        encoded: Array = (transformed - self.offset) / self.scale
        return encoded

    def decode(self, outputs: Array) -> Array:
        """Return raw outputs (n, targets) in the units of the targets, in float64; infinite if they overflow."""
        values: Array = outputs.astype(np.float64) * self.scale + self.offset
        return values if self.transform is None else self.transform.invert(values)

    def public_details(self) -> dict[str, Any]:
        """Return what callers see of the output."""
        return {"kind": self.kind, "names": list(self.names)}


Output = ClassificationOutput | MultiLabelOutput | RegressionOutput


def name_values(output: Output) -> list[int]:
    """Return as how many values each label or target counts in the answer of a row, which repeats them all."""
    names = output.names if isinstance(output, RegressionOutput) else output.labels
    return [1 + len(str(name)) // _NAME_CHARACTERS for name in names]
