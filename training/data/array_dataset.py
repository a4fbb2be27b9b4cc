"""The dataset of arrays: images with labels, or the x and y of an .npz file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.errors import Fault
from training.config.settings import DataSection
from training.data import type_inference
from training.data.dataset import Dataset, encode_labels
from training.data.readers import Arrays
from training.errors import DataError


def from_arrays(arrays: Arrays, sha256: str, section: DataSection, known: Sequence[str | int] | None) -> Dataset:
    name = "image" if arrays.x.ndim > 2 else "features"
    task, target_names, notes = infer_array_task(arrays.name, arrays.y.dtype, arrays.y.shape, arrays.y, section)
    targets: NDArray[Any]
    labels: tuple[str | int, ...] = ()
    if task == "classification":
        y = arrays.y.reshape(-1)
        found = [str(label) for label in y] if y.dtype.kind == "U" else [int(label) for label in y]
        targets, labels = encode_labels(arrays.name, target_names[0], found, known)
    else:
        targets = arrays.y.astype(np.float64).reshape(len(arrays), -1)
    if task == "multi_label":
        labels = target_names
        if len(invalid := np.argwhere((targets != 0) & (targets != 1))):
            row, column = invalid[0]
            problem = f"expected 0 or 1, found {targets[row, column]:g}"
            raise DataError(arrays.name, [Fault(f"y, row {row}", problem, "write task = 'regression' for quantities")])
        targets = targets > 0
    x = arrays.x.astype(np.uint8) if arrays.x.dtype.kind == "b" else arrays.x  # clients send 0 and 1
    return Dataset(arrays.name, sha256, {name: x}, {name: "array"}, target_names, targets, labels, None, notes)


def infer_array_task(
    source: str, dtype: np.dtype[Any], shape: tuple[int, ...], first: NDArray[Any], section: DataSection
) -> tuple[str, tuple[str, ...], list[str]]:
    """Return the task, the target names and notes, from the type and shape of y and its `first` rows."""
    task, notes = section.task, []
    outputs = math.prod(shape[1:])
    if task is None and outputs > 1 and np.isin(first, (0, 1)).all():
        task = "multi_label"
    if task is None:
        is_label = dtype.kind in "bU" or (
            dtype.kind in "ui" and type_inference.may_be_classes(len(np.unique(first)), len(first))
        )
        task = "classification" if outputs == 1 and is_label else "regression"
    if section.task is None:
        notes.append(f"task: {task}, inferred from y (set task in [data] to override)")
    if task == "multi_label" and (outputs == 1 or dtype.kind == "U"):
        fix = "save an array of zeros and ones with a column for each label"
        problem = f"expected zeros and ones for several labels, found {dtype} of shape {shape}"
        raise DataError(source, [Fault("y", problem, fix)])
    if task == "classification" and (outputs != 1 or dtype.kind == "f"):
        fix = "save y.astype(int) if they are integers" if outputs == 1 else "save y.argmax(axis=1) for one-hot rows"
        problem = f"expected one integer or string per example, found {dtype} of shape {shape}"
        raise DataError(source, [Fault("y", problem, fix)])
    if task == "regression" and dtype.kind == "U":
        raise DataError(source, [Fault("y", "expected numbers for a regression, found strings", "")])
    return task, _name_targets(source, section, task, outputs), notes


def _name_targets(source: str, section: DataSection, task: str, outputs: int) -> tuple[str, ...]:
    if section.target is None:
        name = "value" if task == "regression" else "label"
        return (name,) if outputs == 1 else tuple(f"{name}_{i}" for i in range(outputs))
    names = (section.target,) if isinstance(section.target, str) else tuple(section.target)
    if len(names) != outputs:
        fault = Fault("data.target", f"expected {outputs} names, one for each column of y, found {len(names)}", "")
        raise DataError(source, [fault])
    return names
