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


def decode_response(body: bytes, length: int) -> Array | dict[str, Array]:
    """Return the array of a single output, or several arrays by name. A last dimension of 1 is dropped.

    `length` is that of the JSON header in `body`.
    """
    offset, found = length, {}
    for output in json.loads(body[:length])["outputs"]:
        size = output["parameters"]["binary_data_size"]
        data, shape = body[offset : offset + size], output["shape"]
        array = (
            _decode_texts(data) if output["datatype"] == "BYTES" else np.frombuffer(data, _dtype(output["datatype"]))
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
            fix = "to send missing values, use a list of rows with None"
            raise InputError([Fault(f"{name}.{i}", f"expected text, found {value!r}", fix)])
        try:
            texts.append(value.encode() if isinstance(value, str) else value)
        except UnicodeEncodeError as e:
            raise InputError([Fault(f"{name}.{i}", f"expected text in Unicode, found {value!r}", "repair it")]) from e
    return b"".join(chain.from_iterable((len(text).to_bytes(4, "little"), text) for text in texts))


def _decode_texts(data: bytes) -> Array:
    texts, offset = [], 0
    while offset < len(data):
        size = int.from_bytes(data[offset : offset + 4], "little")
        texts.append(data[offset + 4 : offset + 4 + size].decode())
        offset += 4 + size
    return np.array(texts, object)
