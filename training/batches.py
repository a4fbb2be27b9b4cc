"""Batches: files of any size, read a piece at a time, as typed columns.

CSV and Parquet are read by pyarrow, which the extra `arrow` installs; .npz and IDX as their bytes come. What the
columns of a table mean is decided by its first rows.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import re
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import islice, product
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from model_store.columns import number_in
from model_store.errors import Fault
from model_store.rows import MISSING
from training import columns, data, dataset
from training.data import Table
from training.errors import DAMAGED, SHOWN, DataError
from training.settings import DataSection

HEAD = 10_000  # rows that decide kinds and task
_ROWS, _BYTES = 65_536, 1 << 20  # of a batch; pyarrow reads up to 32 pieces of a CSV file ahead
_INDEX = re.compile(r"__index_level_\d+__")  # what pandas calls the numbers of its rows in Parquet
_MISSING = sorted("".join(word) for text in MISSING for word in product(*({c, c.upper()} for c in text)))


@dataclass(frozen=True)
class Texts:
    """A batch of a column of categories: for each row the index of its text in `values`, None where one is missing."""

    codes: NDArray[Any]
    values: list[Any]


Batch = dict[str, "NDArray[Any] | Texts"]


@dataclass
class Source:
    """A file that is read in batches: numbers as float64 with NaN for missing, `Texts`, or arrays (n, ...).

    `rows` is how many there are at most. `whole` says that labels are to be kept as they are, numbers or texts.
    """

    name: str
    sha256: str
    rows: int
    kinds: dict[str, str]
    targets: tuple[str, ...]
    task: str
    notes: list[str] = field(default_factory=list)
    whole: bool = False

    def batches(self) -> Iterator[Batch]:
        raise NotImplementedError

    def _target_kinds(self) -> dict[str, str]:
        return dict.fromkeys(self.targets, "category" if self.task == "classification" else "number")


def open_source(section: DataSection, folder: Path) -> Source:
    """The files of a job, relative to `folder`. DataError for what their beginning shows to be wrong."""
    if section.path is None:
        return _arrays([folder / str(section.images), folder / str(section.labels)], section)
    path = folder / section.path
    if path.suffix.lower() == ".npz":
        return _arrays([path], section)
    _pyarrow(path.name)
    sha256, lines = _fingerprint([path])
    if path.suffix.lower() == ".parquet":
        head, rows, unfit = _parquet_head(path)
        return ParquetFile(*_planned(head, section, sha256, rows, unfit), path=path)
    return CsvFile(*_planned(_csv_head(path), section, sha256, lines), path=path)


def _fingerprint(paths: list[Path]) -> tuple[str, int]:
    """The SHA-256 of the files' bytes, one file after the other, and how many lines they have."""
    digest, lines = hashlib.sha256(), 1
    for path in paths:
        with data.opened(path) as file:
            while block := file.read(1 << 20):
                digest.update(block)
                lines += block.count(b"\n")
    return digest.hexdigest(), lines


# Tables --------------------------------------------------------------------------------------------------------------


def _planned(
    head: Table, section: DataSection, sha256: str, rows: int, unfit: Sequence[str] = ()
) -> tuple[str, str, int, dict[str, str], tuple[str, ...], str, list[str]]:
    """What a table's first rows say about its columns, by the rules of `training.dataset`; `unfit` are left out."""
    targets = [section.target] if isinstance(section.target, str) else list(section.target or [])
    names = section.columns or [name for name in head.columns if name not in targets]
    if wrong := [name for name in [*targets, *names] if name in unfit]:
        problem = "wanted numbers or texts; found lists, structures, bytes or the index of pandas"
        raise DataError(head.name, [Fault(f"column {name}", problem, "choose other columns") for name in wrong])
    dataset.check_names(head, targets, names, section)
    kinds: dict[str, str] = {name: section.kinds.get(name) or columns.infer_kind(head.columns[name]) for name in names}
    for name in names:
        if kinds[name] == "category":
            columns.categories(head, name, sure=name in section.kinds)
    task, notes = section.task, []
    if unfit and section.columns is None:
        notes.append(f"left out as lists, structures, bytes or the index of pandas: {', '.join(unfit)}")
    if task is None:
        task = columns.task_of(head, targets)
        notes.append(f"task: {task}, inferred from the target's first rows ([data] task = ... decides)")
    notes += columns.doubts(head, kinds, section.kinds)
    return head.name, sha256, rows, kinds, tuple(targets), task, notes


@dataclass(kw_only=True)
class CsvFile(Source):
    path: Path

    def batches(self) -> Iterator[Batch]:
        import pyarrow as pa  # noqa: PLC0415  # an extra
        from pyarrow import csv  # noqa: PLC0415

        kinds = {**self.kinds, **self._target_kinds()}
        types = {"number": pa.string(), "category": pa.dictionary(pa.int32(), pa.string())}
        converting = csv.ConvertOptions(
            column_types={name: types[kind] for name, kind in kinds.items()}, include_columns=list(kinds)
        )
        try:
            with csv.open_csv(
                self.path,
                csv.ReadOptions(
                    block_size=_BYTES,
                    column_names=_header(self.path),
                    skip_rows=_header_end(self.path),
                    use_threads=False,
                ),
                csv.ParseOptions(newlines_in_values=True),
                converting,
            ) as reader:
                for batch in reader:
                    yield _typed(batch, kinds)
        except (pa.ArrowInvalid, OSError) as error:
            raise _explained(self.path, kinds, error) from error


@dataclass(kw_only=True)
class ParquetFile(Source):
    path: Path

    def batches(self) -> Iterator[Batch]:
        import pyarrow as pa  # noqa: PLC0415
        from pyarrow import parquet  # noqa: PLC0415

        kinds = {**self.kinds, **self._target_kinds()}
        try:
            with parquet.ParquetFile(self.path) as file:
                for batch in file.iter_batches(_ROWS, columns=list(kinds), use_threads=False):
                    yield _typed(batch, kinds)
        except (pa.ArrowException, OSError) as error:
            mend = "mend it, or list the columns to read as data.columns"
            raise DataError(self.name, [Fault("", f"cannot be read: {_first_line(error)}", mend)]) from error


def _typed(batch: Any, kinds: Mapping[str, str]) -> Batch:
    """A batch of pyarrow's as ours."""
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import compute  # noqa: PLC0415

    typed: Batch = {}
    for name, kind in kinds.items():
        array = batch.column(name)
        if kind == "number":
            try:
                typed[name] = _numbers(array)
            except pa.ArrowException as error:
                raise pa.ArrowInvalid(f"column {name}: {_first_line(error)}") from error
            continue
        if not pa.types.is_dictionary(array.type):
            array = compute.dictionary_encode(array.cast(pa.string()))
        texts = [None if text is None else data.cell(text) for text in array.dictionary.cast(pa.string()).to_pylist()]
        codes = array.indices.fill_null(len(texts)).to_numpy(zero_copy_only=False)
        typed[name] = Texts(codes, [*texts, None])
    return typed


def _numbers(array: Any) -> NDArray[np.float64]:
    """A column of pyarrow's as numbers. Of texts as `data.cell` reads them: spaces around them do not count.

    pyarrow's own reading of numbers in CSV is a third faster, and takes no missing cell that has a space.
    """
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import compute  # noqa: PLC0415

    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if array.type in (pa.string(), pa.large_string(), pa.string_view()):
        array = compute.utf8_trim_whitespace(array.cast(pa.string()))
        array = compute.if_else(compute.is_in(array, pa.array(_MISSING)), None, array)
    values: NDArray[np.float64] = (
        array.cast(pa.float64(), safe=False).fill_null(math.nan).to_numpy(zero_copy_only=False)
    )
    return values


def _csv_head(path: Path) -> Table:
    rows = list(islice(data.rows_of(path), HEAD + 1))
    names = _header(path)
    if len(rows) < 2:
        raise DataError(path.name, [Fault("", "the file has a header and no rows", "add rows of data")])
    whole = [(line, row) for line, row in rows[1:] if len(row) == len(names)]  # of the others pyarrow will complain
    cells = {name: [data.cell(row[i]) for _, row in whole] for i, name in enumerate(names)}
    return Table(path.name, cells, [line for line, _ in whole])


def _header(path: Path) -> list[str]:
    return data.header(path.name, data.rows_of(path))


def _header_end(path: Path) -> int:
    """The line on which the header ends: empty lines may come before it, and names may have line breaks."""
    line, names = next(data.rows_of(path))
    return line + sum(len(re.findall(r"\r\n?|\n", name)) for name in names)


def _parquet_head(path: Path) -> tuple[Table, int, list[str]]:
    """The first rows, how many there are in all, and the columns that are neither numbers nor texts."""
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import parquet  # noqa: PLC0415

    try:
        with parquet.ParquetFile(path) as file:
            rows = file.metadata.num_rows
            batch = next(file.iter_batches(HEAD), None)
            if batch is None:
                raise DataError(path.name, [Fault("", "there are no rows in it", "add rows of data")])
            data.check_header(path.name, batch.schema.names)
            columns_, unfit = {}, []
            for name, array in zip(batch.schema.names, batch.columns, strict=True):
                if pa.types.is_nested(array.type) or pa.types.is_binary(array.type) or _INDEX.fullmatch(name):
                    unfit.append(name)
                    continue
                texts = array.cast(pa.string()).to_pylist()
                columns_[name] = [None if text is None else data.cell(text) for text in texts]
    except (pa.ArrowException, OSError) as error:
        problem = f"not a Parquet file that can be read: {_first_line(error)}"
        raise DataError(path.name, [Fault("", problem, "write it anew")]) from error
    return Table(path.name, columns_, list(range(1, batch.num_rows + 1)), "row"), rows, unfit


def _explained(path: Path, kinds: Mapping[str, str], error: Exception) -> DataError:
    """pyarrow says what it could not read, but not where: the slow reader finds the lines."""
    rows = data.rows_of(path)
    names = data.header(path.name, rows)
    numbers = [(i, name) for i, name in enumerate(names) if kinds.get(name) == "number"]
    faults: list[Fault] = []
    total = 0
    for line, row in rows:
        found = data.ragged(line, row, len(names))
        if found is None:
            wrong = next(((n, row[i]) for i, n in numbers if _no_number(data.cell(row[i]))), None)
            if wrong:
                mend = f"mend the cell, or write kinds = {{ {wrong[0]!r} = 'category' }} in [data] if it is no number"
                found = Fault(f"line {line}, column {wrong[0]}", f"wanted a finite number; found {wrong[1]!r}", mend)
        if found is not None:
            total += 1
            if len(faults) < SHOWN:
                faults.append(found)
    if not faults:
        faults, total = [Fault("", f"cannot be read: {_first_line(error)}", "")], 1
    return DataError(path.name, faults, total)


def _no_number(cell: str | None) -> bool:
    return cell is not None and number_in(cell) is None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _pyarrow(name: str) -> None:
    try:
        import pyarrow as pa  # noqa: F401, PLC0415
    except ImportError as error:
        mend = "pip install 'forward-pass[arrow]'"
        raise DataError(
            name, [Fault("", "reading it in batches needs pyarrow, which is not installed", mend)]
        ) from error


# Arrays --------------------------------------------------------------------------------------------------------------


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
        rows = max(1, min(_ROWS, _BYTES // (self.x.dtype.itemsize * math.prod(self.x.shape[1:]))))
        try:
            with ExitStack() as stack:
                files = [stack.enter_context(member.opened()) for member in (self.x, self.y)]
                for member, file in zip((self.x, self.y), files, strict=True):
                    file.read(member.start)
                for first in range(0, self.rows, rows):
                    count = min(rows, self.rows - first)
                    x, y = (m.read(f, count) for m, f in zip((self.x, self.y), files, strict=True))
                    if len(x) < count or len(y) < count:
                        raise EOFError(f"wanted {self.rows} rows; found {first + min(len(x), len(y))}")
                    yield {name: x, **self._answers(y)}
        except DAMAGED as error:
            raise DataError(
                self.name, [Fault("", f"cannot be read: {_first_line(error)}", "fetch it again")]
            ) from error

    def _answers(self, y: NDArray[Any]) -> Batch:
        y = y.reshape(len(y), -1)
        if self.task == "classification":
            values, codes = np.unique(y[:, 0], return_inverse=True)
            return {self.targets[0]: Texts(codes, [str(v) if y.dtype.kind == "U" else int(v) for v in values])}
        return {name: y[:, i].astype(np.float64) for i, name in enumerate(self.targets)}


def _arrays(paths: list[Path], section: DataSection) -> ArraysFile:
    sha256, _ = _fingerprint(paths)
    name = " and ".join(path.name for path in paths)
    x, y = map(_idx, paths) if len(paths) == 2 else (_npy(paths[0], key) for key in ("x", "y"))
    head = [_head(member, path) for member, path in zip((x, y), (paths[0], paths[-1]), strict=True)]
    data.checked(data.Arrays(name, head[0], head[1][: len(head[0])]))  # of large rows fewer are read
    if x.shape[0] != y.shape[0]:
        fault = Fault("y", f"wanted as many as in x, {x.shape[0]}; found {y.shape[0]}", "one answer an example")
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
        raise DataError(name, [Fault("y", "wanted numbers for a regression; found texts", "")])
    targets = dataset.target_names(data.Arrays(name, *head), section, task, math.prod(y.shape[1:]))
    kinds = {"image" if len(x.shape) > 2 else "features": "array"}
    return ArraysFile(name, sha256, x.shape[0], kinds, targets, task, notes, True, x=x, y=y)


def _head(member: Member, path: Path) -> NDArray[Any]:
    """The first rows."""
    if 0 in member.shape:
        return np.empty(member.shape, member.dtype)
    try:
        with member.opened() as file:
            file.read(member.start)
            return member.read(file, min(HEAD, max(1, _BYTES // max(1, math.prod(member.shape[1:])))))
    except DAMAGED as error:
        raise DataError(path.name, [Fault("", f"cannot be read: {_first_line(error)}", "fetch it again")]) from error


def _idx(path: Path) -> Member:
    """See `training.data`: two zero bytes, the type, the number of dimensions, each dimension as uint32, the values."""
    with data.opened(path) as file:
        packed = file.read(2) == b"\x1f\x8b"
    opened: Callable[[], Any] = partial(gzip.open, path) if packed else partial(path.open, "rb")
    try:
        with opened() as file:
            start = file.read(4)
            kind, dimensions = data.idx_type(path.name, start)
            shape = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
    except DAMAGED as error:
        raise DataError(path.name, [Fault("", f"cannot be read: {_first_line(error)}", "fetch it again")]) from error
    return Member(opened, 4 + 4 * dimensions, kind, shape)


def _npy(path: Path, key: str) -> Member:
    def opened() -> Any:
        return zipfile.ZipFile(path).open(f"{key}.npy")

    data.check_members(path)
    try:
        with opened() as file:
            shape, fortran, dtype = data.npy_header(file)
            if fortran and len(shape) > 1:
                raise ValueError("its columns lie one after the other: write numpy.ascontiguousarray of it")
            return Member(opened, file.tell(), dtype, shape)
    except DAMAGED as error:
        problem = f"cannot be read: {_first_line(error)}"
        raise DataError(path.name, [Fault(key, problem, "write it with numpy.savez(path, x=x, y=y)")]) from error
