"""Rows with fewer or more cells than the header, counted while a table is read.

A cell that a short row lacks is missing, as R's `read.table(fill = TRUE)` and pandas read it. A long row is an error,
or left out if the reader is asked to: its cells may be those of other columns.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from model_store.errors import Fault, InputError

_MAX_LISTED = 5
MAX_PADDING, MIN_PADDED_CELLS = 100, 1 << 22  # cells that rows lack, for each cell of the table, and in any table


@dataclass
class RaggedRows:
    """The numbers of the short rows, and of the long rows that were left out; the first ones are listed."""

    row_unit: str
    short: int = 0
    long: int = 0
    _cells: int = 0
    _padded: int = 0
    _listed: dict[str, list[int]] = field(default_factory=lambda: {"short": [], "long": []})

    def count(self, cells: int) -> None:
        """Count the cells of rows."""
        self._cells += cells

    def pad(self, row: list[str], width: int, number: int) -> list[str]:
        """Return a short row with empty cells at its end. InputError if rows lack far more cells than they have.

        A file of 1 MB could ask for billions of cells otherwise.
        """
        self.short += 1
        self._list("short", number)
        self._padded += width - len(row)
        self._cells += len(row)
        if self._padded > max(MIN_PADDED_CELLS, MAX_PADDING * self._cells):
            problem = f"expected rows with about the {width} cells of the header, found few in most"
            raise InputError([Fault(f"{self.row_unit} {number}", problem, "check the separator and the header")])
        return row + [""] * (width - len(row))

    def leave_out(self, number: int) -> None:
        """Count a long row that is left out."""
        self.long += 1
        self._list("long", number)

    def notes(self) -> list[str]:
        """Return notes of the rows that were filled in and left out."""
        notes = []
        if self.short:
            have, their = ("row has", "its") if self.short == 1 else ("rows have", "their")
            notes.append(
                f"{self.short} {have} fewer cells than the header, and the cells at {their} end count as missing: "
                + self._describe("short", self.short)
            )
        if self.long:
            rows = "1 row" if self.long == 1 else f"{self.long} rows"
            notes.append(f"left out {rows} with more cells than the header: {self._describe('long', self.long)}")
        return notes

    def _list(self, kind: str, number: int) -> None:
        if len(self._listed[kind]) < _MAX_LISTED:
            self._listed[kind].append(number)

    def _describe(self, kind: str, total: int) -> str:
        listed = self._listed[kind]
        more = f" and {total - len(listed)} more" if total > len(listed) else ""
        return f"{self.row_unit}{'s' * (total > 1)} {', '.join(map(str, listed))}{more}"
