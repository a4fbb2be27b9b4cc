"""Prepare a training job: read the data, split it, fit the preprocessing and specify the network."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.errors import Fault
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
from training.data.fitting.target_transform import fit_target_transform
from training.data.multi_label import find_label_leakage, find_label_notes
from training.data.splitting import Fold
from training.data.streaming.dataset import StreamedDataset, is_streamed, read_stream
from training.data.streaming.table_reader import open_source
from training.errors import DataError, JobError
from training.network.feature_kinds import encode_as_codes
from training.network.heads import fit_positive_output
from training.network.specification import check_batches, specify_network
from training.pipeline import factories
from training.pipeline.prepared_job import Job, PreparedJob
from training.pipeline.row_split import split_rows
from training.pipeline.streaming_loader import BlockLoader
from training.pipeline.validation_metric import check_metric

_NO_ROWS = np.empty(0, np.int64)
_MEMORY_NOTE_BYTES = 2**30  # of encoded rows; a note reports more


def prepare(
    job: Job, fold: Fold | None = None, rows: Dataset | None = None, signature: Signature | None = None
) -> PreparedJob:
    """Read the data, split it, fit the preprocessing on the training rows and specify the network.

    fold: its rows are the test rows, instead of a fraction `split.test`.
    rows: the job's dataset, if it has been read before.
    signature: the preprocessing of a model that is trained further, which is not fitted again.
    """
    settings = job.settings
    rng, shares = _split_generator(settings, fold), settings.split
    stream: StreamedDataset | None = None
    split_notes: list[str] = []
    _check_ensemble(job)
    if is_streamed(settings.data, job.folder):
        _check_streamable(job)
        stream, split_notes = _read_stream(job, rng, fold)
        rows, parts, fitted = stream.held_out, stream.split, stream.signature(settings.data)
        settings = _fill_in_recipe(job, len(stream), len(rows.inputs), rows.task, streamed=True)
        sample = stream.sample()
        learned, learned_targets = {name: sample[name] for name in rows.inputs}, stream.targets(sample)
    else:
        rows = rows or _load_rows(job, fold)
        in_file = len(rows) - (rows.test_file.rows if rows.test_file else 0)
        settings = _fill_in_recipe(job, in_file, len(rows.inputs), rows.task, streamed=False)
        parts, split_notes = split_rows(rows, shares, rng, fold)
        if settings.train.ensemble is not None:  # which divides these rows itself
            trained = np.sort(np.concatenate([parts.training, parts.validation]))
            parts = replace(parts, training=trained, validation=_NO_ROWS)
        fitted = rows.signature(settings.data, parts.training) if signature is None else signature
        learned = {name: values[parts.training] for name, values in rows.inputs.items()}
        learned_targets = rows.targets[parts.training]
    encoded = encode_as_codes(fit_positive_output(fitted, settings.train.loss), settings.network.layers)
    spec = specify_network(settings, encoded, job.source)
    shape = encoded.inputs[0].shape
    if settings.train.augment is not None and len(shape) not in (2, 3):
        problem = f"only for images, (height, width) or (height, width, channels); found values of shape {shape}"
        raise JobError(job.source, [Fault("train.augment", problem, "remove it")])
    if signature is None:
        signature = fit_target_transform(rows.name, encoded, learned_targets, settings.data)
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
    if not signature.inputs[0].is_whole_row:
        data = replace(data, columns=list(signature.names), kinds={name: rows.kinds[name] for name in signature.names})
        if data.optional_names:
            data = replace(data, optional=[name for name in data.optional_names if name not in empty])
        if data.asinh_names:
            data = replace(data, asinh=[name for name in data.asinh_names if name not in empty])
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
    """Return the settings of a job, with the training that `Job` describes if it has none, and a network."""
    settings = job.settings
    if job.has_train or settings.data.path is None or not is_table(settings.data.path):
        return settings
    sections = tomllib.loads(recommend(rows, columns, task, fast=streamed or job.has_network))
    kept = {key: getattr(settings.train, key) for key in ("seed", "threads", "reduce")}
    train = {**sections["train"], **{key: value for key, value in kept.items() if value is not None}}
    if settings.split.by == "time" or streamed:
        train.pop("ensemble", None)
    if job.has_network:
        del train["loss"]  # its output decides
        return replace(settings, train=TrainSchema().load(train))
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


def _check_streamable(job: Job) -> None:
    faults = []
    if job.settings.train.batch_size == "all":
        faults.append(
            Fault("train.batch_size", "'all' rows of a stream do not fit in memory", "write a number of rows")
        )
    if job.settings.split.calibration:
        fix = "remove it, or write stream = false in [data]"
        faults.append(Fault("split.calibration", "no rows of a stream are held out for calibration", fix))
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
