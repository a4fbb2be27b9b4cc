"""The streamed dataset: training rows that exceed memory, as records in a temporary file.

The source is read once. Rows that may be held out stay in memory (held_out.py). The others are written to a
`RecordFile` while their statistics are updated; `pipeline/streaming_loader.py` trains on them.
"""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.errors import Fault, InputError
from model_store.schema.columns import KINDS
from model_store.schema.signature import Signature
from model_store.tables.arrow_file import ArrowFile
from model_store.tables.formats import is_compressed
from model_store.tables.text_file import COMPRESSED_SUFFIXES, open_decompressed
from training.config.settings import DataSection, SplitSection
from training.data import type_inference
from training.data.dataset import Dataset, encode_labels
from training.data.fitting.kinds import COLUMN_KINDS
from training.data.fitting.signature import fit_signature
from training.data.fitting.statistics import StreamedColumn
from training.data.readers import open_file
from training.data.splitting import Fold, Split
from training.data.streaming.held_out import AssignedRows, RowNumbers
from training.data.streaming.label_texts import LabelTexts, find_label_texts
from training.data.streaming.record_file import RecordFile
from training.data.streaming.row_draw import MAX_HELD_OUT_ROWS, RowDraw
from training.data.streaming.running_statistics import RunningStatistics
from training.data.streaming.source import (
    FOLD_FIELD,
    NUMBER_FIELD,
    SPLIT_FIELD,
    WEIGHT_FIELD,
    Batch,
    DataSource,
    DictionaryColumn,
    as_texts,
    has_target,
)
from training.data.streaming.text_codes import count_texts
from training.data.tables import open_job_table
from training.errors import DAMAGED_FILE_ERRORS, DataError

MIN_STREAM_BYTES = 256 << 20  # files of this size or more are streamed
_COMPRESSION_FACTOR = 5  # about, of tables as text to those in Parquet or Excel
_CELL_BYTES, _ROW_BYTES = 8, 16  # about, of a cell and a row as text; shorter rows take as much memory
_MAX_COMPRESSION, _BOMB_FACTOR = 100, 8  # rows in memory take several times their size as text
MAX_SAMPLE_ROWS, MAX_SAMPLE_BYTES = 1_000_000, 64 << 20  # of the rows that deciles and medians are computed from


def is_streamed(section: DataSection, folder: Path) -> bool:
    """Return True if a job streams its files: as it states, or if they expand to `MIN_STREAM_BYTES` or more."""
    if section.stream is not None:
        return section.stream
    paths = [folder / name for name in (section.path, section.images, section.labels) if name is not None]
    return sum(_counted_bytes(path) for path in paths if path.is_file()) >= MIN_STREAM_BYTES


def _counted_bytes(path: Path) -> int:
    """Return the size of a file without its compression, eight times that of one that real data hardly compress to."""
    expanded = _expanded_bytes(path)
    return expanded * (_BOMB_FACTOR if expanded > _MAX_COMPRESSION * path.stat().st_size else 1)


def _expanded_bytes(path: Path) -> int:
    """Return the size of a file without its compression; at least `MIN_STREAM_BYTES` for any larger one.

    1 MB of Parquet may hold 150 million cells, and 4 MB of gzip 4 GB. A damaged file counts as it is: its reader
    reports it.
    """
    size, name = path.stat().st_size, path.name
    if size >= MIN_STREAM_BYTES:
        return size
    with contextlib.suppress(DataError, InputError, *DAMAGED_FILE_ERRORS):
        if path.suffix.lower() == ".npz":
            with zipfile.ZipFile(path) as archive:
                return sum(member.file_size for member in archive.infolist())
        table = open_job_table(path, DataSection(path=name))
        if isinstance(table, ArrowFile):
            row_bytes = max(_ROW_BYTES, len(table.header.names) * _CELL_BYTES)
            return max(table.count_rows() * row_bytes, size * _COMPRESSION_FACTOR)
        if not is_compressed(name) or name.lower().endswith(COMPRESSED_SUFFIXES):  # an IDX file may be compressed, too
            with open_decompressed(lambda: open_file(path)) as file:
                blocks = iter(lambda: file.read(1 << 20), b"")
                found = islice(blocks, MIN_STREAM_BYTES // (1 << 20) + 1)
                return sum(max(len(block), block.count(b"\n") * _ROW_BYTES) for block in found)
    return size * (_COMPRESSION_FACTOR if is_compressed(name) else 1)


@dataclass(frozen=True)
class StreamedDataset:
    """The training rows of a source as `records`; the validation and test rows are `held_out`, divided by `split`.

    Without test rows, `split.training` are some training rows, to evaluate. Of an ensemble, `folds` are the rows of
    `held_out` that validate each network: records of training rows have the fold that they are in. `label_of_code`
    holds the index of the label for each code of a class.
    """

    source: DataSource
    records: RecordFile
    statistics: RunningStatistics
    label_of_code: NDArray[np.int64] | None
    held_out: Dataset
    split: Split
    folds: tuple[NDArray[np.int64], ...] = ()

    def __len__(self) -> int:
        return len(self.records) + len(self.held_out)

    def signature(self, section: DataSection) -> Signature:
        """Return the signature with the preprocessing fitted on the training rows."""
        sample = self.sample()
        kinds = self.held_out.kinds.items()
        incomplete = self.held_out.incomplete_columns()
        incomplete |= {name for name, _ in kinds if self.statistics.count_missing(name)}
        columns = ((name, kind, self._column_statistics(name, kind, sample[name])) for name, kind in kinds)
        if self.held_out.labels:
            output = self.held_out.classifier_output(section)
            return fit_signature(self.source.name, columns, output, section, incomplete, self.held_out.text_formats)
        summaries = {name: self.statistics.summaries[name] for name in self.source.target_names}
        return fit_signature(self.source.name, columns, summaries, section, incomplete, self.held_out.text_formats)

    def _column_statistics(self, name: str, kind: str, sample: NDArray[Any]) -> Any:
        dtype, shape = self.records.dtype[name].subdtype or (self.records.dtype[name], ())
        missing, shape = self.statistics.count_missing(name), (len(self.records), *shape)
        counts: dict[str, int] = {}
        distinct = None
        if (texts := self.statistics.codes.get(name)) is not None:
            if texts.are_remembered:
                counts = self.statistics.count_texts(name)
            else:
                most = type_inference.MAX_CATEGORIES if kind == "category" else 0
                codes = (block[name] for block in self.records.blocks())
                counts, distinct = count_texts(texts, codes, most)
        summary = self.statistics.summaries.get(name)
        return COLUMN_KINDS[kind].streamed_statistics(
            StreamedColumn(dtype, shape, missing, counts, summary, sample, distinct)
        )

    def values(self, name: str, records: NDArray[Any]) -> NDArray[Any]:
        """Return a column of records as `Column.encode` takes it."""
        return _decode(name, records, self.held_out.kinds, self.statistics)

    def sample(self) -> NDArray[Any]:
        """Return evenly spaced training rows, as many as medians are computed from."""
        return self.records.sample(min(MAX_SAMPLE_ROWS, MAX_SAMPLE_BYTES // self.records.dtype.itemsize))

    def targets(self, records: NDArray[Any]) -> NDArray[Any]:
        """Return the targets of records, as in `Dataset.targets`."""
        return _targets(records, self.source, self.label_of_code)

    def with_test_file(self, rows: Dataset) -> StreamedDataset:
        """Return these rows with those of a test file as the test rows."""
        held_out = self.held_out.with_test_file(rows)
        test = np.arange(len(self.held_out), len(held_out))
        return replace(self, held_out=held_out, split=replace(self.split, test=test))

    @property
    def class_counts(self) -> NDArray[np.int64]:
        """The number of training rows of each class, or with each label."""
        if self.held_out.task == "multi_label":
            counts = np.zeros(len(self.held_out.labels), np.int64)
            for records in self.records.blocks():
                counts += np.count_nonzero(self.targets(records), axis=0)
            return counts
        counts = np.zeros(len(self.held_out.labels), np.int64)
        if self.label_of_code is not None:
            found = self.statistics.counts[self.source.target_names[0]]
            np.add.at(counts, self.label_of_code, found[: len(self.label_of_code)])
        return counts

    @property
    def baseline_targets(self) -> NDArray[Any]:
        """The most frequent class, the frequency of each label, or the mean, as the targets of one row.

        Rows count by their weights.
        """
        labels = len(self.held_out.classes)
        if WEIGHT_FIELD not in self.source.extra:
            if labels:
                return np.array([self.class_counts.argmax()])
            if self.held_out.task == "multi_label":
                return self.class_counts[None, :] / len(self.records)
            return np.array([[self.statistics.summaries[name].mean for name in self.source.target_names]])
        counts, sums, total = np.zeros(labels), np.zeros(()), 0.0
        for records in self.records.blocks():
            targets, weights = self.targets(records), records[WEIGHT_FIELD]
            if labels:
                counts += np.bincount(targets, weights, labels)
            else:
                sums, total = sums + weights @ targets, total + weights.sum()
        return np.array([counts.argmax()]) if labels else (sums / total)[None, :]

    def weights(self, records: NDArray[Any]) -> NDArray[np.float64] | None:
        """Return the weights of training records, of mean 1, or None if the job has none."""
        if WEIGHT_FIELD not in self.source.extra:
            return None
        return np.asarray(records[WEIGHT_FIELD] / self.statistics.summaries[WEIGHT_FIELD].mean)


def read_stream(
    source: DataSource,
    section: DataSection,
    shares: SplitSection,
    rng: np.random.Generator,
    fold: Fold | None = None,
    ensemble: int | None = None,
) -> StreamedDataset:
    """Read a source to its end and draw the validation and test rows, by the same rules as in memory (splitting.py).

    DataError if its files change meanwhile.
    """
    texts = None if source.label_separator is None else find_label_texts(source, source.label_separator)
    statistics = RunningStatistics(without=source.target_names if texts is not None else ())
    drawn = RowDraw(source, shares, rng, fold, ensemble)
    training: RecordFile | None = None
    rows = dropped = 0
    for batch in source.batches():
        cells = batch.pop(SPLIT_FIELD, None)
        records, kept = _make_records(batch, source, section, statistics, rows, texts)
        numbers = rows + 1 + np.flatnonzero(kept)
        rows, dropped = rows + len(records), dropped + len(records) - len(numbers)
        records = records.compress(kept)
        if cells is not None:
            cells = replace(as_texts(cells), codes=as_texts(cells).codes[kept])
        records = drawn.with_folds(records, numbers, cells)
        training_records = drawn.add(records, numbers, cells)
        statistics.update(training_records)
        training = training or RecordFile(records.dtype, source.name)
        training.append(training_records)
    source.notes += source.last_notes()
    source.fingerprint.check_unchanged()
    statistics.raise_if_invalid(source)
    if training is None or not rows:
        raise DataError(source.name, [Fault("", "the file has no rows", "add rows of data")])
    if dropped == rows:
        location = ", ".join(source.target_names)
        raise DataError(source.name, [Fault(location, "the target is missing in every row", "choose another target")])
    if dropped:
        source.notes.append(f"ignored rows without a target: {dropped} of {rows}")
    label_of_code, labels = _encode_classes(source, statistics) if source.task == "classification" else (None, ())
    held_out, left_over, notes = drawn.draw(label_of_code)
    source.notes.extend(notes)
    statistics.update(left_over)
    training.append(left_over)
    if source.task == "multi_label":
        labels = source.target_names if texts is None else texts.labels
    if ensemble is not None:
        held_out = [*_sample_folds(training, ensemble, source.name), held_out[1]]
    elif drawn.evaluates_training:
        (evaluated,) = _sample_folds(training, 1, source.name)
        held_out = [held_out[0], evaluated]
    rows_held_out = _held_out_dataset(source, section, statistics, held_out, label_of_code, labels)
    bounds = np.cumsum([len(records) for records, _ in held_out])
    *others, test = np.split(np.arange(len(rows_held_out)), bounds[:-1])
    no_rows = np.empty(0, np.int64)
    validation = others[0] if ensemble is None else no_rows
    parts = Split(test, validation, no_rows) if drawn.evaluates_training else Split(no_rows, validation, test)
    folds = () if ensemble is None else tuple(others)
    return StreamedDataset(source, training, statistics, label_of_code, rows_held_out, parts, folds)


def _sample_folds(training: RecordFile, count: int, source: str) -> list[tuple[NDArray[Any], RowNumbers]]:
    """Return evenly spaced rows of each fold of an ensemble, all if there are few, and their numbers."""
    sizes = sum(
        (np.bincount(records[FOLD_FIELD], minlength=count) for records in training.blocks()), np.zeros(count, np.int64)
    )
    if not sizes.all():
        problem = f"expected rows for each of {count} networks, found none for {np.count_nonzero(sizes == 0)}"
        raise DataError(source, [Fault("train.ensemble", problem, "use fewer networks, or add rows")])
    kept = AssignedRows([0, *sizes.tolist()], MAX_HELD_OUT_ROWS // count)
    for records in training.blocks():
        kept.add(records, records[NUMBER_FIELD], (records[FOLD_FIELD] + 1).astype(np.int8))
    return kept.draw()


def _make_records(
    batch: Batch,
    source: DataSource,
    section: DataSection,
    statistics: RunningStatistics,
    rows_before: int,
    texts: LabelTexts | None,
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return a batch as records, and a mask of those with a target. DataError names the row, after `rows_before`."""
    fields: dict[str, NDArray[Any]] = {}
    kept = has_target(batch, source)
    if texts is not None:
        (target,) = source.target_names
        cells = as_texts(batch[target])
        if section.missing == "refuse":
            kept = np.array([value is not None for value in cells.values])[cells.codes]
        batch = batch | {target: texts.flags(cells)}
    for name, column in batch.items():
        if isinstance(column, DictionaryColumn):
            fields[name] = statistics.encode(name, column, kept, source.name)
            continue
        fields[name] = column
        if fields[name].dtype.kind == "b":
            fields[name] = fields[name].astype(np.uint8)
    records = np.empty(len(kept), [(name, values.dtype, values.shape[1:]) for name, values in fields.items()])
    faults: list[Fault] = []
    whole_rows = {name for name, kind in source.kinds.items() if KINDS[kind].is_whole_row}
    for name, values in fields.items():
        records[name] = values
        absent = np.zeros(len(kept), bool)
        if name in statistics.codes:
            absent = kept & (values == 0)
            if name in source.target_names and len(statistics.codes[name]) > type_inference.MAX_CATEGORIES + 1:
                problem = f"too many classes: more than {type_inference.MAX_CATEGORIES}"
                fix = "write task = 'regression' if it is a quantity, or choose another target"
                faults.append(Fault(f"column {name}", problem, fix))
        elif values.dtype.kind == "f":
            invalid = ~np.isfinite(values)
            if name == WEIGHT_FIELD:
                invalid = kept & ~(np.isfinite(values) & (values >= 0))
            elif values.ndim == 1 and name not in whole_rows:
                absent = np.isnan(values)
                invalid &= ~absent
            if invalid.any():
                statistics.note_invalid(name, values, invalid, rows_before)
                records[name] = np.where(invalid, 0, values)
        if name in source.target_names:
            absent = ~kept
        if section.missing == "refuse" and absent.any():
            row = rows_before + 1 + int(absent.argmax())
            faults.append(Fault(f"column {name}", f"missing values: row {row}", "write missing = 'impute' in [data]"))
    if faults:
        raise DataError(source.name, faults)
    return records, kept


def _encode_classes(
    source: DataSource, statistics: RunningStatistics
) -> tuple[NDArray[np.int64], tuple[str | int, ...]]:
    """Return the index of the label for each code of the target, and the labels."""
    (target,) = source.target_names
    known = [value for value in statistics.codes[target].remembered if value is not None]
    indices, labels = encode_labels(
        source.name, target, known if source.keep_labels else type_inference.parse_labels(known)
    )
    return np.concatenate([np.zeros(1, np.int64), indices]), labels


def _targets(records: NDArray[Any], source: DataSource, label_of_code: NDArray[np.int64] | None) -> NDArray[Any]:
    if label_of_code is not None:
        return label_of_code.take(records[source.target_names[0]])
    return np.column_stack([records[name] for name in source.target_names])


def _is_wide(statistics: RunningStatistics, name: str, kind: str) -> bool:
    """Return True if a column has too many texts for a category."""
    return kind == "category" and len(statistics.codes[name]) - 1 > type_inference.MAX_CATEGORIES


def _decode(name: str, records: NDArray[Any], kinds: Mapping[str, str], statistics: RunningStatistics) -> NDArray[Any]:
    """Return a column of records as `Column.encode` takes it."""
    if (texts := statistics.codes.get(name)) is None:
        return records[name].copy()
    return COLUMN_KINDS[kinds[name]].from_texts(texts.texts(records[name]), name)


def _held_out_dataset(
    source: DataSource,
    section: DataSection,
    statistics: RunningStatistics,
    held_out: list[tuple[NDArray[Any], RowNumbers]],
    label_of_code: NDArray[np.int64] | None,
    labels: tuple[str | int, ...],
) -> Dataset:
    """Return the rows of each part as a dataset in memory."""
    records, numbers = (np.concatenate(part) for part in zip(*held_out, strict=True))
    kinds = {
        name: "text" if name not in section.kinds and _is_wide(statistics, name, kind) else kind
        for name, kind in source.kinds.items()
    }
    inputs = {name: _decode(name, records, kinds, statistics) for name in kinds}
    if texts := [name for name, kind in kinds.items() if kind != source.kinds[name]]:
        limit = type_inference.MAX_CATEGORIES
        source.notes.append(f"read as text, with more than {limit} distinct values: {', '.join(texts)}")
    targets = _targets(records, source, label_of_code)
    weights: dict[str, list[str | None]] = {}
    if (weight := source.extra.get(WEIGHT_FIELD)) is not None:
        weights[weight] = list(map(repr, records[WEIGHT_FIELD].tolist()))
    return Dataset(
        source.name, source.fingerprint.sha256, inputs, kinds, source.target_names, targets, labels,
        numbers.tolist(), source.notes, "row", extra=weights, formats=source.formats,
        decimal_commas=source.decimal_commas,
    )  # fmt: skip
