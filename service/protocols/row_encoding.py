"""Encoding of rows: untrusted rows of a request in, the network's input out."""

from __future__ import annotations

from typing import Any

from model_store.nn import Array
from model_store.schema.columns import FaultCollector
from model_store.utils.values import describe_value
from service.registry.loaded_version import LoadedVersion


def encode_rows(served: LoadedVersion, rows: Any, location: str, max_rows: int) -> Array:
    """Untrusted rows as the network's input; InputError with everything that does not fit."""
    faults = FaultCollector()
    if not isinstance(rows, list):
        faults.add(location, f"expected a list, found {describe_value(rows)}", "put the row into a list: [row]")
    elif not 1 <= len(rows) <= max_rows:
        faults.add(location, f"expected 1 to {max_rows} rows, found {len(rows)}", "send them in several requests")
    faults.check()
    return served.model.signature.encode(rows, location, served.model.network.dtype)
