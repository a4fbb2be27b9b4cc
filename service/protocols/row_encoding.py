"""Encode the rows of a request as the network's input."""

from __future__ import annotations

from typing import Any

from model_store.errors import Fault
from model_store.schema.columns import FaultCollector
from model_store.utils.values import describe_value
from service.registry.loaded_version import LoadedVersion
from service.validation.predict_request import EncodedRows


def encode_rows(served: LoadedVersion, rows: Any, location: str, max_rows: int) -> EncodedRows:
    """Validate and encode untrusted rows. Raises InputError with all errors."""
    faults = FaultCollector()
    if not isinstance(rows, list):
        faults.add(location, f"expected a list, found {describe_value(rows)}", "put the row into a list: [row]")
    elif not 1 <= len(rows) <= max_rows:
        faults.add(location, f"expected 1 to {max_rows} rows, found {len(rows)}", "send them in several requests")
    faults.raise_if_any()
    warnings: list[Fault] = []
    return EncodedRows(served.model.encode(rows, location, warnings), warnings)
