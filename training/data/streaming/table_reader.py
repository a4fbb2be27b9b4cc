"""Batches: files of any size, read a piece at a time, as typed columns.

CSV and Parquet are read by pyarrow, which the extra `arrow` installs; .npz and IDX as their bytes come (see
array_files.py). What the columns of a table mean is decided by its first rows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.errors import Fault
from model_store.schema.row_parser import MISSING_CELLS
from model_store.utils.values import parse_finite_number
from training.config.settings import DataSection
from training.data import dataset, readers, type_inference
from training.data.readers import Table, fingerprint, first_line
from training.data.streaming import source
from training.data.streaming.array_reader import open_arrays
from training.data.streaming.source import HEAD, Batch, Source, Texts
from training.errors import MAX_SHOWN_FAULTS, DataError

_INDEX = re.compile(r"__index_level_\d+__")  # what pandas calls the numbers of its rows in Parquet
_MISSING = sorted("".join(word) for text in MISSING_CELLS for word in product(*({c, c.upper()} for c in text)))


def open_source(section: DataSection, folder: Path) -> Source:
    """The files of a job, relative to `folder`. DataError for what their beginning shows to be wrong."""
    if section.path is None:
        return open_arrays([folder / str(section.images), folder / str(section.labels)], section)
    path = folder / section.path
    if path.suffix.lower() == ".npz":
        return open_arrays([path], section)
    _pyarrow(path.name)
    sha256, lines = fingerprint([path])
    if path.suffix.lower() == ".parquet":
        head, rows, unfit = _parquet_head(path)
        return ParquetFile(*_planned(head, section, sha256, rows, unfit), path=path)
    return CsvFile(*_planned(_csv_head(path), section, sha256, lines + 1), path=path)


# Tables --------------------------------------------------------------------------------------------------------------


def _planned(
    head: Table, section: DataSection, sha256: str, rows: int, unfit: Sequence[str] = ()
) -> tuple[str, str, int, dict[str, str], tuple[str, ...], str, list[str]]:
    """What a table's first rows say about its columns, by the rules of `data.dataset`; `unfit` are left out."""
    targets, names = dataset.choose_columns(head, section, unfit)
    kinds = dataset.infer_kinds(head, names, section)
    for name in names:
        if kinds[name] == "category":
            type_inference.categories(head, name, sure=name in section.kinds)
    notes: list[str] = []
    if unfit and section.columns is None:
        notes.append(f"left out as lists, structures, bytes or the index of pandas: {', '.join(unfit)}")
    task = dataset.infer_task(head, targets, section, notes)
    notes += type_inference.kind_warnings(head, kinds, section.kinds)
    return head.name, sha256, rows, kinds, tuple(targets), task, notes


@dataclass(kw_only=True)
class CsvFile(Source):
    path: Path

    def batches(self) -> Iterator[Batch]:
        import pyarrow as pa  # noqa: PLC0415  # an extra
        from pyarrow import csv  # noqa: PLC0415

        kinds = {**self.kinds, **self.target_kinds()}
        types = {"number": pa.string(), "category": pa.dictionary(pa.int32(), pa.string())}
        converting = csv.ConvertOptions(
            column_types={name: types[kind] for name, kind in kinds.items()}, include_columns=list(kinds)
        )
        try:
            with csv.open_csv(
                self.path,
                csv.ReadOptions(
                    block_size=source.BYTES,
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

        kinds = {**self.kinds, **self.target_kinds()}
        try:
            with parquet.ParquetFile(self.path) as file:
                for batch in file.iter_batches(source.ROWS, columns=list(kinds), use_threads=False):
                    yield _typed(batch, kinds)
        except (pa.ArrowException, OSError) as error:
            fix = "mend it, or list the columns to read as readers.columns"
            raise DataError(self.name, [Fault("", f"cannot be read: {first_line(error)}", fix)]) from error


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
                raise pa.ArrowInvalid(f"column {name}: {first_line(error)}") from error
            continue
        if not pa.types.is_dictionary(array.type):
            array = compute.dictionary_encode(array.cast(pa.string()))
        texts = [
            None if text is None else readers.cell(text) for text in array.dictionary.cast(pa.string()).to_pylist()
        ]
        codes = array.indices.fill_null(len(texts)).to_numpy(zero_copy_only=False)
        typed[name] = Texts(codes, [*texts, None])
    return typed


def _numbers(array: Any) -> NDArray[np.float64]:
    """A column of pyarrow's as numbers. Of texts as `readers.cell` reads them: spaces around them do not count.

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


def first_rows(path: Path) -> Table:
    """The rows of a table that decide what its columns are."""
    _pyarrow(path.name)
    return _parquet_head(path)[0] if path.suffix.lower() == ".parquet" else _csv_head(path)


def _csv_head(path: Path) -> Table:
    rows = list(islice(readers.rows_of(path), HEAD + 1))
    names = _header(path)
    if len(rows) < 2:
        raise DataError(path.name, [Fault("", "the file has a header and no rows", "add rows of data")])
    whole = [(line, row) for line, row in rows[1:] if len(row) == len(names)]  # of the others pyarrow will complain
    cells = {name: [readers.cell(row[i]) for _, row in whole] for i, name in enumerate(names)}
    return Table(path.name, cells, [line for line, _ in whole])


def _header(path: Path) -> list[str]:
    return readers.header(path.name, readers.rows_of(path))


def _header_end(path: Path) -> int:
    """The line on which the header ends: empty lines may come before it, and names may have line breaks."""
    line, names = next(readers.rows_of(path))
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
            readers.check_header(path.name, batch.schema.names)
            columns_, unfit = {}, []
            for name, array in zip(batch.schema.names, batch.columns, strict=True):
                if pa.types.is_nested(array.type) or pa.types.is_binary(array.type) or _INDEX.fullmatch(name):
                    unfit.append(name)
                    continue
                texts = array.cast(pa.string()).to_pylist()
                columns_[name] = [None if text is None else readers.cell(text) for text in texts]
    except (pa.ArrowException, OSError) as error:
        problem = f"not a Parquet file that can be read: {first_line(error)}"
        raise DataError(path.name, [Fault("", problem, "write it anew")]) from error
    return Table(path.name, columns_, list(range(1, batch.num_rows + 1)), "row"), rows, unfit


def _explained(path: Path, kinds: Mapping[str, str], error: Exception) -> DataError:
    """pyarrow says what it could not read, but not where: the slow reader finds the lines."""
    rows = readers.rows_of(path)
    names = readers.header(path.name, rows)
    numbers = [(i, name) for i, name in enumerate(names) if kinds.get(name) == "number"]
    faults: list[Fault] = []
    total = 0
    for line, row in rows:
        found = readers.ragged(line, row, len(names))
        if found is None:
            wrong = next(((n, row[i]) for i, n in numbers if _no_number(readers.cell(row[i]))), None)
            if wrong:
                fix = f"mend the cell, or write kinds = {{ {wrong[0]!r} = 'category' }} in [data] if it is no number"
                found = Fault(f"line {line}, column {wrong[0]}", f"expected a finite number; found {wrong[1]!r}", fix)
        if found is not None:
            total += 1
            if len(faults) < MAX_SHOWN_FAULTS:
                faults.append(found)
    if not faults:
        faults, total = [Fault("", f"cannot be read: {first_line(error)}", "")], 1
    return DataError(path.name, faults, total)


def _no_number(cell: str | None) -> bool:
    return cell is not None and parse_finite_number(cell) is None


def _pyarrow(name: str) -> None:
    try:
        import pyarrow as pa  # noqa: F401, PLC0415
    except ImportError as error:
        fix = "pip install 'forward-pass[arrow]'"
        raise DataError(
            name, [Fault("", "reading it in batches needs pyarrow, which is not installed", fix)]
        ) from error
