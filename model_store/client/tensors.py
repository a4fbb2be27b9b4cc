"""The binary tensors of the Open Inference Protocol, for a client: arrays into a request, answers into arrays."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np

from model_store.errors import Fault, InputError
from model_store.nn import Array

_KINDS = {"b": "BOOL", "u": "UINT", "i": "INT", "f": "FP"}


def encode_request(arrays: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """The JSON, and the bytes that follow it."""
    inputs, tail = [], []
    for name, given in arrays.items():
        array = np.asarray(given)
        datatype = _datatype(name, array)
        data = (
            encode_texts(name, array) if datatype == "BYTES" else array.astype(array.dtype.newbyteorder("<")).tobytes()
        )
        parameters = {"binary_data_size": len(data)}
        inputs.append({"name": name, "datatype": datatype, "shape": array.shape, "parameters": parameters})
        tail.append(data)
    head = {"inputs": inputs, "parameters": {"binary_data_output": True}}
    return json.dumps(head).encode(), b"".join(tail)


def decode_response(body: bytes, length: int) -> Array | dict[str, Array]:
    """The array of a single output, or the arrays by name; a last dimension of 1 is left out."""
    at, found = length, {}
    for output in json.loads(body[:length])["outputs"]:
        size = output["parameters"]["binary_data_size"]
        data, shape = body[at : at + size], output["shape"]
        array = (
            _decode_texts(data) if output["datatype"] == "BYTES" else np.frombuffer(data, _dtype(output["datatype"]))
        )
        found[output["name"]] = array.reshape(shape[:1] if shape[1:] == [1] else shape)
        at += size
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


def encode_texts(name: str, array: Array) -> bytes:
    """Each text after its length in four bytes."""
    texts = []
    for i, value in enumerate(array.ravel().tolist()):
        if not isinstance(value, (str, bytes)):
            fix = "a missing value is null in rows of JSON: send a list of rows"
            raise InputError([Fault(f"{name}.{i}", f"expected text, found {value!r}", fix)])
        texts.append(value.encode() if isinstance(value, str) else value)
    return b"".join(chain.from_iterable((len(text).to_bytes(4, "little"), text) for text in texts))


def _decode_texts(data: bytes) -> Array:
    texts, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        texts.append(data[at + 4 : at + 4 + size].decode())
        at += 4 + size
    return np.array(texts, object)
