"""Named tensors for rows and predictions, for the protocols that use tensors instead of rows.

Each column is a tensor: numbers FP64 [-1, 1], categories BYTES [-1, 1], arrays FP32 [-1, *shape]. A client may send any
numeric datatype for numbers and arrays, and omit the second dimension of a column. If all columns are numbers, it may
send them as one tensor `instances` [-1, columns]. NaN is a missing number.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from model_store.artifact.model import Model
from model_store.errors import Fault, did_you_mean
from model_store.nn import Array
from model_store.schema.columns import Column, FaultCollector
from model_store.schema.signature import MultiLabelOutput, RegressionOutput, Signature
from model_store.utils.values import describe_value, list_names
from service.validation.predict_request import EncodedRows
from service.validation.row_limits import check_row_count

DATATYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    **{f"UINT{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
    **{f"INT{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{f"FP{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)},
    "BYTES": np.dtype(object),
}
_DATATYPE_NAMES = {dtype: name for name, dtype in DATATYPES.items()}
TABLE_NAME = "instances"  # the tensor that holds all number columns
MAX_DIMENSIONS = 8


class TensorSpec(NamedTuple):
    """Name, datatype and shape of a tensor; -1 is the number of rows."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    labels: tuple[str, ...] = ()  # names along the last dimension


def input_specs(signature: Signature) -> list[TensorSpec]:
    return [_column_spec(column) for column in signature.inputs]


def output_specs(model: Model) -> list[TensorSpec]:
    output = model.signature.output
    if isinstance(output, RegressionOutput):
        return [TensorSpec(name, "FP64", (-1, 1)) for name in output.names]
    labels = tuple(map(str, output.labels))
    probabilities = TensorSpec("probabilities", datatype_of(model.network.dtype), (-1, len(labels)), labels)
    if isinstance(output, MultiLabelOutput):
        return [TensorSpec("labels", "BOOL", (-1, len(labels)), labels), probabilities]
    return [TensorSpec("label", _label_datatype(output.labels), (-1, 1)), probabilities]


def _label_datatype(labels: Sequence[str | int]) -> str:
    """Return the integer datatype that holds all labels, or else BYTES: then each label is its text."""
    for datatype in ("INT64", "UINT64"):
        known = np.iinfo(DATATYPES[datatype])
        if all(isinstance(label, int) and known.min <= label <= known.max for label in labels):
            return datatype
    return "BYTES"


def table_spec(signature: Signature) -> TensorSpec | None:
    """Return the tensor of all columns, if the model has several columns and all are numbers."""
    if len(signature.inputs) > 1 and all(column.in_number_table for column in signature.inputs):
        return TensorSpec(TABLE_NAME, "FP64", (-1, len(signature.inputs)), signature.names)
    return None


def single_input_spec(signature: Signature) -> TensorSpec | None:
    """Return the single tensor that can hold a whole row: the only column, or the table of numbers."""
    return _column_spec(signature.inputs[0]) if len(signature.inputs) == 1 else table_spec(signature)


def row_to_tensors(signature: Signature, row: Any, *, as_table: bool = False) -> list[dict[str, Any]]:
    """Return a row as JSON tensors: one for each column, or one for the table of numbers."""
    declared = input_specs(signature)
    table = table_spec(signature) if as_table else None
    values = [row.get(name) for name in signature.names] if isinstance(row, Mapping) else [row]
    if table is not None:
        declared, values = [table], [values]
    return [
        {
            "name": tensor.name,
            "shape": [1, *tensor.shape[1:]],
            "datatype": {str: "BYTES", bool: "BOOL"}.get(type(value), tensor.datatype),
            "data": _flatten(value),
        }
        for tensor, value in zip(declared, values, strict=True)
    ]


def is_valid_shape(shape: Any) -> TypeGuard[list[int]]:
    return (
        isinstance(shape, list)
        and 1 <= len(shape) <= MAX_DIMENSIONS
        and all(type(size) is int and 1 <= size < 2**31 for size in shape)
    )


def datatype_of(dtype: np.dtype[Any]) -> str:
    return _DATATYPE_NAMES[dtype.newbyteorder("<")]


def output_arrays(signature: Signature, raw: Array, requested: Iterable[TensorSpec]) -> Iterator[Array]:
    """Yield the network's outputs as arrays of the datatypes and shapes of the requested tensors."""
    found = signature.decode_arrays(raw)
    if isinstance(signature.output, RegressionOutput):
        columns = dict(zip(signature.output.names, found["values"].T[:, :, np.newaxis], strict=True))
        yield from (columns[tensor.name] for tensor in requested)
        return
    for tensor in requested:
        values = found[tensor.name]
        if tensor.datatype == "BYTES":
            values = np.array([str(value) for value in values], object)
        yield values.astype(DATATYPES[tensor.datatype], copy=False).reshape(-1, *tensor.shape[1:])


def encode(model: Model, arrays: Mapping[str, Array], max_rows: int) -> EncodedRows:
    """Encode named arrays as the network's input (n, features).

    Raises InputError with all errors, or TooManyRowsError.
    """
    signature = model.signature
    faults = FaultCollector()
    if arrays.keys() == {TABLE_NAME} and table_spec(signature) is not None:
        arrays = _split_table(arrays[TABLE_NAME], signature, faults)
        faults.raise_if_any()
    names = signature.names
    for name in arrays.keys() - set(names):
        faults.add(f"inputs.{name[:100]}", "unknown column", _fix_tensor_name(name, names))
    counts = {len(array): name for name, array in arrays.items() if array.ndim}
    if len(counts) > 1:
        found = [f"{name[:100]} has {count}" for count, name in counts.items()]
        faults.add(
            "inputs",
            f"expected the same number of rows in each tensor, found {list_names(found)}",
            "send a value of each column for each row",
        )
    count = max(counts, default=0)
    if not count:
        faults.add("inputs", "expected at least one row, found none", "send a value of each column for each row")
    faults.raise_if_any()
    check_row_count("inputs", count, max_rows)
    columns = {
        column.name: _column_array(column, arrays.get(column.name), count, faults)
        for column in signature.inputs
        if column.name in arrays or column.fill is None
    }
    faults.raise_if_any()
    warnings: list[Fault] = []
    return EncodedRows(signature.encode_columns(columns, model.network.dtype, "rows", warnings), warnings)


def from_json(datatype: str, shape: Sequence[int], data: Any, location: str, faults: FaultCollector) -> Array | None:
    """Parse JSON data, flat or nested like the shape. Returns None after adding errors to `faults`."""
    if not isinstance(data, list):
        faults.add(
            location, f"expected a list of {datatype}, found {describe_value(data)}", "send the values flat, row by row"
        )
        return None
    leaves, depth = data, 0
    while leaves and set(map(type, leaves)) == {list}:
        if len(data) != shape[0] or depth + 1 == len(shape) or set(map(len, leaves)) != {shape[depth + 1]}:
            faults.add(
                location, f"expected lists nested as shape {list(shape)}, found another nesting", "send the values flat"
            )
            return None
        leaves, depth = list(chain.from_iterable(leaves)), depth + 1
    if len(leaves) != math.prod(shape):
        problem = f"expected {math.prod(shape)} values for shape {list(shape)}, found {len(leaves)}"
        faults.add(location, problem, "send as many values as the shape has")
        return None
    dtype = DATATYPES[datatype]
    if dtype.kind not in "fO":
        allowed: set[type] = {bool} if dtype.kind == "b" else {int}
    else:  # null is a missing value
        allowed = {str, type(None)} if dtype.kind == "O" else {int, float, type(None)}
    if not set(map(type, leaves)) <= allowed:
        wrong = next(value for value in leaves if type(value) not in allowed)
        faults.add(
            location,
            f"expected values of {datatype}, found {describe_value(wrong)}",
            "change the datatype, or the value",
        )
        return None
    try:
        with np.errstate(over="ignore"):  # an overflow becomes infinite, and its row is rejected later
            flat = np.array(leaves, np.float64).astype(dtype) if dtype.kind == "f" else np.array(leaves, dtype)
    except OverflowError:
        faults.add(location, f"expected values of {datatype}, found a value out of range", "use a wider datatype")
        return None
    return flat.reshape(tuple(shape))


def from_bytes(
    datatype: str,
    shape: Sequence[int],
    data: memoryview,
    location: str,
    faults: FaultCollector,
    *,
    are_files: bool = False,
) -> Array | None:
    """Parse packed little-endian bytes. Returns None after adding errors to `faults`.

    `are_files`: the elements of BYTES are the bytes of files, not texts.
    """
    count, dtype = math.prod(shape), DATATYPES[datatype]
    if datatype == "BYTES":
        return _parse_elements(count, shape, data, location, faults, are_files=are_files)
    if len(data) != count * dtype.itemsize:
        problem = f"expected {count * dtype.itemsize} bytes for {datatype} {list(shape)}, found {len(data)}"
        faults.add(location, problem, "send packed little-endian values")
        return None
    if datatype == "BOOL" and not np.isin(np.frombuffer(data, np.uint8), (0, 1)).all():
        faults.add(location, "expected bytes 0 and 1 for BOOL, found others", "send one byte for each value")
        return None
    return np.frombuffer(data, dtype).reshape(tuple(shape))


def to_json(array: Array) -> list[Any]:
    flat: list[Any] = array.ravel().tolist()
    return flat


def to_bytes(array: Array) -> bytes:
    """Return the binary data of a tensor; each text follows its length in four bytes."""
    if array.dtype != object:
        return array.tobytes()
    return pack_elements(text.encode() for text in array.ravel().tolist())


def pack_elements(elements: Iterable[bytes]) -> bytes:
    """Return the elements of BYTES, each after its length in four bytes."""
    return b"".join(part for element in elements for part in (len(element).to_bytes(4, "little"), element))


def _flatten(value: Any) -> list[Any]:
    return [leaf for part in value for leaf in _flatten(part)] if isinstance(value, list) else [value]


def _column_spec(column: Column) -> TensorSpec:
    return TensorSpec(column.name, column.tensor_datatype, column.tensor_shape)


def _split_table(table: Array, signature: Signature, faults: FaultCollector) -> dict[str, Array]:
    """Split a table of numbers into columns."""
    if table.ndim != 2 or table.shape[1] != len(signature.names):
        problem = f"expected shape [-1, {len(signature.names)}], found {list(table.shape)}"
        faults.add(f"inputs.{TABLE_NAME}", problem, f"send a row as {list_names(signature.names)}")
        return {}
    return dict(zip(signature.names, table.T, strict=True))


def _column_array(column: Column, given: Array | None, count: int, faults: FaultCollector) -> Array:
    """Convert a tensor to what `Column.parse` returns; missing values stand for an invalid one."""
    location, declared = f"inputs.{column.name}", _column_spec(column)
    if given is None:
        if column.fill is None:
            fix = f"send {declared.datatype} {list(declared.shape)}"
            faults.add(location, "expected a tensor, found none", fix)
        return column.missing_values(count)
    if given.shape not in column.tensor_shapes(count):
        problem = f"expected shape {list(declared.shape)}, found {list(given.shape)}"
        faults.add(location, problem, "the first dimension is the rows")
        return column.missing_values(count)
    values = column.from_tensor(given, datatype_of(given.dtype), location, faults)
    return column.missing_values(count) if values is None else values


def _fix_tensor_name(name: str, names: Sequence[str]) -> Callable[[], str]:
    return lambda: did_you_mean(name, names) or f"the columns are {list_names(names)}"


def _parse_elements(
    count: int, shape: Sequence[int], data: memoryview, location: str, faults: FaultCollector, *, are_files: bool
) -> Array | None:
    """Parse elements of BYTES: each is its length in 4 bytes, then its bytes, which are UTF-8 if it is a text."""
    texts: list[Any] = []
    try:
        at = _read_elements(data, count, texts, bytes if are_files else _decode_text)
    except UnicodeDecodeError:
        faults.add(location, "expected UTF-8, found other bytes", "encode the strings as UTF-8")
        return None
    if at != len(data) or len(texts) != count:
        problem = (
            f"expected {count} strings, each its length in 4 bytes and then its bytes; found {len(texts)} and a rest"
        )
        faults.add(location, problem, "send as many strings as the shape has")
        return None
    found = np.empty(count, object)  # of `np.array` zero bytes at the end of files would be missing
    found[:] = texts
    return found.reshape(tuple(shape))


def _decode_text(element: bytes) -> str:
    return element.decode()


def _read_elements(data: memoryview, count: int, texts: list[Any], parse: Callable[[bytes], Any]) -> int:
    """Append up to `count` whole elements, and return where the last one ends. Raises UnicodeDecodeError."""
    packed, at = bytes(data), 0
    end, read_size = len(packed) - 4, struct.Struct("<I").unpack_from
    while at <= end and len(texts) < count:
        start = at + 4
        stop = start + read_size(packed, at)[0]
        if stop > len(packed):
            break
        texts.append(parse(packed[start:stop]))
        at = stop
    return at


def first_texts(data: memoryview, count: int) -> list[str]:
    """Return the first strings of binary data, up to `count`, as far as they can be parsed."""
    texts: list[str] = []
    with suppress(UnicodeDecodeError):
        _read_elements(data, count, texts, _decode_text)
    return texts
