"""The columns of a table that `models predict --keep` writes before the predictions."""

from __future__ import annotations

import csv
from collections.abc import Sequence

from model_store.errors import Fault, InputError, did_you_mean
from model_store.schema.row_parser import RowTable
from model_store.utils.values import list_names


def split_names(texts: Sequence[str]) -> list[str]:
    """Return the column names of `--keep id,name`; a name that holds a comma is quoted as in CSV."""
    return [name.strip() for text in texts for name in next(csv.reader([text]), [])]


def kept_columns(table: RowTable, keep: Sequence[str] | None, name: str) -> Sequence[int]:
    """Return the indices of columns. InputError if the table has no such column."""
    if keep is None:
        return range(table.width)
    faults = []
    for one in keep:
        if one not in table.names:
            fix = did_you_mean(one, table.names) or f"the columns are {list_names(table.names)}"
            faults.append(Fault("--keep", f"{name} has no column {one!r}", fix if table.names else "use --keep-all"))
    if faults:
        raise InputError(faults)
    return [table.names.index(one) for one in keep]
