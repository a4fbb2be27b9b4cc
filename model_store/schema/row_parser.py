"""Rows from a file or the command line, as a caller of the service would send them.

CSV rows are objects by column name, with numbers where the signature has numbers; JSON is taken as it is. A first line
that names no column is a row like the others, in column order.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Generator, Iterator, Sequence
from itertools import islice
from typing import IO, Any

from model_store.errors import Fault, InputError, did_you_mean
from model_store.schema.signature import ArrayColumn, ClassificationOutput, NumberColumn, Signature
from model_store.utils.values import parse_finite_number

MISSING_CELLS = frozenset({"", "na", "n/a", "nan", "null", "?"})  # what a CSV cell of no value says, in training too
_MAX_CELL_CHARACTERS = 1 << 24


def parse_json_rows(texts: Sequence[str]) -> list[Any]:
    """One JSON row a text: `--row '{"island": "Biscoe", ...}'`."""
    return [_parse_json(text, f"row {i}") for i, text in enumerate(texts)]


def parse_rows(
    data: bytes, name: str, signature: Signature, others: list[str] | None = None, most: int | None = None
) -> list[Any]:
    """The rows of a file: JSON when its name or its first character says so, else CSV, of which not many more than
    `most` are read.

    Of a CSV table, columns that the model does not take are left in the rows, for the signature to refuse. With a list
    of `others` they are left out, and their names appended to it, so long as all that the model does take are there.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        problem = f"expected UTF-8, found byte 0x{data[e.start]:02x} at {e.start}"
        raise InputError([Fault(name, problem, "save the file as UTF-8")]) from e
    if name.endswith(".json") or (not name.endswith(".csv") and text.lstrip()[:1] in ("[", "{")):
        return _json_rows(text, name)
    return _csv_rows(text, name, signature, others, most)


def integral_floats_to_ints(row: Sequence[Any]) -> list[Any]:
    """A row of a table as people write it: 195, not 195.0."""
    return [
        int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value for value in row
    ]


def _json_rows(text: str, name: str) -> list[Any]:
    rows = _parse_json(text, name)
    if isinstance(rows, dict) and set(rows) == {"instances"}:
        rows = rows["instances"]
    if not isinstance(rows, list):
        fix = 'wrap it: [{"column": 1}]'
        raise InputError([Fault(name, f"expected a list of rows, found {type(rows).__name__}", fix)])
    return rows


def iter_csv_batches(
    file: IO[bytes], name: str, signature: Signature, size: int, others: list[str]
) -> Generator[list[Any], None, None]:
    """The rows of a CSV file of any length, `size` at a time; `others` as in `parse_rows`."""
    text = io.TextIOWrapper(file, "utf-8-sig", newline="")
    reader = csv.reader(text, strict=True)
    header: list[str] | None = None
    start = 0
    try:
        while lines := _read_lines(reader, name, size):
            if header is None:
                header, lines = _split_header(lines, signature)
                others += _ignored_columns(header, name, signature)
            yield _table_rows(header, lines, name, signature, start, others)
            start += len(lines)
        if header is None:
            raise _empty_file_error(name)
    finally:
        text.detach()  # the file is its opener's to close


def _csv_rows(text: str, name: str, signature: Signature, others: list[str] | None, most: int | None) -> list[Any]:
    lines = _read_lines(
        csv.reader(io.StringIO(text, newline=""), strict=True), name, None if most is None else most + 2
    )
    if not lines:
        raise _empty_file_error(name)
    header, lines = _split_header(lines, signature)
    if others is not None:
        others += _ignored_columns(header, name, signature)
    return _table_rows(header, lines, name, signature, 0, others or [])


def _empty_file_error(name: str) -> InputError:
    problem = "expected a header and rows, found nothing"
    return InputError([Fault(name, problem, "name the columns in the first line")])


def _read_lines(reader: Iterator[list[str]], name: str, most: int | None) -> list[list[str]]:
    """The next lines, empty ones left out."""
    limit = csv.field_size_limit(_MAX_CELL_CHARACTERS)
    try:
        return list(islice(filter(None, reader), most))
    except csv.Error as e:
        fix = "quote cells that hold quotes or commas"
        raise InputError([Fault(name, f"expected CSV, found a fault: {e}", fix)]) from e
    except UnicodeDecodeError as e:
        raise InputError([Fault(name, f"expected UTF-8, found other bytes: {e}", "save the file as UTF-8")]) from e
    finally:
        csv.field_size_limit(limit)


def _split_header(lines: list[list[str]], signature: Signature) -> tuple[list[str], list[list[str]]]:
    """The header and the lines below it. Arrays have none: a first line of names is passed over."""
    first = [cell.strip() for cell in lines[0]]
    if isinstance(signature.inputs[0], ArrayColumn):
        return [], lines[1:] if any(isinstance(_parse_cell(cell, number=True), str) for cell in first) else lines
    if len(first) == len(signature.names) and not set(first) & (_target_names(signature) | set(signature.names)):
        return list(signature.names), lines
    return first, lines[1:]


def _ignored_columns(header: list[str], name: str, signature: Signature) -> list[str]:
    """The columns that the model neither takes nor answers. InputError where one that it takes may be among them,
    under another name: left out, that one would be filled in.
    """
    others = [column for column in header if column not in {*signature.names, *_target_names(signature)}]
    missing = [column for column in signature.names if column not in header]
    if header and others and missing:
        problem = f"expected {', '.join(signature.names)}; found no {', '.join(missing)}, but {', '.join(others)}"
        fixes = {did_you_mean(column, missing) for column in others} - {""}
        raise InputError([Fault(f"{name} header", problem, " ".join(sorted(fixes)) or "name the columns so")])
    return others


def _table_rows(
    header: list[str], lines: list[list[str]], name: str, signature: Signature, start: int, others: Sequence[str]
) -> list[Any]:
    if not header:
        return [[_parse_cell(cell, number=True) for cell in line] for line in lines]
    faults = [
        Fault(f"{name} row {i}", f"expected {len(header)} cells, found {len(row)}", "quote cells that hold commas")
        for i, row in enumerate(lines, start)
        if len(row) != len(header)
    ]
    if len(set(header)) != len(header):
        faults.append(Fault(f"{name} header", "expected names that differ", "rename one of the columns"))
    if faults:
        raise InputError(faults)
    numbers = {column.name for column in signature.inputs if isinstance(column, NumberColumn)}
    left_out = {*_target_names(signature), *others}
    # A file with the known answers beside the inputs is the usual one to try a model with.
    return [
        {
            column: _parse_cell(cell, column in numbers)
            for column, cell in zip(header, row, strict=True)
            if column not in left_out
        }
        for row in lines
    ]


def _target_names(signature: Signature) -> set[str]:
    output = signature.output
    return {output.name} if isinstance(output, ClassificationOutput) else set(output.names)


def _parse_cell(text: str, number: bool) -> Any:
    """The value in a cell. One that should be a number and is not stays text, which the signature then refuses."""
    text = text.strip()
    if text.lower() in MISSING_CELLS:
        return None
    value = parse_finite_number(text) if number else None
    return text if value is None else value


def _parse_json(text: str, location: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as e:
        raise InputError([Fault(location, f"expected JSON, found a fault: {e}", "")]) from e
    except RecursionError as e:
        raise InputError([Fault(location, "expected JSON, found it nested too deep", "")]) from e
