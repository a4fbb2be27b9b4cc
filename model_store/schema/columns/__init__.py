"""The kinds of columns. Each parses untrusted values and encodes them as features of the network.

A new kind is a class of `Column` in a module of its own, an entry in `KINDS`, and one in `COLUMN_KINDS` of training.
"""

from __future__ import annotations

from model_store.schema.columns.array import ArrayColumn
from model_store.schema.columns.base import Bins, Column, FaultCollector, RowLocations
from model_store.schema.columns.category import CategoryColumn
from model_store.schema.columns.date import DateColumn
from model_store.schema.columns.number import NumberColumn
from model_store.schema.columns.text import TextColumn

__all__ = [
    "KINDS",
    "TABLE_KINDS",
    "ArrayColumn",
    "Bins",
    "CategoryColumn",
    "Column",
    "DateColumn",
    "FaultCollector",
    "NumberColumn",
    "RowLocations",
    "TextColumn",
]

KINDS: dict[str, type[Column]] = {
    "number": NumberColumn,
    "date": DateColumn,
    "text": TextColumn,
    "category": CategoryColumn,
    "array": ArrayColumn,
}
TABLE_KINDS = tuple(name for name, kind in KINDS.items() if not kind.is_whole_row)  # of columns of a table
