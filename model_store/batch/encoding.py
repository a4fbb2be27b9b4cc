"""Columns of pyarrow's as the input of a network, a column at a time: equal rows get equal bits as in the service.

Numbers of Arrow are numbers of JSON. All other cells are read as the texts of a CSV file are, each distinct one of a
batch once.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model_store.errors import InputError
from model_store.nn import Array
from model_store.schema.columns.base import Column, FaultCollector, RowLocations
from model_store.schema.signature import Signature
from model_store.tables.arrow_file import dictionary_parts, to_texts
from model_store.tables.text_file import FILE_NULL


def encode_record_batch(signature: Signature, batch: Any, dtype: npt.DTypeLike) -> tuple[Array, Counter[str]]:
    """Return the features (n, width) of a record batch, and how many values of each column were filled in.

    InputError with all faults, at locations such as `rows.2.island`.
    """
    if signature.inputs[0].is_whole_row:
        return _encode_whole_rows(signature, batch, dtype), Counter()
    given = {column.name: batch.column(column.name) for column in signature.inputs if column.name in batch.schema.names}
    try:
        parsed = {
            column.name: _parse(column, given[column.name]) for column in signature.inputs if column.name in given
        }
        features = signature.encode_columns(parsed, dtype)
    except InputError:
        _raise_all_faults(signature, given, len(batch), dtype)
        raise
    filled = Counter[str]()
    for column in signature.inputs:
        if column.fill is not None:
            absent = column.name not in parsed
            filled[column.name] = len(batch) if absent else column.count_missing(parsed[column.name])
    return features, +filled


def numbers(array: Any) -> Array | None:
    """Return a column of numbers as float64, NaN for null; None for another type, or if one is infinite.

    A number in single precision is the shortest decimal number that it can be written as, as in the texts of a table.
    """
    if not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type)):
        return None
    if pa.types.is_floating(array.type) and not pa.types.is_float64(array.type):
        array = array.cast(pa.float32()).cast(pa.string())
    values: Array = array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return None if np.isinf(values).any() else values


def _parse(column: Column, array: Any) -> Array:
    """Return a column as `Column.parse` does. InputError if a value is not of its kind."""
    if column.kind == "number" and (values := numbers(array)) is not None:
        return values
    if column.kind == "number" and column.format is None and (values := _plain_numbers(array)) is not None:
        return values
    texts, codes = dictionary_parts(_as_dictionary(array), column.name)
    parse = _cell_parser(column)
    faults = FaultCollector()
    distinct = column.parse(list(map(parse, texts)), RowLocations("values", range(len(texts))), faults)
    faults.raise_if_any()
    found: Array = distinct[codes]
    return found


def _plain_numbers(array: Any) -> Array | None:
    """Return texts as numbers if all of them are finite ones that Arrow reads, else None; null is NaN."""
    if not pa.types.is_string(array.type):
        return None
    try:
        values: Array = array.cast(pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        return None
    return values if np.isfinite(values).sum() + array.null_count == len(values) else None


def _as_dictionary(array: Any) -> Any:
    if pa.types.is_dictionary(array.type):
        return array
    return array.cast(pa.string()).dictionary_encode()


def _cell_parser(column: Column) -> Callable[[str | None], Any]:
    """Return the parser of the cells of a table file; null is an empty cell."""

    def parse(text: str | None) -> Any:
        text = text or ""
        return None if text.strip() == FILE_NULL else column.parse_cell(text)

    return parse


def _encode_whole_rows(signature: Signature, batch: Any, dtype: npt.DTypeLike) -> Array:
    columns = [numbers(array) for array in batch.columns]
    if all(values is not None for values in columns) and signature.table_shape is not None:
        table = np.column_stack(columns)  # type: ignore[arg-type]  # no None is among them
        if table.shape[1] == np.prod(signature.table_shape) and np.isfinite(table).all():
            return signature.encode_table(table, "rows", dtype)
    parse = _cell_parser(signature.inputs[0])
    cells = [
        list(map(parse, to_texts(array, name))) for name, array in zip(batch.schema.names, batch.columns, strict=True)
    ]
    return signature.encode([list(row) for row in zip(*cells, strict=True)], "rows", dtype)


def _raise_all_faults(signature: Signature, given: Mapping[str, Any], count: int, dtype: npt.DTypeLike) -> None:
    """Raise InputError with every fault of every row. Encoding whole columns ends at the first column with faults."""
    columns: dict[str, list[Any]] = {}
    for column in signature.inputs:
        if column.name in given:
            array, parse = given[column.name], _cell_parser(column)
            if column.kind == "number" and (values := numbers(array)) is not None:
                columns[column.name] = [None if math.isnan(value) else value for value in values.tolist()]
            else:
                columns[column.name] = list(map(parse, to_texts(array, column.name)))
    rows = [{name: values[i] for name, values in columns.items()} for i in range(count)]
    signature.encode(rows, "rows", dtype)
