"""Binary tensors of the Open Inference Protocol: encode arrays as a request, decode a response into arrays."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from forward_pass_client.errors import Fault, InputError

Array = npt.NDArray[Any]

_NO_ROWS = Fault("rows", "expected at least one row, found none", "send a value of each column for each row")
_KINDS = {"b": "BOOL", "u": "UINT", "i": "INT", "f": "FP"}


def encode_request(arrays: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """Return the JSON header of a request and the binary data that follow it."""
    inputs, chunks = [], []
    for name, given in arrays.items():
        array = np.asarray(given)
        datatype = _datatype(name, array)
        data = (
            _encode_texts(name, array) if datatype == "BYTES" else array.astype(array.dtype.newbyteorder("<")).tobytes()
        )
        parameters = {"binary_data_size": len(data)}
        inputs.append({"name": name, "datatype": datatype, "shape": array.shape, "parameters": parameters})
        chunks.append(data)
    header = {"inputs": inputs, "parameters": {"binary_data_output": True}}
    return json.dumps(header).encode(), b"".join(chunks)


def check_columns(columns: Mapping[str, Any]) -> dict[str, Array]:
    """Return arrays by column. Numbers in an array of Python objects become float64, None a missing value."""
    arrays = {name: _array(name, given) for name, given in columns.items()}
    if arrays and all(array.ndim == 0 for array in arrays.values()):
        problem = "expected an array for each column, found one row of single values"
        raise InputError([Fault("rows", problem, "put the row into a list: [row]")])
    for name, array in arrays.items():
        if array.ndim == 0:
            problem = f"expected an array with a value for each row, found {_describe(array)}"
            raise InputError([Fault(name, problem, "put the values of the column into a list")])
    if not arrays or any(len(array) == 0 for array in arrays.values()):
        raise InputError([_NO_ROWS])
    return {name: _numbers(array) if array.dtype == object else array for name, array in arrays.items()}


def check_rows(rows: Any) -> Array:
    """Return rows as an array of at least one."""
    array = _array("rows", rows)
    if array.ndim == 0:
        fix = "send a list of rows, an array, or arrays by column"
        raise InputError([Fault("rows", f"expected rows, found {_describe(array)}", fix)])
    if len(array) == 0:
        raise InputError([_NO_ROWS])
    return array


def is_text(array: Array) -> bool:
    return all(isinstance(value, str | bytes) for value in array.ravel().tolist())


def _array(name: str, given: Any) -> Array:
    if isinstance(given, np.ma.MaskedArray) and np.ma.is_masked(given):
        values = np.array(given.data, object)
        values[np.ma.getmaskarray(given)] = None  # a masked value is a missing one
        return values
    try:
        return np.asarray(given)
    except ValueError as e:  # lists of different lengths
        raise InputError([Fault(name, f"expected an array, found {type(given).__name__}: {e}", "repair it")]) from e


def _numbers(array: Array) -> Array:
    values = array.ravel().tolist()
    if any(isinstance(value, bool) or not isinstance(value, int | float | None) for value in values):
        return array
    if all(value is None for value in values):
        return array
    try:
        return array.astype(np.float64)
    except OverflowError:  # an integer beyond float64
        return array


def _describe(scalar: Array) -> str:
    value = scalar.item()
    return repr(value)[:100] if isinstance(value, str | int | float | None) else type(value).__name__


def decode_response(body: bytes, length: int, max_texts: int) -> Array | dict[str, Array]:
    """Return the array of a single output, or several arrays by name. A last dimension of 1 is dropped.

    `length` is that of the JSON header in `body`. ValueError for more than `max_texts` texts, of 50 bytes each or more.
    """
    offset, found = length, {}
    for output in json.loads(body[:length])["outputs"]:
        size = output["parameters"]["binary_data_size"]
        data, shape = body[offset : offset + size], output["shape"]
        array = (
            _decode_texts(data, max_texts)
            if output["datatype"] == "BYTES"
            else np.frombuffer(data, _dtype(output["datatype"]))
        )
        found[output["name"]] = array.reshape(shape[:1] if shape[1:] == [1] else shape)
        offset += size
    return found if len(found) > 1 else next(iter(found.values()))


def _datatype(name: str, array: Array) -> str:
    kind = array.dtype.kind
    if kind in "USO":
        return "BYTES"
    if kind not in _KINDS or array.dtype.itemsize > 8:
        problem = f"expected an array of numbers or text, found {array.dtype}"
        raise InputError([Fault(name, problem, "convert it with .astype(float)")])
    return "BOOL" if kind == "b" else f"{_KINDS[kind]}{8 * array.dtype.itemsize}"


def _dtype(datatype: str) -> np.dtype[Any]:
    kind = datatype.rstrip("0123456789")
    code = next(code for code, name in _KINDS.items() if name == kind)
    return np.dtype(f"<{code}{int(datatype.removeprefix(kind) or 8) // 8}")


def _encode_texts(name: str, array: Array) -> bytes:
    """Return the texts, each after its length in four bytes."""
    texts = []
    for i, value in enumerate(array.ravel().tolist()):
        if not isinstance(value, (str, bytes)):
            fix = "send text only; for missing values, send a list of rows with None"
            raise InputError([Fault(f"{name}.{i}", f"expected text, found {value!r}", fix)])
        try:
            texts.append(value.encode() if isinstance(value, str) else value)
        except UnicodeEncodeError as e:
            raise InputError([Fault(f"{name}.{i}", f"expected text in Unicode, found {value!r}", "repair it")]) from e
    return b"".join(chain.from_iterable((len(text).to_bytes(4, "little"), text) for text in texts))


def _decode_texts(data: bytes, max_texts: int) -> Array:
    texts, offset = [], 0
    while offset < len(data):
        size = int.from_bytes(data[offset : offset + 4], "little")
        texts.append(data[offset + 4 : offset + 4 + size].decode())
        offset += 4 + size
        if len(texts) > max_texts:
            raise ValueError(f"expected at most {max_texts} texts, found more")
    return np.array(texts, object)
