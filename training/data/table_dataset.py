"""The dataset of a table: its target and input columns, their kinds, the task, and the rows that are used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.errors import Fault, did_you_mean
from model_store.schema.columns.date_text import infer_date_format
from model_store.utils.values import list_names
from training.config.settings import DataSection
from training.data import type_inference
from training.data.dataset import Dataset, encode_labels
from training.data.fitting.kinds import COLUMN_KINDS, infer_kind
from training.data.multi_label import are_flags, missing_label_note, parse_flags, parse_label_texts
from training.data.readers import Table
from training.data.type_inference import identifier_reason
from training.errors import DataError

_MAX_LISTED_ROWS = 5
UNSUPPORTED = "lists, structures, bytes or the index of pandas"  # what the columns that no reader reads hold


def from_table(
    table: Table,
    sha256: str,
    section: DataSection,
    extra: Mapping[str, str],
    known: Sequence[str | int] | None,
    formats: Mapping[str, Any] | None,
) -> Dataset:
    notes = table_notes(table, section)
    target_names, names = choose_columns(table, section, notes=notes, extra=extra)
    task = choose_task(table, target_names, section, notes)
    found = find_formats(table, {}, target_names, task) if formats is None else formats
    notes += kind_notes(table, {name: found[name] for name in target_names if name in found})
    table = drop_rows_without_target(empty_missing_words(table, found), target_names, section, notes)
    kinds = choose_kinds(table, names, section)  # of the rows that are used
    formats = {**found, **find_formats(table, kinds, [], task)} if formats is None else formats
    notes += kind_notes(table, {name: written for name, written in formats.items() if name not in target_names})
    table = empty_missing_words(table, formats)
    inputs = read_inputs(table, kinds, formats, section)
    targets, labels = _parse_targets(table, target_names, task, section.label_separator, formats, known)
    notes += type_inference.kind_warnings(table, kinds, section.kinds)
    return Dataset(
        table.name, sha256, inputs, kinds, tuple(target_names), targets, labels, table.lines, notes, table.row_unit,
        extra={name: table.columns[name] for name in extra.values()}, formats=dict(formats),
        decimal_commas=table.decimal_commas,
    )  # fmt: skip


def read_inputs(
    table: Table, kinds: Mapping[str, str], formats: Mapping[str, Any], section: DataSection
) -> dict[str, NDArray[Any]]:
    """Return the columns `kinds` as `Dataset.inputs`. DataError lists the invalid cells of all columns."""
    inputs: dict[str, NDArray[Any]] = {}
    faults: list[Fault] = []
    total = 0
    for name, kind in kinds.items():
        try:
            inputs[name] = COLUMN_KINDS[kind].read(table, name, formats.get(name), declared=name in section.kinds)
        except DataError as error:
            faults += error.faults
            total += error.total
    if section.missing == "refuse":
        missing = [fault for name in kinds if (fault := _missing_value_fault(table, name))]
        faults += missing
        total += len(missing)
    if faults:
        raise DataError(table.name, faults, total)
    return inputs


def table_notes(table: Table, section: DataSection) -> list[str]:
    """Return what the reader of a table notes, and the columns that it could not read if the job lists none."""
    notes = list(table.notes)
    if table.unsupported and section.columns is None:
        names = ", ".join(table.unsupported)
        notes.append(f"ignored columns ({UNSUPPORTED}): {names}")
    return notes


def choose_columns(
    table: Table, section: DataSection, *, notes: list[str], extra: Mapping[str, str] = MappingProxyType({})
) -> tuple[list[str], list[str]]:
    """Return the names of the target and the input columns. DataError if one does not exist or is unsupported.

    If the job does not list its columns, identifiers of rows are left out if there are others, and `notes` says so.
    The `extra` columns of `load` are inputs only if the job lists them.
    """
    targets = [section.target] if isinstance(section.target, str) else list(section.target or [])
    inputs = section.columns
    if inputs is None:
        inputs = [name for name in table.columns if name not in (*targets, *extra.values())]
        stated = (*table.unsupported, *section.kinds, *section.optional_names, *section.asinh_names)
        reasons = {name: identifier_reason(name, table.columns[name]) for name in inputs if name not in stated}
        identifiers = {name: reason for name, reason in reasons.items() if reason}
        if 0 < len(identifiers) < len(inputs):
            inputs = [name for name in inputs if name not in identifiers]
            found = ", ".join(f"{name} ({reason})" for name, reason in identifiers.items())
            notes.append(f"left out columns that identify rows: {found}; to use one, list all columns in data.columns")
    if wrong := [name for name in [*targets, *inputs] if name in table.unsupported]:
        problem = f"expected numbers or strings, found {UNSUPPORTED}"
        raise DataError(table.name, [Fault(f"column {name}", problem, "choose other columns") for name in wrong])
    faults = []
    listed = [("data.target", targets), ("data.columns", inputs), *((key, [name]) for key, name in extra.items())]
    for location, names in listed:
        for name in names:
            if name not in table.columns:
                fix = did_you_mean(name, table.columns) or f"the columns are {list_names(list(table.columns))}"
                faults.append(Fault(location, f"unknown column '{name}'", fix))
    faults += unknown_input_faults(section, inputs)
    if not inputs:
        faults.append(Fault("data.columns", "no input column is left", "add input columns"))
    if faults:
        raise DataError(table.name, faults)
    return targets, inputs


def unknown_input_faults(section: DataSection, inputs: Sequence[str]) -> list[Fault]:
    """Return a fault for each key of the job that names a column which is no input."""
    named = [(f"data.kinds.{name}", name) for name in section.kinds]
    named += [("data.optional", name) for name in section.optional_names]
    named += [("data.asinh", name) for name in section.asinh_names]
    return [
        Fault(
            location,
            f"unknown input '{name}'",
            did_you_mean(name, inputs) or f"the inputs are {list_names(list(inputs))}",
        )
        for location, name in named
        if name not in inputs
    ]


def choose_kinds(table: Table, names: Sequence[str], section: DataSection) -> dict[str, str]:
    """Return the kinds of columns: those of the job file, the others inferred."""
    return {name: section.kinds.get(name) or infer_kind(table.columns[name]) for name in names}


def choose_task(table: Table, target_names: Sequence[str], section: DataSection, notes: list[str]) -> str:
    """Return the task of the job file, or infer it from the target and add a note."""
    if section.task is not None or section.label_separator is not None:
        return section.task or "multi_label"
    several = len(target_names) > 1 and are_flags([table.columns[name] for name in target_names])
    task = "multi_label" if several else type_inference.infer_task(table, target_names)
    notes.append(f"task: {task}, inferred from the target (set task in [data] to override)")
    return task


def drop_rows_without_target(table: Table, target_names: list[str], section: DataSection, notes: list[str]) -> Table:
    """Return the rows whose target is known. DataError if missing values are refused.

    A cell without a text of labels means that the row has none of them.
    """
    if section.label_separator is not None and section.missing != "refuse":
        if empty := table.columns[target_names[0]].count(None):
            notes.append(missing_label_note(target_names[0], empty))
        return table
    cells = list(zip(*(table.columns[target] for target in target_names), strict=True))
    kept = [row for row, values in enumerate(cells) if None not in values]
    if len(kept) == len(table):
        return table
    dropped = _list_rows(table.row_unit, [table.lines[row] for row, values in enumerate(cells) if None in values])
    location = f"column {target_names[0]}" if len(target_names) == 1 else f"columns {', '.join(target_names)}"
    if not kept:
        raise DataError(table.name, [Fault(location, "the target is missing in every row", "choose another target")])
    if section.missing == "refuse":
        fix = "remove these rows, or write missing = 'impute' in [data] to ignore them"
        raise DataError(table.name, [Fault(location, f"the target is missing: {dropped}", fix)])
    notes.append(f"ignored rows without a target: {dropped}")
    columns = {name: [cells[row] for row in kept] for name, cells in table.columns.items()}
    return replace(table, columns=columns, lines=[table.lines[row] for row in kept])


def find_formats(table: Table, kinds: Mapping[str, str], targets: Sequence[str], task: str) -> dict[str, Any]:
    """Return how the cells of inputs and of targets of a regression are written, without columns of plain values."""
    kinds = {**kinds, **(dict.fromkeys(targets, "number") if task == "regression" else {})}
    found = {name: COLUMN_KINDS[kind].find_format(table.columns[name]) for name, kind in kinds.items()}
    return {name: written for name, written in found.items() if written is not None}


def kind_notes(table: Table, formats: Mapping[str, Any]) -> list[str]:
    """Return a note of each column whose cells are not plain numbers or texts: how they are read."""
    notes = {name: written.describe(name, table.columns[name]) for name, written in formats.items()}
    return [f"{note} (data.kinds and data.task override this)" for note in notes.values() if note]


def empty_missing_words(table: Table, formats: Mapping[str, Any]) -> Table:
    """Return the table without the words that mean a missing value in its column."""
    columns = dict(table.columns)
    for name, written in formats.items():
        if words := getattr(written, "missing", ()):
            columns[name] = [None if cell in words else cell for cell in columns[name]]
    return replace(table, columns=columns)


def _missing_value_fault(table: Table, name: str) -> Fault | None:
    rows = [row for row, cell in enumerate(table.columns[name]) if cell is None]
    if not rows:
        return None
    where = _list_rows(table.row_unit, [table.lines[row] for row in rows])
    return Fault(f"column {name}", f"missing values: {where}", "write missing = 'impute' in [data]")


def _parse_targets(
    table: Table,
    target_names: list[str],
    task: str,
    separator: str | None,
    formats: Mapping[str, Any],
    known: Sequence[str | int] | None,
) -> tuple[NDArray[Any], tuple[str | int, ...]]:
    if separator is not None:
        return parse_label_texts(table, target_names[0], separator, known)
    if task == "multi_label":
        return parse_flags(table, target_names), tuple(target_names)
    if task == "regression":
        values = [type_inference.parse_numbers(table, target, formats.get(target)) for target in target_names]
        return np.column_stack(values), ()
    if known is None:
        check_classes(table, target_names[0])
    cells = [str(cell) for cell in table.columns[target_names[0]]]
    return encode_labels(table.name, target_names[0], type_inference.parse_labels(cells), known)


def check_classes(table: Table, target: str) -> None:
    """Raise DataError if the target of a classification has too many classes."""
    cells = [cell for cell in table.columns[target] if cell is not None]
    if type_inference.looks_like_identifier(cells):
        distinct = set(cells)
        problem, fix = f"too many classes: {len(distinct)} in {len(cells)} rows", "write task = 'regression' in [data]"
        if infer_date_format(distinct) is not None:
            problem = f"expected numbers or classes, found {len(distinct)} dates, such as {cells[0]!r}"
            fix = "write numbers instead, such as the days since a start, or choose another target"
        elif not type_inference.are_numbers(cells):
            fix = "choose another target, or give all rare classes one name"
        raise DataError(table.name, [Fault(f"column {target}", problem, fix)])


def _list_rows(unit: str, numbers: list[int]) -> str:
    """Return "line 3", or "lines 3, 4, ..." with a few of the numbers."""
    listed = ", ".join(map(str, numbers[:_MAX_LISTED_ROWS]))
    more = f" and {len(numbers) - _MAX_LISTED_ROWS} more" if len(numbers) > _MAX_LISTED_ROWS else ""
    return f"{unit} {listed}" if len(numbers) == 1 else f"{unit}s {listed}{more}"
