"""Excel workbooks (.xlsx): the cells of one sheet as texts. openpyxl is installed by the extra `excel`.

openpyxl reads a sheet row by row, and the other parts of a workbook whole. A workbook is a ZIP archive of XML, of which
a part of 10 kB may unpack to 10 MB of tags that take minutes and gigabytes. So `_check_archive` counts the bytes and
the tags of all parts in comparison with the size of the file, before openpyxl reads any of them.
"""

from __future__ import annotations

import datetime as dt
import io
import re
import warnings
import zipfile
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

from model_store.errors import Fault, InputError
from model_store.tables.table_file import Record, TableFile
from model_store.utils.extras import install_command
from model_store.utils.values import list_names

MAX_UNPACKED_BYTES = 1 << 30  # a million rows of ten cells take about 0.5 GB
# For each byte of the file: honest ones have about 4 to 18 unpacked bytes, repetitive ones 40, and at most 2 tags
MAX_EXPANSION, MIN_UNPACKED_BYTES = 50, 4_000_000
MAX_TAG_DENSITY, MIN_TAGS = 5, 100_000  # opening and closing tags; openpyxl takes about 10 us for one
MAX_PART_BYTES, MAX_PART_TAGS = 4_000_000, 100_000  # of a part without cells; Excel allows 65,490 cell formats
MAX_ROWS = 1 << 20  # of a sheet, as in Excel; openpyxl adds the rows and cells that a file leaves out
MAX_CELLS = MAX_UNPACKED_BYTES // 8  # more than such an archive can hold
MAX_CELL_CHARACTERS = 32_767  # as in Excel; many cells may refer to one shared text
MAX_PADDING, MIN_PADDED_CELLS = 20, 1 << 20  # cells that rows leave out, for each cell of the sheet, and in any sheet
_ERRORS = frozenset({"#N/A", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#NULL!"})  # cells without a value

_NO_CELLS = re.compile(r"\[Content_Types\]\.xml|xl/(workbook|styles)\.xml|docProps/.*|.*\.rels")  # names of such parts
_ENTITY = re.compile(rb"<\0?!\0?E\0?N\0?T\0?I\0?T\0?Y")  # in UTF-8 and UTF-16; the format has none
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # zipfile unpacks others further than they state
_BLOCK_BYTES = 1 << 20

_TOO_MANY_CELLS = Fault(
    "", f"expected a sheet of at most {MAX_ROWS} rows and {MAX_CELLS} cells, found more", "save the sheet as CSV"
)
_TOO_MUCH_PADDING = Fault(
    "",
    f"expected rows about as long as the first one, found {MAX_PADDING} cells left out for each that is there",
    "save the sheet as CSV, or remove columns",
)


class SpreadsheetFile(TableFile):
    """The first sheet of a workbook, or the one of `options.sheet`. Formulas count as their last values."""

    row_unit = "row"

    def records(self) -> Generator[Record]:
        try:
            import openpyxl.reader.excel  # noqa: PLC0415  # an extra
        except ImportError as error:
            problem = "reading this file requires openpyxl, which is not installed"
            raise InputError([Fault("", problem, install_command("excel"))]) from error
        with self._open() as file:
            try:
                _check_archive(file)
                with warnings.catch_warnings(action="ignore"):  # of styles and extensions that hold no cell
                    reader = openpyxl.reader.excel.ExcelReader(file, read_only=True, data_only=True, keep_links=False)
                    reader.read_worksheets = partial(_read_worksheets, reader, reader.read_worksheets)
                    reader.read()
                workbook = reader.wb
                sheet = self._choose_sheet(workbook)
                sheet.reset_dimensions()  # programs write wrong ones
                width = cell_count = padded = 0
                with warnings.catch_warnings(action="ignore"):
                    for number, row in enumerate(sheet.iter_rows(values_only=True), 1):
                        cell_count += len(row)
                        if number > MAX_ROWS or cell_count > MAX_CELLS:
                            raise InputError([_TOO_MANY_CELLS])
                        cells = [_to_text(value, number) for value in row]
                        if any(cells):
                            width = width or len(cells)
                            padded += max(0, width - len(cells))
                            if padded > max(MIN_PADDED_CELLS, MAX_PADDING * cell_count):
                                raise InputError([_TOO_MUCH_PADDING])
                            yield number, cells + [""] * (width - len(cells))  # the file ends a row with its last value
            except InputError:
                raise
            except Exception as error:  # openpyxl raises whatever a damaged file leads to
                problem = f"not a readable workbook: {type(error).__name__}: {error}"
                raise InputError([Fault("", problem, "save it again as .xlsx, or as CSV")]) from error

    def _choose_sheet(self, workbook: Any) -> Any:
        names = [sheet.title for sheet in workbook.worksheets]
        if not names:
            raise InputError([Fault("", "the workbook has no sheet of cells", "add one")])
        if self.options.sheet is None:
            return workbook.worksheets[0]
        if self.options.sheet not in names:
            fault = Fault("data.sheet", f"no sheet is named {self.options.sheet!r}", f"one of {list_names(names)}")
            raise InputError([fault])
        return workbook.worksheets[names.index(self.options.sheet)]


def _check_archive(file: Any) -> None:
    """Raise InputError if the archive unpacks to more bytes or tags than its size allows. Parts are read by blocks."""
    size = file.seek(0, io.SEEK_END)
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            unpacked = sum(member.file_size for member in members)
            most = min(MAX_UNPACKED_BYTES, max(MIN_UNPACKED_BYTES, MAX_EXPANSION * size))
            if unpacked > most:
                problem = f"the workbook unpacks to {unpacked} bytes, more than {most} for a file of {size} bytes"
                raise InputError([Fault("", problem, "save the sheet as CSV")])
            left = max(MIN_TAGS, MAX_TAG_DENSITY * size)
            for member in members:
                left -= _count_tags(archive, member, left)
    except zipfile.BadZipFile as error:
        raise InputError([Fault("", f"not a readable workbook: {error}", "save it again as .xlsx")]) from error


def _count_tags(archive: zipfile.ZipFile, member: zipfile.ZipInfo, most: int) -> int:
    """Return the number of tags of a part. InputError if they are more than `most`, or if it is unlike any of Excel."""
    name = repr(member.filename[:100])
    if member.compress_type not in _COMPRESSIONS:
        problem = f"expected parts that are stored or deflated, found method {member.compress_type} at {name}"
        raise InputError([Fault("", problem, "save it again as .xlsx, or as CSV")])
    if _NO_CELLS.fullmatch(member.filename):
        most = min(most, MAX_PART_TAGS)
        if member.file_size > MAX_PART_BYTES:
            problem = f"expected at most {MAX_PART_BYTES} bytes in {name}, found {member.file_size}"
            raise InputError([Fault("", problem, "save the sheet as CSV")])
    count, tail = 0, b""
    with archive.open(member) as part:
        while block := part.read(_BLOCK_BYTES):
            count += block.count(b"<")
            if count > most:
                problem = f"expected at most {most} XML tags in {name} for a file of this size, found more"
                raise InputError([Fault("", problem, "save the sheet as CSV")])
            if _ENTITY.search(tail + block):
                raise InputError(
                    [Fault("", f"expected no XML entities, found some in {name}", "save the sheet as CSV")]
                )
            tail = block[-20:]
    return count


def _read_worksheets(reader: Any, read: Callable[[], None]) -> None:
    """Open the sheets of openpyxl's reader. InputError if two are the same part, which it would read for each."""
    targets = [relation.target for _, relation in reader.parser.find_sheets()]
    if len(set(targets)) < len(targets):
        problem = f"expected sheets with a part each, found {len(targets)} sheets with {len(set(targets))} parts"
        raise InputError([Fault("", problem, "save the sheet as CSV")])
    read()


def _to_text(value: Any, row: int) -> str:
    """Return a cell as a text: dates in ISO 8601, without a time if it is midnight. InputError if it is too long."""
    if isinstance(value, str) and len(value) > MAX_CELL_CHARACTERS:
        problem = f"expected cells of at most {MAX_CELL_CHARACTERS} characters, found one of {len(value)}"
        raise InputError([Fault(f"row {row}", problem, "shorten it, or save the sheet as CSV")])
    if value is None or (isinstance(value, str) and value in _ERRORS):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dt.datetime):
        return (value.date() if value.time() == dt.time() else value).isoformat()
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    return str(value)
