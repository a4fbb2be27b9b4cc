"""The dialect of a delimited text file, detected from its first rows.

A separator fits if it divides the header into several cells and the rows into as many. Commas are decimal commas if
another sign separates the cells and every cell of some column is a number with a comma. What the options of a job state
is not detected.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from model_store.errors import Fault, InputError
from model_store.schema.columns.base import MISSING_CELLS
from model_store.tables.options import TableOptions
from model_store.tables.text_file import choose_encoding, decode_head
from model_store.utils.csv_reader import read_csv_lines

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "'|'", " ": "spaces"}
BLOCK_ROWS = 512  # small, so that the cells of a block are still in the cache when its columns are converted
_FIRST_ROWS = 16  # of a block
_BLOCK_CHARACTERS = 8 << 20  # fewer rows to a block if their cells are long
_MEASURED_ROWS = 16  # one of so many is measured
_SAMPLE_ROWS = 1000
_LINE_END = re.compile(r"\r\n|\r|\n")
_MIN_AGREEMENT = 0.9  # of the rows with as many cells as the header; the reader reports the others
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\r?\n?', re.IGNORECASE)  # the first line of Excel's own CSV
_COMMA_NUMBER = re.compile(r"[+-]?(\d+|\d{1,3}(\.\d{3})+)?(,\d+)?([eE][+-]?\d+)?")
_POINT_NUMBER = re.compile(r"[+-]?\d*\.\d+([eE][+-]?\d+)?")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(\.\d{3})+")
_MISSING = {*MISSING_CELLS, r"\n"}


@dataclass(frozen=True)
class Dialect:
    """How a delimited text file is written.

    `skipped_lines` precede the header; spaces before a cell are no part of it if `skip_spaces`; lines that begin with
    `comment` are no rows; the columns `decimal_commas` have numbers with commas, and points between thousands.
    """

    encoding: str = "utf-8"
    separator: str = ","
    skipped_lines: int = 0
    skip_spaces: bool = True
    comment: str | None = None
    decimal_commas: tuple[int, ...] = ()

    def rows(self, lines: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
        """Yield the rows that are not blank, each with the line on which it starts. InputError if they are not CSV."""
        for starts, rows in self.row_blocks(lines):
            yield from zip(starts, rows, strict=True)

    def row_blocks(self, lines: Iterator[str], size: int = _FIRST_ROWS) -> Iterator[tuple[list[int], list[list[str]]]]:
        """Yield the rows in blocks: the lines on which they start, and their cells. The first block has `size` rows."""
        first = next(lines, "").lstrip("\ufeff")
        if self.skipped_lines:
            first = next(lines, "")
        width = empty = 0
        for starts, rows, error in self._read_blocks(chain([first], lines), size):
            if rows and (width < 2 or min(map(len, rows)) < 2):
                found = []
                for start, row in zip(starts, rows, strict=True):
                    if not row or (len(row) == 1 and width != 1 and not row[0].strip()):
                        empty = empty or start * (width == 1)
                        continue
                    if empty:  # of a single column: is it a value that is missing, or no row?
                        fix = 'write "" for a missing value, or remove the line'
                        raise InputError([Fault(f"line {empty}", "expected a value, found an empty line", fix)])
                    width = width or len(row)
                    found.append((start, row))
                starts, rows = [start for start, _ in found], [row for _, row in found]
            if self.decimal_commas:
                self._replace_commas(rows)
            if rows:
                yield starts, rows
            if error is not None:
                raise error

    def _read_blocks(
        self, lines: Iterator[str], size: int
    ) -> Iterator[tuple[list[int], list[list[str]], InputError | None]]:
        """Yield blocks of all rows, blank ones too, and the error that ends the last one."""
        comments = _CommentFilter(self.comment) if self.comment else None
        source = lines if comments is None else comments.filter(lines)
        reader = read_csv_lines(source, self.separator, skip_spaces=self.skip_spaces)
        end = skipped = self.skipped_lines
        while True:
            rows: list[list[str]] = []
            starts: list[int] = []
            error = None
            try:
                if comments is None:
                    rows.extend(islice(reader, size))
                else:
                    for row in islice(reader, size):
                        rows.append(row)
                        starts.append(comments.start + skipped)
                        comments.between_rows = True
            except csv.Error as problem:
                error = problem
            if comments is None:
                starts, end = _number_rows(rows, end + 1, None if error else reader.line_num + skipped)
            elif error:
                end = comments.start + skipped - 1
            if error is not None:
                fix = "close the quotation mark, and write a quotation mark inside quotes twice"
                fault = Fault(f"line {end + 1}", f"not CSV: {error}", fix)
                yield starts, rows, InputError([fault])
                return
            if not rows:
                return
            yield starts, rows, None
            size = rows_that_fit(rows)

    def _replace_commas(self, rows: Iterable[list[str]]) -> None:
        """Write numbers with decimal points."""
        for row in rows:
            for i in self.decimal_commas:
                if i < len(row):
                    row[i] = to_decimal_point(row[i])


def _number_rows(rows: list[list[str]], first: int, last: int | None) -> tuple[list[int], int]:
    """Return the lines on which rows start that are on the lines from `first` to `last`, and the last line."""
    if last == first + len(rows) - 1:
        return list(range(first, last + 1)), last
    starts = []
    for row in rows:
        starts.append(first)
        first += 1 + sum(len(_LINE_END.findall(cell)) for cell in row)
    return starts, first - 1


def rows_that_fit(rows: Sequence[Sequence[str]]) -> int:
    """Return how many rows like these a block holds."""
    sample = rows[::_MEASURED_ROWS]
    characters = sum(sum(map(len, row)) for row in sample)
    return max(1, min(BLOCK_ROWS, _BLOCK_CHARACTERS * max(1, len(sample)) // (characters + 1)))


class _CommentFilter:
    """Removes lines that begin with a sign, but not within a quoted cell. `start` is the first line of a row."""

    def __init__(self, sign: str) -> None:
        self._sign = sign
        self.between_rows = True
        self.start = 0

    def filter(self, lines: Iterator[str]) -> Iterator[str]:
        for number, line in enumerate(lines, 1):
            if self.between_rows:
                if line.lstrip(" \t").startswith(self._sign):
                    continue
                self.start, self.between_rows = number, False
            yield line


def detect(head: bytes, options: TableOptions, default_separator: str = ",", *, complete: bool = True) -> Dialect:
    """Return the dialect of a file that begins with these bytes, or has no others if they are `complete`."""
    encoding = choose_encoding(head, options.encoding)
    text = decode_head(head, encoding, complete=complete).lstrip("\ufeff")
    if not complete:
        text = text[: max(text.rfind("\n"), text.rfind("\r")) + 1] or text
    declared = _SEPARATOR_LINE.fullmatch(io.StringIO(text, newline="").readline())
    skipped = 1 if declared else 0
    separator = options.separator or (declared[1] if declared else None)
    separators = [separator] if separator else sorted(SEPARATORS, key=lambda sign: sign != default_separator)
    candidates = [Dialect(encoding, sign, skipped, True, options.comment) for sign in separators]
    dialect = candidates[0] if separator else _choose_separator(candidates, text)
    if _agreement(plain := Dialect(encoding, dialect.separator, skipped, False, options.comment), text) > _agreement(
        dialect, text
    ):
        dialect = plain
    if options.decimal == "." or (options.decimal is None and dialect.separator == ","):
        return dialect
    columns = _decimal_comma_columns(_sample(dialect, text)[0], declared=options.decimal == ",")
    return Dialect(encoding, dialect.separator, skipped, dialect.skip_spaces, options.comment, columns)


def _choose_separator(candidates: Sequence[Dialect], text: str) -> Dialect:
    """Return the candidate that divides the rows into most cells, all into as many as the header; spaces come last."""
    for row_names in (False, True):
        fitting = [
            (width, dialect)
            for dialect in candidates
            if (width := _fitting_width(dialect, text, row_names=row_names)) > 1
        ]
        signs = [found for found in fitting if found[1].separator != " "] or fitting
        if signs:
            return max(signs, key=lambda found: found[0])[1]  # the first of equal ones
    widths = [(len(rows[0]), dialect) for dialect in candidates if (rows := _sample(dialect, text)[0])]
    signs = [found for found in widths if found[1].separator != " " and found[0] > 1]
    return max(signs, key=lambda found: found[0])[1] if signs else candidates[0]


def _fitting_width(dialect: Dialect, text: str, *, row_names: bool) -> int:
    """Return the number of cells of the header if the rows have as many, or with `row_names` one more, else 0."""
    rows, valid = _sample(dialect, text)
    if not rows or not valid:
        return 0
    header, *others = rows
    width = len(header) + row_names
    agreeing = sum(len(row) == width or (len(row) > width and not any(map(str.strip, row[width:]))) for row in others)
    if row_names:
        return width if len(header) > 1 and others and agreeing == len(others) else 0
    return width if agreeing >= _MIN_AGREEMENT * len(others) else 0


def _agreement(dialect: Dialect, text: str) -> tuple[bool, int]:
    rows, valid = _sample(dialect, text)
    return valid, sum(len(row) == len(rows[0]) for row in rows)


def _sample(dialect: Dialect, text: str) -> tuple[list[list[str]], bool]:
    """Return the first rows, and whether they could be parsed."""
    rows: list[list[str]] = []
    try:
        for _, row in islice(dialect.rows(io.StringIO(text, newline="")), _SAMPLE_ROWS):
            rows.append(row)
    except InputError as error:
        return rows, "unexpected end of data" in str(error)  # the sample may end within a cell
    return rows, True


def _decimal_comma_columns(rows: Sequence[Sequence[str]], *, declared: bool) -> tuple[int, ...]:
    """Return the columns whose numbers have decimal commas. Numbers with decimal points are evidence against them."""
    columns, commas, points = [], False, False
    for i in range(len(rows[0]) if rows else 0):
        cells = [row[i].strip() for row in rows[1:] if i < len(row)]
        present = [cell for cell in cells if cell.lower() not in _MISSING]
        if present and all(any(map(str.isdigit, cell)) and _COMMA_NUMBER.fullmatch(cell) for cell in present):
            commas |= any("," in cell for cell in present)
            columns.append(i)
        points |= bool(present) and any(
            _POINT_NUMBER.fullmatch(cell) and not _THOUSANDS.fullmatch(cell) for cell in present
        )
    return tuple(columns) if declared or (commas and not points) else ()


def to_decimal_point(cell: str) -> str:
    """Return a number with a decimal comma as one with a decimal point, any other text unchanged."""
    text = cell.strip()
    if ("," in text or "." in text) and _COMMA_NUMBER.fullmatch(text):
        return text.replace(".", "").replace(",", ".")
    return cell
