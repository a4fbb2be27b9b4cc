"""Data as it lies on disk: CSV tables, .npz arrays and IDX images, read whole and checked once.

A cell of a CSV table is text without the spaces around it, or None when it is missing: empty, NA, N/A, NaN, null or ?,
in capitals or not. Nothing here knows what a column means; `training.data.type_inference` does.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import math
import struct
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.errors import Fault, did_you_mean
from model_store.schema.row_parser import MISSING_CELLS
from training.errors import DAMAGED_FILE_ERRORS, MAX_SHOWN_FAULTS, DataError

_LONGEST_CELL = 2**24  # characters; the csv module's own limit of 131072 is small for a text


@dataclass(frozen=True)
class Table:
    """A CSV file: for each column its cells, and for each row the line of the file on which it starts.

    `noun` is what `lines` counts.
    """

    name: str
    columns: dict[str, list[str | None]]
    lines: list[int]
    noun: str = "line"

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


def fingerprint(paths: Sequence[Path]) -> tuple[str, int]:
    """The SHA-256 of the files' bytes, one file after the other, and how many line ends they have."""
    digest, lines = hashlib.sha256(), 0
    for path in paths:
        with opened(path) as file:
            while block := file.read(1 << 20):
                digest.update(block)
                lines += block.count(b"\n")
    return digest.hexdigest(), lines


# CSV -------------------------------------------------------------------------------------------------------------


def read_csv(path: Path) -> Table:
    """Read a table: UTF-8 (a byte order mark is fine), commas, a header, rows as long as the header.

    Empty lines are skipped. All ragged rows are reported at once.
    """
    name = path.name
    rows = rows_of(path)
    names = header(name, rows)
    columns: list[list[str | None]] = [[] for _ in names]
    lines: list[int] = []
    faults: list[Fault] = []
    total = 0
    for line, row in rows:
        if fault := ragged(line, row, len(names)):
            total += 1
            if len(faults) < MAX_SHOWN_FAULTS:
                faults.append(fault)
            continue
        lines.append(line)
        for cells, text in zip(columns, row, strict=True):
            cells.append(cell(text))
    if faults:
        raise DataError(name, faults, total)
    if not lines:
        raise DataError(name, [Fault("", "the file has a header and no rows", "add rows of data")])
    return Table(name, dict(zip(names, columns, strict=True)), lines)


def header(name: str, rows: Iterator[tuple[int, list[str]]]) -> list[str]:
    """The names of the columns: the first of the rows."""
    try:
        line, names = next(rows)
    except StopIteration:
        raise DataError(name, [Fault("", "the file is empty", "expected a header and rows")]) from None
    names = [name.strip() for name in names]
    check_header(name, names, f"line {line}")
    return names


def ragged(line: int, row: list[str], expected: int) -> Fault | None:
    """The fault of a row that is longer or shorter than the header."""
    if len(row) == expected:
        return None
    fix = "put quotation marks around cells that contain a comma" if len(row) > expected else ""
    return Fault(f"line {line}", f"expected {_count(expected, 'cell')}, as in the header; found {len(row)}", fix)


def rows_of(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not empty, each with the line on which it starts."""
    before = 0
    limit = csv.field_size_limit(_LONGEST_CELL)
    try:
        with opened(path), path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for row in reader:
                if row:
                    yield before + 1, row
                before = reader.line_num
    except UnicodeDecodeError as error:
        raise DataError(path.name, [_encoding_fault(path)]) from error
    except csv.Error as error:
        fix = "close the quotation mark, and write a quotation mark inside quotes twice"
        raise DataError(path.name, [Fault(f"line {before + 1}", f"not CSV: {error}", fix)]) from error
    finally:
        csv.field_size_limit(limit)


def cell(text: str) -> str | None:
    """What a cell says, or None where that is nothing."""
    text = text.strip()
    return None if len(text) < 5 and text.lower() in MISSING_CELLS else text


def check_header(name: str, header: list[str], location: str = "") -> None:
    """DataError where columns cannot be told apart by their names."""
    faults = []
    seen: set[str] = set()
    for index, column in enumerate(header, 1):
        if not column:
            faults.append(Fault(location, f"column {index} has no name", _unnamed(index)))
        elif column in seen:
            faults.append(Fault(location, f"two columns are named '{column}'", "rename one of them"))
        seen.add(column)
    if len(header) == 1 and (other := next((sign for sign in ";\t|" if sign in header[0]), None)):
        shown = "tabs" if other == "\t" else f"'{other}'"
        faults.append(Fault(location, f"the columns seem to be separated by {shown}", "separate them by commas"))
    if faults:
        raise DataError(name, faults)


def _unnamed(index: int) -> str:
    """How to mend a column without a name: the first is most often the numbers of pandas' rows."""
    fix = "give every column a name in the header"
    return f"{fix}; of numbered rows of pandas: to_csv(..., index=False)" if index == 1 else fix


def _encoding_fault(path: Path) -> Fault:
    with path.open("rb") as file:
        if file.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            return Fault("", "expected text in UTF-8; found UTF-16", "save the file as UTF-8")
        file.seek(0)
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                problem = f"expected text in UTF-8; found the byte 0x{line[error.start]:02x}"
                fix = f"save the file as UTF-8, for example: iconv -f latin1 -t utf-8 {path.name}"
                return Fault(f"line {number}", problem, fix)
    return Fault("", "expected text in UTF-8", "save the file as UTF-8")


# Arrays ----------------------------------------------------------------------------------------------------------


def read_npz(path: Path) -> Arrays:
    """Read the arrays `x` and `y` of an .npz file."""
    check_members(path)
    try:
        with opened(path) as file, np.load(file, allow_pickle=False) as archive:
            x, y = archive["x"], archive["y"]
    except DAMAGED_FILE_ERRORS as error:
        problem = f"not an .npz file that can be read: {error}"
        raise DataError(path.name, [Fault("", problem, "write it with numpy.savez(path, x=x, y=y)")]) from error
    return checked(Arrays(path.name, x, y))


def check_members(path: Path) -> None:
    """DataError where a file is no .npz file with the arrays `x` and `y`, or these hold Python objects."""
    faults = []
    try:
        with opened(path) as file, zipfile.ZipFile(file) as archive:
            there = [name.removesuffix(".npy") for name in archive.namelist()]
            for key in ("x", "y"):
                if key not in there:
                    problem = f"there is no array '{key}'; found {', '.join(there) or 'none'}"
                    faults.append(Fault("", problem, _savez(key)))
                    continue
                with archive.open(f"{key}.npy") as member:
                    if npy_header(member)[2].hasobject:
                        fix = (
                            "save x.astype(float)"
                            if key == "x"
                            else "save y.astype(str), or of numbers y.astype(float)"
                        )
                        faults.append(Fault(key, "expected plain values; found Python objects", fix))
    except DAMAGED_FILE_ERRORS as error:
        with opened(path) as file:
            if file.read(6) == np.lib.format.MAGIC_PREFIX:
                fault = Fault("", "expected an .npz file; found a single array", _savez("x"))
                raise DataError(path.name, [fault]) from error
        problem = f"not an .npz file that can be read: {error}"
        raise DataError(path.name, [Fault("", problem, "write it with numpy.savez(path, x=x, y=y)")]) from error
    if faults:
        raise DataError(path.name, faults)


def npy_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """What an .npy file says of itself before its values: shape, whether column by column, and type."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    header: tuple[tuple[int, ...], bool, np.dtype[Any]] = read(file)
    return header


def _savez(key: str) -> str:
    what = "examples, one a row" if key == "x" else "answers"
    return f"name the {what} '{key}': numpy.savez(path, x=x, y=y)"


_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(images: Path, labels: Path) -> Arrays:
    """Read a pair of IDX files, the format of MNIST, compressed by gzip or not."""
    return checked(Arrays(f"{images.name} and {labels.name}", _idx(images), _idx(labels)))


def _idx(path: Path) -> NDArray[Any]:
    with damage_explained(path.name, "fetch the file again"), open_idx(path) as file:
        dtype, shape = read_idx_header(file, path.name)
        content = file.read()
    expected = dtype.itemsize * math.prod(shape)
    if len(content) != expected:
        problem = f"expected {expected} bytes of values for the shape {shape}; found {len(content)}"
        raise DataError(path.name, [Fault("", problem, "fetch the file again")])
    return np.frombuffer(content, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def open_idx(path: Path) -> Any:
    """An IDX file opened for reading its bytes, through gzip if they are compressed."""
    with opened(path) as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if compressed else path.open("rb")


def read_idx_header(file: Any, name: str) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """The type and the shape of an IDX file: two zero bytes, the type, the number of dimensions, each as uint32."""
    start = file.read(4)
    if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in _IDX_TYPES:
        problem = f"expected an IDX file (00 00, type, dimensions); found {start.hex(' ') or 'nothing'}"
        raise DataError(name, [Fault("", problem, "MNIST's files are named like train-images-idx3-ubyte.gz")])
    dimensions = file.read(4 * start[3])
    if len(dimensions) < 4 * start[3]:
        raise DataError(name, [Fault("", f"expected {start[3]} dimensions; the file ends before", "fetch it again")])
    return np.dtype(_IDX_TYPES[start[2]]), struct.unpack(f">{start[3]}I", dimensions)


@contextmanager
def damage_explained(name: str, fix: str) -> Iterator[None]:
    """DataError where what is read turns out to be damaged."""
    try:
        yield
    except DAMAGED_FILE_ERRORS as error:
        raise DataError(name, [Fault("", f"cannot be read: {first_line(error)}", fix)]) from error


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def checked(arrays: Arrays) -> Arrays:
    x, y = arrays.x, arrays.y
    faults = []
    if x.ndim < 2:
        faults.append(Fault("x", f"expected shape (examples, ...); found {x.shape}", "one example a row"))
    elif 0 in x.shape:
        faults.append(Fault("x", f"there is nothing in it: its shape is {x.shape}", "add examples"))
    if y.ndim not in (1, 2):
        faults.append(Fault("y", f"expected shape (examples,) or (examples, outputs); found {y.shape}", ""))
    elif 0 in y.shape[1:]:
        faults.append(Fault("y", f"there is nothing in it: its shape is {y.shape}", "add answers"))
    elif x.ndim and len(x) != len(y):
        faults.append(Fault("y", f"expected as many as in x, {len(x)}; found {len(y)}", "one answer an example"))
    if x.dtype.kind not in "buif":
        faults.append(Fault("x", f"expected numbers; found {x.dtype}", "encode them as numbers"))
    if y.dtype.kind not in "buifU":
        faults.append(Fault("y", f"expected numbers or labels; found {y.dtype}", "labels are whole numbers or texts"))
    for key, array in (("x", x), ("y", y)):
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            index = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
            found = f"{key}[{', '.join(map(str, index))}]"
            faults.append(Fault(found, f"expected a finite number; found {array[tuple(index)]}", "leave the row out"))
    if faults:
        raise DataError(arrays.name, faults)
    return arrays


def opened(path: Path) -> Any:
    """The file opened for reading bytes, or a DataError that says what is there instead."""
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        try:
            there = sorted(entry.name for entry in path.parent.iterdir())
        except OSError:
            raise DataError(str(path), [Fault("", f"there is no directory {path.parent}", "")]) from error
        raise DataError(str(path), [Fault("", "no such file", did_you_mean(path.name, there))]) from error
    except OSError as error:
        raise DataError(str(path), [Fault("", f"cannot be read: {error.strerror}", "")]) from error


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
