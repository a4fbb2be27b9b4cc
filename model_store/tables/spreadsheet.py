"""Excel workbooks (.xlsx): the cells of one sheet as texts. openpyxl is installed by the extra `excel`.

openpyxl reads a sheet row by row. A workbook is a ZIP archive: one that states to unpack to more than
`MAX_UNPACKED_BYTES` is rejected, and no file of it is read further than it states.
"""

from __future__ import annotations

import datetime as dt
import warnings
import zipfile
from collections.abc import Generator
from typing import Any

from model_store.errors import Fault, InputError
from model_store.tables.table_file import Record, TableFile
from model_store.utils.extras import install_command
from model_store.utils.values import list_names

MAX_UNPACKED_BYTES = 1 << 30  # a million rows of ten cells take about 0.5 GB
MAX_ROWS = 1 << 20  # of a sheet, as in Excel; openpyxl adds the rows and cells that a file leaves out
MAX_CELLS = MAX_UNPACKED_BYTES // 8  # more than such an archive can hold
MAX_CELL_CHARACTERS = 32_767  # as in Excel; many cells may refer to one shared text
MAX_PADDING, MIN_PADDED_CELLS = 20, 1 << 20  # cells that rows leave out, for each cell of the sheet, and in any sheet
_ERRORS = frozenset({"#N/A", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#NULL!"})  # cells without a value

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
            import openpyxl  # noqa: PLC0415  # an extra
        except ImportError as error:
            problem = "reading this file requires openpyxl, which is not installed"
            raise InputError([Fault("", problem, install_command("excel"))]) from error
        with self._open() as file:
            try:
                _check_size(file)
                with warnings.catch_warnings(action="ignore"):  # of styles and extensions that hold no cell
                    workbook = openpyxl.load_workbook(file, read_only=True, data_only=True, keep_links=False)
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


def _check_size(file: Any) -> None:
    """Raise InputError if the archive unpacks to more bytes than memory should hold."""
    try:
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except zipfile.BadZipFile as error:
        raise InputError([Fault("", f"not a readable workbook: {error}", "save it again as .xlsx")]) from error
    if unpacked > MAX_UNPACKED_BYTES:
        problem = f"the workbook unpacks to {unpacked} bytes, more than {MAX_UNPACKED_BYTES}"
        raise InputError([Fault("", problem, "save the sheet as CSV")])


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
