"""CSV (text/csv) and .npy (application/x-npy) request bodies."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np

from model_store.errors import Fault, InputError
from model_store.nn import Array
from model_store.schema import row_parser
from service.http.request_body import bad_request, check_value_count
from service.protocols import tensors
from service.registry.loaded_version import LoadedVersion

CSV, NPY = "text/csv", "application/x-npy"
MEDIA_TYPES = frozenset({CSV, NPY})


def parse_csv_rows(body: bytes, served: LoadedVersion, *, max_rows: int, max_bytes: int) -> list[Any]:
    """Parse a CSV body, with or without a header row, into rows that are not encoded yet."""
    check_value_count(body, max_bytes, "CSV")
    found = row_parser.parse_rows(body, "body.csv", served.model.signature, max_rows=max_rows)
    if len(found) > max_rows:
        problem = f"expected 1 to {max_rows} rows, found more"
        raise InputError([Fault("rows", problem, "send them in several requests")])
    return found


def encode_npy(body: bytes, served: LoadedVersion, max_rows: int) -> Array:
    """Encode an .npy body as the network's input. The model must take a single tensor."""
    tensor = tensors.single_input_spec(served.model.signature)
    if tensor is None:
        names = ", ".join(served.model.signature.names)
        raise InputError([Fault("body", f"expected the columns {names}, found one array", "send JSON or CSV")])
    try:
        array = np.load(BytesIO(body), allow_pickle=False)
    except Exception as e:  # np.load raises many types of exception for a malformed header
        raise bad_request(f"the body is not an .npy file: {e}", "broken_body") from e
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise InputError(
            [Fault("body", "expected one array of numbers, found something else", "write it with numpy.save")]
        )
    return tensors.encode(served.model, {tensor.name: array.astype(array.dtype.newbyteorder("<"))}, max_rows)
