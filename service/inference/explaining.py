"""Explanations of the rows of a request: what it asks for, how many rows it may have, and the explanations."""

from __future__ import annotations

from typing import Any

from model_store.artifact.explanation import Asked, Explanations, explain, read_asked
from model_store.errors import Fault, InputError
from model_store.nn import Array
from service.registry.loaded_version import LoadedVersion
from service.telemetry.request_record import RequestRecord, clock


def read_explain(value: Any, served: LoadedVersion, location: str = "explain") -> Asked | None:
    """Return what a body's key `explain` asks for, None for false. InputError with all faults, or RowLimitError."""
    if value is None or value is False:
        return None
    limit = served.row_limit
    if not limit.explained_rows:
        problem = f"expected a model whose answers are explained here, found {served.name}: {limit.not_explained}"
        raise InputError([Fault(location, problem, "leave it out")])
    if isinstance(value, dict) and (row := value.get("baseline")) is not None:
        rows = [row]
        limit.check_rows(f"{location}.baseline", rows)  # replaces an image file by what was read of it
        value = value | {"baseline": rows[0]}
    return read_asked(value, served.model, location)


def explain_rows(
    record: RequestRecord, served: LoadedVersion, inputs: Array, outputs: Array, asked: Asked
) -> Explanations:
    """Return the explanations of encoded rows with these raw outputs. The record's computing includes them."""
    found = explain(served.model, inputs, outputs, asked)
    record.compute_ended_at = clock()
    return found
