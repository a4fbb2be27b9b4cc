"""Explanations in the Open Inference Protocol: parameters of a request, and more tensors in its response.

    {"parameters": {"explain": true, "explain_label": "Gentoo"}, "inputs": [...]}

The tensors `contributions.<column>` have a row for each of the request; `explained.baseline`, `explained.answer` and
`explained.residual` too, and of a classifier or several targets `explained.label` or `explained.target`.
"""

from __future__ import annotations

import numpy as np

from model_store.artifact.explanation import Explanations
from model_store.nn import Array
from service.protocols.tensors import TensorSpec


def explanation_tensors(found: Explanations) -> list[tuple[TensorSpec, Array]]:
    """Return the tensors of explanations, of shape (rows, 1) or (rows, *shape) of an array."""
    numbers = {f"contributions.{name}": values for name, values in found.contributions.items()}
    numbers |= {
        "explained.baseline": found.baselines,
        "explained.answer": found.answers,
        "explained.residual": found.residuals,
    }
    arrays = {name: ("FP64", values) for name, values in numbers.items()}
    if found.names is not None:
        key = "explained.label" if found.is_label else "explained.target"
        arrays[key] = "BYTES", np.array([str(name) for name in found.names], object)
    columns = {name: (kind, values if values.ndim > 1 else values[:, None]) for name, (kind, values) in arrays.items()}
    return [(TensorSpec(name, kind, (-1, *array.shape[1:])), array) for name, (kind, array) in columns.items()]
