"""The dataset in memory: the columns of a job's files and their targets.

Preprocessing is fitted only in `Dataset.signature`, on the training rows that it is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.errors import Fault
from model_store.evaluation.row_results import rows_digest
from model_store.schema.columns.number_text import NumberFormat
from model_store.schema.multi_label import DEFAULT_THRESHOLD, MultiLabelOutput
from model_store.schema.signature import ClassificationOutput, Signature
from model_store.utils.values import list_names
from training.config.settings import DataSection
from training.data.fitting.kinds import COLUMN_KINDS
from training.data.fitting.signature import fit_signature
from training.data.fitting.statistics import summarize
from training.errors import DataError

LABELS_NAME = "labels"  # of the output of a model with a target column for each label


@dataclass(frozen=True)
class TestFile:
    """The file whose `rows` are the last ones of a dataset, for testing only.

    `row_unit` is what `Dataset.lines` counts for them, "index" in arrays.
    """

    name: str
    sha256: str
    rows: int
    row_unit: str


@dataclass(frozen=True)
class Dataset:
    """Rows of inputs with their targets.

    `inputs` holds (n,) numbers with NaN for missing, (n,) strings with None for missing, or (n, ...) arrays, as
    `Signature.encode_columns` takes them; `kinds` says which. `targets` is (n,) indices into `labels` for a
    classification, (n, labels) booleans if a row may have several, (n, outputs) numbers for a regression.
    `lines` holds the line of the file on which each row begins, or what `row_unit` says. `extra` holds the cells of
    columns that are no inputs, such as that of a split. `formats` says how the cells of columns are written, after
    `decimal_commas` became points.
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
    decimal_commas: Sequence[str] = ()
    test_file: TestFile | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def task(self) -> str:
        return ("classification" if self.classes else "multi_label") if self.labels else "regression"

    @property
    def classes(self) -> tuple[str | int, ...]:
        """The labels of a classification, of which a row has one; none if rows may have several."""
        return self.labels if self.targets.ndim == 1 else ()

    def signature(self, section: DataSection, training: NDArray[np.int64]) -> Signature:
        """Return the signature with the preprocessing fitted on the `training` rows."""
        columns = (
            (name, kind, COLUMN_KINDS[kind].statistics(self.inputs[name][training]))
            for name, kind in self.kinds.items()
        )
        if self.labels:
            output = self.classifier_output(section)
            return fit_signature(self.name, columns, output, section, self.incomplete_columns(), self.text_formats)
        summaries = dict(zip(self.target_names, map(summarize, self.targets[training].T), strict=True))
        return fit_signature(self.name, columns, summaries, section, self.incomplete_columns(), self.text_formats)

    @property
    def text_formats(self) -> dict[str, Any]:
        """How the service reads texts of the columns: as the file has them, with decimal commas if it has such."""
        commas = {name: NumberFormat(",") for name in self.decimal_commas if self.kinds.get(name) == "number"}
        return {**commas, **self.formats}

    def classifier_output(self, section: DataSection) -> ClassificationOutput | MultiLabelOutput:
        """Return the output of a model for these labels."""
        if self.classes:
            return ClassificationOutput(self.target_names[0], self.classes)
        name = self.target_names[0] if section.label_separator is not None else LABELS_NAME
        threshold = section.label_threshold or DEFAULT_THRESHOLD
        return MultiLabelOutput(name, tuple(map(str, self.labels)), section.label_separator, threshold)

    def incomplete_columns(self) -> set[str]:
        """Return the columns in which a value is missing, in any row."""
        return {name for name, kind in self.kinds.items() if COLUMN_KINDS[kind].has_missing(self.inputs[name])}

    def location(self, row: int) -> str:
        """Return the location of a row for a message, such as "line 7"."""
        start = len(self) if self.test_file is None else len(self) - self.test_file.rows
        file, unit = "", self.row_unit
        if self.test_file is not None and row >= start:
            file, unit = f"{self.test_file.name}, ", self.test_file.row_unit.replace("index", "row")
        return f"{file}row {row - start * bool(file)}" if self.lines is None else f"{file}{unit} {self.lines[row]}"

    def rows_digest(self, rows: NDArray[np.int64]) -> str:
        """Return a digest that two datasets share for the same rows of the same file with the same target."""
        sha256, start, unit = self.sha256, 0, self.row_unit
        if self.test_file is not None and (rows >= len(self) - self.test_file.rows).all():
            sha256, start = self.test_file.sha256, len(self) - self.test_file.rows
            unit = self.test_file.row_unit
        numbers = rows - start if self.lines is None else np.array(self.lines)[rows]
        unit = "index" if self.lines is None else unit
        return rows_digest(sha256, self.target_names, self.labels, unit, numbers)

    def with_test_file(self, other: Dataset) -> Dataset:
        """Return these rows, then those of `other`, a test file with the same columns and labels."""
        lines = None if self.lines is None else self.lines + (other.lines or list(range(len(other))))
        return replace(
            self,
            inputs={name: np.concatenate([values, other.inputs[name]]) for name, values in self.inputs.items()},
            targets=np.concatenate([self.targets, other.targets]),
            lines=lines,
            notes=self.notes + [f"{other.name}: {note}" for note in other.notes],
            extra={name: cells + other.extra[name] for name, cells in self.extra.items()},
            test_file=TestFile(
                other.name, other.sha256, len(other), "index" if other.lines is None else other.row_unit
            ),
        )


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
