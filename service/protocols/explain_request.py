"""What a request wants explained, in every protocol."""

from __future__ import annotations

from typing import Any

from model_store.artifact.explanation import Asked, read_asked
from model_store.errors import Fault, InputError
from service.registry.loaded_version import LoadedVersion


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
