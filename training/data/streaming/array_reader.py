"""Array files: .npz and IDX files of any size, their arrays read row after row as the bytes come."""

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
from training.data import dataset, readers
from training.data.readers import damage_explained, fingerprint, first_line
from training.data.streaming import source
from training.data.streaming.source import HEAD, Batch, Source, Texts
from training.errors import DAMAGED_FILE_ERRORS, DataError


@dataclass
class Member:
    """An array as it lies in a file, row after row: what opens its bytes, where in them it starts, and what it is."""

    opened: Callable[[], Any]
    start: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def read(self, file: BinaryIO, rows: int) -> NDArray[Any]:
        """The next rows; fewer at the end."""
        size = self.dtype.itemsize * math.prod(self.shape[1:])
        content = file.read(rows * size)
        if len(content) % size:
            raise EOFError("the file ends in the middle of a row")
        found = np.frombuffer(content, self.dtype).reshape(-1, *self.shape[1:])
        return found.astype(self.dtype.newbyteorder("="), copy=False)


@dataclass(kw_only=True)
class ArraysFile(Source):
    x: Member
    y: Member

    def batches(self) -> Iterator[Batch]:
        (name,) = self.kinds
        rows = max(1, min(source.ROWS, source.BYTES // (self.x.dtype.itemsize * math.prod(self.x.shape[1:]))))
        with damage_explained(self.name, "fetch it again"), ExitStack() as stack:
            files = [stack.enter_context(member.opened()) for member in (self.x, self.y)]
            for member, file in zip((self.x, self.y), files, strict=True):
                file.read(member.start)
            for first in range(0, self.rows, rows):
                count = min(rows, self.rows - first)
                x, y = (m.read(f, count) for m, f in zip((self.x, self.y), files, strict=True))
                if len(x) < count or len(y) < count:
                    raise EOFError(f"expected {self.rows} rows; found {first + min(len(x), len(y))}")
                yield {name: x, **self._answers(y)}

    def _answers(self, y: NDArray[Any]) -> Batch:
        y = y.reshape(len(y), -1)
        if self.task == "classification":
            values, codes = np.unique(y[:, 0], return_inverse=True)
            return {self.targets[0]: Texts(codes, [str(v) if y.dtype.kind == "U" else int(v) for v in values])}
        return {name: y[:, i].astype(np.float64) for i, name in enumerate(self.targets)}


def open_arrays(paths: list[Path], section: DataSection) -> ArraysFile:
    sha256, _ = fingerprint(paths)
    name = " and ".join(path.name for path in paths)
    x, y = map(_idx, paths) if len(paths) == 2 else (_npy(paths[0], key) for key in ("x", "y"))
    head = [_head(member, path) for member, path in zip((x, y), (paths[0], paths[-1]), strict=True)]
    readers.checked(readers.Arrays(name, head[0], head[1][: len(head[0])]))  # of large rows fewer are read
    if x.shape[0] != y.shape[0]:
        fault = Fault("y", f"expected as many as in x, {x.shape[0]}; found {y.shape[0]}", "one answer an example")
        raise DataError(name, [fault])
    task, targets, notes = dataset.plan_arrays(name, y.dtype, y.shape, head[1], section)
    kinds = {"image" if len(x.shape) > 2 else "features": "array"}
    return ArraysFile(name, sha256, x.shape[0], kinds, targets, task, notes, True, x=x, y=y)


def _head(member: Member, path: Path) -> NDArray[Any]:
    """The first rows."""
    if 0 in member.shape:
        return np.empty(member.shape, member.dtype)
    with damage_explained(path.name, "fetch it again"), member.opened() as file:
        file.read(member.start)
        return member.read(file, min(HEAD, max(1, source.BYTES // max(1, math.prod(member.shape[1:])))))


def _idx(path: Path) -> Member:
    with damage_explained(path.name, "fetch it again"), readers.open_idx(path) as file:
        dtype, shape = readers.read_idx_header(file, path.name)
        return Member(partial(readers.open_idx, path), file.tell(), dtype, shape)


def _npy(path: Path, key: str) -> Member:
    def opened() -> Any:
        return zipfile.ZipFile(path).open(f"{key}.npy")

    readers.check_members(path)
    try:
        with opened() as file:
            shape, fortran, dtype = readers.npy_header(file)
            if fortran and len(shape) > 1:
                raise ValueError("its columns lie one after the other: write numpy.ascontiguousarray of it")
            return Member(opened, file.tell(), dtype, shape)
    except DAMAGED_FILE_ERRORS as error:
        problem = f"cannot be read: {first_line(error)}"
        raise DataError(path.name, [Fault(key, problem, "write it with numpy.savez(path, x=x, y=y)")]) from error
