"""The targets and weights of rows, checked as scikit-learn checks them, and the errors that it expects."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_array, check_consistent_length

from model_store.errors import InputError
from training.errors import DataError, JobError
from training.sklearn.columns import frame_names


@dataclass(frozen=True)
class Targets:
    """The targets as `training.data.dataset.Dataset` holds them."""

    values: NDArray[Any]
    names: tuple[str, ...]
    labels: tuple[str | int, ...] = ()

    @property
    def task(self) -> str:
        return ("classification" if self.values.ndim == 1 else "multi_label") if self.labels else "regression"

    @property
    def classes(self) -> NDArray[Any] | None:
        """The class of each row of a classification."""
        return self.values if self.task == "classification" else None


def target_names(y: Any, count: int, default: str = "y") -> tuple[str, ...]:
    """Return the names of the columns of y: those of a DataFrame or of a pandas Series, or y, or y0, y1, ..."""
    names = frame_names(y)
    if names is None and count == 1 and isinstance(getattr(y, "name", None), str):
        names = [y.name]
    if names is None or "" in names or len(set(map(str, names))) < count:
        return (default,) if count == 1 else tuple(f"{default}{i}" for i in range(count))
    return tuple(map(str, names))


def check_weights(weights: Any, rows: int) -> NDArray[np.float64] | None:
    """Return the weights (n,). ValueError for other shapes, numbers below 0, and only zeros."""
    if weights is None:
        return None
    found: NDArray[np.float64] = check_array(
        np.full(rows, weights) if np.isscalar(weights) else weights,
        ensure_2d=False,
        dtype=np.float64,
        input_name="sample_weight",
    )
    if found.shape != (rows,):
        raise ValueError(f"sample_weight: expected shape ({rows},), one for each row, found {found.shape}")
    if (found < 0).any():
        raise ValueError(f"sample_weight: expected weights of at least 0, found {found.min():g}")
    if not found.any():
        raise ValueError("sample_weight: expected a weight above zero, found zero weights only")
    return found


@contextmanager
def as_value_errors() -> Iterator[None]:
    """Raise ValueError, as scikit-learn does, in place of the errors of jobs, tables and rows."""
    try:
        yield
    except (DataError, JobError, InputError) as error:
        raise ValueError(str(error)) from error


def check_targets(y: Any, rows: int, **options: Any) -> NDArray[Any]:
    """Return y as an array of as many rows as X has. ValueError for missing and infinite values."""
    if y is None:
        raise ValueError("the estimator requires y to be passed, but the target y is None")
    found: NDArray[Any] = check_array(y, ensure_2d=False, input_name="y", **options)
    check_consistent_length(np.empty(rows), found)
    return found
