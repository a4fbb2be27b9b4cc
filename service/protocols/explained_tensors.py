"""Explanations in the Open Inference Protocol: parameters of a request, and more tensors in its response.

    {"parameters": {"explain": true, "explain_label": "Gentoo"}, "inputs": [...]}

The tensors `contributions.<column>` have a row for each of the request; `explained.baseline`, `explained.answer` and
`explained.residual` too, and of a classifier or several targets `explained.label` or `explained.target`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from model_store.artifact.explanation import Asked, Explanations
from model_store.errors import Fault, InputError
from model_store.nn import Array
from model_store.utils.values import describe_value
from service.protocols.explain_request import read_explain
from service.protocols.tensors import TensorSpec
from service.registry.loaded_version import LoadedVersion

_NAMES = ("label", "target")
EXPLAIN_PARAMETERS = ("explain", *(f"explain_{name}" for name in _NAMES))


def read_explain_parameters(document: Mapping[str, Any] | None, served: LoadedVersion) -> Asked | None:
    """Return what the parameters of a request ask for. InputError with all faults."""
    parameters = (document or {}).get("parameters")
    if not isinstance(parameters, dict) or "explain" not in parameters:
        return None
    if not isinstance(wanted := parameters["explain"], bool):
        problem = f"expected true or false, found {describe_value(wanted)}"
        raise InputError([Fault("parameters.explain", problem, "send true or false")])
    named = {name: parameters[f"explain_{name}"] for name in _NAMES if f"explain_{name}" in parameters}
    try:
        return read_explain(named or True, served) if wanted else None
    except InputError as error:
        raise InputError([_located(fault) for fault in error.faults], error.total) from error


def _located(fault: Fault) -> Fault:
    location = f"parameters.{fault.location.replace('.', '_')}"
    if fault.location == "explain" and "baseline" in fault.fix:
        return Fault(location, fault.problem, "train it again, or send a row to compare with to /models/<name>/predict")
    return Fault(location, fault.problem, fault.fix)


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
