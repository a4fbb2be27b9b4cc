"""Table sources: table files of any size, read as typed columns in batches. The first rows decide what they mean.

The cells are those that `training.data.tables` reads into memory. Numbers of Parquet and Arrow files are converted
without being written as text.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from model_store.errors import Fault
from model_store.schema.columns.base import MISSING_CELLS
from model_store.tables.arrow_file import ArrowFile, to_seconds, to_texts
from model_store.tables.table_file import Block, TableFile
from model_store.tables.text_file import open_decompressed, translate_read_errors
from model_store.utils.values import parse_finite_number
from training.config.settings import DataSection
from training.data import table_dataset, type_inference
from training.data.fingerprint import Fingerprint
from training.data.fitting.kinds import COLUMN_KINDS
from training.data.invalid_cells import FINITE_NUMBER, InvalidCells
from training.data.multi_label import FlagFormat, flag_words, parse_flags
from training.data.readers import Table, first_line, open_file
from training.data.streaming import source
from training.data.streaming.array_reader import open_arrays
from training.data.streaming.source import TYPE_INFERENCE_ROWS, Batch, DataSource, DictionaryColumn
from training.data.tables import open_job_table, parse_file_cell, read_table, translate_input_errors
from training.errors import DataError

_BATCH_ROWS = 8192
_FIELD_OF_KEY = {"split.column": source.SPLIT_FIELD, "data.weight": source.WEIGHT_FIELD}
_MISSING_SPELLINGS = frozenset(
    "".join(word) for text in (*MISSING_CELLS, r"\N") for word in product(*({c, c.upper()} for c in text))
)


def open_source(section: DataSection, folder: Path, extra: Mapping[str, str] = MappingProxyType({})) -> DataSource:
    """Open the files of a job, relative to `folder`. DataError if their first rows cannot be trained on.

    extra: columns that are read besides inputs and targets, by the keys of the job that name them.
    """
    if section.path is None:
        return open_arrays([folder / str(section.images), folder / str(section.labels)], section)
    path = folder / section.path
    if path.suffix.lower() == ".npz":
        return open_arrays([path], section)
    fingerprint = Fingerprint.of(path)
    file = open_job_table(path, section)
    first = read_table(file, TYPE_INFERENCE_ROWS)
    with translate_input_errors(file.name):
        rows = _most_rows(file, path, fingerprint)
    fields = _choose_source_fields(first, section, fingerprint, rows, extra)
    return ArrowSource(**fields, file=file) if isinstance(file, ArrowFile) else TextSource(**fields, file=file)


def _most_rows(file: TableFile, path: Path, fingerprint: Fingerprint) -> int:
    """Return an upper bound of the number of rows."""
    if isinstance(file, ArrowFile):
        return file.count_rows()
    if file.row_unit == "row":
        return 1 << 20  # of a worksheet
    with open_file(path) as raw, translate_read_errors(), open_decompressed(lambda: open_file(path)) as text:
        if text.read(8) == raw.read(8):
            return fingerprint.line_ends + 1
        return 1 + sum(block.count(b"\n") for block in iter(lambda: text.read(1 << 20), b""))


def _choose_source_fields(
    first: Table, section: DataSection, fingerprint: Fingerprint, rows: int, extra: Mapping[str, str]
) -> dict[str, Any]:
    """Return the fields of a `DataSource`, decided by the first rows of a table."""
    notes = table_dataset.table_notes(first, section)
    target_names, names = table_dataset.choose_columns(first, section, notes=notes, extra=extra)
    kinds = table_dataset.choose_kinds(first, names, section)
    task = table_dataset.choose_task(first, target_names, section, notes)
    if task == "classification":
        table_dataset.check_classes(first, target_names[0])
    formats = table_dataset.find_formats(first, kinds, target_names, task)
    if task == "multi_label" and section.label_separator is None:
        parse_flags(table_dataset.drop_rows_without_target(first, target_names, section, []), target_names)
        formats |= {name: FlagFormat(flag_words(first.columns[name])) for name in target_names}
    for name in names:
        COLUMN_KINDS[kinds[name]].check_first_rows(first, name, formats.get(name), declared=name in section.kinds)
    notes += table_dataset.kind_notes(first, formats) + type_inference.kind_warnings(first, kinds, section.kinds)
    return {
        "name": first.name, "fingerprint": fingerprint, "rows": rows, "kinds": kinds,
        "target_names": tuple(target_names), "task": task, "notes": notes, "formats": formats,
        "decimal_commas": first.decimal_commas,
        "extra": {_FIELD_OF_KEY[key]: column for key, column in extra.items()},
        "label_separator": section.label_separator,
    }  # fmt: skip


@dataclass(kw_only=True)
class TextSource(DataSource):
    file: TableFile

    def batches(self) -> Iterator[Batch]:
        fields = self.fields()
        columns = {name: column for name, (column, _) in fields.items()}
        numeric = {name: column for name, (column, kind) in fields.items() if COLUMN_KINDS[kind].streams_numbers}
        with translate_input_errors(self.name):
            group = _BatchBuilder(columns, numeric, self.formats)
            for block in self.file.blocks():
                try:
                    group.add(block)
                except ValueError as error:
                    raise self._locate_faults(numeric) from error
                if group.is_full:
                    yield group.build()
                    group = _BatchBuilder(columns, numeric, self.formats)
            if group.rows:
                yield group.build()

    def last_notes(self) -> list[str]:
        return self.file.ragged.notes()

    def _locate_faults(self, numeric: Mapping[str, str]) -> DataError:
        """Return a fault for each column with cells that are not numbers: read the file again."""
        invalid = {name: InvalidCells() for name in numeric}
        for block in self.file.blocks():
            for name, cells in invalid.items():
                written = self.formats.get(name)
                for text, line in zip(block.columns[numeric[name]], block.lines, strict=True):
                    if _is_invalid(text, written):
                        cells.add(text, f"{self.file.row_unit} {line}")
        found = []
        for name, cells in invalid.items():
            if cells.count:
                fix = f"correct or empty such cells, or write kinds = {{ {name!r} = 'category' }} in [data]"
                is_date = self.kinds.get(name) == "date"
                expected = (
                    f"{self.formats[name].noun} such as {self.formats[name].example}" if is_date else FINITE_NUMBER
                )
                found.append(cells.fault(numeric[name], expected, fix if name in self.kinds else ""))
        return DataError(self.name, found)


class _BatchBuilder:
    """Converts small blocks at once, while they are in the cache, and joins them: a batch costs time itself."""

    def __init__(self, names: Mapping[str, str], numeric: Collection[str], formats: Mapping[str, Any]) -> None:
        self._names, self._formats = names, formats
        self.rows = self._characters = 0
        self._arrays: dict[str, list[NDArray[Any]]] = {name: [] for name in names}
        self._codes: dict[str, dict[str | None, int]] = {name: {} for name in names if name not in numeric}

    @property
    def is_full(self) -> bool:
        return self.rows >= _BATCH_ROWS or self._characters >= source.BATCH_BYTES

    def add(self, block: Block) -> None:
        """Add rows. ValueError if a cell of a numeric column is not a number."""
        self.rows += len(block.lines)
        for name, arrays in self._arrays.items():
            cells = block.columns[self._names[name]]
            codes = self._codes.get(name)
            if codes is None:
                arrays.append(parse_numbers(cells, self._formats.get(name)))
                continue
            for text in dict.fromkeys(cells):
                if text not in codes:
                    codes[text] = len(codes)
                    self._characters += len(text or "")
            arrays.append(np.fromiter(map(codes.__getitem__, cells), np.int32, len(cells)))

    def build(self) -> Batch:
        """Return the rows as typed columns."""
        batch: Batch = {}
        for name, arrays in self._arrays.items():
            joined = np.concatenate(arrays)
            codes = self._codes.get(name)
            batch[name] = joined if codes is None else DictionaryColumn(joined, list(map(parse_file_cell, codes)))
        return batch


def parse_numbers(cells: Sequence[str | None], written: Any = None) -> NDArray[np.float64]:
    """Return cells, as they are `written`, as numbers, NaN for missing ones. ValueError if one is neither."""
    if written is not None:
        distinct = {text: parse_file_cell(text) for text in dict.fromkeys(cells)}
        read = {text: math.nan if cell is None else written.parse(cell) for text, cell in distinct.items()}
        if invalid := [text for text, number in read.items() if number is None]:
            raise ValueError(f"not a number: {invalid[0]!r}")
        return np.fromiter(map(read.__getitem__, cells), np.float64, len(cells))
    values = _parse_json_numbers(cells)
    if values is None:
        missing = np.fromiter(map(_MISSING_SPELLINGS.__contains__, cells), bool, len(cells))
        values = _parse_json_numbers(["0" if cell in _MISSING_SPELLINGS else cell for cell in cells])
        if values is not None:
            values[missing] = math.nan
    return _parse_each_number(cells) if values is None else values


def _parse_json_numbers(cells: Sequence[str | None]) -> NDArray[np.float64] | None:
    """Return cells that are all finite numbers as JSON writes them, else None: a quarter of the time of `float`."""
    try:
        text = ",".join(cells)  # type: ignore[arg-type]  # TypeError if one is None
        found = None if "r" in text or "l" in text else np.array(orjson.loads(f"[{text}]"))  # no true, false, null
    except (TypeError, ValueError):
        return None
    if found is None or found.dtype.kind not in "fiu" or found.shape != (len(cells),) or not np.isfinite(found).all():
        return None
    return found.astype(np.float64)


def _parse_each_number(cells: Sequence[str | None]) -> NDArray[np.float64]:
    values = np.empty(len(cells))
    for i, text in enumerate(cells):
        cell = parse_file_cell(text)
        value = math.nan if cell is None else parse_finite_number(cell)
        if value is None:
            raise ValueError(f"not a finite number: {cell!r}")
        values[i] = value
    return values


def _is_invalid(text: str | None, written: Any) -> bool:
    cell = parse_file_cell(text)
    return cell is not None and (parse_finite_number(cell) if written is None else written.parse(cell)) is None


@dataclass(kw_only=True)
class ArrowSource(DataSource):
    file: ArrowFile

    def batches(self) -> Iterator[Batch]:
        import pyarrow as pa  # noqa: PLC0415

        fields = self.fields()
        columns = list(dict.fromkeys(column for column, _ in fields.values()))
        with translate_input_errors(self.name):
            for batch in self.file.batches(columns, source.BATCH_ROWS):
                try:
                    yield _convert_batch(batch, fields, self.formats)
                except pa.ArrowException as error:
                    fix = "correct the file, or list the columns to read in data.columns"
                    raise DataError(self.name, [Fault("", f"cannot be read: {first_line(error)}", fix)]) from error


def _convert_batch(batch: Any, fields: Mapping[str, tuple[str, str]], formats: Mapping[str, Any]) -> Batch:
    """Convert a batch of pyarrow's."""
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import compute  # noqa: PLC0415

    converted: Batch = {}
    for name, (column, kind) in fields.items():
        array = batch.column(column)
        if COLUMN_KINDS[kind].streams_numbers:
            try:
                written = formats.get(name)
                converted[name] = (
                    _convert_numbers(array) if written is None else parse_numbers(to_texts(array, column), written)
                )
            except (pa.ArrowException, ValueError) as error:
                raise pa.ArrowInvalid(f"column {column}: {first_line(error)}") from error
            continue
        if not pa.types.is_dictionary(array.type):
            array = compute.dictionary_encode(array.cast(pa.string()))
        values = list(map(parse_file_cell, to_texts(array.dictionary, column)))
        codes = array.indices.cast(pa.int64()).fill_null(len(values)).to_numpy(zero_copy_only=False)
        converted[name] = DictionaryColumn(codes, [*values, None])
    return converted


def _convert_numbers(array: Any) -> NDArray[np.float64]:
    """Return a column of pyarrow's as numbers, strings by the rules of `parse_file_cell`."""
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import compute  # noqa: PLC0415

    if pa.types.is_dictionary(array.type):
        rows = array.indices.dictionary_encode("encode")  # each value of the dictionary is converted once
        numbers: NDArray[np.float64] = _convert_numbers(array.dictionary.take(rows.dictionary))[rows.indices.to_numpy()]
        return numbers
    if pa.types.is_duration(array.type):
        array = to_seconds(array)
    if pa.types.is_decimal(array.type):
        array = array.cast(pa.string())  # a decimal cast to float64 is not always the nearest number
    if array.type in (pa.string(), pa.large_string(), pa.string_view()):
        array = compute.utf8_trim_whitespace(array.cast(pa.string()))
        array = compute.if_else(compute.is_in(array, pa.array(sorted(_MISSING_SPELLINGS))), None, array)
    values: NDArray[np.float64] = (
        array.cast(pa.float64(), safe=False).fill_null(math.nan).to_numpy(zero_copy_only=False)
    )
    return values
