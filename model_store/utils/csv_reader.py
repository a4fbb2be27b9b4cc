"""A CSV reader that accepts long cells.

The limit of the csv module belongs to the process, not to a reader: a thread that lowers it when it is done breaks the
readers of other threads. So it is raised once, when this module is imported, and never changed again.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _csv import Reader

MAX_CELL_CHARACTERS = 1 << 24  # the csv module's own limit of 131072 is small for a text

csv.field_size_limit(max(csv.field_size_limit(), MAX_CELL_CHARACTERS))


def read_csv_lines(lines: Iterable[str], separator: str = ",", *, skip_spaces: bool = False) -> Reader:
    """Return the rows of CSV lines, parsed strictly. `line_num` counts the lines read so far. Raises csv.Error.

    skip_spaces: spaces before a cell, such as before its quotation mark, are no part of it.
    """
    return csv.reader(lines, strict=True, delimiter=separator, skipinitialspace=skip_spaces)
