"""The header of a table: which columns its rows have, and how they are named.

Programs write headers that are no list of unique names: R and pandas write row names in a first column without a name,
R's `write.table` gives it no cell in the header at all, many programs end each line with a separator.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from model_store.errors import Fault, InputError


@dataclass(frozen=True)
class Header:
    """The columns of a table: their names, and the index of the cell of each. A row has `width` cells."""

    names: list[str]
    indices: list[int]
    width: int
    notes: list[str] = field(default_factory=list)


def read_header(cells: Sequence[str], rows: Sequence[Sequence[str]], *, drop_row_names: bool = True) -> Header:
    """Return the header with these cells. The first `rows` say what the columns without a name are.

    drop_row_names: leave out a first column that has no name and no value twice. InputError if no column has a name.
    """
    names = [cell.strip() for cell in cells]
    if not any(names):
        raise InputError([Fault("", "no column has a name", "add a header")])
    if _has_row_names(names, rows):
        names.insert(0, "")
    while len(names) > 1 and not names[-1] and _is_blank(rows, len(names) - 1):
        names.pop()
    kept, notes = [], []
    for i, name in enumerate(names):
        if not name and _is_blank(rows, i):
            notes.append(f"ignored column {i + 1}, which has neither a name nor values")
        elif not name and i == 0 and drop_row_names and _are_distinct(rows):
            notes.append("ignored the first column, which has no name: it holds the names or numbers of the rows")
        else:
            kept.append(i)
    taken, numbers = set(names), Counter[str]()
    for i in (i for i in kept if not names[i]):
        names[i] = _unused(f"column_{i + 1}", taken, numbers)
        notes.append(f"column {i + 1} has no name: it is called {names[i]!r}")
    taken.update(names)
    seen: set[str] = set()
    for i in kept:
        if names[i] in seen:
            first, names[i] = names[i], _unused(names[i], taken, numbers)
            taken.add(names[i])
            notes.append(f"two columns are named {first!r}: column {i + 1} is called {names[i]!r}")
        seen.add(names[i])
    return Header([names[i] for i in kept], kept, len(names), notes)


def _has_row_names(names: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Return True if every row has one cell more than the header, no first one twice, and not all last ones blank."""
    longer = bool(rows) and all(len(row) == len(names) + 1 for row in rows)
    return len(names) > 1 and longer and names[-1] != "" and not _is_blank(rows, len(names)) and _are_distinct(rows)


def _is_blank(rows: Sequence[Sequence[str]], index: int) -> bool:
    return not any(len(row) > index and row[index].strip() for row in rows)


def _are_distinct(rows: Sequence[Sequence[str]]) -> bool:
    found = [row[0] for row in rows if row]
    return len(set(found)) == len(found)


def _unused(name: str, taken: Collection[str], numbers: Counter[str]) -> str:
    """Return the name, or with a number that makes it another than the `taken` ones; `numbers` holds the last ones."""
    found = name
    while found in taken:
        numbers[name] = max(2, numbers[name] + 1)
        found = f"{name}_{numbers[name]}"
    return found
