"""Tables of a job: the cells of a table file, in any format of `model_store.tables`, as columns of texts in memory.

A cell is text without surrounding spaces, or None if it is missing: empty, NA, N/A, NaN, null or ?, in upper or lower
case, or \\N as databases write it. What a column means is decided by `training.data.type_inference`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from model_store.errors import Fault, InputError
from model_store.schema.columns.base import parse_text_cell
from model_store.tables.formats import open_table
from model_store.tables.options import TableOptions
from model_store.tables.table_file import TableFile
from model_store.tables.text_file import FILE_NULL, EncodingError
from training.config.settings import DataSection
from training.data.readers import Table, open_file
from training.errors import DataError

_MAX_REMEMBERED_TEXTS = 1 << 16  # of a column


def open_job_table(path: Path, section: DataSection) -> TableFile:
    """Open the table file of a job, which is read as the job states."""
    return open_table(path.name, partial(open_file, path), section, long_rows=section.long_rows)


def read_table(file: TableFile, rows: int | None = None, *, readable: bool = False) -> Table:
    """Read a table, or its first rows. DataError if it is damaged or has no rows.

    readable: return what can be read: the rows before the damage, or none.
    """
    with translate_input_errors(file.name):
        columns: dict[str, list[str | None]] = {name: [] for name in file.names}
        parsers = {name: CellParser() for name in columns}
        lines: list[int] = []
        try:
            for block in file.blocks():
                lines += block.lines
                for name, cells in block.columns.items():
                    columns[name] += parsers[name].parse(cells)
                if rows is not None and len(lines) >= rows:
                    break
        except InputError as error:
            if not readable or isinstance(error, EncodingError):  # another encoding may read it whole
                raise
        if rows is not None:
            lines = lines[:rows]
            columns = {name: cells[:rows] for name, cells in columns.items()}
        notes, unsupported, commas = file.notes, file.unsupported, file.decimal_commas
        notes += file.ragged.notes() if rows is None else []
    if not lines and not readable:
        empty = "the file has a header and no rows" if file.row_unit == "line" else "the file has no rows"
        raise DataError(file.name, [Fault("", empty, "add rows of data")])
    return Table(file.name, columns, lines, file.row_unit, notes, unsupported, commas)


def read_detected(path: Path, rows: int | None, options: TableOptions) -> tuple[Table, dict[str, str]]:
    """Return the table, or its first rows, and the keys of `[data]` that say how it is written, as far as it is known.

    options: what is known before. DataError if its columns cannot be read; of rows, those before the first damage are
    enough.

    A text that is not UTF-8 is read as the encodings of Western Windows and Unix, and lines that begin with # above the
    header are comments. Rows with too many cells are left out here, and training reports them.
    """
    given = {key: value for key, value in asdict(options).items() if value is not None}
    encodings = (None, "cp1252", "latin-1") if options.encoding is None else (options.encoding,)
    for encoding in encodings:
        keys = given if encoding is None else {**given, "encoding": encoding}
        try:
            table, detected = _read_as(path, rows, keys)
            if options.comment is None and next(iter(table.columns)).startswith("#"):
                with suppress(DataError):  # of a file without other lines
                    other, found = _read_as(path, rows, {**keys, "comment": "#"})
                    if len(other.columns) > len(table.columns):
                        return other, {**given, "comment": "#", **found}
            return table, {**given, **detected}
        except DataError as error:
            if not isinstance(error.__cause__, EncodingError) or encoding == encodings[-1]:
                raise
    raise AssertionError("latin-1 has a character for every byte")


def _read_as(path: Path, rows: int | None, keys: Mapping[str, str]) -> tuple[Table, dict[str, str]]:
    """Return the table that is written as `keys` say, and the keys that were detected."""
    section: Any = {"path": path.name, "long_rows": "drop", **keys}
    file = open_job_table(path, DataSection(**section))
    return read_table(file, rows, readable=True), file.detected


class CellParser:
    """Parses the cells of one column. Equal cells share one text in memory, and are parsed once."""

    def __init__(self) -> None:
        self._parsed: dict[str | None, str | None] = {None: None}

    def parse(self, cells: Iterable[str | None]) -> list[str | None]:
        """Return cells without surrounding spaces, None for missing ones."""
        cells = list(cells)
        if len(self._parsed) > _MAX_REMEMBERED_TEXTS:
            self._parsed = {None: None}
        for text in set(cells).difference(self._parsed):
            self._parsed[text] = parse_file_cell(text)
        return list(map(self._parsed.__getitem__, cells))


def parse_file_cell(text: str | None) -> str | None:
    """Return a cell of a file as `parse_text_cell` does; \\N, the null of databases' files, is missing too."""
    return None if text is None or text.strip() == FILE_NULL else parse_text_cell(text)


@contextmanager
def translate_input_errors(name: str) -> Iterator[None]:
    """Raise DataError in place of InputError."""
    try:
        yield
    except InputError as error:
        raise DataError(name, error.faults, error.total) from error
