"""Repair an invalid row for the example in an error response.

A valid value is kept. An almost valid one (a number in quotes, a misspelt category, a pixel out of range) is corrected.
Any other value is replaced by the value of the model's example.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import numpy as np

from model_store.schema.columns import Column, FaultCollector, RowLocations
from model_store.utils.values import flatten_lists, nearest_name
from service.protocols import tensors
from service.registry.loaded_version import LoadedVersion

_MAX_ENCODED = 1e6  # standard deviations: beyond it the network may overflow, and no forward pass is run to find out
_MAX_UNKNOWN_NAMES = 20  # each is compared with all names of the model
_MAX_COMPARED = 20  # unknown categories that are compared with those of their columns
_MAX_TEXTS = 1000  # of a tensor: more are not parsed to find those of one row


def repair_row(served: LoadedVersion, example: Any, sent: Any) -> Any:
    """Return a valid row as close to `sent` as possible, with the values of `example` where nothing is close."""
    columns = served.model.signature.inputs
    if not isinstance(example, Mapping):  # the model takes a single array
        array = next(iter(sent.values()), None) if isinstance(sent, Mapping) else sent
        return _repair_value(served, columns[0], array, example)
    names = served.model.signature.names
    if isinstance(sent, list) and len(sent) == len(names):
        sent = dict(zip(names, sent, strict=True))
    if not isinstance(sent, Mapping):
        return example
    known = set(names)
    unknown = islice((key for key in sent if key not in known), _MAX_UNKNOWN_NAMES)
    given = {nearest_name(key, names): sent[key] for key in unknown} | {n: sent[n] for n in names if n in sent}
    repaired: dict[str, Any] = {}
    compared = 0
    for each in columns:
        value, is_category = given.get(each.name), each.kind == "category"
        most = 1 if is_category and compared >= _MAX_COMPARED else None
        repaired[each.name] = _repair_value(served, each, value, example[each.name], most)
        compared += is_category and repaired[each.name] is not value
    return repaired


def row_from_tensors(served: LoadedVersion, inputs: Any, tail: memoryview, number: int) -> dict[str, Any]:
    """Extract one row from rejected tensors of the Open Inference Protocol, as far as they can be parsed."""
    signature = served.model.signature
    declared = {
        tensor.name: tensor for tensor in (*tensors.input_specs(signature), tensors.table_spec(signature)) if tensor
    }
    row: dict[str, Any] = {}
    unknown = 0
    for item in islice(inputs if isinstance(inputs, list) else (), len(declared) + _MAX_UNKNOWN_NAMES):
        if not isinstance(item, dict):
            continue
        parameters = item.get("parameters")
        size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
        data = tail[:size] if type(size) is int and size >= 0 else None
        tail = tail[len(data or b"") :]
        name = item.get("name")
        if not isinstance(name, str) or name not in declared:
            unknown += 1
            name = nearest_name(name, list(declared)) if unknown <= _MAX_UNKNOWN_NAMES else ""
        tensor = declared.get(name)
        if tensor is None:
            continue
        width = math.prod(tensor.shape[1:])
        start, stop = number * width, (number + 1) * width
        if data is None:
            values = flatten_lists(item.get("data"), tensors.MAX_DIMENSIONS)[start:stop]
        else:
            values = _values_from_bytes(item, tensor, data, start, stop)
        if tensor.labels:  # the table of all number columns
            row |= dict(zip(tensor.labels, values, strict=False))
        elif values:
            row[tensor.name] = values[0] if tensor.shape == (-1, 1) else values
    return row


def _repair_value(served: LoadedVersion, column: Column, value: Any, example: Any, most: int | None = None) -> Any:
    """Return the value, or the nearest valid one, or `example`. At most `most` values are tried."""
    candidates = islice(_candidates(column, value), most)
    return next((each for each in candidates if _is_accepted(served, column, each)), example)


def _candidates(column: Column, value: Any) -> Iterable[Any]:
    if not column.is_whole_row and isinstance(value, list):
        value = value[0] if len(value) == 1 else None
    return [value] if value is None else column.repairs(value)


def _is_accepted(served: LoadedVersion, column: Column, value: Any) -> bool:
    """Return whether the value is valid for the column and not extreme."""
    faults, locations = FaultCollector(), RowLocations("", range(1))
    parsed = column.parse([value], locations, faults)
    if faults.total:
        return False
    with np.errstate(over="ignore"):
        encoded = column.encode(parsed, locations, faults).astype(served.model.network.dtype)
    in_range: bool = (np.abs(encoded) <= _MAX_ENCODED).all().item()
    return in_range and not faults.total


def _values_from_bytes(
    item: Mapping[str, Any], tensor: tensors.TensorSpec, data: memoryview, start: int, stop: int
) -> list[Any]:
    """Parse these values of bytes in the given datatype, or in the declared one if that is invalid."""
    datatype = item.get("datatype")
    if not isinstance(datatype, str) or datatype not in tensors.DATATYPES:
        datatype = tensor.datatype
    if datatype == "BYTES":
        return tensors.first_texts(data, stop)[start:] if stop <= _MAX_TEXTS else []
    size = tensors.DATATYPES[datatype].itemsize
    wanted = data[start * size : stop * size]
    found = tensors.from_bytes(datatype, [len(wanted) // size], wanted, "", FaultCollector())
    return [] if found is None else found.tolist()
