"""The job: from a job file to a model in the store.

    job = load("examples/penguins.toml", {"train.epochs": 5})
    prepared = prepare(job)             # data read, split and encoded; nothing trained
    outcome = fit(prepared)             # a model with its metrics
    outcome = run(job, open_store("models"))    # all of it, published: outcome.version

The same job and seed give the same model, bit for bit: chance comes from generators seeded by `train.seed` alone, one
for the split, one for the first weights, one for the order of rows, one for the diagnostics; and a model records no
path but those the job writes, no clock and no machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from model_store.artifact.model import Golden, Model
from model_store.errors import Fault, InputError, StoreError
from model_store.registry.store import Store, Version
from model_store.report.page import render
from model_store.schema.signature import Signature
from training.config import toml_loader
from training.config.schema import validate
from training.config.settings import Settings
from training.data import dataset
from training.data.dataset import Dataset
from training.data.leakage_checks import channels_first, constants, suspects, unjudged
from training.data.splitting import Fold, Split, split
from training.data.streaming.dataset import Stream, stream, streams
from training.data.streaming.table_reader import open_source
from training.engine.checkpoint import Checkpoint
from training.engine.early_stopping import EarlyStopping, EpochCallback
from training.engine.loop import DivergedError, Samples, train
from training.errors import DataError, JobError
from training.evaluation import metrics
from training.evaluation.diagnostics import diagnose
from training.pipeline import factories
from training.pipeline.network_builder import NetworkSpec, design, zero_unseen_features
from training.pipeline.streaming_loader import Blocks

GOLDEN_ROWS = 8
_GOLDEN_NUMBERS = 100_000  # in all golden rows, so that big images do not fill the manifest
_PASSES = (40_000, 200_000)  # rows that the diagnostics send through the network, at least and at most
_ROOMY = 2**30  # bytes of encoded rows that nobody needs to be told of
_BLOCK = 4096  # rows encoded at a time, in float64


@dataclass(frozen=True)
class Job:
    """The settings of a job file, and the folder its paths start from. `source` is what messages call it."""

    settings: Settings
    folder: Path
    source: str = "job"


@dataclass(frozen=True)
class Prepared:
    """All that a training needs; `x_...` are encoded rows. `job` has written out what was inferred.

    Training rows that are too many for memory are in `blocks`; `dataset` and `split` then have only the others.
    """

    job: Job
    dataset: Dataset
    split: Split
    signature: Signature
    design: NetworkSpec
    notes: list[str]
    blocks: Blocks | None = None

    @property
    def stream(self) -> Stream | None:
        return None if self.blocks is None else self.blocks.stream

    @cached_property
    def samples(self) -> Samples:
        """The rows to learn from and their targets, as the network takes them."""
        if self.blocks is not None:
            return self.blocks
        return Samples(self.x_training, self.targets(self.split.training))

    @property
    def sizes(self) -> dict[str, int]:
        """How many rows each part has."""
        parts = {"training": len(self.split.training if self.blocks is None else self.blocks)}
        return {**parts, "validation": len(self.split.validation), "test": len(self.split.test)}

    @cached_property
    def x_training(self) -> NDArray[Any]:
        return self.encoded(self.split.training)

    @cached_property
    def x_validation(self) -> NDArray[Any]:
        return self.encoded(self.split.validation)

    @cached_property
    def x_judged(self) -> NDArray[Any]:
        return self.encoded(self.split.test) if len(self.split.test) else self.x_training

    def encoded(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """These rows as the network takes them, (n, features)."""
        encoded = np.empty((len(rows), self.signature.width), self.design.dtype)
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK]
            inputs = {name: values[block] for name, values in self.dataset.inputs.items()}
            try:
                encoded[start : start + _BLOCK] = self.signature.encode_columns(inputs, self.design.dtype)
            except InputError as error:
                raise self._explained(error, block) from error
        return encoded

    def targets(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """The answers of these rows as the network is to put them out, (n, outputs)."""
        answers, dtype = self.dataset.answers[rows], self.design.dtype
        with np.errstate(over="ignore"):
            found = self.design.targets(answers, self.signature.output)
        if len(wrong := np.argwhere(~np.isfinite(found))):
            row, target = wrong[0]
            location = f"{self.dataset.location(int(rows[row]))}, column {self.dataset.targets[target]}"
            problem = f"expected a number that fits {dtype}; found {answers[row, target]:g}"
            fix = "write scale = 'standard' in [data], or dtype = 'float64' in [network]"
            raise DataError(self.dataset.name, [Fault(location, problem, fix)])
        return found

    def instances(self, rows: NDArray[np.int64]) -> list[Any]:
        """These rows raw, as a caller of the service would send them: lists in column order, or nested arrays."""
        values = [self.dataset.inputs[name][rows] for name in self.signature.names]
        if self.signature.inputs[0].kind == "array":
            arrays: list[Any] = values[0].tolist()
            return arrays
        return [[_json(cell) for cell in row] for row in zip(*(column.tolist() for column in values), strict=True)]

    def labels(self, rows: NDArray[np.int64]) -> list[Any]:
        """The right answers of these rows: labels, numbers, or `{name: number}` of several targets."""
        answers = self.dataset.answers[rows]
        if self.dataset.labels:
            return [self.dataset.labels[i] for i in answers]
        if len(self.dataset.targets) == 1:
            flat: list[Any] = answers[:, 0].tolist()
            return flat
        return [dict(zip(self.dataset.targets, row, strict=True)) for row in answers.tolist()]

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the model, to the bit: the job, but not where it is published, and the data."""
        job = {name: section for name, section in self.job.settings.as_dict().items() if name != "publish"}
        return {"job": job, "data": {"sha256": self.dataset.sha256, "rows": sum(self.sizes.values())}}

    @property
    def test_instances(self) -> list[Any]:
        """The rows that the metrics are about: those held out, or with `test = 0` those of training."""
        return self.instances(self.split.judged)

    @property
    def test_labels(self) -> list[Any]:
        return self.labels(self.split.judged)

    def _explained(self, error: InputError, rows: NDArray[np.int64]) -> DataError:
        """An encoding error with the lines of the file, and what a job can do about it."""
        faults = []
        for fault in error.faults:
            _, row, *column = fault.location.split(".", 2)
            location = self.dataset.location(int(rows[int(row)])) + "".join(f", column {name}" for name in column)
            fix = fault.fix
            if "expected one of" in fault.problem:
                fix = "no training row has it: write unknown = 'bucket' in [data], or try another train.seed"
            faults.append(Fault(location, fault.problem, fix))
        return DataError(self.dataset.name, faults, error.total)


@dataclass(frozen=True)
class Outcome:
    """A trained model and how good it is. `version` is None until it is published, `report` says where that lies."""

    model: Model
    metrics: Mapping[str, Any]
    baseline: Mapping[str, Any]
    epochs: int
    best_epoch: int
    version: Version | None = None
    report: str | None = None


def load(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Job:
    """Read a job file; `overrides` sets keys by place: `{"train.epochs": 5}`, None leaves one out.

    JobError with every fault at once.
    """
    path = Path(path)
    content = toml_loader.read_toml(path)
    for location, value in (overrides or {}).items():
        toml_loader.set_key(content, location, value)
    return from_dict(content, path.parent, str(path))


def from_dict(content: Mapping[str, Any], folder: Path, source: str = "job") -> Job:
    """A job from what its file would say."""
    settings = validate(content)
    if isinstance(settings, list):
        raise JobError(source, settings)
    return Job(settings, folder, source)


def prepare(job: Job, fold: Fold | None = None, rows: Dataset | None = None) -> Prepared:
    """Read the data, split it, fit the preprocessing on the training rows and design the network.

    With a `fold`, its rows are those held out, instead of a share `split.test`; `rows` are the job's, if they are read.
    """
    settings = job.settings
    rng, shares = _generators(settings)[0], settings.split
    found: Stream | None = None
    if streams(settings.data, job.folder):
        _check_streamable(job, fold)
        found = stream(open_source(settings.data, job.folder), settings.data, shares, rng)
        rows, parts, signature = found.held, found.split, found.signature(settings.data)
    else:
        rows = rows or dataset.load(settings.data, job.folder)
        parts = split(rows.answers, rows.labels, shares.test, shares.validation, rng, rows.name, fold)
        signature = rows.signature(settings.data, parts.training)
    plan = design(settings, signature, job.source)
    counts = np.zeros(0, np.int64)
    if rows.labels:
        counts = np.bincount(rows.answers[parts.training]) if found is None else found.class_counts
    plan = replace(plan, class_weights=factories.class_weights(settings.train, rows.labels, counts, job.source))
    data = replace(settings.data, task=rows.task, stream=None if found is None else True)
    if settings.data.path is not None and "array" not in rows.kinds.values():
        data = replace(data, columns=list(rows.inputs), kinds=dict(rows.kinds))
    resolved = plan.resolved(replace(settings, data=data))
    if found is None:
        learned = {name: values[parts.training] for name, values in rows.inputs.items()}
        warnings = suspects(learned, rows.answers[parts.training], bool(rows.labels))
    else:
        sample = found.sample()
        warnings = suspects({name: sample[name] for name in rows.inputs}, found.answers(sample), bool(rows.labels))
    if rows.labels:
        warnings += unjudged(rows.labels, rows.answers[parts.test])
    notes = rows.notes + constants(signature) + channels_first(plan.input_shape) + warnings
    encoded = len(rows) * signature.width * np.dtype(plan.dtype).itemsize
    if found is None and encoded > _ROOMY:
        notes.append(f"encoded, the rows take {encoded / 2**30:.1f} GiB of memory; stream = true in [data] takes less")
    # A row that cannot be encoded, held out or not, is to be known now and not after the training.
    blocks = None if found is None else Blocks(found, signature, plan)
    prepared = Prepared(replace(job, settings=resolved), rows, parts, signature, plan, notes, blocks)
    try:
        _ = prepared.samples, prepared.x_validation, prepared.x_judged
    except MemoryError as error:
        problem = f"the rows do not fit in memory once they are encoded, {signature.width} numbers each: {error}"
        fewer = "leave columns of many categories out"
        fix = f"write stream = true in [data], or {fewer}" if found is None else f"lower split.test, or {fewer}"
        raise DataError(rows.name, [Fault("", problem, fix)]) from error
    return prepared


def _check_streamable(job: Job, fold: Fold | None) -> None:
    faults = []
    if fold is not None:
        parquet = str(job.settings.data.path).lower().endswith(".parquet")
        fix = "Parquet is always streamed: write the rows as CSV" if parquet else "write stream = false, or no folds"
        faults.append(Fault("data.stream", "folds are drawn of rows in memory", fix))
    if job.settings.train.batch_size == "all":
        faults.append(Fault("train.batch_size", "'all' rows are too many for memory", "write a number of rows"))
    if not job.settings.split.test:
        problem = "a stream is judged on rows held out; found 0"
        faults.append(Fault("split.test", problem, "write a share such as 0.1, or stream = false in [data]"))
    if faults:
        raise JobError(job.source, faults)


def fit(
    prepared: Prepared,
    on_epoch: EpochCallback | None = None,
    checkpoint: Checkpoint | None = None,
    *,
    diagnostics: bool = True,
) -> Outcome:
    """Train the network and judge it. DivergedError when the loss stops being a number.

    With a checkpoint the training is kept in its file, for when it is interrupted; `prepared.identity` is whose it is.
    Without `diagnostics` the model has metrics, but not all that its report draws.
    """
    settings = prepared.job.settings
    with threadpool_limits(settings.train.threads, user_api="blas"), np.errstate(all="ignore"):
        network, early_stopping = _trained(prepared, on_epoch, checkpoint)
        best = early_stopping.restore_best()
        judged = prepared.split.judged
        outputs = network(prepared.x_judged)
        if not np.isfinite(outputs).all():
            raise DivergedError(best.number, early_stopping.steps, math.nan)
        of = "test rows" if len(prepared.split.test) else "training rows"
        answers, output = prepared.dataset.answers, prepared.signature.output
        found = {"rows": len(judged), "of": of, **metrics.evaluate(output, answers[judged], outputs)}
        typical = answers[prepared.split.training] if prepared.stream is None else prepared.stream.typical
        baseline = metrics.evaluate_baseline(output, answers[judged], typical)
        drawn: dict[str, Any] = {}
        if diagnostics:
            drawn["diagnostics"] = diagnose(
                network,
                prepared.signature,
                prepared.x_judged,
                answers[judged],
                outputs,
                _generators(settings)[3],
                row_budget=_passes(prepared.sizes["training"] * len(early_stopping.history)),
            )
    golden = max(1, min(GOLDEN_ROWS, _GOLDEN_NUMBERS // prepared.signature.width))
    record = {
        **prepared.identity,
        "split": prepared.sizes,
        "metrics": found,
        "baseline": baseline,
        **drawn,
        "epochs": len(early_stopping.history),
        "best_epoch": best.number,
        "history": early_stopping.history_points(),
    }
    model = Model(
        network,
        prepared.signature,
        settings.model.description,
        record,
        Golden(prepared.instances(judged[:golden]), outputs[:golden]),
    )
    return Outcome(model, found, baseline, len(early_stopping.history), best.number)


def run(job: Job, store: Store | None = None, on_epoch: EpochCallback | None = None) -> Outcome:
    """Prepare, fit and, with a store, publish."""
    outcome = fit(prepare(job), on_epoch)
    return outcome if store is None else add_report(publish(outcome, job, store), store)


def publish(outcome: Outcome, job: Job, store: Store) -> Outcome:
    """Publish the model as the next version of its name."""
    return replace(outcome, version=store.publish(job.settings.model.name, outcome.model))


def add_report(outcome: Outcome, store: Store) -> Outcome:
    """Put the report of what was published beside it."""
    version = outcome.version
    if version is None:
        raise ValueError("add_report: expected an outcome that is published, found one that is not")
    reference = f"{version.name}/{version.number}"
    try:
        page = render(outcome.model, reference, version.digest)
        return replace(outcome, report=store.add_report(version, page))
    except StoreError as error:
        raise StoreError(f"{reference} is published, but not its report: {error}") from error


def _trained(
    prepared: Prepared, on_epoch: EpochCallback | None, checkpoint: Checkpoint | None
) -> tuple[Any, EarlyStopping]:
    settings, parts = prepared.job.settings.train, prepared.split
    _, weights, order, _ = _generators(prepared.job.settings)
    samples = prepared.samples
    network = prepared.design.network(weights)
    zero_unseen_features(network, samples.nonzero_features)
    loss = prepared.design.criterion()
    batch_size = len(samples) if settings.batch_size == "all" else int(settings.batch_size)
    y_validation = prepared.targets(parts.validation)
    steps = math.ceil(len(samples) / batch_size)
    early_stopping = EarlyStopping(
        network, loss, prepared.x_validation, y_validation, settings.early_stopping, on_epoch, steps
    )
    optimizer = factories.optimizer(settings, network)
    schedule = factories.schedule(settings, lambda _: early_stopping.history[-1].score)
    if checkpoint is not None:
        checkpoint.register(early_stopping=early_stopping)
    with nullcontext() if checkpoint is None else checkpoint.stop_on_signals():
        train(
            network, samples, None, loss, optimizer, settings.epochs, batch_size,
            rng=order, on_epoch=early_stopping, schedule=schedule, checkpoint=checkpoint,
        )  # fmt: skip
    return network, early_stopping


def _passes(trained: int) -> int:
    """How many rows the diagnostics may send through the network: a tenth of those that training sent."""
    return min(max(trained // 10, _PASSES[0]), _PASSES[1])


def _generators(settings: Settings) -> list[np.random.Generator]:
    """For the split, the first weights, the order of rows and the diagnostics: a change to one leaves the others."""
    return [np.random.default_rng(seed) for seed in np.random.SeedSequence(settings.train.seed).spawn(4)]


def _json(cell: Any) -> Any:
    return None if isinstance(cell, float) and math.isnan(cell) else cell
