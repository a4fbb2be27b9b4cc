"""Array files: .npz and IDX files of any size, their arrays read row after row as the bytes come."""

from __future__ import annotations

import gzip
import math
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from model_store.errors import Fault
from training.config.settings import DataSection
from training.data import dataset, readers
from training.data.streaming import source
from training.data.streaming.source import HEAD, Batch, Source, Texts, fingerprint, first_line
from training.errors import DAMAGED, DataError


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
        with _whole(self.name), ExitStack() as stack:
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
    task, notes = section.task, []
    single = math.prod(y.shape[1:]) == 1
    if task is None:
        whole = y.dtype.kind in "bU" or (y.dtype.kind in "ui" and dataset.few(head[1]))
        task = "classification" if single and whole else "regression"
        notes.append(f"task: {task}, inferred from the first of y ([data] task = ... decides)")
    if task == "classification" and not (single and y.dtype.kind in "buiU"):
        raise DataError(name, [dataset.no_labels(y.dtype, y.shape)])
    if task == "regression" and y.dtype.kind == "U":
        raise DataError(name, [Fault("y", "expected numbers for a regression; found texts", "")])
    targets = dataset.target_names(readers.Arrays(name, *head), section, task, math.prod(y.shape[1:]))
    kinds = {"image" if len(x.shape) > 2 else "features": "array"}
    return ArraysFile(name, sha256, x.shape[0], kinds, targets, task, notes, True, x=x, y=y)


@contextmanager
def _whole(name: str) -> Iterator[None]:
    """DataError where what is read turns out to be damaged."""
    try:
        yield
    except DAMAGED as error:
        raise DataError(name, [Fault("", f"cannot be read: {first_line(error)}", "fetch it again")]) from error


def _head(member: Member, path: Path) -> NDArray[Any]:
    """The first rows."""
    if 0 in member.shape:
        return np.empty(member.shape, member.dtype)
    with _whole(path.name), member.opened() as file:
        file.read(member.start)
        return member.read(file, min(HEAD, max(1, source.BYTES // max(1, math.prod(member.shape[1:])))))


def _idx(path: Path) -> Member:
    """See `data.readers`: two zero bytes, the type, the number of dimensions, each dimension as uint32, the values."""
    with readers.opened(path) as file:
        packed = file.read(2) == b"\x1f\x8b"
    opened: Callable[[], Any] = partial(gzip.open, path) if packed else partial(path.open, "rb")
    with _whole(path.name), opened() as file:
        start = file.read(4)
        kind, dimensions = readers.idx_type(path.name, start)
        shape = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
    return Member(opened, 4 + 4 * dimensions, kind, shape)


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
    except DAMAGED as error:
        problem = f"cannot be read: {first_line(error)}"
        raise DataError(path.name, [Fault(key, problem, "write it with numpy.savez(path, x=x, y=y)")]) from error
