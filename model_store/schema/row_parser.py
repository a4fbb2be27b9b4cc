"""Parse rows from files, request bodies and command lines into the form that clients of the service send.

CSV rows become objects by column name, with numbers in columns that are numbers in the signature; JSON is returned
unchanged. Whether the first line of CSV is a header is declared as in RFC 4180, or follows from the names in it.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any, Literal

from model_store.errors import Fault, InputError, did_you_mean
from model_store.schema.columns.base import Column, parse_text_cell
from model_store.schema.signature import ClassificationOutput, MultiLabelOutput, Signature
from model_store.utils.csv_reader import read_csv_lines
from model_store.utils.duplicate_keys import duplicate_key_faults, has_duplicate_keys
from model_store.utils.values import describe_value, list_names, nearest_name, parse_finite_number, parse_texts

Header = Literal["present", "absent"]
_MAX_MISSPELT = 100  # unknown names of a header that are compared with the names that it lacks
_DECLARE = "declare it: `Content-Type: text/csv; header=present` or `--header present`, or the same with absent"


@dataclass(frozen=True)
class RowBatch:
    """Rows as clients send them. For tables also the line on which each begins, or what
    `row_unit` says, and its cells as they were written.
    """

    rows: list[Any]
    lines: list[int] = field(default_factory=list)
    cells: list[list[str]] = field(default_factory=list)
    row_unit: str = "line"

    def with_lines(self, error: InputError, name: str = "") -> InputError:
        """Return an error of `Signature.encode` with the lines of the file `name` in place of the rows."""
        return InputError([self.with_line(fault, name) for fault in error.faults], error.total)

    def with_line(self, fault: Fault, name: str = "") -> Fault:
        """Return a fault or warning at `rows.2.island` with the line of the file `name` in place of the row."""
        _, _, rest = fault.location.partition(".")
        number, dot, column = rest.partition(".")
        if not number.isdigit() or int(number) >= len(self.lines):
            return fault
        column = f", column {column}" if dot else ""
        return Fault(_line(name, self.lines[int(number)], self.row_unit) + column, fault.problem, fault.fix)


class RowTable:
    """The rows of a table, read a batch at a time from its records: the number and the cells of each row.

    Without `header` the first line is a header if it names every column that the model needs. A line that names only
    some of them, and a header that is also a valid row, are errors. Arrays have no header unless it is declared.
    Columns that the model does not use are an error, or with `ignore_unknown` listed in `ignored`; targets are left
    out. Errors begin with `name`, if it is not empty, and the line, or what `row_unit` says. A cell `null` is missing.
    Numbers of the columns `plain_numbers` have decimal points, however the column's own format spells them.
    """

    def __init__(
        self,
        records: Iterator[tuple[int, list[str]]],
        name: str,
        signature: Signature,
        header: Header | None = None,
        *,
        ignore_unknown: bool = False,
        row_unit: str = "line",
        null: str | None = None,
        plain_numbers: Collection[str] = (),
    ) -> None:
        self._name, self._signature, self._row_unit = name, signature, row_unit
        self._null, self._plain_numbers = null, plain_numbers
        self.names: list[str] = []  # of the columns; empty for an array without a header
        self.ignored: list[str] = []
        self._records = records
        first = next(self._records, None)
        if first is None:
            fix = "send a header and rows, or rows in column order"
            raise InputError([Fault(name or "body", "expected CSV, found nothing", fix)])
        cells = [cell.strip() for cell in first[1]]
        self._first = None if self._is_header(cells, first[0], header) else first
        whole_row = signature.inputs[0].is_whole_row
        self.width = len(cells) if self._first is None or whole_row else len(signature.names)
        if self._first is None:
            self.names = cells
            if not whole_row:
                self.ignored = self._check_header(cells, first[0], ignore_unknown=ignore_unknown)
        elif not whole_row:
            self.names = list(signature.names)
        self._parsers = self._cell_parsers()

    def has_more_than(self, count: int) -> bool:
        """Return whether more rows are left. No cell is parsed for it."""
        ahead = list(islice(self._records, count + 1))
        self._records = chain(ahead, self._records)
        return len(ahead) + (self._first is not None) > count

    def read(self, size: int | None = None) -> RowBatch:
        """Return the next rows, up to `size`; none at the end. InputError lists lines of another length."""
        return self.with_rows(self.read_cells(size))

    def read_cells(self, size: int | None = None) -> RowBatch:
        """Return the cells of the next rows, which are not parsed yet. InputError as of `read`."""
        found = list(islice(self._records, size if size is None or self._first is None else size - 1))
        if self._first is not None:
            found.insert(0, self._first)
            self._first = None
        faults = [self._length_fault(line, cells) for line, cells in found if len(cells) != self.width]
        if faults:
            raise InputError(faults)
        return RowBatch([], [line for line, _ in found], [cells for _, cells in found], self._row_unit)

    def with_rows(self, batch: RowBatch) -> RowBatch:
        """Return a batch of cells with its rows."""
        return replace(batch, rows=self._parse_rows(batch.cells))

    def _parse_rows(self, table: list[list[str]]) -> list[Any]:
        """Return the rows; a text is parsed once for all columns in which it means the same."""
        if self._signature.inputs[0].is_whole_row:
            known: dict[str, Any] = {}
            parse_texts(self._signature.inputs[0].parse_cell, chain.from_iterable(table), known)
            return [list(map(known.__getitem__, cells)) for cells in table]
        if not self._parsers:
            return [{} for _ in table]
        columns, parsed = list(zip(*table, strict=True)) or [()] * self.width, []
        by_key: dict[Hashable, dict[str, Any]] = {}
        for i, _, key, parse in self._parsers:
            known = by_key.setdefault(key, {})
            parse_texts(parse, columns[i], known)
            parsed.append(map(known.__getitem__, columns[i]))
        names = [name for _, name, _, _ in self._parsers]
        return [dict(zip(names, row, strict=True)) for row in zip(*parsed, strict=True)]

    def _is_header(self, cells: list[str], line: int, declared: Header | None) -> bool:
        """Return whether the first line is a header. InputError if that is not certain."""
        signature, found = self._signature, set(cells)
        if declared is not None or signature.inputs[0].is_whole_row:
            return declared == "present"
        needed = _needed_names(signature)
        missing = [name for name in needed if name not in found]
        if missing and found.isdisjoint({*signature.names, *_target_names(signature)}):
            return False
        could_be_row = len(cells) == len(signature.names) and all(map(_is_value, signature.inputs, cells))
        if missing and could_be_row:
            return False
        if missing:
            known = set(signature.names)
            unknown = [cell for cell in cells if cell not in known]
            raise InputError([self._missing_fault(line, needed, missing, unknown, f"; {_DECLARE}")])
        if could_be_row:
            problem = "expected a header or a row, found a line that can be both"
            raise InputError([Fault(_line(self._name, line), problem, _DECLARE)])
        return True

    def _check_header(self, header: list[str], line: int, *, ignore_unknown: bool) -> list[str]:
        """Return the columns that are neither inputs nor targets. InputError if they are not accepted or one lacks.

        The cost grows with the length of the header alone: a compressed request of 1 kB may have one of 500,000 names.
        """
        signature, location = self._signature, _line(self._name, line)
        counts, known = Counter(header), {*signature.names, *_target_names(signature)}
        unknown = [name for name in header if name not in known]
        # An optional column may be among the unknown ones under another name, and would be filled in.
        required = {column.name for column in signature.inputs if column.fill is None}
        missing = [name for name in signature.names if name not in counts]
        optional = [name for name in missing if name not in required]
        misspelt = {nearest_name(name, optional) for name in unknown[:_MAX_MISSPELT]} if optional else set()
        missing = [name for name in missing if name in required or name in misspelt]
        doubled = sorted({name[:100] for name, count in counts.items() if count > 1})
        faults = [self._missing_fault(line, signature.names, missing, unknown)] if missing else []
        refused = [] if ignore_unknown or missing else unknown
        fix = f"remove it; the columns are {list_names(signature.names)}"
        most = InputError.MAX_FAULTS
        faults += [Fault(f"{location}, column {name[:100]}", "unknown column", fix) for name in refused[:most]]
        faults += [Fault(location, f"expected {name!r} once", "rename one of the columns") for name in doubled[:most]]
        if faults:
            raise InputError(faults, bool(missing) + len(refused) + len(doubled))
        return unknown

    def _missing_fault(
        self, line: int, expected: Sequence[str], missing: list[str], unknown: list[str], more: str = ""
    ) -> Fault:
        found = f", but {list_names(unknown)}" if unknown else ""
        problem = f"expected a header with {list_names(expected)}; found no {list_names(missing)}{found}"
        fixes = sorted({did_you_mean(name, missing) for name in unknown[:_MAX_MISSPELT]} - {""})
        return Fault(_line(self._name, line), problem, (" ".join(fixes) or "name the columns") + more)

    def _length_fault(self, line: int, cells: list[str]) -> Fault:
        fix = "quote cells that hold commas" if len(cells) > self.width else "write every cell; an empty one is missing"
        return Fault(_line(self._name, line, self._row_unit), f"expected {self.width} cells, found {len(cells)}", fix)

    def _cell_parsers(self) -> list[tuple[int, str, Hashable, Callable[[str], Any]]]:
        """Return index, name and parser of each column that is used, and a key that those with equal parsers share.

        Test files usually contain the targets, too.
        """
        columns = {column.name: column for column in self._signature.inputs}
        left_out = {*_target_names(self._signature), *self.ignored} - columns.keys()
        parsers: list[tuple[int, str, Hashable, Callable[[str], Any]]] = []
        for i, name in enumerate(self.names):
            column = columns.get(name)
            if column is None:
                if name not in left_out:
                    parsers.append((i, name, None, self._with_null(parse_text_cell)))
            elif column.kind == "number" and name in self._plain_numbers:
                parse = self._with_null(_with_plain_numbers(column.parse_cell))
                parsers.append((i, name, (column.cell_key, "plain"), parse))
            else:
                parsers.append((i, name, column.cell_key, self._with_null(column.parse_cell)))
        return parsers

    def _with_null(self, parse: Callable[[str], Any]) -> Callable[[str], Any]:
        """Return the parser of a column's cells for which `null` is missing, too."""
        null = self._null
        return parse if null is None else lambda text: None if text.strip() == null else parse(text)


def _with_plain_numbers(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a parser of cells that reads plain numbers before it asks `parse`."""
    return lambda text: parse(text) if (number := parse_finite_number(text)) is None else number


def count_filled(signature: Signature, rows: Sequence[Any]) -> Counter[str]:
    """Return how many values of each column are missing in valid rows, and were filled in."""
    counts = Counter[str]()
    for i, column in enumerate(signature.inputs):
        if column.fill is not None:
            values = [row.get(column.name) if isinstance(row, Mapping) else row[i] for row in rows]
            counts[column.name] = sum(
                value is None or (isinstance(value, str) and column.parse_cell(value) is None) for value in values
            )
    return +counts


def read_csv_records(lines: Iterable[str], name: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line on which each row of CSV begins, and its cells. Empty lines hold no row."""
    reader, line, empty = read_csv_lines(lines), 1, 0
    try:
        for cells in reader:
            if not cells:
                empty = empty or line
            elif empty and len(cells) == 1:
                fix = 'write "" for a missing value, or remove the line'
                raise InputError([Fault(_line(name, empty), "expected a value, found an empty line", fix)])
            else:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as e:
        fix = "quote cells that hold quotes or commas, and close each quotation mark"
        raise InputError([Fault(_line(name, line), f"expected CSV, found an error: {e}", fix)]) from e
    except UnicodeDecodeError as e:
        problem = f"expected UTF-8, found other bytes: {e}"
        raise InputError([Fault(_line(name, line), problem, "save the file as UTF-8")]) from e


def parse_json_rows(texts: Sequence[str]) -> list[Any]:
    """Parse one row of JSON from each text, as in `--row '{"island": "Biscoe", ...}'`."""
    for i, text in enumerate(texts):
        if text.lstrip()[:1] not in ("[", "{"):
            problem = f'expected JSON such as {{"column": 1}}, found {describe_value(text)}'
            raise InputError([Fault(f"row {i}", problem)])
    return [parse_strict_json(text, f"row {i}") for i, text in enumerate(texts)]


def decode_utf8(data: bytes, name: str) -> str:
    """Return the text of a file, without a byte order mark. InputError if it is not UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        problem = f"expected UTF-8, found byte 0x{data[e.start]:02x} at {e.start}"
        raise InputError([Fault(name, problem, "save the file as UTF-8")]) from e


def is_json(text: str, name: str) -> bool:
    """Return whether the name or the first character of a file says that it is JSON, not CSV."""
    return name.endswith(".json") or (not name.endswith(".csv") and text.lstrip()[:1] in ("[", "{"))


def parse_json_table(text: str, name: str) -> list[Any]:
    """Return the rows of a JSON file: a list, or an object with `instances`."""
    rows = parse_strict_json(text, name)
    if isinstance(rows, dict) and set(rows) == {"instances"}:
        rows = rows["instances"]
    if not isinstance(rows, list):
        fix = 'wrap it: [{"column": 1}]'
        raise InputError([Fault(name, f"expected a list of rows, found {type(rows).__name__}", fix)])
    return rows


def _line(name: str, number: int, unit: str = "line") -> str:
    return f"{name} {unit} {number}".lstrip()


def _needed_names(signature: Signature) -> list[str]:
    """Return the columns that a header must name: the required ones, or all if none is required."""
    return [column.name for column in signature.inputs if column.fill is None] or list(signature.names)


def _is_value(column: Column, text: str) -> bool:
    """Return whether a text is a number of a number column, a known category, or missing."""
    value = column.parse_cell(text)
    return value is None or not isinstance(value, str) or value in getattr(column, "categories", ())


def _target_names(signature: Signature) -> set[str]:
    output = signature.output
    if isinstance(output, MultiLabelOutput):
        return set(output.columns)
    return {output.name} if isinstance(output, ClassificationOutput) else set(output.names)


def parse_strict_json(text: str, location: str) -> Any:
    """Return the value of a JSON text. InputError names `location` if it is none, or if an object has a key twice."""
    try:
        parsed = json.loads(text)
    except ValueError as e:
        fix = "write valid JSON: text in double quotes, true, false, null, and finite numbers"
        problem = str(e).partition("; use sys.")[0]  # how a programmer allows integers of thousands of digits
        raise InputError([Fault(location, f"expected JSON, found an error: {problem}", fix)]) from e
    except RecursionError as e:
        raise InputError([Fault(location, "expected JSON, found it nested too deeply", "send flat rows")]) from e
    body = text.encode("utf-8", "surrogatepass")
    if has_duplicate_keys(body, parsed):
        faults = duplicate_key_faults(body)
        raise InputError([replace(fault, location=f"{location} {fault.location}") for fault in faults])
    return parsed


def open_csv(
    data: bytes,
    name: str,
    signature: Signature,
    header: Header | None = None,
    *,
    ignore_unknown: bool = False,
) -> RowTable:
    """Return the table of CSV in memory."""
    text = decode_utf8(data, name or "body")
    records = read_csv_records(io.StringIO(text, newline=""), name)
    return RowTable(records, name, signature, header, ignore_unknown=ignore_unknown)
