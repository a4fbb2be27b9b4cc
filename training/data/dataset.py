"""The dataset: what a job's files say, column by column, with the answers to learn.

Nothing is fitted before `Dataset.signature`, which is told the rows to learn from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.errors import Fault, did_you_mean
from model_store.schema.signature import ClassificationOutput, Signature
from training.config.settings import DataSection
from training.data import fitting, readers, type_inference
from training.data.fitting import fit_signature, statistics_of
from training.data.readers import Arrays, Table
from training.errors import DataError

_LINES_NAMED = 5


@dataclass(frozen=True)
class Dataset:
    """Rows of inputs and their answers.

    `inputs` holds (n,) numbers with NaN for missing, (n,) texts with None for missing, or (n, ...) arrays, as
    `Signature.encode_columns` takes them; `kinds` says which. `answers` is (n,) indices into `labels` for a
    classification, (n, targets) numbers for a regression. `lines` says where in its file a row begins.
    """

    name: str
    sha256: str
    inputs: dict[str, NDArray[Any]]
    kinds: dict[str, str]
    targets: tuple[str, ...]
    answers: NDArray[Any]
    labels: tuple[str | int, ...]
    lines: list[int] | None
    notes: list[str]
    noun: str = "line"  # what `lines` counts

    def __len__(self) -> int:
        return len(self.answers)

    @property
    def task(self) -> str:
        return "classification" if self.labels else "regression"

    def signature(self, section: DataSection, training: NDArray[np.int64]) -> Signature:
        """The preprocessing, fitted on the training rows."""
        columns = ((name, statistics_of(self.kinds[name], self.inputs[name][training])) for name in self.inputs)
        if self.labels:
            return fit_signature(self.name, columns, ClassificationOutput(self.targets[0], self.labels), section)
        targets = zip(self.targets, map(fitting.summary_of, self.answers[training].T), strict=True)
        return fit_signature(self.name, columns, dict(targets), section)

    def location(self, row: int) -> str:
        return f"row {row}" if self.lines is None else f"{self.noun} {self.lines[row]}"

    def locations(self, rows: Sequence[int]) -> str:
        """A few of the rows, for a sentence."""
        if self.lines is None:
            return _some("row", list(rows))
        return _some(self.noun, [self.lines[row] for row in rows])


def load(section: DataSection, folder: Path) -> Dataset:
    """Read the files of a job, relative to `folder`."""
    if section.path is None:
        images, labels = folder / str(section.images), folder / str(section.labels)
        return _of_arrays(readers.read_idx(images, labels), readers.fingerprint([images, labels])[0], section)
    path = folder / section.path
    if path.suffix.lower() == ".npz":
        return _of_arrays(readers.read_npz(path), readers.fingerprint([path])[0], section)
    return _of_table(readers.read_csv(path), readers.fingerprint([path])[0], section)


# Tables --------------------------------------------------------------------------------------------------------------


def _of_table(table: Table, sha256: str, section: DataSection) -> Dataset:
    targets, names = choose_columns(table, section)
    notes: list[str] = []
    table = _with_targets(table, targets, section, notes)
    kinds = infer_kinds(table, names, section)
    inputs: dict[str, NDArray[Any]] = {}
    faults: list[Fault] = []
    total = 0
    for name, kind in kinds.items():
        try:
            if kind == "number":
                inputs[name] = type_inference.numbers(table, name)
            else:
                inputs[name] = type_inference.categories(table, name, sure=name in section.kinds)
        except DataError as error:
            faults += error.faults
            total += error.total
    if section.missing == "refuse":
        refused = [fault for name in names if (fault := _missing(table, name))]
        faults += refused
        total += len(refused)
    if faults:
        raise DataError(table.name, faults, total)
    answers, labels = _answers(table, targets, section, notes)
    notes += type_inference.kind_warnings(table, kinds, section.kinds)
    return Dataset(table.name, sha256, inputs, kinds, tuple(targets), answers, labels, table.lines, notes)


def choose_columns(table: Table, section: DataSection, unfit: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """The target columns and the input columns; those that are `unfit` are no inputs."""
    targets = [section.target] if isinstance(section.target, str) else list(section.target or [])
    names = section.columns or [name for name in table.columns if name not in targets]
    if wrong := [name for name in [*targets, *names] if name in unfit]:
        problem = "expected numbers or texts; found lists, structures, bytes or the index of pandas"
        raise DataError(table.name, [Fault(f"column {name}", problem, "choose other columns") for name in wrong])
    _check_names(table, targets, names, section)
    return targets, names


def infer_kinds(table: Table, names: Sequence[str], section: DataSection) -> dict[str, str]:
    return {name: section.kinds.get(name) or type_inference.infer_kind(table.columns[name]) for name in names}


def infer_task(table: Table, targets: Sequence[str], section: DataSection, notes: list[str]) -> str:
    if section.task is not None:
        return section.task
    task = type_inference.task_of(table, targets)
    notes.append(f"task: {task}, inferred from the target ([data] task = ... decides)")
    return task


def _check_names(table: Table, targets: list[str], names: list[str], section: DataSection) -> None:
    faults = []
    for location, expected in (("data.target", targets), ("data.columns", names)):
        for name in expected:
            if name not in table.columns:
                fix = did_you_mean(name, table.columns) or f"the columns are {', '.join(table.columns)}"
                faults.append(Fault(location, f"there is no column '{name}'", fix))
    for name in section.kinds:
        if name not in names:
            fix = did_you_mean(name, names) or f"the inputs are {', '.join(names)}"
            faults.append(Fault(f"data.kinds.{name}", f"there is no input '{name}'", fix))
    if not names:
        faults.append(Fault("data.columns", "no column is left but the target", "add columns to predict it from"))
    if faults:
        raise DataError(table.name, faults)


def _with_targets(table: Table, targets: list[str], section: DataSection, notes: list[str]) -> Table:
    """The rows whose target is known. The others can teach nothing: they are left out, or refused."""
    cells = list(zip(*(table.columns[target] for target in targets), strict=True))
    kept = [row for row, values in enumerate(cells) if None not in values]
    if len(kept) == len(table):
        return table
    without = _some("line", [table.lines[row] for row, values in enumerate(cells) if None in values])
    location = f"column {targets[0]}" if len(targets) == 1 else f"columns {', '.join(targets)}"
    if not kept:
        raise DataError(table.name, [Fault(location, "the target is missing in every row", "choose another target")])
    if section.missing == "refuse":
        fix = "leave these rows out, or write missing = 'impute' to have that done"
        raise DataError(table.name, [Fault(location, f"the target is missing in {without}", fix)])
    notes.append(f"rows without a target are left out: {without}")
    selected = {name: [cells[row] for row in kept] for name, cells in table.columns.items()}
    return Table(table.name, selected, [table.lines[row] for row in kept])


def _missing(table: Table, name: str) -> Fault | None:
    rows = [row for row, cell in enumerate(table.columns[name]) if cell is None]
    if not rows:
        return None
    where = _some("line", [table.lines[row] for row in rows])
    return Fault(f"column {name}", f"values are missing and refused: {where}", "write missing = 'impute' in [data]")


def _answers(
    table: Table, targets: list[str], section: DataSection, notes: list[str]
) -> tuple[NDArray[Any], tuple[str | int, ...]]:
    if infer_task(table, targets, section, notes) == "regression":
        return np.column_stack([type_inference.numbers(table, target) for target in targets]), ()
    name = targets[0]
    cells = [str(cell) for cell in table.columns[name]]
    if type_inference.identifies(cells):
        problem = f"{len(set(cells))} classes in {len(cells)} rows are too many to learn"
        fix = "for a quantity write task = 'regression'; else choose another target"
        raise DataError(table.name, [Fault(f"column {name}", problem, fix)])
    return classes(table.name, name, type_inference.labels_of(cells))


# Arrays --------------------------------------------------------------------------------------------------------------


def _of_arrays(arrays: Arrays, sha256: str, section: DataSection) -> Dataset:
    name = "image" if arrays.x.ndim > 2 else "features"
    task, targets, notes = plan_arrays(arrays.name, arrays.y.dtype, arrays.y.shape, arrays.y, section)
    answers: NDArray[Any]
    labels: tuple[str | int, ...] = ()
    if task == "classification":
        y = arrays.y.reshape(-1)
        found = [str(label) for label in y] if y.dtype.kind == "U" else [int(label) for label in y]
        answers, labels = classes(arrays.name, targets[0], found)
    else:
        answers = arrays.y.astype(np.float64).reshape(len(arrays), -1)
    x = arrays.x.astype(np.uint8) if arrays.x.dtype.kind == "b" else arrays.x  # callers send 0 and 1
    return Dataset(arrays.name, sha256, {name: x}, {name: "array"}, targets, answers, labels, None, notes)


def plan_arrays(
    source: str, dtype: np.dtype[Any], shape: tuple[int, ...], first: NDArray[Any], section: DataSection
) -> tuple[str, tuple[str, ...], list[str]]:
    """The task, the targets' names and notes, by the type and the shape of all of y and its `first` rows."""
    task, notes = section.task, []
    outputs = math.prod(shape[1:])
    if task is None:
        whole = dtype.kind in "bU" or (dtype.kind in "ui" and few(first))
        task = "classification" if outputs == 1 and whole else "regression"
        notes.append(f"task: {task}, inferred from y ([data] task = ... decides)")
    if task == "classification" and (outputs != 1 or dtype.kind == "f"):
        raise DataError(source, [no_labels(dtype, shape)])
    if task == "regression" and dtype.kind == "U":
        raise DataError(source, [Fault("y", "expected numbers for a regression; found texts", "")])
    return task, target_names(source, section, task, outputs), notes


def target_names(source: str, section: DataSection, task: str, outputs: int) -> tuple[str, ...]:
    if section.target is None:
        name = "label" if task == "classification" else "value"
        return (name,) if outputs == 1 else tuple(f"{name}_{i}" for i in range(outputs))
    names = (section.target,) if isinstance(section.target, str) else tuple(section.target)
    if len(names) != outputs:
        fault = Fault("data.target", f"expected {outputs} names, one for each column of y; found {len(names)}", "")
        raise DataError(source, [fault])
    return names


def no_labels(dtype: np.dtype[Any], shape: tuple[int, ...]) -> Fault:
    """The fault of answers that are no classes."""
    fix = "save y.astype(int) if they are whole" if math.prod(shape[1:]) == 1 else "of one-hot rows y.argmax(axis=1)"
    return Fault("y", f"expected one whole number or text an example; found {dtype} of shape {shape}", fix)


def few(y: NDArray[Any]) -> bool:
    return type_inference.few_classes(len(np.unique(y)), len(y))


def classes(source: str, name: str, found: Sequence[str | int]) -> tuple[NDArray[np.int64], tuple[str | int, ...]]:
    """The labels in order, and for each row the index of its own."""
    labels = sorted(set(found))
    if len(labels) < 2:
        fault = Fault(f"column {name}", f"expected two classes or more; found only {labels[0]!r}", "add rows of others")
        raise DataError(source, [fault])
    index = {label: i for i, label in enumerate(labels)}
    return np.array([index[label] for label in found], np.int64), tuple(labels)


def _some(noun: str, numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:_LINES_NAMED]))
    more = f" and {len(numbers) - _LINES_NAMED} more" if len(numbers) > _LINES_NAMED else ""
    return f"{noun} {shown}" if len(numbers) == 1 else f"{noun}s {shown}{more}"
