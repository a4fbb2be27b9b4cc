"""Encode the rows of a request as the network's input."""

from __future__ import annotations

from typing import Any

from model_store.errors import Fault
from model_store.schema.columns import FaultCollector
from model_store.utils.values import describe_value
from service.registry.loaded_version import LoadedVersion
from service.validation.predict_request import EncodedRows


def encode_rows(
    served: LoadedVersion, rows: Any, location: str, top_k: int | None = None, *, receipt: bool = False
) -> EncodedRows:
    """Validate and encode untrusted rows. Raises InputError with all errors, or RowLimitError."""
    faults = FaultCollector()
    if not isinstance(rows, list):
        faults.add(location, f"expected a list, found {describe_value(rows)}", "put the row into a list: [row]")
    elif not rows:
        faults.add(location, "expected at least one row, found none", "send [row, ...]")
    faults.raise_if_any()
    served.row_limit.check_rows(location, rows, top_k, receipt=receipt)
    warnings: list[Fault] = []
    return EncodedRows(served.model.encode(rows, location, warnings), warnings)
