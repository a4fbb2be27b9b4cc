"""The rows of a file on the command line: JSON, or a table by its name."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from model_store.cli.common import print_note
from model_store.errors import InputError
from model_store.schema import row_parser
from model_store.schema.row_parser import Header, RowBatch, RowTable
from model_store.schema.signature import Signature
from model_store.tables.formats import is_table, open_table
from model_store.tables.options import TableOptions
from model_store.tables.table_file import DelimitedFile
from model_store.tables.text_file import FILE_NULL, FileOpener
from model_store.utils.values import list_names

_JSON_HEAD_BYTES = 1 << 12  # in which JSON begins


def read_rows(file: str, signature: Signature, header: Header | None, options: TableOptions) -> RowBatch:
    """Return the rows of a JSON file or a table; "-" is standard input. InputError at lines of the file."""
    name, opener = display_name(file), FileOpener(file)
    if not is_table(name):
        with opener() as source:
            start = source.read(_JSON_HEAD_BYTES).removeprefix(codecs.BOM_UTF8).lstrip()
        if start[:1] in (b"[", b"{") and not name.endswith(".json") and _are_json_lines(start):
            with own_locations(name), open_rows(f"{name}.jsonl", opener, signature, header, options) as table:
                return table.read()
        if name.endswith(".json") or start[:1] in (b"[", b"{"):
            with opener() as source:
                text = row_parser.decode_utf8(source.read(), name)
            return RowBatch(row_parser.parse_json_table(text, name))
    with own_locations(name), open_rows(name, opener, signature, header, options) as table:
        batch = table.read()
    print_ignored(table.ignored)
    return batch


def _are_json_lines(start: bytes) -> bool:
    """Return True if bytes begin with an object on a line of its own, and more follows."""
    line, _, rest = start.partition(b"\n")
    try:
        return bool(rest.strip()) and isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


@contextmanager
def open_rows(
    name: str, opener: FileOpener, signature: Signature, header: Header | None, options: TableOptions
) -> Iterator[RowTable]:
    """Open the rows of a table file. A header is cleaned as training does: see `model_store.tables.header`."""
    file = open_table(name, opener, options, drop_row_names=False)
    if not isinstance(file, DelimitedFile):
        records, header = file.named_records(), "present"
    elif header == "present" or (header is None and not set(signature.names).isdisjoint(file.names)):
        records = file.named_records()
    else:
        records = file.records()
    with closing(records):
        yield RowTable(
            records, "", signature, header, ignore_unknown=True, row_unit=file.row_unit, null=FILE_NULL,
            plain_numbers=file.decimal_commas,
        )  # fmt: skip
    for note in file.ragged.notes():
        print_note(f"{name}: {note}")


@contextmanager
def own_locations(name: str) -> Iterator[None]:
    """Name the file in the locations of its faults."""
    try:
        yield
    except InputError as e:
        faults = [replace(fault, location=f"{name} {fault.location}".rstrip()) for fault in e.faults]
        raise InputError(faults, e.total) from e


def print_ignored(columns: list[str]) -> None:
    if columns:
        print_note(f"Ignored columns: {list_names(columns)}")


def display_name(file: str) -> str:
    return "standard input" if file == "-" else Path(file).name
