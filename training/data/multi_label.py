"""Multi-label targets: a column for each label that says whether a row has it, or one column of texts with all labels.

Both become (n, labels) booleans, true where a row has the label.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.errors import Fault
from model_store.schema.columns.boolean_words import ENGLISH, BooleanWords, find_boolean_words
from model_store.utils.values import describe_value, list_names, parse_finite_number
from training.available_memory import check_memory
from training.data.checks.leakage import find_leakage
from training.data.readers import Table
from training.data.type_inference import MAX_CATEGORIES, are_numbers
from training.errors import MAX_SHOWN_FAULTS, DataError

MAX_LABELS = MAX_CATEGORIES  # of a column of texts
SEPARATORS = ("|", ";", ",", "/")  # that `train init` looks for
_MAX_SUGGESTED_LABELS = 100
_MIN_SEPARATED_SHARE = 0.1  # of the texts have a separator
_MIN_REPEATS = 3  # of a label, on average
_MAX_LABEL_LENGTH = 40  # longer ones are sentences
_MAX_CHECKED_LABELS = 10  # for leakage
_MAX_LISTED = 5
_BYTES_PER_VALUE = 13  # of a target, measured: here, as a number that the network learns, in losses and metrics


def flag_words(cells: Sequence[str | None]) -> BooleanWords:
    """Return the words for yes and no in the language of a column; English ones if there is none."""
    texts = {cell for cell in cells if cell is not None and parse_finite_number(cell) is None}
    return find_boolean_words(texts) or ENGLISH


def parse_flag(cell: str, words: BooleanWords) -> float | None:
    """Return 1 for 1, true, yes and their spellings, 0 for 0, false and no, None for anything else."""
    if (number := parse_finite_number(cell)) is not None:
        return number if number in (0, 1) else None
    text = cell.lower()
    return 1.0 if text in words.true else 0.0 if text in words.false else None


@dataclass(frozen=True)
class FlagFormat:
    """How the cells of a target column say whether a row has its label, for the readers of streams."""

    words: BooleanWords

    def parse(self, text: str) -> float | None:
        return parse_flag(text, self.words)

    def describe(self, name: str, cells: Sequence[str | None]) -> str:
        """Return no note: a flag is read as it says."""
        del name, cells
        return ""


def are_flags(columns: Sequence[Sequence[str | None]]) -> bool:
    """Return True if all cells of the columns that are not missing say yes or no, and not all the same."""
    found = []
    for cells in columns:
        words = flag_words(cells)
        found.append({parse_flag(cell, words) for cell in {*cells} if cell is not None})
    return all(flags <= {0.0, 1.0} for flags in found) and {0.0, 1.0} in found


def parse_flags(table: Table, names: Sequence[str]) -> NDArray[np.bool_]:
    """Return a column for each label as (n, labels) booleans. DataError lists the cells that say neither yes nor no."""
    values = _allocate(table.name, len(table), len(names))
    faults: list[Fault] = []
    total = 0
    for i, name in enumerate(names):
        words = flag_words(table.columns[name])
        for row, cell in enumerate(table.columns[name]):
            flag = None if cell is None else parse_flag(cell, words)
            if flag is None:
                total += 1
                if len(faults) < MAX_SHOWN_FAULTS:
                    problem = f"expected 0 or 1, or yes or no, found {describe_value(cell)}"
                    fix = "correct the cell, or write task = 'regression' in [data] for quantities"
                    faults.append(Fault(f"{table.row_unit} {table.lines[row]}, column {name}", problem, fix))
            else:
                values[row, i] = flag == 1
    if faults:
        raise DataError(table.name, faults, total)
    return values


def split_labels(cell: str | None, separator: str) -> list[str]:
    """Return the labels of a cell such as "action|comedy"; none of a missing one."""
    return [] if cell is None else [label for part in cell.split(separator) if (label := part.strip())]


def parse_label_texts(
    table: Table, name: str, separator: str, known: Sequence[str | int] | None = None
) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Return a column of texts as (n, labels) booleans, and the labels: those that are found, sorted, or the `known`.

    DataError if there are fewer than two labels, too many, one that is not known, or too little memory.
    """
    rows = [split_labels(cell, separator) for cell in table.columns[name]]
    found = {label for row in rows for label in row}
    labels = tuple(sorted(found)) if known is None else tuple(map(str, known))
    if known is None:
        check_label_texts(table.name, name, separator, found, are_several=any(len(row) > 1 for row in rows))
    elif unknown := sorted(found - set(labels)):
        problem = f"no training row has the label {list_names(list(map(repr, unknown)), _MAX_LISTED)}"
        fix = "remove it from the rows, or train on rows with it"
        raise DataError(table.name, [Fault(f"column {name}", problem, fix)])
    index = {label: i for i, label in enumerate(labels)}
    values = _allocate(table.name, len(rows), len(labels))
    for row, present in enumerate(rows):
        values[row, [index[label] for label in present]] = True
    return values, labels


def check_label_texts(source: str, name: str, separator: str, labels: Collection[str], *, are_several: bool) -> None:
    """Raise DataError if a column of texts has these labels, fewer than two or too many, or no row has several."""
    if labels and not are_several:
        problem = f"expected labels separated by {separator!r}, found no cell with two of them"
        fix = "correct data.label_separator, or remove it if a row has one label"
    elif len(labels) < 2:
        problem = f"expected two labels or more separated by {separator!r}, found {list_names(list(labels)) or 'none'}"
        fix = "choose another data.label_separator or target"
    elif len(labels) > MAX_LABELS:
        problem = f"expected at most {MAX_LABELS} labels separated by {separator!r}, found more"
        fix = "remove rare labels from the column, or choose another target"
    else:
        return
    raise DataError(source, [Fault(f"column {name}", problem, fix)])


def missing_label_note(name: str, rows: int) -> str:
    """Return the note on rows whose cell has no text of labels."""
    return f"{'1 row has' if rows == 1 else f'{rows} rows have'} no label: the cell of {name} is empty"


def _allocate(source: str, rows: int, labels: int) -> NDArray[np.bool_]:
    """Return (rows, labels) booleans, all false. DataError if training on them takes more memory than there is."""
    try:
        check_memory(rows * labels * _BYTES_PER_VALUE)
    except MemoryError as error:
        problem = f"{rows} rows of {labels} labels do not fit in memory: {error}"
        raise DataError(source, [Fault("data.target", problem, "remove rare labels, or use fewer rows")]) from error
    return np.zeros((rows, labels), bool)


def infer_separator(cells: Sequence[str | None]) -> str | None:
    """Return the separator of texts that clearly list labels, such as "action|comedy", else None.

    Rows have different numbers of labels, and a few labels make more texts than there are labels: in "Boston, MA" and
    "Asian / Pacific" the parts belong together.
    """
    texts = Counter(cell for cell in cells if cell is not None)
    for separator in SEPARATORS:
        counts, lengths = Counter[str](), Counter[int]()
        for text, repeats in texts.items():
            labels = split_labels(text, separator)
            lengths[len(labels)] += repeats
            for label in labels:
                counts[label] += repeats
        several = sum(count for length, count in lengths.items() if length > 1)
        if len(lengths) < 2 or several < _MIN_SEPARATED_SHARE * texts.total():
            continue
        few = len(counts) <= min(_MAX_SUGGESTED_LABELS, counts.total() / _MIN_REPEATS, len(texts) - 1)
        if few and max(map(len, counts)) <= _MAX_LABEL_LENGTH and not are_numbers(list(counts)):
            return separator
    return None


def stratum_of_rows(targets: NDArray[Any]) -> NDArray[np.int64]:
    """Return the class (n,) by which a row is stratified: its rarest label, or that it has none."""
    order = np.argsort(targets.sum(axis=0), kind="stable")
    ranked = targets[:, order] > 0
    found = np.where(ranked.any(axis=1), ranked.argmax(axis=1), targets.shape[1])
    return np.unique(found, return_inverse=True)[1].astype(np.int64)


def find_label_notes(labels: Sequence[str | int], training: NDArray[Any], test: NDArray[Any]) -> list[str]:
    """Return notes on labels that no row, or every row, of a part has, and on labels that exclude each other."""
    notes = []
    counts = training.sum(axis=0)
    for words, found in (("no", counts == 0), ("every", counts == len(training))):
        if found.any():
            shown = _list_labels(labels, found)
            notes.append(f"{words} training row has the label {shown}: nothing is learned about it")
    if len(test) and (absent := (test.sum(axis=0) == 0) & (counts > 0)).any():
        shown = _list_labels(labels, absent)
        notes.append(f"no test row has the label {shown}: the metrics do not cover it")
    if len(training) and (training.sum(axis=1) == 1).all():
        notes.append(
            "every training row has exactly one label: if labels exclude each other, a classification by one column "
            "of classes is more accurate"
        )
    return notes


def _list_labels(labels: Sequence[str | int], listed: NDArray[np.bool_]) -> str:
    return list_names([repr(label) for label, is_listed in zip(labels, listed, strict=True) if is_listed], _MAX_LISTED)


def find_label_leakage(
    inputs: Mapping[str, NDArray[np.float64]], labels: Sequence[str | int], targets: NDArray[Any]
) -> list[str]:
    """Return a warning for each column that almost determines one of the most frequent labels."""
    frequent = np.argsort(-targets.sum(axis=0), kind="stable")[:_MAX_CHECKED_LABELS]
    return [
        f"label {labels[i]}: {warning}"
        for i in sorted(frequent)
        for warning in find_leakage(inputs, targets[:, i].astype(np.int64), classes=True)
    ]
