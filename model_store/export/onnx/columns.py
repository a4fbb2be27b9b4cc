"""Columns as ONNX operators: from the graph's inputs to the network's features.

Numbers are scaled in float64, as `Column.encode` does. A value that the model refuses becomes a feature that is NaN or
infinite: the graph cannot raise an error, and gives such a row no answer (see target.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from model_store.export.base import ExportError, codes_by_text, unknown_code
from model_store.export.onnx.graph import ML_DOMAIN, Graph, tensor_type
from model_store.nn import Array
from model_store.schema.columns import ArrayColumn, CategoryColumn, Column, DateColumn, NumberColumn
from model_store.schema.columns.date import CYCLES

_MAX_FLOAT32_OFFSET = 1000  # in scales: above, rounding an array's values to float32 would show


def input_type(column: Column) -> Any:
    """Return NumPy's type of the column's input."""
    if isinstance(column, CategoryColumn):
        return object
    if isinstance(column, ArrayColumn) and abs(column.offset) <= _MAX_FLOAT32_OFFSET * column.scale:
        return np.float32
    return np.float64


def input_shape(column: Column) -> tuple[int, ...]:
    """Return the shape of a row of the column's input."""
    return column.shape if isinstance(column, ArrayColumn) else (1,)


def add_columns(graph: Graph, columns: Sequence[Column], dtype: Any) -> list[str]:
    """Add the inputs of the columns and their encoding. Return blocks of features of `dtype`, in the columns' order.

    Consecutive numbers share their operators: onnxruntime took 60 s to load a file with operators for each of 10,000.
    """
    blocks = []
    for are_numbers, group in groupby(columns, lambda column: isinstance(column, NumberColumn)):
        found = list(group)
        values = [graph.input(one.name, tensor_type(input_type(one)), input_shape(one)) for one in found]
        if are_numbers:
            graph.scope = "/numbers"
            blocks.append(_numbers(graph, [one for one in found if isinstance(one, NumberColumn)], values, dtype))
            continue
        for column, value in zip(found, values, strict=True):
            graph.scope = f"/{value}"
            blocks.append(_encoded(graph, column, value, dtype))
    return blocks


def _encoded(graph: Graph, column: Column, value: str, dtype: Any) -> str:
    """Append the encoding of a column of another kind than number. Return its features."""
    if isinstance(column, DateColumn):
        return _date(graph, column, value, dtype)
    if isinstance(column, CategoryColumn):
        return _category(graph, column, value, dtype)
    if isinstance(column, ArrayColumn):
        return _array(graph, column, value, dtype)
    raise ExportError(f"column {column.name} ({column.kind}): onnx cannot carry this kind of column")


def _numbers(graph: Graph, columns: Sequence[NumberColumn], values: Sequence[str], dtype: Any) -> str:
    """Append the encoding of all numbers at once; missing ones of columns without a fill value stay NaN."""
    x = graph.op("Concat", *values, axis=1) if len(values) > 1 else values[0]
    missing = graph.op("IsNaN", x)
    fills = _floats(np.nan if column.fill is None else column.fill for column in columns)
    if not np.isnan(fills).all():
        x = graph.op("Where", missing, fills, x)
    if any(column.linear_width is not None for column in columns):
        x = _asinh(graph, x, columns)
    x = graph.op("Sub", x, _floats(column.offset for column in columns))
    features = graph.cast(graph.op("Div", x, _floats(column.scale for column in columns)), dtype)
    indicated = [i for i, column in enumerate(columns) if column.indicator]
    if not indicated:
        return features
    indicators = graph.op("Gather", graph.cast(missing, dtype), np.array(indicated), axis=1)
    joined = graph.op("Concat", features, indicators, axis=1)
    order = sorted(
        range(len(columns) + len(indicated)), key=lambda i: i if i < len(columns) else indicated[i - len(columns)]
    )
    return graph.op("Gather", joined, np.array(order), axis=1)  # each indicator behind its number


def _floats(numbers: Iterable[float]) -> Array:
    """Return numbers of a signature, which may be integers, as float64."""
    return np.array(list(numbers), np.float64)


def _date(graph: Graph, column: DateColumn, value: str, dtype: Any) -> str:
    missing = graph.op("IsNaN", value)
    if column.fill is not None:
        value = graph.op("Where", missing, np.float64(column.fill), value)
    features = [_scaled(graph, column, value)]
    for cycle in column.cycles:
        periods = graph.op("Div", value, np.float64(CYCLES[cycle]))
        angle = graph.op("Mul", graph.op("Sub", periods, graph.op("Floor", periods)), np.float64(2 * np.pi))
        features += [graph.op("Sin", angle), graph.cos(angle, np.float64)]
    return _join(graph, features, missing if column.indicator else None, dtype)


def _join(graph: Graph, features: list[str], missing: str | None, dtype: Any) -> str:
    """Return float64 features, and an indicator of missing values, as one array of `dtype`."""
    found = [graph.cast(feature, dtype) for feature in features]
    if missing is not None:
        found.append(graph.cast(missing, dtype))
    return graph.op("Concat", *found, axis=1) if len(found) > 1 else found[0]


def _scaled(graph: Graph, column: Column, value: str) -> str:
    """Append `(value - offset) / scale`."""
    if column.offset:
        value = graph.op("Sub", value, np.float64(column.offset))
    return graph.op("Div", value, np.float64(column.scale)) if column.scale != 1 else value


def _asinh(graph: Graph, value: str, columns: Sequence[NumberColumn]) -> str:
    """Append `asinh(value / linear_width)`, as `scaled_numbers.compress`, where a column has a linear width.

    onnxruntime has no Asinh of float64: `asinh(x) = sign(x) ln(|x| + √(x² + 1))`, where √(x² + 1) is |x| for large
    numbers, and x² would overflow. Infinite values become NaN; only finite ones that overflow in the quotient are
    limited.
    """
    largest = np.finfo(np.float64).max
    finite = graph.op("Sub", value, value)  # 0, or NaN for an infinite value
    quotient = graph.op("Div", value, _floats(column.linear_width or 1 for column in columns))
    quotient = graph.op("Add", graph.op("Min", graph.op("Max", quotient, np.float64(-largest)), largest), finite)
    size = graph.op("Abs", quotient)
    small = graph.op("Min", size, np.float64(1e9))
    root = graph.op("Sqrt", graph.op("Add", graph.op("Mul", small, small), np.float64(1)))
    root = graph.op("Max", root, size)
    half = graph.op("Add", graph.op("Mul", size, np.float64(0.5)), graph.op("Mul", root, np.float64(0.5)))
    logarithm = graph.op("Add", graph.op("Log", half), np.float64(np.log(2)))
    compressed = graph.op("Mul", graph.op("Sign", quotient), logarithm)
    is_compressed = np.array([column.linear_width is not None for column in columns])
    return compressed if is_compressed.all() else graph.op("Where", is_compressed, compressed, value)


def _category(graph: Graph, column: CategoryColumn, value: str, dtype: Any) -> str:
    """Append the code of the category, or its one-hot features; both are NaN for a refused text."""
    codes = codes_by_text(column)
    code = graph.op(
        "LabelEncoder",
        value,
        domain=ML_DOMAIN,
        keys_strings=list(codes),
        values_int64s=list(codes.values()),
        default_int64=unknown_code(column),
    )
    if column.encoding == "code":
        features = graph.cast(code, dtype)
    else:
        features = graph.cast(graph.op("Equal", code, np.arange(column.codes)[np.newaxis]), dtype)
    if min(*codes.values(), unknown_code(column)) >= 0:
        return features
    refused = graph.op("Less", code, np.int64(0))
    return graph.op("Where", refused, np.dtype(dtype).type(np.nan), features)


def _array(graph: Graph, column: ArrayColumn, value: str, dtype: Any) -> str:
    """Append the scaled array as a row; values outside the accepted range become NaN."""
    if len(column.shape) > 1:
        value = graph.op("Reshape", value, np.array([-1, column.width]))
    if input_type(column) != np.float64:
        value = graph.cast(value, np.float64)
    for limit, comparison in ((column.low, "Less"), (column.high, "Greater")):
        if limit is not None:
            outside = graph.op(comparison, value, np.float64(limit))
            value = graph.op("Where", outside, np.float64(np.nan), value)
    return graph.cast(_scaled(graph, column, value), dtype)
