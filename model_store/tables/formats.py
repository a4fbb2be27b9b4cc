"""The formats of table files by their suffixes."""

from __future__ import annotations

from model_store.tables.arrow_file import ArrowFile
from model_store.tables.json_lines import JsonLinesFile
from model_store.tables.options import TableOptions
from model_store.tables.spreadsheet import SpreadsheetFile
from model_store.tables.table_file import DelimitedFile, LongRows, TableFile
from model_store.tables.text_file import COMPRESSED_SUFFIXES, Open

_TEXT_FORMATS: dict[str, type[TableFile]] = {
    ".csv": DelimitedFile,
    ".tsv": DelimitedFile,
    ".tab": DelimitedFile,
    ".txt": DelimitedFile,
    ".jsonl": JsonLinesFile,
    ".ndjson": JsonLinesFile,
}
_FORMATS: dict[str, type[TableFile]] = {
    **_TEXT_FORMATS,
    **{f"{suffix}{end}": kind for suffix, kind in _TEXT_FORMATS.items() for end in COMPRESSED_SUFFIXES},
    ".parquet": ArrowFile,
    ".arrow": ArrowFile,
    ".feather": ArrowFile,
    ".xlsx": SpreadsheetFile,
}
TABLE_SUFFIXES = tuple(_FORMATS)
TABLE_FORMATS = ".csv, .tsv, .txt, .jsonl (each also with .gz), .parquet, .arrow or .xlsx"  # for messages


def is_table(name: str) -> bool:
    """Return True if a file of this name is a table."""
    return name.lower().endswith(TABLE_SUFFIXES)


def table_stem(name: str) -> str:
    """Return the name of a table file without its suffix, such as rows for rows.csv.gz."""
    suffix = max((end for end in TABLE_SUFFIXES if name.lower().endswith(end)), key=len, default="")
    return name[: len(name) - len(suffix)]


def is_compressed(name: str) -> bool:
    """Return True if a table file of this name is several times larger as text."""
    return name.lower().endswith((*COMPRESSED_SUFFIXES, ".parquet", ".arrow", ".feather", ".xlsx"))


def open_table(
    name: str,
    open_file: Open,
    options: TableOptions,
    *,
    drop_row_names: bool = True,
    long_rows: LongRows | None = None,
) -> TableFile:
    """Return the table in a file, in the format of its name, else delimited text. The keys are those of `TableFile`."""
    kind = next((kind for suffix, kind in _FORMATS.items() if name.lower().endswith(suffix)), DelimitedFile)
    return kind(name, open_file, options, drop_row_names=drop_row_names, long_rows=long_rows)
