"""Readers of .npz arrays and IDX images, read whole and checked once; tables are read by tables.py."""

from __future__ import annotations

import errno
import gzip
import math
import struct
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.errors import Fault, did_you_mean
from model_store.utils.regular_file import open_regular
from model_store.utils.values import list_names
from training.available_memory import check_memory
from training.errors import DAMAGED_FILE_ERRORS, DataError
from training.stored_arrays import read_npy_header


@dataclass(frozen=True)
class Table:
    """A table: the cells of each column, and for each row the line of the file on which it starts.

    A cell is text without surrounding spaces, or None if it is missing. `row_unit` is what `lines` counts. The
    `unsupported` columns of the file hold neither numbers nor texts. The cells of the columns `decimal_commas` have
    points in place of the commas in the file.
    """

    name: str
    columns: dict[str, list[str | None]]
    lines: list[int]
    row_unit: str = "line"
    notes: list[str] = field(default_factory=list)
    unsupported: list[str] = field(default_factory=list)
    decimal_commas: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.lines)


@dataclass(frozen=True)
class Arrays:
    """Examples as arrays: `x` (n, ...) and `y` (n,) or (n, outputs)."""

    name: str
    x: NDArray[Any]
    y: NDArray[Any]

    def __len__(self) -> int:
        return len(self.x)


# Arrays ----------------------------------------------------------------------------------------------------------


def read_npz(path: Path) -> Arrays:
    """Read the arrays `x` and `y` of an .npz file."""
    needed = check_npz_members(path)
    try:
        check_memory(needed)
    except MemoryError as error:
        problem = f"the arrays do not fit in memory: {error}"
        raise DataError(path.name, [Fault("", problem, "write stream = true in [data]")]) from error
    try:
        with open_file(path) as file, np.load(file, allow_pickle=False) as archive:
            x, y = to_plain_numbers(archive["x"]), to_plain_numbers(archive["y"])
    except DAMAGED_FILE_ERRORS as error:
        problem = f"not a readable .npz file: {error}"
        raise DataError(path.name, [Fault("", problem, "write it with numpy.savez(path, x=x, y=y)")]) from error
    return check_arrays(Arrays(path.name, x, y))


_MAX_VALUE_BYTES = 4096  # of a label of 1,024 characters


def check_npz_members(path: Path) -> int:
    """Return the bytes that `x` and `y` take. DataError if a file has no such arrays of plain values."""
    faults, needed = [], 0
    try:
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            for key in ("x", "y"):
                if key not in names:
                    problem = f"expected an array '{key}', found {list_names(names) or 'none'}"
                    faults.append(Fault("", problem, _savez_hint(key)))
                    continue
                method = archive.getinfo(f"{key}.npy").compress_type
                if method not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:  # bzip2 makes a gigabyte of a kilobyte
                    problem = f"expected an array stored or deflated, found ZIP method {method}"
                    faults.append(Fault(key, problem, "write it with numpy.savez(path, x=x, y=y)"))
                    continue
                with archive.open(f"{key}.npy") as member:
                    shape, _, dtype = read_npy_header(member)
                    needed += math.prod(shape) * dtype.itemsize
                    if not dtype.itemsize:
                        faults.append(Fault(key, "expected values, found empty texts", "save labels"))
                    if dtype.itemsize > _MAX_VALUE_BYTES:
                        problem = f"expected values of at most {_MAX_VALUE_BYTES} bytes, found {dtype}"
                        faults.append(Fault(key, problem, "save numbers, or labels of at most 1024 characters"))
                    if dtype.hasobject:
                        fixes = {"x": "save x.astype(float)", "y": "save y.astype(str), or y.astype(float) for numbers"}
                        faults.append(Fault(key, "expected plain values, found Python objects", fixes[key]))
    except DAMAGED_FILE_ERRORS as error:
        with open_file(path) as file:
            if file.read(6) == np.lib.format.MAGIC_PREFIX:
                fault = Fault("", "expected an .npz file, found a single array", _savez_hint("x"))
                raise DataError(path.name, [fault]) from error
        problem = f"not a readable .npz file: {error}"
        raise DataError(path.name, [Fault("", problem, "write it with numpy.savez(path, x=x, y=y)")]) from error
    if faults:
        raise DataError(path.name, faults)
    return needed


def _savez_hint(key: str) -> str:
    what = "examples, one per row," if key == "x" else "targets"
    return f"name the {what} '{key}': numpy.savez(path, x=x, y=y)"


_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(images: Path, labels: Path) -> Arrays:
    """Read a pair of IDX files, the format of MNIST, compressed by gzip or not."""
    return check_arrays(Arrays(f"{images.name} and {labels.name}", _read_idx_file(images), _read_idx_file(labels)))


def _read_idx_file(path: Path) -> NDArray[Any]:
    with translate_file_errors(path.name, "download the file again"), open_idx(path) as file:
        dtype, shape = read_idx_header(file, path.name)
        content = file.read()
    expected = dtype.itemsize * math.prod(shape)
    if len(content) != expected:
        problem = f"expected {expected} bytes of values for the shape {shape}, found {len(content)}"
        raise DataError(path.name, [Fault("", problem, "download the file again")])
    return to_plain_numbers(np.frombuffer(content, dtype).reshape(shape))


def open_idx(path: Path) -> Any:
    """Open an IDX file for reading bytes, through gzip if it is compressed."""
    with open_file(path) as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if compressed else path.open("rb")


def read_idx_header(file: Any, name: str) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Read the type and shape of an IDX file: two zero bytes, the type, the number of dimensions, each as uint32."""
    start = file.read(4)
    if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in _IDX_TYPES:
        problem = f"expected an IDX file (00 00, type, dimensions), found {start.hex(' ') or 'nothing'}"
        raise DataError(name, [Fault("", problem, "MNIST's files have names such as train-images-idx3-ubyte.gz")])
    count = start[3]
    dimensions = file.read(4 * count)
    if len(dimensions) < 4 * count:
        problem = f"expected {_plural(count, 'dimension')}, found the end of the file"
        raise DataError(name, [Fault("", problem, "download the file again")])
    return np.dtype(_IDX_TYPES[start[2]]), struct.unpack(f">{count}I", dimensions)


def to_plain_numbers(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array in this machine's byte order, long doubles as float64: models and JSON have no others."""
    dtype = np.dtype(np.float64) if array.dtype.kind == "f" and array.dtype.itemsize > 8 else array.dtype
    with np.errstate(over="ignore"):  # `check_arrays` reports infinite numbers
        return array.astype(dtype.newbyteorder("="), copy=False)


def check_arrays(arrays: Arrays) -> Arrays:
    """Return the arrays. DataError if their shapes, types or values cannot be trained on."""
    x, y = arrays.x, arrays.y
    faults = []
    if x.ndim < 2:
        faults.append(Fault("x", f"expected shape (examples, ...), found {x.shape}", "save one example per row"))
    elif 0 in x.shape:
        faults.append(Fault("x", f"expected values, found the empty shape {x.shape}", "add examples"))
    if y.ndim not in (1, 2):
        faults.append(Fault("y", f"expected shape (examples,) or (examples, outputs), found {y.shape}", ""))
    elif 0 in y.shape[1:]:
        faults.append(Fault("y", f"expected values, found the empty shape {y.shape}", "add targets"))
    elif x.ndim and len(x) != len(y):
        faults.append(Fault("y", f"expected as many as in x, {len(x)}, found {len(y)}", "save one target per example"))
    if x.dtype.kind not in "buif":
        faults.append(Fault("x", f"expected numbers, found {x.dtype}", "encode them as numbers"))
    if y.dtype.kind not in "buifU":
        faults.append(Fault("y", f"expected numbers or labels, found {y.dtype}", "save labels as integers or strings"))
    for key, array in (("x", x), ("y", y)):
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            invalid = np.argwhere(~np.isfinite(array))
            index, rows = invalid[0].tolist(), len(np.unique(invalid[:, 0]))
            location = f"{key}[{', '.join(map(str, index))}]"
            problem = f"expected a finite number, found {array[tuple(index)]}"
            problem += f"; {rows} rows are like this" if rows > 1 else ""
            faults.append(Fault(location, problem, "remove the row" if rows == 1 else "remove the rows"))
    if faults:
        raise DataError(arrays.name, faults)
    return arrays


# Files -----------------------------------------------------------------------------------------------------------


_CHECK_PATH = "check the path; it is relative to the job file"


def open_file(path: Path) -> Any:
    """Open a file for reading bytes. DataError if that is not possible."""
    try:
        return open_regular(path)
    except FileNotFoundError as error:
        try:
            neighbours = sorted(entry.name for entry in path.parent.iterdir())
        except OSError:
            raise DataError(str(path), [Fault("", f"no such directory: {path.parent}", _CHECK_PATH)]) from error
        fix = did_you_mean(path.name, neighbours) or _CHECK_PATH
        raise DataError(str(path), [Fault("", "no such file", fix)]) from error
    except OSError as error:
        if error.errno == errno.EINVAL:
            fault = Fault("", f"{error.strerror}, which cannot be read twice", "save the data as a file")
        else:
            fault = Fault("", f"cannot be read: {error.strerror}", "name a file that you may read")
        raise DataError(str(path), [fault]) from error


@contextmanager
def translate_file_errors(name: str, fix: str) -> Iterator[None]:
    """Raise DataError in place of the errors of a damaged file."""
    try:
        yield
    except DAMAGED_FILE_ERRORS as error:
        raise DataError(name, [Fault("", f"cannot be read: {first_line(error)}", fix)]) from error


def first_line(error: Exception) -> str:
    """Return the first line of an error's message."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
