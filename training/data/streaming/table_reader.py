"""Table sources: CSV and Parquet files of any size, read by pyarrow as typed columns in batches.

pyarrow is installed by the extra `arrow`. The first rows decide what the columns mean.
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
from model_store.schema.column import MISSING_CELLS, parse_text_cell
from model_store.utils.extras import install_command
from model_store.utils.values import parse_finite_number
from training.config.settings import DataSection
from training.data import dataset, readers, type_inference
from training.data.fingerprint import Fingerprint
from training.data.fitting import COLUMN_KINDS
from training.data.readers import Table, first_line
from training.data.streaming import source
from training.data.streaming.array_reader import open_arrays
from training.data.streaming.source import TYPE_INFERENCE_ROWS, Batch, DataSource, DictionaryColumn
from training.errors import MAX_SHOWN_FAULTS, DataError

_PANDAS_INDEX = re.compile(r"__index_level_\d+__")  # the name of pandas' row index in Parquet
_MISSING_SPELLINGS = sorted(
    "".join(word) for text in MISSING_CELLS for word in product(*({c, c.upper()} for c in text))
)


def open_source(section: DataSection, folder: Path) -> DataSource:
    """Open the files of a job, relative to `folder`. DataError if their first rows cannot be trained on."""
    if section.path is None:
        return open_arrays([folder / str(section.images), folder / str(section.labels)], section)
    path = folder / section.path
    if path.suffix.lower() == ".npz":
        return open_arrays([path], section)
    _require_pyarrow(path.name)
    fingerprint = Fingerprint.of(path)
    if path.suffix.lower() == ".parquet":
        first, rows, unsupported = _read_parquet_head(path)
        return ParquetSource(*_choose_source_fields(first, section, fingerprint, rows, unsupported), path=path)
    return CsvSource(
        *_choose_source_fields(_read_csv_head(path), section, fingerprint, fingerprint.line_ends + 1), path=path
    )


def read_first_rows(path: Path) -> Table:
    """Read the first rows of a table, which decide what its columns mean."""
    _require_pyarrow(path.name)
    return _read_parquet_head(path)[0] if path.suffix.lower() == ".parquet" else _read_csv_head(path)


def _choose_source_fields(
    first: Table, section: DataSection, fingerprint: Fingerprint, rows: int, unsupported: Sequence[str] = ()
) -> tuple[str, Fingerprint, int, dict[str, str], tuple[str, ...], str, list[str]]:
    """Return the fields of a `DataSource`, decided by the first rows of a table; `unsupported` columns are ignored."""
    target_names, names = dataset.choose_columns(first, section, unsupported)
    kinds = dataset.choose_kinds(first, names, section)
    for name in names:
        COLUMN_KINDS[kinds[name]].check_first_rows(first, name, declared=name in section.kinds)
    notes: list[str] = []
    if unsupported and section.columns is None:
        notes.append(
            f"ignored columns (lists, structures, bytes, durations or the index of pandas): {', '.join(unsupported)}"
        )
    task = dataset.choose_task(first, target_names, section, notes)
    if task == "classification":
        dataset.check_classes(first, target_names[0])
    notes += type_inference.kind_warnings(first, kinds, section.kinds)
    return first.name, fingerprint, rows, kinds, tuple(target_names), task, notes


@dataclass(kw_only=True)
class CsvSource(DataSource):
    path: Path

    def batches(self) -> Iterator[Batch]:
        import pyarrow as pa  # noqa: PLC0415  # an extra
        from pyarrow import csv  # noqa: PLC0415

        kinds = {**self.kinds, **self.target_kinds()}
        options = csv.ConvertOptions(
            column_types={
                name: pa.string() if COLUMN_KINDS[kind].streams_numbers else pa.dictionary(pa.int32(), pa.string())
                for name, kind in kinds.items()
            },
            include_columns=list(kinds),
        )
        try:
            with csv.open_csv(
                self.path,
                csv.ReadOptions(
                    block_size=source.BATCH_BYTES,
                    column_names=_read_csv_header(self.path),
                    skip_rows=_header_end(self.path),
                    use_threads=False,
                ),
                csv.ParseOptions(newlines_in_values=True),
                options,
            ) as reader:
                for batch in reader:
                    yield _convert_batch(batch, kinds)
        except (pa.ArrowInvalid, OSError) as error:
            raise _locate_faults(self.path, kinds, error) from error


@dataclass(kw_only=True)
class ParquetSource(DataSource):
    path: Path

    def batches(self) -> Iterator[Batch]:
        import pyarrow as pa  # noqa: PLC0415
        from pyarrow import parquet  # noqa: PLC0415

        kinds = {**self.kinds, **self.target_kinds()}
        try:
            with parquet.ParquetFile(self.path) as file:
                for batch in file.iter_batches(source.BATCH_ROWS, columns=list(kinds), use_threads=False):
                    yield _convert_batch(batch, kinds)
        except (pa.ArrowException, OSError) as error:
            fix = "correct the file, or list the columns to read in data.columns"
            raise DataError(self.name, [Fault("", f"cannot be read: {first_line(error)}", fix)]) from error


def _convert_batch(batch: Any, kinds: Mapping[str, str]) -> Batch:
    """Convert a batch of pyarrow's."""
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import compute  # noqa: PLC0415

    converted: Batch = {}
    for name, kind in kinds.items():
        array = batch.column(name)
        if COLUMN_KINDS[kind].streams_numbers:
            try:
                converted[name] = _convert_numbers(array)
            except pa.ArrowException as error:
                raise pa.ArrowInvalid(f"column {name}: {first_line(error)}") from error
            continue
        if not pa.types.is_dictionary(array.type):
            array = compute.dictionary_encode(array.cast(pa.string()))
        values = _parse_cells(array.dictionary)
        codes = array.indices.fill_null(len(values)).to_numpy(zero_copy_only=False)
        converted[name] = DictionaryColumn(codes, [*values, None])
    return converted


def _parse_cells(array: Any) -> list[str | None]:
    """Return a column of pyarrow's as cells like those of `readers.read_csv`."""
    import pyarrow as pa  # noqa: PLC0415

    return [None if text is None else parse_text_cell(text) for text in array.cast(pa.string()).to_pylist()]


def _convert_numbers(array: Any) -> NDArray[np.float64]:
    """Return a column of pyarrow's as numbers, strings by the rules of `parse_text_cell`.

    pyarrow's own conversion of CSV numbers is a third faster, but accepts no missing cell with spaces.
    """
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import compute  # noqa: PLC0415

    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_decimal(array.type):
        array = array.cast(pa.string())  # a decimal cast to float64 is not always the nearest number
    if array.type in (pa.string(), pa.large_string(), pa.string_view()):
        array = compute.utf8_trim_whitespace(array.cast(pa.string()))
        array = compute.if_else(compute.is_in(array, pa.array(_MISSING_SPELLINGS)), None, array)
    values: NDArray[np.float64] = (
        array.cast(pa.float64(), safe=False).fill_null(math.nan).to_numpy(zero_copy_only=False)
    )
    return values


def _read_csv_head(path: Path) -> Table:
    rows = list(islice(readers.csv_rows(path), TYPE_INFERENCE_ROWS + 1))
    names = _read_csv_header(path)
    if len(rows) < 2:
        raise DataError(path.name, [Fault("", "the file has a header and no rows", "add rows of data")])
    complete = [(line, row) for line, row in rows[1:] if len(row) == len(names)]  # `batches` reports the others
    cells = {name: [parse_text_cell(row[i]) for _, row in complete] for i, name in enumerate(names)}
    return Table(path.name, cells, [line for line, _ in complete])


def _read_csv_header(path: Path) -> list[str]:
    return readers.read_header(path.name, readers.csv_rows(path))


def _header_end(path: Path) -> int:
    """Return the line on which the header ends. Empty lines may precede it, and names may contain line breaks."""
    line, names = next(readers.csv_rows(path))
    return line + sum(len(re.findall(r"\r\n?|\n", name)) for name in names)


def _read_parquet_head(path: Path) -> tuple[Table, int, list[str]]:
    """Return the first rows, the number of all rows, and the columns that hold neither numbers nor strings."""
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import parquet  # noqa: PLC0415

    try:
        with parquet.ParquetFile(path) as file:
            rows = file.metadata.num_rows
            batch = next(file.iter_batches(TYPE_INFERENCE_ROWS), None)
            if batch is None:
                raise DataError(path.name, [Fault("", "the file has no rows", "add rows of data")])
            readers.check_header(path.name, batch.schema.names)
            columns, unsupported = {}, []
            for name, array in zip(batch.schema.names, batch.columns, strict=True):
                if _is_unsupported(array.type) or _PANDAS_INDEX.fullmatch(name):
                    unsupported.append(name)
                    continue
                columns[name] = _parse_cells(array)
    except (pa.ArrowException, OSError) as error:
        problem = f"not a readable Parquet file: {first_line(error)}"
        raise DataError(path.name, [Fault("", problem, "write the file again")]) from error
    return Table(path.name, columns, list(range(1, batch.num_rows + 1)), "row"), rows, unsupported


def _is_unsupported(kind: Any) -> bool:
    """Return True for types of pyarrow's that are neither numbers nor strings. A duration would need a unit."""
    import pyarrow as pa  # noqa: PLC0415

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    checks = (pa.types.is_nested, pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    return any(check(kind) for check in (*checks, pa.types.is_binary_view, pa.types.is_duration))


def _locate_faults(path: Path, kinds: Mapping[str, str], error: Exception) -> DataError:
    """Find the lines that pyarrow could not read, with the slower reader: pyarrow does not report them."""
    rows = readers.csv_rows(path)
    names = readers.read_header(path.name, rows)
    numeric = [(i, name) for i, name in enumerate(names) if name in kinds and COLUMN_KINDS[kinds[name]].streams_numbers]
    faults: list[Fault] = []
    total = 0
    for line, row in rows:
        fault = readers.row_length_fault(line, row, len(names))
        if fault is None:
            cells = ((name, row[i]) for i, name in numeric)
            if invalid := next(((name, cell) for name, cell in cells if _is_invalid_number(cell)), None):
                name, cell = invalid
                fix = f"correct the cell, or write kinds = {{ {name!r} = 'category' }} in [data] if it is not a number"
                fault = Fault(f"line {line}, column {name}", f"expected a finite number, found {cell!r}", fix)
        if fault is not None:
            total += 1
            if len(faults) < MAX_SHOWN_FAULTS:
                faults.append(fault)
    if not faults:
        faults, total = [Fault("", f"cannot be read: {first_line(error)}", "")], 1
    return DataError(path.name, faults, total)


def _is_invalid_number(text: str) -> bool:
    cell = parse_text_cell(text)
    return cell is not None and parse_finite_number(cell) is None


def _require_pyarrow(name: str) -> None:
    try:
        import pyarrow as pa  # noqa: F401, PLC0415
    except ImportError as error:
        problem = "streaming this file requires pyarrow, which is not installed"
        raise DataError(name, [Fault("", problem, install_command("arrow"))]) from error
