"""The dataset of columns in memory, such as those of a DataFrame: kinds are inferred as for the cells of a file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from training.config.settings import DataSection
from training.data import type_inference
from training.data.dataset import Dataset
from training.data.readers import Table
from training.data.table_dataset import (
    choose_kinds,
    empty_missing_words,
    find_formats,
    kind_notes,
    read_inputs,
    unknown_input_faults,
)
from training.data.tables import CellParser
from training.errors import DataError


@dataclass(frozen=True)
class MemoryTable:
    """Columns, and the targets of their rows.

    `columns` holds (n,) float64 numbers with NaN for missing, or (n,) objects: texts, and None for missing. `targets`
    and `labels` are those of `Dataset`. `rows` holds the number of each row for messages. `extra` is as in `Dataset`.
    `sha256` is a digest of the content.
    """

    name: str
    sha256: str
    columns: Mapping[str, NDArray[Any]]
    target_names: tuple[str, ...]
    targets: NDArray[Any]
    labels: tuple[str | int, ...]
    rows: list[int]
    extra: Mapping[str, list[str | None]] = field(default_factory=dict)


def from_memory(
    table: MemoryTable,
    section: DataSection,
    kinds: Mapping[str, str] | None = None,
    formats: Mapping[str, Any] | None = None,
) -> Dataset:
    """Return the dataset of a table. DataError lists cells that are not of the kind of their column.

    Columns of numbers are numbers, unless the job states another kind. Texts that identify rows are left out.

    kinds, formats: those of a dataset with the same columns, of which these are further rows.
    """
    if faults := unknown_input_faults(section, list(table.columns)):
        raise DataError(table.name, faults)
    notes: list[str] = []
    names = list(table.columns) if kinds is None else list(kinds)
    declared = section.kinds if kinds is None else kinds
    numbers = {
        name: table.columns[name]
        for name in names
        if table.columns[name].dtype.kind == "f" and declared.get(name, "number") == "number"
    }
    cells = {name: CellParser().parse(as_texts(table.columns[name])) for name in names if name not in numbers}
    texts = Table(table.name, cells, table.rows, "row")
    if kinds is None:
        reasons = {name: type_inference.identifier_reason(name, found) for name, found in cells.items()}
        left_out = {name: reason for name, reason in reasons.items() if reason and name not in section.kinds}
        if 0 < len(left_out) < len(names):
            listed = ", ".join(f"{name} ({reason})" for name, reason in left_out.items())
            notes.append(f"left out columns that identify rows: {listed}; to use one, write its kind in kinds")
            names = [name for name in names if name not in left_out]
        found_kinds = choose_kinds(texts, [name for name in names if name not in numbers], section)
        kinds = {name: found_kinds.get(name, "number") for name in names}
    text_kinds = {name: kind for name, kind in kinds.items() if name not in numbers}
    if formats is None:
        formats = find_formats(texts, text_kinds, [], "")
        notes += kind_notes(texts, formats)
    texts = empty_missing_words(texts, formats)
    inputs = read_inputs(texts, text_kinds, formats, section)
    notes += type_inference.kind_warnings(texts, text_kinds, section.kinds)
    return Dataset(
        table.name, table.sha256, {name: {**inputs, **numbers}[name] for name in kinds}, dict(kinds),
        table.target_names, table.targets, table.labels, table.rows, notes, "row", dict(table.extra), dict(formats),
    )  # fmt: skip


def as_texts(values: NDArray[Any]) -> Sequence[str | None]:
    """Return the values of a column as the cells of a file: 3 for 3.0, None for a missing one."""
    found: list[Any] = values.tolist()
    if values.dtype.kind != "f":
        return found
    return [None if math.isnan(value) else str(int(value)) if value.is_integer() else repr(value) for value in found]
