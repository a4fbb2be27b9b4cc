"""The columns of what scikit-learn calls X: an array, or a DataFrame of pandas, polars or PyArrow.

A column is (n,) float64 numbers with NaN for missing, or (n,) objects: texts, and None for missing.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data

Values = NDArray[Any]


@dataclass(frozen=True)
class Columns:
    """The columns of X in their order: names, values, and which a DataFrame declares as categories."""

    names: list[str]
    values: list[Values]
    categories: frozenset[str]

    def __len__(self) -> int:
        return len(self.values[0])


def read_columns(estimator: BaseEstimator, x: Any, *, reset: bool) -> Columns:
    """Return the columns of X, and set or check the estimator's `n_features_in_` and `feature_names_in_`.

    Without names in X, columns are x0, x1, ... ValueError for another number or other names of columns than in `fit`,
    for infinite numbers, and for no rows; TypeError for sparse matrices, and for cells that are no numbers or texts.
    """
    names = frame_names(x)
    if names is None:
        array = validate_data(estimator, x, reset=reset, dtype=None, ensure_all_finite="allow-nan")
        named = getattr(estimator, "feature_names_in_", None)
        labels = [f"x{i}" for i in range(array.shape[1])] if named is None else [str(name) for name in named]
        if array.dtype.kind in "biuf":
            matrix = array.astype(np.float64)
            return Columns(labels, [np.ascontiguousarray(column) for column in matrix.T], frozenset())
        values = [_to_column(array[:, i], f"column {name}") for i, name in enumerate(labels)]
        return Columns(labels, values, frozenset())
    validate_data(estimator, x, reset=reset, skip_check_array=True)
    if not x.shape[0] or not names:
        found = f"Found array with {x.shape[0]} sample(s) and {len(names)} feature(s)"
        raise ValueError(f"{found} while a minimum of 1 is required by {type(estimator).__name__}.")
    texts = [str(name) for name in names]
    if twice := next((name for i, name in enumerate(texts) if name in texts[:i]), None):
        raise ValueError(f"X: expected different names of columns, found {twice!r} twice")
    values, categories = [], []
    for i, name in enumerate(texts):
        column = x.iloc[:, i] if hasattr(x, "iloc") else x[names[i]]
        if _is_categorical(column):
            categories.append(name)
            values.append(_as_category_texts(column))
        else:
            values.append(_to_column(np.asarray(column), f"column {name}", booleans_are_texts=True))
    return Columns(texts, values, frozenset(categories))


def frame_names(x: Any) -> list[Any] | None:
    """Return the names of the columns of a DataFrame, None for anything else."""
    if not hasattr(x, "shape") or len(x.shape) != 2:
        return None
    names = getattr(x, "column_names", None)  # PyArrow; its `columns` are the values
    names = getattr(x, "columns", None) if names is None else names
    return None if names is None else list(names)


def number_text(value: float) -> str:
    """Return a number as the text of a category: 3 for 3.0."""
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _is_categorical(column: Any) -> bool:
    """Return True for the categories of pandas, polars (Categorical, Enum) and PyArrow (dictionary)."""
    kind = str(getattr(column, "dtype", getattr(column, "type", ""))).lower()
    return kind.startswith(("category", "categorical", "enum", "dictionary"))


def _as_category_texts(column: Any) -> Values:
    """Return the values of a categorical column as texts; numbers and booleans too."""
    cells = column.to_pylist() if hasattr(column, "to_pylist") else list(column)
    return _objects([None if _is_missing(cell) else _cell_text(cell) for cell in cells])


def _to_column(array: Values, location: str, *, booleans_are_texts: bool = False) -> Values:
    """Return a column of any type as numbers or texts."""
    kind = array.dtype.kind
    if kind == "c":
        raise ValueError(f"{location}: Complex data not supported")
    if kind == "b" and booleans_are_texts:  # as the columns of a Parquet file
        return _objects(np.where(array, "true", "false").tolist())
    if kind in "biuf":
        return _finite(array.astype(np.float64), location)
    if kind == "m":
        seconds = array.astype("timedelta64[ns]").astype(np.float64) / 1e9
        return np.where(np.isnat(array), np.nan, seconds)
    if kind == "M":
        missing = np.isnat(array)
        texts = np.datetime_as_string(array.astype("datetime64[s]")).astype(object)
        texts[missing] = None
        return texts
    cells = array.tolist() if kind != "T" else list(array)
    present = [cell for cell in cells if not _is_missing(cell)]
    if present and all(isinstance(cell, (bool, np.bool_)) for cell in present):
        return _objects([None if _is_missing(cell) else _cell_text(cell) for cell in cells])
    if any(isinstance(cell, str) for cell in present) or any(isinstance(cell, (date, time)) for cell in present):
        return _objects([None if _is_missing(cell) else _cell_text(cell) for cell in cells])
    # TypeError names what is neither a text nor a number: "float() argument must be a string or a real number".
    values = [math.nan if _is_missing(cell) else _to_number(cell) for cell in cells]
    return _finite(np.array(values, np.float64), location)


def _to_number(cell: Any) -> float:
    return cell.total_seconds() if isinstance(cell, timedelta) else float(cell)


def _cell_text(cell: Any) -> str:
    """Return a cell as the text that a table file has for it. TypeError for lists, objects and the like."""
    if isinstance(cell, str):
        return str(cell)
    if isinstance(cell, (bool, np.bool_)):
        return str(bool(cell)).lower()
    if isinstance(cell, numbers.Integral):
        return str(int(cell))
    if isinstance(cell, numbers.Number):
        return number_text(float(cell))  # type: ignore[arg-type]
    if isinstance(cell, datetime):
        return cell.isoformat()
    if isinstance(cell, (date, time)):
        return cell.isoformat()
    raise TypeError(f"argument must be a string or a number, not {type(cell).__name__!r}")


def _is_missing(cell: Any) -> bool:
    """Return True for None, NaN, NaT and pandas.NA."""
    if cell is None:
        return True
    if isinstance(cell, (str, int)):
        return False
    try:
        return bool(cell != cell)  # noqa: PLR0124  # NaN and NaT of any type
    except (TypeError, ValueError):  # pandas.NA has no truth value, and neither have arrays
        return type(cell).__name__ == "NAType"


def _finite(values: Values, location: str) -> Values:
    infinite = np.flatnonzero(np.isinf(values))
    if len(infinite):
        problem = f"expected a finite number, found infinity in row {infinite[0]}; {len(infinite)} cells are like this"
        raise ValueError(f"Input X contains infinity: {location}: {problem}; correct them, or make them missing (NaN)")
    return values


def _objects(cells: Sequence[Any]) -> Values:
    found = np.empty(len(cells), object)
    found[:] = cells
    return found
