"""Parse rows from files and command lines into the form that clients of the service send.

CSV rows become objects by column name, with numbers in columns that are numbers in the signature; JSON is returned
unchanged. A first line without any column name is a row in column order.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Generator, Iterator, Sequence
from itertools import islice
from typing import IO, Any

from model_store.errors import Fault, InputError, did_you_mean
from model_store.schema.column import parse_text_cell
from model_store.schema.signature import ClassificationOutput, Signature
from model_store.utils.csv_reader import read_csv_lines


def parse_json_rows(texts: Sequence[str]) -> list[Any]:
    """Parse one row of JSON from each text, as in `--row '{"island": "Biscoe", ...}'`."""
    return [_parse_json(text, f"row {i}") for i, text in enumerate(texts)]


def parse_rows(
    data: bytes, name: str, signature: Signature, ignored: list[str] | None = None, max_rows: int | None = None
) -> list[Any]:
    """Return the rows of a file: of JSON if its name or first character says so, else of CSV.

    Columns of a CSV table that are not inputs stay in the rows, and the signature rejects them. With a list `ignored`
    they are left out and their names are appended to it; InputError if an input is missing. Little more than `max_rows`
    rows of CSV are read.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        problem = f"expected UTF-8, found byte 0x{data[e.start]:02x} at {e.start}"
        raise InputError([Fault(name, problem, "save the file as UTF-8")]) from e
    if name.endswith(".json") or (not name.endswith(".csv") and text.lstrip()[:1] in ("[", "{")):
        return _json_rows(text, name)
    return _csv_rows(text, name, signature, ignored, max_rows)


def _json_rows(text: str, name: str) -> list[Any]:
    rows = _parse_json(text, name)
    if isinstance(rows, dict) and set(rows) == {"instances"}:
        rows = rows["instances"]
    if not isinstance(rows, list):
        fix = 'wrap it: [{"column": 1}]'
        raise InputError([Fault(name, f"expected a list of rows, found {type(rows).__name__}", fix)])
    return rows


def iter_csv_batches(
    file: IO[bytes], name: str, signature: Signature, size: int, ignored: list[str]
) -> Generator[list[Any], None, None]:
    """Yield the rows of a CSV file of any length, `size` at a time; `ignored` is as in `parse_rows`."""
    text = io.TextIOWrapper(file, "utf-8-sig", newline="")
    reader = read_csv_lines(text)
    header: list[str] | None = None
    start = 0
    try:
        while lines := _read_lines(reader, name, size):
            if header is None:
                header, lines = _split_header(lines, signature)
                ignored += _ignored_columns(header, name, signature)
            yield _table_rows(header, lines, name, signature, start, ignored)
            start += len(lines)
        if header is None:
            raise _empty_file_error(name)
    finally:
        text.detach()  # the caller closes the file


def _csv_rows(text: str, name: str, signature: Signature, ignored: list[str] | None, max_rows: int | None) -> list[Any]:
    reader = read_csv_lines(io.StringIO(text, newline=""))
    lines = _read_lines(reader, name, None if max_rows is None else max_rows + 2)
    if not lines:
        raise _empty_file_error(name)
    header, lines = _split_header(lines, signature)
    if ignored is not None:
        ignored += _ignored_columns(header, name, signature)
    return _table_rows(header, lines, name, signature, 0, ignored or [])


def _empty_file_error(name: str) -> InputError:
    problem = "expected a header and rows, found nothing"
    return InputError([Fault(name, problem, "name the columns in the first line")])


def _read_lines(reader: Iterator[list[str]], name: str, limit: int | None) -> list[list[str]]:
    """Return up to `limit` lines that are not empty."""
    try:
        return list(islice(filter(None, reader), limit))
    except csv.Error as e:
        fix = "quote cells that hold quotes or commas"
        raise InputError([Fault(name, f"expected CSV, found an error: {e}", fix)]) from e
    except UnicodeDecodeError as e:
        raise InputError([Fault(name, f"expected UTF-8, found other bytes: {e}", "save the file as UTF-8")]) from e


def _split_header(lines: list[list[str]], signature: Signature) -> tuple[list[str], list[list[str]]]:
    """Return the header and the other lines. Arrays have no header: a first line of names is ignored."""
    first = [cell.strip() for cell in lines[0]]
    column = signature.inputs[0]
    if column.is_whole_row:
        return [], lines[1:] if any(isinstance(column.parse_cell(cell), str) for cell in first) else lines
    if len(first) == len(signature.names) and not set(first) & (_target_names(signature) | set(signature.names)):
        return list(signature.names), lines
    return first, lines[1:]


def _ignored_columns(header: list[str], name: str, signature: Signature) -> list[str]:
    """Return the columns that are neither inputs nor targets. InputError if an input is missing.

    It may be among them under another name, and would be filled in.
    """
    ignored = [column for column in header if column not in {*signature.names, *_target_names(signature)}]
    missing = [column for column in signature.names if column not in header]
    if header and ignored and missing:
        problem = f"expected {', '.join(signature.names)}; found no {', '.join(missing)}, but {', '.join(ignored)}"
        fixes = {did_you_mean(column, missing) for column in ignored} - {""}
        raise InputError([Fault(f"{name} header", problem, " ".join(sorted(fixes)) or "rename the columns")])
    return ignored


def _table_rows(
    header: list[str], lines: list[list[str]], name: str, signature: Signature, start: int, ignored: Sequence[str]
) -> list[Any]:
    if not header:
        return [list(map(signature.inputs[0].parse_cell, line)) for line in lines]
    faults = [
        Fault(f"{name} row {i}", f"expected {len(header)} cells, found {len(row)}", "quote cells that hold commas")
        for i, row in enumerate(lines, start)
        if len(row) != len(header)
    ]
    if len(set(header)) != len(header):
        faults.append(Fault(f"{name} header", "expected unique names", "rename one of the columns"))
    if faults:
        raise InputError(faults)
    parsers = {column.name: column.parse_cell for column in signature.inputs}
    left_out = {*_target_names(signature), *ignored}
    # Test files usually contain the targets, too: leave them out.
    kept = [(i, name, parsers.get(name, parse_text_cell)) for i, name in enumerate(header) if name not in left_out]
    return [{name: parse(row[i]) for i, name, parse in kept} for row in lines]


def _target_names(signature: Signature) -> set[str]:
    output = signature.output
    return {output.name} if isinstance(output, ClassificationOutput) else set(output.names)


def _parse_json(text: str, location: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as e:
        raise InputError([Fault(location, f"expected JSON, found an error: {e}", "")]) from e
    except RecursionError as e:
        raise InputError([Fault(location, "expected JSON, found it nested too deeply", "")]) from e
