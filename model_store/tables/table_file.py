"""Table files as rows of text cells, whatever their format. The suffix of a file's name is its format.

A table is read in blocks of rows, so one that exceeds memory is read as one that does not: training in memory,
streamed training and `models predict` read the same cells.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from operator import itemgetter
from typing import Literal

from model_store.errors import Fault, InputError
from model_store.tables import text_file
from model_store.tables.dialect import SEPARATORS, Dialect, detect, rows_that_fit
from model_store.tables.header import Header, read_header
from model_store.tables.options import TableOptions
from model_store.tables.ragged_rows import RaggedRows
from model_store.tables.text_file import Open

_HEADER_ROWS, _HEADER_CHARACTERS = 1000, 8 << 20  # that say what a column without a name is
Record = tuple[int, list[str]]
LongRows = Literal["refuse", "drop"]


@dataclass(frozen=True)
class Block:
    """Consecutive rows: the line on which each begins, and the cells of each column, None for null."""

    lines: list[int]
    columns: dict[str, list[str | None]]


class TableFile(ABC):
    """A table in a file that is opened for each reading. `row_unit` is what its rows are numbered by.

    drop_row_names: leave out a first column without a name that holds the names or numbers of the rows.
    long_rows: "drop" leaves out the rows with more cells than the header; None, too, rejects them.
    """

    row_unit = "line"

    def __init__(
        self,
        name: str,
        open_file: Open,
        options: TableOptions,
        *,
        drop_row_names: bool = True,
        long_rows: LongRows | None = None,
    ) -> None:
        self.name, self._open, self.options = name, open_file, options
        self._drop_row_names, self._long_rows = drop_row_names, long_rows
        self.ragged = RaggedRows(self.row_unit)  # those of the last reading

    @abstractmethod
    def records(self) -> Generator[Record]:
        """Yield the header and the rows as they are in the file, each with its number. InputError if it is damaged."""

    @property
    def header(self) -> Header:
        """The columns. InputError if the file is empty."""
        return self._beginning[0]

    @cached_property
    def _beginning(self) -> tuple[Header, int]:
        """The columns, and the number of rows of the first block."""
        with closing(self.records()) as records:
            first = next(records, None)
            if first is None:
                raise InputError([Fault("", "the file is empty", "add a header and rows")])
            line, cells = first
            rows: list[list[str]] = []
            with suppress(InputError):  # `blocks` reports damage further on
                characters = 0
                for _, row in islice(records, _HEADER_ROWS):
                    rows.append(row)
                    characters += sum(map(len, row))
                    if characters > _HEADER_CHARACTERS:
                        break
        try:
            return read_header(cells, rows, drop_row_names=self._drop_row_names), rows_that_fit(rows)
        except InputError as error:
            raise InputError([Fault(f"{self.row_unit} {line}", f.problem, f.fix) for f in error.faults]) from error

    @property
    def names(self) -> list[str]:
        return self.header.names

    @property
    def all_names(self) -> list[str]:
        """The names of the columns, also of those that hold neither numbers nor texts."""
        return self.names

    @property
    def notes(self) -> list[str]:
        """What was detected, or changed, for a user to know."""
        return list(self.header.notes)

    @property
    def unsupported(self) -> list[str]:
        """The names of columns that hold neither numbers nor texts, and are no part of `names`."""
        return []

    @property
    def decimal_commas(self) -> list[str]:
        """The columns whose numbers have decimal commas in the file, and points in `records` and `blocks`."""
        return []

    @property
    def detected(self) -> dict[str, str]:
        """The options of a job file that have another value than the default, as they were detected."""
        return {}

    def named_records(self) -> Generator[Record]:
        """Yield the names of the columns, then rows with a cell for each. InputError if a row is longer."""
        header, self.ragged = self.header, RaggedRows(self.row_unit)
        with closing(self.records()) as records:
            line, _ = next(records)
            yield line, header.names
            yield from self.named_rows(records, header)

    def named_rows(self, records: Iterator[Record], header: Header) -> Iterator[Record]:
        """Yield rows of the file with a cell for each name of the header. InputError if one is longer, or too short."""
        for line, cells in records:
            row = _fit(cells, header.width)
            if len(row) > header.width:
                raise InputError([self._length_fault(line, len(cells))])
            if len(row) < header.width:
                row = self.ragged.pad(row, header.width, line)
            else:
                self.ragged.count(header.width)
            yield line, [row[i] for i in header.indices]

    def row_blocks(self, size: int) -> Generator[tuple[list[int], list[list[str]]]]:
        """Yield the records in blocks: their numbers and their cells. The records before an error are yielded first."""
        with closing(self.records()) as records:
            error: InputError | None = None
            while error is None:
                found: list[Record] = []
                try:
                    found.extend(islice(records, size))
                except InputError as raised:
                    error = raised
                if found:
                    yield [number for number, _ in found], [row for _, row in found]
                elif error is None:
                    return
            raise error

    def blocks(self) -> Generator[Block]:
        """Yield all rows; those with fewer cells than the header are filled up with empty ones.

        InputError if rows have more cells, unless they are left out: it lists all of them.
        """
        header, size = self._beginning
        width, is_header = header.width, True
        self.ragged = RaggedRows(self.row_unit)
        with closing(self.row_blocks(size)) as found:
            for numbers, rows in found:
                if is_header:
                    del numbers[0], rows[0]
                    is_header = False
                if any(len(row) != width for row in rows):
                    rows = [_fit(row, width) for row in rows]
                    if self._long_rows != "drop" and any(len(row) > width for row in rows):
                        raise self._length_error(numbers, rows, found)
                    numbers, rows = self._fit_rows(numbers, rows)
                else:
                    self.ragged.count(width * len(rows))
                if rows:
                    cells = list(chain.from_iterable(rows))
                    named = {name: cells[i::width] for name, i in zip(header.names, header.indices, strict=True)}
                    yield Block(numbers, named)  # type: ignore[arg-type]  # None only in other formats

    def _fit_rows(self, numbers: list[int], rows: list[list[str]]) -> tuple[list[int], list[list[str]]]:
        """Return the rows that are not too long, with a cell for each column."""
        width, kept, fitted = self.header.width, [], []
        for number, row in zip(numbers, rows, strict=True):
            if len(row) > width:
                self.ragged.leave_out(number)
                continue
            if len(row) == width:
                self.ragged.count(width)
            kept.append(number)
            fitted.append(row if len(row) == width else self.ragged.pad(row, width, number))
        return kept, fitted

    def _length_error(
        self, numbers: list[int], rows: list[list[str]], rest: Iterator[tuple[list[int], list[list[str]]]]
    ) -> InputError:
        """Return the faults of all rows that are longer than the header."""
        width, total = self.header.width, 0
        faults: list[Fault] = []
        for block in chain([(numbers, rows)], rest):
            for line, row in zip(*block, strict=True):
                if len(_fit(row, width)) > width:
                    total += 1
                    if len(faults) < InputError.MAX_FAULTS:
                        faults.append(self._length_fault(line, len(row)))
        return InputError(faults, total)

    def _length_fault(self, line: int, found: int) -> Fault:
        width = self.header.width
        fix = "put quotation marks around cells that contain a comma"
        fix += "" if self._long_rows is None else ", or write long_rows = 'drop' in [data] to leave such rows out"
        cells = "1 cell" if width == 1 else f"{width} cells"
        return Fault(f"{self.row_unit} {line}", f"expected {cells}, as in the header, found {found}", fix)


def _fit(row: list[str], width: int) -> list[str]:
    """Return a row without the blank cells that exceed the header: many programs end a line with separators."""
    return row[:width] if len(row) > width and not any(map(str.strip, row[width:])) else row


class DelimitedFile(TableFile):
    """CSV and the like, compressed or not: see `dialect.py`."""

    @cached_property
    def dialect(self) -> Dialect:
        head, complete = text_file.read_head(self._open)
        stem = self.name.lower()
        for suffix in text_file.COMPRESSED_SUFFIXES:
            stem = stem.removesuffix(suffix)
        return detect(head, self.options, "\t" if stem.endswith((".tsv", ".tab", ".txt")) else ",", complete=complete)

    def records(self) -> Generator[Record]:
        with closing(self.row_blocks(1)) as blocks:
            for numbers, rows in blocks:
                yield from zip(numbers, rows, strict=True)

    def row_blocks(self, size: int) -> Generator[tuple[list[int], list[list[str]]]]:
        dialect, count = self.dialect, itertools.count()
        with text_file.translate_read_errors(), text_file.open_text(self._open, dialect.encoding) as text:
            try:
                yield from dialect.row_blocks(
                    map(itemgetter(0), zip(text_file.read_lines(text), count, strict=False)), size
                )
            except UnicodeDecodeError as error:
                raise text_file.encoding_error(error, next(count), dialect.encoding) from error

    @property
    def decimal_commas(self) -> list[str]:
        named = dict(zip(self.header.indices, self.header.names, strict=True))
        return [named[i] for i in self.dialect.decimal_commas if i in named]

    @property
    def detected(self) -> dict[str, str]:
        dialect, found = self.dialect, {}
        if dialect.separator != ",":
            found["separator"] = dialect.separator
        if dialect.decimal_commas:
            found["decimal"] = ","
        if not dialect.encoding.startswith("utf-8"):
            found["encoding"] = dialect.encoding
        return found

    @property
    def notes(self) -> list[str]:
        notes, dialect = super().notes, self.dialect
        if dialect.separator != "," and self.options.separator is None:
            notes.insert(
                0, f"the columns are separated by {SEPARATORS.get(dialect.separator, repr(dialect.separator))}"
            )
        if dialect.decimal_commas and self.options.decimal is None:
            columns = ", ".join(self.decimal_commas)
            notes.append(f"commas are read as decimal points in {columns} (decimal = '.' in [data] overrides)")
        if not dialect.encoding.startswith("utf-8") and self.options.encoding is None:
            notes.append(f"the text is {dialect.encoding.upper()}")
        return notes
