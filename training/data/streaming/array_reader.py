"""Array sources: .npz and IDX files of any size, whose arrays are read row by row."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from model_store.errors import Fault
from training.config.settings import DataSection
from training.data import array_dataset, readers
from training.data.fingerprint import Fingerprint
from training.data.readers import first_line, translate_file_errors
from training.data.streaming import source
from training.data.streaming.source import Batch, DataSource, DictionaryColumn
from training.errors import DAMAGED_FILE_ERRORS, DataError
from training.stored_arrays import read_npy_header


@dataclass
class StoredArray:
    """An array in a file, row after row: how to open its bytes, the offset at which it starts, its type and shape."""

    open: Callable[[], Any]
    start: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def read(self, file: BinaryIO, rows: int) -> NDArray[Any]:
        """Read the next `rows`; fewer at the end of the file."""
        size = self.dtype.itemsize * math.prod(self.shape[1:])
        content = file.read(rows * size)
        if len(content) % size:
            raise EOFError("the file ends in the middle of a row")
        return readers.to_plain_numbers(np.frombuffer(content, self.dtype).reshape(-1, *self.shape[1:]))


@dataclass(kw_only=True)
class ArraySource(DataSource):
    x: StoredArray
    y: StoredArray

    def batches(self) -> Iterator[Batch]:
        (name,) = self.kinds
        row_bytes = self.x.dtype.itemsize * math.prod(self.x.shape[1:])
        rows = max(1, min(source.BATCH_ROWS, source.BATCH_BYTES // row_bytes))
        with translate_file_errors(self.name, "download the file again"), ExitStack() as stack:
            files = [stack.enter_context(array.open()) for array in (self.x, self.y)]
            for array, file in zip((self.x, self.y), files, strict=True):
                file.read(array.start)
            for first in range(0, self.rows, rows):
                count = min(rows, self.rows - first)
                x, y = (array.read(file, count) for array, file in zip((self.x, self.y), files, strict=True))
                if len(x) < count or len(y) < count:
                    raise EOFError(f"expected {self.rows} rows, found {first + min(len(x), len(y))}")
                yield {name: x, **self._target_columns(y)}

    def _target_columns(self, y: NDArray[Any]) -> Batch:
        y = y.reshape(len(y), -1)
        if self.task == "classification":
            values, codes = np.unique(y[:, 0], return_inverse=True)
            labels = [str(value) if y.dtype.kind == "U" else int(value) for value in values]
            return {self.target_names[0]: DictionaryColumn(codes, labels)}
        if self.task == "multi_label" and not np.isin(y, (0, 1)).all():
            problem = f"expected 0 or 1, found {y[~np.isin(y, (0, 1))][0]}"
            raise DataError(self.name, [Fault("y", problem, "write task = 'regression' in [data] for quantities")])
        return {name: y[:, i].astype(np.float64) for i, name in enumerate(self.target_names)}


def open_arrays(paths: list[Path], section: DataSection) -> ArraySource:
    """Open one .npz file, or two IDX files. DataError if their first rows cannot be trained on."""
    fingerprint = Fingerprint.of(*paths)
    name = " and ".join(path.name for path in paths)
    x, y = map(_open_idx_array, paths) if len(paths) == 2 else (_open_npz_array(paths[0], key) for key in ("x", "y"))
    first_x, first_y = (
        _read_first_rows(array, path) for array, path in zip((x, y), (paths[0], paths[-1]), strict=True)
    )
    readers.check_arrays(readers.Arrays(name, first_x, first_y[: len(first_x)]))  # of large rows fewer are read
    if x.shape[0] != y.shape[0]:
        problem = f"expected as many as in x, {x.shape[0]}, found {y.shape[0]}"
        raise DataError(name, [Fault("y", problem, "save one target per example")])
    task, target_names, notes = array_dataset.infer_array_task(name, y.dtype, y.shape, first_y, section)
    kinds = {"image" if len(x.shape) > 2 else "features": "array"}
    return ArraySource(name, fingerprint, x.shape[0], kinds, target_names, task, notes, True, x=x, y=y)


def _read_first_rows(array: StoredArray, path: Path) -> NDArray[Any]:
    if 0 in array.shape:
        return np.empty(array.shape, array.dtype)
    rows = max(1, source.BATCH_BYTES // max(1, math.prod(array.shape[1:])))
    with translate_file_errors(path.name, "download the file again"), array.open() as file:
        file.read(array.start)
        return array.read(file, min(source.TYPE_INFERENCE_ROWS, rows))


def _open_idx_array(path: Path) -> StoredArray:
    with translate_file_errors(path.name, "download the file again"), readers.open_idx(path) as file:
        dtype, shape = readers.read_idx_header(file, path.name)
        return StoredArray(partial(readers.open_idx, path), file.tell(), dtype, shape)


def _open_npz_array(path: Path, key: str) -> StoredArray:
    def open_member() -> Any:
        return zipfile.ZipFile(path).open(f"{key}.npy")

    readers.check_npz_members(path)
    try:
        with open_member() as file:
            shape, fortran_order, dtype = read_npy_header(file)
            if fortran_order and len(shape) > 1:
                raise ValueError("expected C order, found Fortran order: save numpy.ascontiguousarray of it")
            return StoredArray(open_member, file.tell(), dtype, shape)
    except DAMAGED_FILE_ERRORS as error:
        problem = f"cannot be read: {first_line(error)}"
        raise DataError(path.name, [Fault(key, problem, "write it with numpy.savez(path, x=x, y=y)")]) from error
