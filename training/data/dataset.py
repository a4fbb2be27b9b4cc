"""The dataset in memory: the columns of a job's files and their targets.

Preprocessing is fitted only in `Dataset.signature`, on the training rows that it is given.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.errors import Fault, did_you_mean
from model_store.evaluation.row_results import rows_digest
from model_store.schema.signature import ClassificationOutput, Signature
from model_store.tables.formats import is_table
from model_store.utils.values import list_names
from training.config.settings import DataSection
from training.data import readers, type_inference
from training.data.fingerprint import Fingerprint
from training.data.fitting import COLUMN_KINDS, fit_signature, infer_kind, summarize
from training.data.readers import Arrays, Table
from training.data.tables import open_job_table, read_table
from training.data.type_inference import identifier_reason
from training.errors import DataError

_MAX_LISTED_ROWS = 5


@dataclass(frozen=True)
class TestFile:
    """The file whose `rows` are the last ones of a dataset, for testing only."""

    name: str
    sha256: str
    rows: int


@dataclass(frozen=True)
class Dataset:
    """Rows of inputs with their targets.

    `inputs` holds (n,) numbers with NaN for missing, (n,) strings with None for missing, or (n, ...) arrays, as
    `Signature.encode_columns` takes them; `kinds` says which. `targets` is (n,) indices into `labels` for a
    classification, (n, outputs) numbers for a regression. `lines` holds the line of the file on which each row begins,
    or what `row_unit` says. `extra` holds the cells of columns that are no inputs, such as that of a split.
    `test_file`, if there is one, holds the last rows.
    """

    name: str
    sha256: str
    inputs: dict[str, NDArray[Any]]
    kinds: dict[str, str]
    target_names: tuple[str, ...]
    targets: NDArray[Any]
    labels: tuple[str | int, ...]
    lines: list[int] | None
    notes: list[str]
    row_unit: str = "line"
    extra: dict[str, list[str | None]] = field(default_factory=dict)
    formats: dict[str, Any] = field(default_factory=dict)
    test_file: TestFile | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def task(self) -> str:
        return "classification" if self.labels else "regression"

    def signature(self, section: DataSection, training: NDArray[np.int64]) -> Signature:
        """Return the signature with the preprocessing fitted on the `training` rows."""
        columns = (
            (name, kind, COLUMN_KINDS[kind].statistics(self.inputs[name][training]))
            for name, kind in self.kinds.items()
        )
        if self.labels:
            output = ClassificationOutput(self.target_names[0], self.labels)
            return fit_signature(self.name, columns, output, section, self.incomplete_columns(), self.formats)
        summaries = dict(zip(self.target_names, map(summarize, self.targets[training].T), strict=True))
        return fit_signature(self.name, columns, summaries, section, self.incomplete_columns(), self.formats)

    def incomplete_columns(self) -> set[str]:
        """Return the columns in which a value is missing, in any row."""
        return {name for name, kind in self.kinds.items() if COLUMN_KINDS[kind].has_missing(self.inputs[name])}

    def location(self, row: int) -> str:
        """Return the location of a row for a message, such as "line 7"."""
        start = len(self) if self.test_file is None else len(self) - self.test_file.rows
        file = "" if self.test_file is None or row < start else f"{self.test_file.name}, "
        return (
            f"{file}row {row - start * bool(file)}"
            if self.lines is None
            else f"{file}{self.row_unit} {self.lines[row]}"
        )

    def rows_digest(self, rows: NDArray[np.int64]) -> str:
        """Return a digest that two datasets share for the same rows of the same file with the same target."""
        sha256, start = self.sha256, 0
        if self.test_file is not None and (rows >= len(self) - self.test_file.rows).all():
            sha256, start = self.test_file.sha256, len(self) - self.test_file.rows
        numbers = rows - start if self.lines is None else np.array(self.lines)[rows]
        unit = "index" if self.lines is None else self.row_unit
        return rows_digest(sha256, self.target_names, self.labels, unit, numbers)

    def with_test_file(self, other: Dataset) -> Dataset:
        """Return these rows, then those of `other`, a test file with the same columns and labels."""
        lines = None if self.lines is None or other.lines is None else self.lines + other.lines
        return replace(
            self,
            inputs={name: np.concatenate([values, other.inputs[name]]) for name, values in self.inputs.items()},
            targets=np.concatenate([self.targets, other.targets]),
            lines=lines,
            notes=self.notes + [f"{other.name}: {note}" for note in other.notes],
            extra={name: cells + other.extra[name] for name, cells in self.extra.items()},
            test_file=TestFile(other.name, other.sha256, len(other)),
        )


def load(
    section: DataSection,
    folder: Path,
    extra: Mapping[str, str] = MappingProxyType({}),
    labels: Sequence[str | int] | None = None,
    formats: Mapping[str, Any] | None = None,
) -> Dataset:
    """Read the files of a job, relative to `folder`. DataError if one changes while it is read.

    extra: columns that are read besides inputs and targets, by the keys of the job that name them.
    labels: the known labels of a classification; by default those that the file has.
    formats: how the cells of columns are written; by default inferred.
    """
    names = (section.images, section.labels) if section.path is None else (section.path,)
    paths = [folder / str(name) for name in names]
    fingerprint = Fingerprint.of(*paths)
    if section.path is not None and is_table(section.path):
        table = read_table(open_job_table(paths[0], section))
        fingerprint.check_unchanged()
        return _from_table(table, fingerprint.sha256, section, extra, labels, formats)
    arrays = readers.read_idx(*paths) if section.path is None else readers.read_npz(paths[0])
    fingerprint.check_unchanged()
    return _from_arrays(arrays, fingerprint.sha256, section, labels)


def load_test_file(
    section: DataSection, folder: Path, path: str, training: Dataset, extra: Mapping[str, str] = MappingProxyType({})
) -> Dataset:
    """Read a file for testing, whose columns mean what they mean in the `training` file.

    DataError if it lacks a column, or has a class that no training row has.
    """
    own = replace(section, path=path, task=training.task)
    if "array" not in training.kinds.values():
        own = replace(own, columns=list(training.inputs), kinds=dict(training.kinds))
    found = load(own, folder, extra, training.labels or None, training.formats)
    wanted, other = (
        {name: values.shape[1:] for name, values in (*one.inputs.items(), ("y", one.targets))}
        for one in (training, found)
    )
    if wanted != other:
        name = next(name for name in wanted if wanted[name] != other.get(name))
        problem = f"expected rows of shape {wanted[name]}, as in {training.name}, found {other.get(name)}"
        raise DataError(found.name, [Fault(name, problem, "use arrays of the same shape")])
    return found


# Tables --------------------------------------------------------------------------------------------------------------


def _from_table(
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
    table = drop_rows_without_target(_empty_missing_words(table, found), target_names, section, notes)
    kinds = choose_kinds(table, names, section)  # of the rows that are used
    formats = {**found, **find_formats(table, kinds, [], task)} if formats is None else formats
    notes += kind_notes(table, {name: written for name, written in formats.items() if name not in target_names})
    table = _empty_missing_words(table, formats)
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
        missing = [fault for name in names if (fault := _missing_value_fault(table, name))]
        faults += missing
        total += len(missing)
    if faults:
        raise DataError(table.name, faults, total)
    targets, labels = _parse_targets(table, target_names, task, formats, known)
    notes += type_inference.kind_warnings(table, kinds, section.kinds)
    return Dataset(
        table.name, sha256, inputs, kinds, tuple(target_names), targets, labels, table.lines, notes, table.row_unit,
        extra={name: table.columns[name] for name in extra.values()}, formats=dict(formats),
    )  # fmt: skip


def table_notes(table: Table, section: DataSection) -> list[str]:
    """Return what the reader of a table notes, and the columns that it could not read if the job lists none."""
    notes = list(table.notes)
    if table.unsupported and section.columns is None:
        names = ", ".join(table.unsupported)
        notes.append(f"ignored columns (lists, structures, bytes, durations or the index of pandas): {names}")
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
        stated = (*table.unsupported, *section.kinds, *(section.optional or ()))
        reasons = {name: identifier_reason(name, table.columns[name]) for name in inputs if name not in stated}
        identifiers = {name: reason for name, reason in reasons.items() if reason}
        if 0 < len(identifiers) < len(inputs):
            inputs = [name for name in inputs if name not in identifiers]
            found = ", ".join(f"{name} ({reason})" for name, reason in identifiers.items())
            notes.append(f"left out columns that identify rows: {found}; to use one, list all columns in data.columns")
    if wrong := [name for name in [*targets, *inputs] if name in table.unsupported]:
        problem = "expected numbers or strings, found lists, structures, bytes, durations or the index of pandas"
        raise DataError(table.name, [Fault(f"column {name}", problem, "choose other columns") for name in wrong])
    faults = []
    listed = [("data.target", targets), ("data.columns", inputs), *((key, [name]) for key, name in extra.items())]
    for location, names in listed:
        for name in names:
            if name not in table.columns:
                fix = did_you_mean(name, table.columns) or f"the columns are {', '.join(table.columns)}"
                faults.append(Fault(location, f"unknown column '{name}'", fix))
    named = [(f"data.kinds.{name}", name) for name in section.kinds]
    named += [("data.optional", name) for name in section.optional or ()]
    for location, name in named:
        if name not in inputs:
            fix = did_you_mean(name, inputs) or f"the inputs are {', '.join(inputs)}"
            faults.append(Fault(location, f"unknown input '{name}'", fix))
    if not inputs:
        faults.append(Fault("data.columns", "no input column is left", "add input columns"))
    if faults:
        raise DataError(table.name, faults)
    return targets, inputs


def choose_kinds(table: Table, names: Sequence[str], section: DataSection) -> dict[str, str]:
    """Return the kinds of columns: those of the job file, the others inferred."""
    return {name: section.kinds.get(name) or infer_kind(table.columns[name]) for name in names}


def choose_task(table: Table, target_names: Sequence[str], section: DataSection, notes: list[str]) -> str:
    """Return the task of the job file, or infer it from the target and add a note."""
    if section.task is not None:
        return section.task
    task = type_inference.infer_task(table, target_names)
    notes.append(f"task: {task}, inferred from the target (set task in [data] to override)")
    return task


def drop_rows_without_target(table: Table, target_names: list[str], section: DataSection, notes: list[str]) -> Table:
    """Return the rows whose target is known. DataError if missing values are refused."""
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


def _empty_missing_words(table: Table, formats: Mapping[str, Any]) -> Table:
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
    formats: Mapping[str, Any],
    known: Sequence[str | int] | None,
) -> tuple[NDArray[Any], tuple[str | int, ...]]:
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
        problem = f"too many classes: {len(set(cells))} in {len(cells)} rows"
        fix = "write task = 'regression' if it is a quantity, or choose another target"
        raise DataError(table.name, [Fault(f"column {target}", problem, fix)])


# Arrays --------------------------------------------------------------------------------------------------------------


def _from_arrays(arrays: Arrays, sha256: str, section: DataSection, known: Sequence[str | int] | None) -> Dataset:
    name = "image" if arrays.x.ndim > 2 else "features"
    task, target_names, notes = infer_array_task(arrays.name, arrays.y.dtype, arrays.y.shape, arrays.y, section)
    targets: NDArray[Any]
    labels: tuple[str | int, ...] = ()
    if task == "classification":
        y = arrays.y.reshape(-1)
        found = [str(label) for label in y] if y.dtype.kind == "U" else [int(label) for label in y]
        targets, labels = encode_labels(arrays.name, target_names[0], found, known)
    else:
        targets = arrays.y.astype(np.float64).reshape(len(arrays), -1)
    x = arrays.x.astype(np.uint8) if arrays.x.dtype.kind == "b" else arrays.x  # clients send 0 and 1
    return Dataset(arrays.name, sha256, {name: x}, {name: "array"}, target_names, targets, labels, None, notes)


def infer_array_task(
    source: str, dtype: np.dtype[Any], shape: tuple[int, ...], first: NDArray[Any], section: DataSection
) -> tuple[str, tuple[str, ...], list[str]]:
    """Return the task, the target names and notes, from the type and shape of y and its `first` rows."""
    task, notes = section.task, []
    outputs = math.prod(shape[1:])
    if task is None:
        is_label = dtype.kind in "bU" or (
            dtype.kind in "ui" and type_inference.may_be_classes(len(np.unique(first)), len(first))
        )
        task = "classification" if outputs == 1 and is_label else "regression"
        notes.append(f"task: {task}, inferred from y (set task in [data] to override)")
    if task == "classification" and (outputs != 1 or dtype.kind == "f"):
        fix = "save y.astype(int) if they are integers" if outputs == 1 else "save y.argmax(axis=1) for one-hot rows"
        problem = f"expected one integer or string per example, found {dtype} of shape {shape}"
        raise DataError(source, [Fault("y", problem, fix)])
    if task == "regression" and dtype.kind == "U":
        raise DataError(source, [Fault("y", "expected numbers for a regression, found strings", "")])
    return task, _name_targets(source, section, task, outputs), notes


def _name_targets(source: str, section: DataSection, task: str, outputs: int) -> tuple[str, ...]:
    if section.target is None:
        name = "label" if task == "classification" else "value"
        return (name,) if outputs == 1 else tuple(f"{name}_{i}" for i in range(outputs))
    names = (section.target,) if isinstance(section.target, str) else tuple(section.target)
    if len(names) != outputs:
        fault = Fault("data.target", f"expected {outputs} names, one for each column of y, found {len(names)}", "")
        raise DataError(source, [fault])
    return names


def encode_labels(
    source: str, name: str, found: Sequence[str | int], known: Sequence[str | int] | None = None
) -> tuple[NDArray[np.int64], tuple[str | int, ...]]:
    """Return the index of each row's label, and the labels in order: those that are found, or the `known` ones.

    DataError if there is only one, or if one is not known.
    """
    labels = sorted(set(found)) if known is None else list(known)
    if len(labels) < 2:
        problem = f"expected at least two classes, found only {labels[0]!r}"
        raise DataError(source, [Fault(f"column {name}", problem, "add rows of other classes")])
    index = {str(label): i for i, label in enumerate(labels)}
    if unknown := sorted({str(label) for label in found} - index.keys()):
        problem = f"no training row has the class {list_names(list(map(repr, unknown)), 5)}"
        raise DataError(source, [Fault(f"column {name}", problem, "remove its rows, or train on rows of it")])
    return np.array([index[str(label)] for label in found], np.int64), tuple(labels)


def _list_rows(unit: str, numbers: list[int]) -> str:
    """Return "line 3", or "lines 3, 4, ..." with a few of the numbers."""
    listed = ", ".join(map(str, numbers[:_MAX_LISTED_ROWS]))
    more = f" and {len(numbers) - _MAX_LISTED_ROWS} more" if len(numbers) > _MAX_LISTED_ROWS else ""
    return f"{unit} {listed}" if len(numbers) == 1 else f"{unit}s {listed}{more}"
