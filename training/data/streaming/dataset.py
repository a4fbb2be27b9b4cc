"""The stream: training rows too many for memory. They lie in a file of records and come to the network in blocks.

The source is read once. Each row's part is drawn as it passes: the rows of validation and test stay in memory, those of
training are written as records to a temporary file, and their statistics grow along. How the network then learns from
them is in blocks.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.errors import Fault
from model_store.schema.signature import ClassificationOutput, Signature
from training.config.settings import DataSection, SplitSection
from training.data import fitting, type_inference
from training.data.dataset import Dataset, classes
from training.data.fitting import (
    ArrayStatistics,
    CategoryStatistics,
    ColumnStatistics,
    NumberStatistics,
    Summary,
    fit_signature,
)
from training.data.splitting import Split
from training.data.streaming.record_file import Spool
from training.data.streaming.source import Batch, Source, Texts
from training.errors import DataError

STREAM_BYTES = 256 << 20  # from this size on files are streamed
HELD = 200_000  # rows held out, at most about as many for each purpose
SAMPLE_ROWS, SAMPLE_BYTES = 1_000_000, 64 << 20  # of which deciles and medians are taken


def streams(section: DataSection, folder: Path) -> bool:
    """Whether the files of a job are streamed: as it says, or Parquet, or files from `STREAM_BYTES` on."""
    if section.stream is not None:
        return section.stream
    paths = [folder / name for name in (section.path, section.images, section.labels) if name is not None]
    if any(path.suffix.lower() == ".parquet" for path in paths):
        return True
    return sum(path.stat().st_size for path in paths if path.is_file()) >= STREAM_BYTES


class RunningStatistics:
    """What is known of the training rows that have passed: a summary of each column of numbers, counts of each text."""

    def __init__(self) -> None:
        self.summaries: dict[str, Summary] = {}
        self.missing: dict[str, int] = {}
        self.texts: dict[str, dict[Any, int]] = {}  # each text's code, in the order of appearance
        self.counts: dict[str, NDArray[np.int64]] = {}  # of each code

    def codes(self, name: str, column: Texts) -> NDArray[np.int32]:
        """The column in codes that are the same in every batch."""
        known = self.texts.setdefault(name, {})
        mapping = np.array([known.setdefault(value, len(known)) for value in column.values], np.int32)
        codes: NDArray[np.int32] = mapping[column.codes]
        return codes

    def add(self, records: NDArray[Any]) -> None:
        for name in records.dtype.names or ():
            values = records[name]
            if name in self.texts:
                counts = np.bincount(values, minlength=len(self.texts[name]))
                before = self.counts.get(name, counts[:0])
                counts[: len(before)] += before
                self.counts[name] = counts
                continue
            if values.ndim == 1:
                absent = np.isnan(values)
                self.missing[name] = self.missing.get(name, 0) + int(absent.sum())
                values = values[~absent]
            if values.size:
                found = fitting.summary_of(values)
                self.summaries[name] = self.summaries[name].joined(found) if name in self.summaries else found

    def frequencies(self, name: str) -> tuple[dict[Any, int], int]:
        """How often each text came, and how many were missing."""
        counts = {text: int(self.counts[name][code]) for text, code in self.texts[name].items()}
        absent = counts.pop(None, 0)
        return {text: count for text, count in counts.items() if count}, absent


@dataclass(frozen=True)
class Stream:
    """The training rows of a source; the rows held out are `held`, split into `split`.

    `labels` holds for each code of a class the index of its label.
    """

    source: Source
    spool: Spool
    tally: RunningStatistics
    labels: NDArray[np.int64] | None
    held: Dataset
    split: Split

    def __len__(self) -> int:
        return len(self.spool) + len(self.held)

    def signature(self, section: DataSection) -> Signature:
        """The preprocessing, fitted on the training rows."""
        sample = self.sample()
        columns = ((name, self._statistics(name, kind, sample[name])) for name, kind in self.source.kinds.items())
        if self.held.labels:
            output = ClassificationOutput(self.source.targets[0], self.held.labels)
            return fit_signature(self.source.name, columns, output, section)
        targets = {name: self.tally.summaries[name] for name in self.source.targets}
        return fit_signature(self.source.name, columns, targets, section)

    def _statistics(self, name: str, kind: str, sample: NDArray[Any]) -> ColumnStatistics:
        if kind == "category":
            return CategoryStatistics(*self.tally.frequencies(name))
        summary = self.tally.summaries.get(name)
        if kind == "number":
            return NumberStatistics(summary, self.tally.missing[name], sample[~np.isnan(sample)])
        dtype, shape = self.spool.dtype[name].subdtype or (self.spool.dtype[name], ())
        return ArrayStatistics(dtype, (len(self.spool), *shape), summary, sample)

    def sample(self) -> NDArray[Any]:
        return self.spool.sample(min(SAMPLE_ROWS, SAMPLE_BYTES // self.spool.dtype.itemsize))

    def answers(self, records: NDArray[Any]) -> NDArray[Any]:
        """The answers of records, as a `Dataset` has them."""
        return _answers(records, self.source, self.labels)

    @property
    def class_counts(self) -> NDArray[np.int64]:
        """How many training rows each label has."""
        counts = np.zeros(len(self.held.labels), np.int64)
        if self.labels is not None:
            np.add.at(counts, self.labels, self.tally.counts[self.source.targets[0]])
        return counts

    @property
    def typical(self) -> NDArray[Any]:
        """The most frequent class, or the mean, as the answers of one row."""
        if self.held.labels:
            return np.array([self.class_counts.argmax()])
        return np.array([[self.tally.summaries[name].mean for name in self.source.targets]])


def stream(source: Source, section: DataSection, shares: SplitSection, rng: np.random.Generator) -> Stream:
    """Read a source to its end, drawing for each row whether it teaches, validates or tests."""
    tally = RunningStatistics()
    spool: Spool | None = None
    test, validation = (min(share, HELD / source.rows) for share in (shares.test, shares.validation))
    held: list[list[tuple[NDArray[Any], NDArray[np.int64]]]] = [[], []]
    rows = without = 0
    for batch in source.batches():
        records, kept = _records(batch, source, section, tally, rows)
        numbers = rows + 1 + np.flatnonzero(kept)
        rows, without = rows + len(records), without + len(records) - len(numbers)
        records = records.compress(kept)
        chance = rng.random(len(records))
        parts = [(chance >= test) & (chance < test + validation), chance < test]
        for part, chosen in zip(held, parts, strict=True):
            part.append((records.compress(chosen), numbers[chosen]))
        learned = records.compress(chance >= test + validation)
        tally.add(learned)
        spool = spool or Spool(records.dtype, source.name)
        spool.append(learned)
    if spool is None or not rows:
        raise DataError(source.name, [Fault("", "there are no rows in it", "add rows of data")])
    if without == rows:
        location = ", ".join(source.targets)
        raise DataError(source.name, [Fault(location, "the target is missing in every row", "choose another target")])
    if without:
        source.notes.append(f"rows without a target are left out: {without} of {rows}")
    if min(test, validation) < min(shares.test, shares.validation) or test < shares.test:
        source.notes.append(f"at most about {HELD} rows are held out for each purpose; the others teach")
    by_code, labels = _labels(source, tally) if source.task == "classification" else (None, ())
    found = Stream(source, spool, tally, by_code, *_held(source, tally, held, by_code, labels))
    _check_split(found, shares)
    return found


def _records(
    batch: Batch, source: Source, section: DataSection, tally: RunningStatistics, before: int
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """A batch as records, and which of them have a target. `before` so many rows have passed."""
    fields: dict[str, NDArray[Any]] = {}
    for name, column in batch.items():
        fields[name] = tally.codes(name, column) if isinstance(column, Texts) else column
        if fields[name].dtype.kind == "b":
            fields[name] = fields[name].astype(np.uint8)
    count = len(next(iter(fields.values())))
    records = np.empty(count, [(name, values.dtype, values.shape[1:]) for name, values in fields.items()])
    kept = np.ones(count, bool)
    faults: list[Fault] = []
    for name, values in fields.items():
        records[name] = values
        absent = np.zeros(count, bool)
        if name in tally.texts:
            absent = values == tally.texts[name].get(None, -1)
            if len(tally.texts[name]) > type_inference.MOST_CATEGORIES + 1:
                problem = f"more than {type_inference.MOST_CATEGORIES} different texts, too many for categories"
                faults.append(Fault(f"column {name}", problem, "leave the column out: list the others as data.columns"))
        elif values.dtype.kind == "f":
            wrong = ~np.isfinite(values)
            if values.ndim == 1 and source.kinds.get(name) != "array":
                absent = np.isnan(values)
                wrong &= ~absent
            if wrong.any():
                row = before + 1 + int(np.argwhere(wrong)[0][0])
                found = values[wrong].flat[0]
                fix = "mend the value, or leave the row out"
                faults.append(Fault(f"row {row}, column {name}", f"expected a finite number; found {found}", fix))
        if section.missing == "refuse" and absent.any():
            row = before + 1 + int(absent.argmax())
            fix = "write missing = 'impute' in [data]"
            faults.append(Fault(f"column {name}", f"values are missing and refused: row {row}", fix))
        if name in source.targets:
            kept &= ~absent
    if faults:
        raise DataError(source.name, faults)
    return records, kept


def _labels(source: Source, tally: RunningStatistics) -> tuple[NDArray[np.int64], tuple[str | int, ...]]:
    """For each code of the target the index of its label, and the labels."""
    (target,) = source.targets
    known = [text for text in tally.texts[target] if text is not None]
    found, labels = classes(source.name, target, known if source.whole else type_inference.labels_of(known))
    by_code = np.zeros(len(tally.texts[target]), np.int64)
    by_code[[text is not None for text in tally.texts[target]]] = found
    return by_code, labels


def _answers(records: NDArray[Any], source: Source, labels: NDArray[np.int64] | None) -> NDArray[Any]:
    if labels is not None:
        return labels.take(records[source.targets[0]])
    return np.column_stack([records[name] for name in source.targets])


def _held(
    source: Source,
    tally: RunningStatistics,
    held: list[list[tuple[NDArray[Any], NDArray[np.int64]]]],
    by_code: NDArray[np.int64] | None,
    labels: tuple[str | int, ...],
) -> tuple[Dataset, Split]:
    """The rows held out, as a dataset in memory: first those of validation, then those of test."""
    records = np.concatenate([records for part in held for records, _ in part])
    numbers = np.concatenate([numbers for part in held for _, numbers in part])
    checking = sum(len(records) for records, _ in held[0])
    inputs = {
        name: texts_of(tally.texts[name])[records[name]] if kind == "category" else records[name].copy()
        for name, kind in source.kinds.items()
    }
    answers = _answers(records, source, by_code)
    dataset = Dataset(
        source.name, source.sha256, inputs, source.kinds, source.targets, answers, labels,
        numbers.tolist(), source.notes, "row",
    )  # fmt: skip
    nobody = np.empty(0, np.int64)
    return dataset, Split(nobody, np.arange(checking), np.arange(checking, len(records)))


def _check_split(found: Stream, shares: SplitSection) -> None:
    faults = []
    for key in ("test", "validation"):
        if getattr(shares, key) and not len(getattr(found.split, key)):
            problem = f"{getattr(shares, key)} of {len(found)} rows came to no row"
            faults.append(Fault(f"split.{key}", problem, f"add rows, or write {key} = 0"))
    if not len(found.spool):
        faults.append(Fault("split", "no row is left to learn from", "add rows, or lower test and validation"))
    elif found.held.labels:
        faults += [
            Fault("split", f"class {found.held.labels[i]!r} has no row to learn from", "add rows of it")
            for i in np.flatnonzero(found.class_counts == 0)
        ]
    if faults:
        raise DataError(found.source.name, faults)


def texts_of(texts: dict[Any, int]) -> NDArray[np.object_]:
    """Texts by their codes."""
    found = np.empty(len(texts), object)
    found[:] = list(texts)
    return found
