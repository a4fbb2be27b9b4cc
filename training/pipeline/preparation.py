"""Prepare a training job: read the data, split it, fit the preprocessing and specify the network."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.errors import Fault, InputError
from model_store.schema.signature import Signature
from model_store.tables.formats import is_table
from training.config.recipe import recommend
from training.config.schema import NetworkSchema
from training.config.settings import JobSettings
from training.config.train_schema import TrainSchema
from training.data import loading
from training.data.checks.columns import (
    count_missing,
    find_channels_first,
    find_constant_columns,
    find_filled_columns,
    find_untested_classes,
)
from training.data.checks.leakage import find_leakage
from training.data.checks.row_weights import check_weights
from training.data.checks.unknown_categories import find_unknown_categories
from training.data.dataset import Dataset
from training.data.fitting.target_transform import find_invalid_target, fit_target_transform
from training.data.multi_label import find_label_leakage, find_label_notes
from training.data.splitting import Fold, Split
from training.data.streaming.dataset import StreamedDataset, is_streamed, read_stream
from training.data.streaming.table_reader import open_source
from training.encoded_rows import EncodedRows
from training.engine.loop import Samples
from training.errors import DataError, JobError
from training.evaluation.loss_metrics import TargetLoss
from training.network.feature_kinds import encode_as_codes
from training.network.heads import fit_positive_output
from training.network.specification import NetworkSpec, check_batches, specify_network
from training.pipeline import factories
from training.pipeline.row_encoding import encode_compactly, make_samples
from training.pipeline.row_split import split_rows
from training.pipeline.streaming_loader import BlockLoader
from training.pipeline.validation_metric import check_metric

_NO_ROWS = np.empty(0, np.int64)
_MEMORY_NOTE_BYTES = 2**30  # of encoded rows; a note reports more
_ENCODED_BLOCK_ROWS = 4096  # rows encoded at a time, in float64


@dataclass(frozen=True)
class Job:
    """The settings of a job file, and the folder that its paths are relative to. `source` names it in messages.

    uses_recipe: `prepare` fills in the network and the training that `train init` writes for the table.
    """

    settings: JobSettings
    folder: Path
    source: str = "job"
    uses_recipe: bool = False


@dataclass(frozen=True)
class PreparedJob:
    """Everything that training needs; `x_...` are encoded rows. The settings of `job` include inferred values.

    Training rows of a streamed job are in `block_loader`; `dataset` and `split` then have only the others.
    """

    job: Job
    dataset: Dataset
    split: Split
    signature: Signature
    network_spec: NetworkSpec
    notes: list[str]
    block_loader: BlockLoader | None = None
    baseline_targets: NDArray[Any] = field(default_factory=lambda: np.empty(0))  # of a stream
    baseline_weights: NDArray[np.float64] | None = None

    @property
    def stream(self) -> StreamedDataset | None:
        return None if self.block_loader is None else self.block_loader.dataset

    @property
    def target_loss(self) -> TargetLoss:
        """The loss of a regression, which some of its metrics belong to."""
        return TargetLoss(self.network_spec.loss, self.network_spec.quantile)

    @cached_property
    def samples(self) -> Samples:
        """The training rows and their targets, as the network takes them."""
        if self.block_loader is not None:
            return self.block_loader
        return make_samples(self.x_training, self.encode_learned(self.split.training))

    @cached_property
    def constant_features(self) -> NDArray[np.bool_]:
        """A mask of the features with one value in all training rows, or with the rounding errors of a constant."""
        rounded = [np.full(column.width, column.is_constant) for column in self.signature.inputs]
        found: NDArray[np.bool_] = self.samples.constant_features | np.concatenate(rounded)
        return found

    @property
    def sizes(self) -> dict[str, int]:
        """The number of rows of each part."""
        training = len(self.split.training if self.block_loader is None else self.block_loader)
        return {"training": training, "validation": len(self.split.validation), "test": len(self.split.test)}

    @cached_property
    def x_training(self) -> EncodedRows:
        return self.encode_rows(self.split.training)

    @cached_property
    def x_validation(self) -> EncodedRows:
        return self.encode_rows(self.split.validation)

    @cached_property
    def x_evaluation(self) -> EncodedRows:
        return self.encode_rows(self.split.test) if len(self.split.test) else self.x_training

    def encode_rows(self, rows: NDArray[np.int64]) -> EncodedRows:
        """Return these rows as the network takes them, (n, features): compact if they are large and mostly one-hot."""
        if self.job.settings.train.batch_size != "all":
            compact = encode_compactly(self.signature, self.dataset.inputs, rows, self.network_spec.dtype)
            if compact is not None:
                return compact
        encoded = np.empty((len(rows), self.signature.width), self.network_spec.dtype)
        for start in range(0, len(rows), _ENCODED_BLOCK_ROWS):
            block = rows[start : start + _ENCODED_BLOCK_ROWS]
            inputs = {name: values[block] for name, values in self.dataset.inputs.items()}
            try:
                encoded[start : start + len(block)] = self.signature.encode_columns(inputs, self.network_spec.dtype)
            except InputError as error:
                raise self._locate_faults(error, block) from error
        return encoded

    def weights(self, rows: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """Return the weights of these rows, of mean 1, or None if the job has none."""
        column = self.job.settings.data.weight
        if column is None or not len(rows):
            return None
        found = np.array(self.dataset.extra[column], object)[rows].astype(np.float64)
        return np.asarray(found / found.mean())

    def encode_learned(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return the targets of these rows as the loss takes them: the outputs, and the weights in a column of theirs.

        See `RowWeighted`.
        """
        targets, weights = self.encode_targets(rows), self.weights(rows)
        if not self.network_spec.weighted:
            return targets
        column = np.empty(0) if weights is None else weights
        return np.column_stack([targets, column]).astype(targets.dtype)

    def encode_targets(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return the targets of these rows as the outputs that the network learns, (n, outputs)."""
        targets, dtype = self.dataset.targets[rows], self.network_spec.dtype
        if fault := find_invalid_target(self.signature.output, targets):
            row, target, problem, fix = fault
            location = f"{self.dataset.location(int(rows[row]))}, column {self.dataset.target_names[target]}"
            raise DataError(self.dataset.name, [Fault(location, problem, fix)])
        with np.errstate(over="ignore"):
            encoded = self.network_spec.encode_targets(targets, self.signature.output)
        if len(invalid := np.argwhere(~np.isfinite(encoded))):
            row, target = invalid[0]
            location = f"{self.dataset.location(int(rows[row]))}, column {self.dataset.target_names[target]}"
            problem = f"expected a number that fits {dtype}, found {targets[row, target]:g}"
            fix = "write scale = 'standard' in [data], or dtype = 'float64' in [network]"
            raise DataError(self.dataset.name, [Fault(location, problem, fix)])
        if wrong := self.network_spec.find_invalid_target(encoded):
            row, problem, fix = wrong
            location = f"{self.dataset.location(int(rows[row]))}, column {self.dataset.target_names[0]}"
            raise DataError(self.dataset.name, [Fault(location, problem, fix)])
        return encoded

    def instances(self, rows: NDArray[np.int64]) -> list[Any]:
        """Return these rows as a client sends them to the service: lists in column order, or nested arrays."""
        values = [column.to_json(self.dataset.inputs[column.name][rows]) for column in self.signature.inputs]
        return values[0] if self.signature.inputs[0].is_whole_row else list(map(list, zip(*values, strict=True)))

    def labels(self, rows: NDArray[np.int64]) -> list[Any]:
        """Return the true targets of these rows: labels, lists of labels, numbers, or `{name: number}` for several."""
        targets = self.dataset.targets[rows]
        if self.dataset.classes:
            return [self.dataset.labels[i] for i in targets]
        if self.dataset.labels:
            return [[self.dataset.labels[i] for i in np.flatnonzero(row)] for row in targets]
        if len(self.dataset.target_names) == 1:
            flat: list[Any] = targets[:, 0].tolist()
            return flat
        return [dict(zip(self.dataset.target_names, row, strict=True)) for row in targets.tolist()]

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the model, bit for bit: the job without `[publish]`, and the data."""
        job = {name: section for name, section in self.job.settings.as_dict().items() if name != "publish"}
        data = {"sha256": self.dataset.sha256, "rows": sum(self.sizes.values())}
        if (test_file := self.dataset.test_file) is not None:
            data |= {"test_sha256": test_file.sha256}
        return {"job": job, "data": data}

    @property
    def evaluation_instances(self) -> list[Any]:
        """The rows that the metrics are computed on: the test rows, or with `test = 0` the training rows."""
        return self.instances(self.split.evaluation_rows)

    @property
    def evaluation_labels(self) -> list[Any]:
        return self.labels(self.split.evaluation_rows)

    def _locate_faults(self, error: InputError, rows: NDArray[np.int64]) -> DataError:
        """Turn an encoding error into faults with the lines of the file, and a fix in the job file."""
        faults = []
        for fault in error.faults:
            _, row, *column = fault.location.split(".", 2)
            location = self.dataset.location(int(rows[int(row)])) + "".join(f", column {name}" for name in column)
            fix = fault.fix
            if "expected a number that fits" in fault.problem:
                fix = "correct the value, or write dtype = 'float64' in [network]"
            faults.append(Fault(location, fault.problem, fix))
        return DataError(self.dataset.name, faults, error.total)


def prepare(job: Job, fold: Fold | None = None, rows: Dataset | None = None) -> PreparedJob:
    """Read the data, split it, fit the preprocessing on the training rows and specify the network.

    fold: its rows are the test rows, instead of a fraction `split.test`.
    rows: the job's dataset, if it has been read before.
    """
    settings = job.settings
    rng, shares = _split_generator(settings, fold), settings.split
    stream: StreamedDataset | None = None
    split_notes: list[str] = []
    _check_ensemble(job)
    if is_streamed(settings.data, job.folder):
        _check_streamable(job, fold)
        stream, split_notes = _read_stream(job, rng, fold)
        rows, parts, signature = stream.held_out, stream.split, stream.signature(settings.data)
        settings = _fill_in_recipe(job, len(stream), len(rows.inputs), rows.task, streamed=True)
        sample = stream.sample()
        learned, learned_targets = {name: sample[name] for name in rows.inputs}, stream.targets(sample)
    else:
        rows = rows or _load_rows(job, fold)
        in_file = len(rows) - (rows.test_file.rows if rows.test_file else 0)
        settings = _fill_in_recipe(job, in_file, len(rows.inputs), rows.task, streamed=False)
        parts, split_notes = split_rows(rows, shares, rng, fold)
        if settings.train.ensemble is not None:  # which divides these rows itself
            parts = Split(np.sort(np.concatenate([parts.training, parts.validation])), _NO_ROWS, parts.test)
        signature = rows.signature(settings.data, parts.training)
        learned = {name: values[parts.training] for name, values in rows.inputs.items()}
        learned_targets = rows.targets[parts.training]
    signature = encode_as_codes(fit_positive_output(signature, settings.train.loss), settings.network.layers)
    spec = specify_network(settings, signature, job.source)
    signature = fit_target_transform(rows.name, signature, learned_targets, settings.data)
    counts = np.zeros(0, np.int64)
    if rows.labels:
        learned_counts = np.bincount(learned_targets) if rows.classes else learned_targets.sum(axis=0)
        counts = learned_counts if stream is None else stream.class_counts
    if settings.data.weight is not None:
        check_weights(rows, parts, settings.data.weight)
        spec = replace(spec, weighted=True)
    training_rows = len(parts.training if stream is None else stream.records)
    spec = replace(spec, class_weights=_make_weights(job, rows, counts, training_rows))
    validated = len(rows) if settings.train.ensemble is not None else len(parts.validation)
    if faults := check_metric(settings.train.early_stopping, signature.output, validated, spec.loss):
        raise JobError(job.source, faults)
    data = replace(settings.data, task=rows.task, stream=None if stream is None else True)
    empty = [name for name in rows.inputs if name not in signature.names]
    if settings.data.path is not None and not signature.inputs[0].is_whole_row:
        data = replace(data, columns=list(signature.names), kinds={name: rows.kinds[name] for name in signature.names})
        if data.optional_names:
            data = replace(data, optional=[name for name in data.optional_names if name not in empty])
    resolved = spec.resolved(replace(settings, data=data))
    notes = rows.notes + [f"column {name} has no value in the training rows and is left out" for name in empty]
    if settings.data.weight is not None:
        notes.append(f"loss, metrics and charts are weighted by {settings.data.weight}; numbers of rows are not")
    if shares.by == "group" and shares.column in signature.names:
        known_groups = "its values in held-out rows are those of no training row: remove it from data.columns"
        notes.append(f"column {shares.column} is both the group of the split and an input, and {known_groups}")
    notes += split_notes + find_unknown_categories(signature, rows, parts)
    notes += find_constant_columns(signature) + find_channels_first(spec.input_shape)
    notes += find_filled_columns(signature, count_missing(signature, rows, parts, streamed=stream is not None))
    notes += factories.find_idle_settings(settings.train)
    if rows.task == "multi_label":
        notes += find_label_leakage(learned, rows.labels, learned_targets)
        if stream is None:  # a label that a sample lacks may be in other rows
            notes += find_label_notes(rows.labels, learned_targets, rows.targets[parts.test])
    else:
        notes += find_leakage(learned, learned_targets, bool(rows.labels))
    if rows.classes:
        notes += find_untested_classes(rows.labels, rows.targets[parts.test])
    known, known_weights = np.zeros(0), None
    if stream is not None and spec.loss == "pinball":
        known, known_weights = learned_targets, stream.weights(sample)
    elif stream is not None:
        known = stream.baseline_targets
    # Encode all rows now: an error in a row held out should not wait for the end of the training.
    loader = None if stream is None else BlockLoader(stream, signature, spec)
    job = replace(job, settings=resolved)
    prepared = PreparedJob(job, rows, parts, signature, spec, notes, loader, known, known_weights)
    notes += check_batches(spec, resolved.train, prepared.sizes["training"])
    try:
        _ = prepared.samples, prepared.x_validation, prepared.x_evaluation
        if stream is None and (encoded_bytes := _encoded_bytes(prepared)) > _MEMORY_NOTE_BYTES:
            size = f"{encoded_bytes / 2**30:.1f} GiB"
            notes.append(f"the encoded rows take {size} of memory; stream = true in [data] takes less")
    except MemoryError as error:
        problem = f"the encoded rows do not fit in memory, {signature.width} numbers each: {error}"
        fewer = "exclude columns with many categories"
        fix = f"write stream = true in [data], or {fewer}" if stream is None else f"lower split.test, or {fewer}"
        raise DataError(rows.name, [Fault("", problem, fix)]) from error
    return prepared


def _make_weights(job: Job, rows: Dataset, counts: NDArray[Any], training_rows: int) -> tuple[Any, ...] | None:
    """Return the weights of classes, or of rows without and with each label; `counts` of the training rows have it."""
    if rows.task == "multi_label":
        return factories.make_label_weights(job.settings.train, rows.labels, counts, training_rows, job.source)
    return factories.make_class_weights(job.settings.train, rows.labels, counts, job.source)


def _fill_in_recipe(job: Job, rows: int, columns: int, task: str, *, streamed: bool) -> JobSettings:
    """Return the settings of a job, with a network and a training for its table if it has none: those of `init`."""
    settings = job.settings
    if not job.uses_recipe or settings.data.path is None or not is_table(settings.data.path):
        return settings
    sections = tomllib.loads(recommend(rows, columns, task, fast=streamed))
    train = {**sections["train"], "seed": settings.train.seed, "threads": settings.train.threads}
    if settings.split.by == "time" or streamed:
        train.pop("ensemble", None)
    return replace(settings, network=NetworkSchema().load(sections["network"]), train=TrainSchema().load(train))


def _check_ensemble(job: Job) -> None:
    settings = job.settings
    if settings.train.ensemble is None:
        return
    faults = []
    if settings.split.by == "time":
        problem = "the networks of an ensemble would be validated on rows before those that they train on"
        faults.append(Fault("train.ensemble", problem, "remove it, or split by group"))
    if faults:
        raise JobError(job.source, faults)


def _encoded_bytes(prepared: PreparedJob) -> int:
    tested = prepared.x_evaluation if len(prepared.split.test) else prepared.x_validation[:0]
    return sum(x.nbytes for x in (prepared.x_training, prepared.x_validation, tested))


def _load_rows(job: Job, fold: Fold | None) -> Dataset:
    """Read the rows of a job in memory; those of its test file are the last ones, except for folds."""
    settings, extra = job.settings, job.settings.extra_columns
    rows = loading.load(settings.data, job.folder, extra)
    if settings.split.test_file is None or fold is not None:
        return rows
    path = settings.split.test_file
    return rows.with_test_file(loading.load_test_file(settings.data, job.folder, path, rows, extra))


def _read_stream(job: Job, rng: np.random.Generator, fold: Fold | None) -> tuple[StreamedDataset, list[str]]:
    """Read the rows of a job as a stream, those of its test file into memory. Return notes on the test file."""
    settings, extra = job.settings, job.settings.extra_columns
    source, ensemble = open_source(settings.data, job.folder, extra), settings.train.ensemble
    stream = read_stream(source, settings.data, settings.split, rng, fold, ensemble)
    if (path := settings.split.test_file) is None or fold is not None:
        return stream, []
    rows = loading.load_test_file(settings.data, job.folder, path, stream.held_out, extra)
    return stream.with_test_file(rows), [f"test rows: {len(rows)} of {rows.name}"]


def _check_streamable(job: Job, fold: Fold | None) -> None:
    faults = []
    if job.settings.train.batch_size == "all":
        faults.append(
            Fault("train.batch_size", "'all' rows of a stream do not fit in memory", "write a number of rows")
        )
    shares = job.settings.split
    if not shares.test and shares.test_file is None and fold is None and job.settings.train.ensemble is None:
        problem = "expected test rows, as a stream is not evaluated on training rows, found 0"
        faults.append(Fault("split.test", problem, "write a fraction such as 0.1, or stream = false in [data]"))
    if faults:
        raise JobError(job.source, faults)


def make_generators(settings: JobSettings) -> list[np.random.Generator]:
    """Return independent generators: split, weights, order of rows, diagnostics, synthetic rows, linear model."""
    return [np.random.default_rng(seed) for seed in np.random.SeedSequence(settings.train.seed).spawn(6)]


def _split_generator(settings: JobSettings, fold: Fold | None) -> np.random.Generator:
    """Return the generator of the split, another one for each repetition of the folds."""
    if fold is None or fold.repeat == 1:
        return make_generators(settings)[0]
    return np.random.default_rng(np.random.SeedSequence(settings.train.seed, spawn_key=(0, fold.repeat)))
