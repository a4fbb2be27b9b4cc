"""The pipeline of a training job: from a job file to a model in the store.

    job = load("examples/penguins.toml", {"train.epochs": 5})
    prepared = prepare(job)                     # data read, split and encoded; nothing trained
    outcome = train_and_evaluate(prepared)      # a model with its metrics
    outcome = run(job, open_store("models"))    # all of it, published: outcome.version

The same job and seed give the same model, bit for bit. All randomness comes from generators seeded by `train.seed`: one
each for the split, the initial weights, the order of rows, the diagnostics, the synthetic rows, and the linear model
beside the network. A model records no clock, no machine, and no path except those of the job file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from model_store.artifact.answers import Answers
from model_store.artifact.model import Golden, Model
from model_store.errors import StoreError
from model_store.evaluation.record import OVERALL_LABEL_METRICS
from model_store.registry.store import Store, Version
from model_store.schema.signature import MultiLabelOutput, RegressionOutput
from training.config import toml_loader
from training.config.schema import validate
from training.encoded_rows import EncodedRows, apply_in_pieces
from training.engine.checkpoint import Checkpoint
from training.engine.data_parallel import Communicator
from training.engine.early_stopping import EpochCallback
from training.engine.loop import DivergedError
from training.errors import JobError
from training.evaluation import metrics
from training.evaluation.conformal_scores import coverage
from training.evaluation.diagnostics import EvaluatedRows, diagnose
from training.evaluation.outcome_notes import OUT_OF_FOLD_ROWS, describe_weak_spots, find_outcome_notes
from training.evaluation.predictor import Predictor
from training.pipeline.calibration import (
    add_threshold,
    check_calibration,
    check_threshold,
    make_conformal,
    scale_temperature,
)
from training.pipeline.golden_rows import make_golden
from training.pipeline.linear_model import fit_linear_model
from training.pipeline.network_training import (
    TrainedNetwork,
    check_ranks,
    train_as_worker,
    train_ensemble,
    train_network,
    without_fold,
)
from training.pipeline.preparation import make_generators, prepare
from training.pipeline.prepared_job import Job, PreparedJob

TEST_ROWS, TRAINING_ROWS = "test rows", "training rows"  # that the metrics are measured of; the latter optimistically
_MIN_DIAGNOSTIC_ROWS, _MAX_DIAGNOSTIC_ROWS = 40_000, 200_000  # that the diagnostics send through the network

__all__ = [
    "Job",
    "Outcome",
    "PreparedJob",
    "add_report",
    "check_ranks",
    "from_dict",
    "load",
    "load_content",
    "prepare",
    "publish",
    "run",
    "train_and_evaluate",
    "with_search",
    "work",
]


@dataclass(frozen=True)
class _EvaluatedRows:
    """The rows that the metrics are measured `of`: their indices, encoded, and the network that predicts each."""

    of: str
    rows: NDArray[np.int64]
    x: EncodedRows
    predictor: Predictor


@dataclass(frozen=True)
class Outcome:
    """A trained model with its metrics. `version` is None before it is published; `report` is the report's location."""

    model: Model
    metrics: Mapping[str, Any]
    baseline: Mapping[str, Any]
    linear: Mapping[str, Any] | None
    epochs: int
    best_epoch: int
    version: Version | None = None
    report: str | None = None
    notes: Sequence[str] = ()  # on the training; those on the job and its data are in `PreparedJob.notes`


def load(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Job:
    """Read a job file. JobError lists all faults.

    overrides: sets keys by location: `{"train.epochs": 5}`; None removes a key.
    """
    path = Path(path)
    return from_dict(load_content(path, overrides), path.parent, str(path))


def load_content(path: Path, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Read a job file as `load` does, but return its content unchecked. JobError if it is not TOML."""
    content = toml_loader.read_toml(path)
    for location, value in (overrides or {}).items():
        toml_loader.set_key(content, location, value)
    return content


def from_dict(content: Mapping[str, Any], folder: Path, source: str = "job") -> Job:
    """Return the job of a job file's content. JobError lists all faults.

    `[train]` counts as absent with seed, threads and reduce alone: see `Job`.
    """
    settings = validate(content)
    if isinstance(settings, list):
        raise JobError(source, settings)
    has_train = bool(set(content.get("train", {})) - {"seed", "threads", "reduce"})
    return Job(settings, folder, source, has_network="network" in content, has_train=has_train)


def train_and_evaluate(
    prepared: PreparedJob,
    on_epoch: EpochCallback | None = None,
    checkpoint: Checkpoint | None = None,
    *,
    diagnostics: bool = True,
    communicator: Communicator | None = None,
) -> Outcome:
    """Train the network and compute its metrics. DivergedError if the loss or an output is not finite.

    checkpoint: a file that the training is saved in and resumed from; its identity is `prepared.identity`.
    diagnostics: False skips the data of the report's charts.
    communicator: that of the ranks which train together (see `training.engine.data_parallel`); this is the main rank,
        and the others call `work`.
    """
    settings = prepared.job.settings
    check_threshold(prepared)
    check_calibration(prepared)
    check_ranks(prepared, ranks := 1 if communicator is None else communicator.Get_size())
    with threadpool_limits(settings.train.threads, user_api="blas"), np.errstate(all="ignore"):
        if settings.train.ensemble is None:
            trained = train_network(prepared, on_epoch, checkpoint, communicator)
        else:
            trained = train_ensemble(prepared, settings.train.ensemble, on_epoch, checkpoint, communicator)
        network = trained.network
        temperature = scale_temperature(prepared, network)
        signature, threshold = add_threshold(prepared, trained)
        evaluated = _evaluated_rows(prepared, trained)
        rows, x = evaluated.rows, evaluated.x
        outputs = evaluated.predictor.apply(apply_in_pieces, x)
        if not np.isfinite(outputs).all():
            raise DivergedError(trained.best_epoch, trained.steps, math.nan)
        conformal = make_conformal(prepared, trained)
        targets, output, stream = prepared.dataset.targets, signature.output, prepared.stream
        loss = prepared.target_loss
        weights, weight_column = prepared.weights(rows), settings.data.weight
        of = evaluated.of
        found = {"rows": len(rows), "of": of, **metrics.evaluate(output, targets[rows], outputs, weights, loss)}
        if loss.name == "pinball":
            found["quantile"] = loss.level
        if weight_column is not None:
            found["weight"] = weight_column
        learned = targets[prepared.split.training] if stream is None else prepared.baseline_targets
        learned_weights = prepared.weights(prepared.split.training) if stream is None else prepared.baseline_weights
        baseline = metrics.evaluate_baseline(output, targets[rows], learned, weights, learned_weights, loss)
        charts: dict[str, Any] = {}
        if evaluated.of != TRAINING_ROWS and weights is None:  # rows are compared in pairs as if all counted alike
            digest = prepared.dataset.rows_digest(rows)
            charts["held_out"] = metrics.row_results(output, targets[rows], outputs, digest, loss).as_json()
        linear: dict[str, Any] | None = None
        if conformal is not None and evaluated.of == TEST_ROWS and not isinstance(output, MultiLabelOutput):
            answered = signature.decode_arrays(outputs)
            values = answered["values" if isinstance(output, RegressionOutput) else "probabilities"]
            charts["coverage"] = coverage(conformal, output, targets[rows], values)
        if diagnostics:
            linear = _evaluate_linear_model(prepared, evaluated)
            trained_rows = prepared.sizes["training"] * trained.epochs
            budget = min(max(trained_rows // 10, _MIN_DIAGNOSTIC_ROWS), _MAX_DIAGNOSTIC_ROWS)
            networks = (settings.train.ensemble or 1) if evaluated.of == TEST_ROWS else 1  # that predict each row
            charts["diagnostics"] = diagnose(
                evaluated.predictor,
                signature,
                EvaluatedRows(
                    x,
                    targets[rows],
                    outputs,
                    {name: values[rows] for name, values in prepared.dataset.inputs.items()},
                    lambda i: prepared.dataset.location(int(rows[i])),
                    weights,
                ),
                make_generators(settings)[3],
                row_budget=budget // networks,
                raw_values=settings.model.examples == "rows",
                loss=loss,
                held_out=evaluated.of != TRAINING_ROWS,
                temperature=None if temperature is None else temperature.temperature,
            )
        golden = make_golden(
            settings.model.examples,
            network,
            signature,
            lambda count: Golden(prepared.instances(rows[:count]), apply_in_pieces(network, x[:count])),
            make_generators(settings)[4],
        )
        if golden is not None and not np.isfinite(golden.outputs).all():
            raise DivergedError(trained.best_epoch, trained.steps, math.nan)
    record = {
        **prepared.identity,
        "split": prepared.sizes,
        "metrics": found,
        "baseline": baseline,
        **({} if linear is None else {"linear": linear}),
        **({} if temperature is None else {"temperature": temperature.as_json()}),
        **({} if threshold is None else {"threshold": threshold.as_json()}),
        **charts,
        "epochs": trained.epochs,
        "best_epoch": trained.best_epoch,
        "history": trained.history,
        **({} if trained.ensemble is None else {"ensemble": trained.ensemble}),
    }
    notes = [*find_outcome_notes(settings.train, record), *describe_weak_spots(record, prepared.signature)]
    if ranks > 1 and settings.train.reduce != "exact":
        notes.append(f"{ranks} ranks added the gradients; another number of ranks gives other last bits")
    record["notes"] = [*prepared.notes, *notes]
    answers = Answers(prepared.mean.row.astype(network.dtype), conformal)
    model = Model(network, signature, settings.model.description, record, golden, answers=answers)
    return Outcome(model, found, baseline, linear, trained.epochs, trained.best_epoch, notes=notes)


def work(prepared: PreparedJob, communicator: Communicator) -> None:
    """Train with the main rank, which alone evaluates and publishes."""
    with threadpool_limits(prepared.job.settings.train.threads, user_api="blas"), np.errstate(all="ignore"):
        train_as_worker(prepared, communicator)


def run(job: Job, store: Store | None = None, on_epoch: EpochCallback | None = None) -> Outcome:
    """Prepare, train and evaluate a job, and publish the model if there is a store."""
    outcome = train_and_evaluate(prepare(job), on_epoch)
    return outcome if store is None else add_report(publish(outcome, job, store), store)


def with_search(outcome: Outcome, search: Mapping[str, Any]) -> Outcome:
    """Return the outcome with the record of the search that chose the job's settings."""
    training = {**outcome.model.training, "search": search}
    return replace(outcome, model=replace(outcome.model, training=training))


def publish(outcome: Outcome, job: Job, store: Store) -> Outcome:
    """Publish the model as the next version of its name."""
    return replace(outcome, version=store.publish(job.settings.model.name, outcome.model))


def add_report(outcome: Outcome, store: Store) -> Outcome:
    """Write the report of a published outcome to the store."""
    from model_store.report.page import render  # noqa: PLC0415 - other commands start without it

    version = outcome.version
    if version is None:
        raise ValueError("add_report: expected a published outcome, found one without a version")
    reference = f"{version.name}/{version.number}"
    try:
        page = render(outcome.model, reference, version.digest)
        return replace(outcome, report=store.add_report(version, page))
    except StoreError as error:
        raise StoreError(f"{reference} is published, but not its report: {error}") from error


def _evaluated_rows(prepared: PreparedJob, trained: TrainedNetwork) -> _EvaluatedRows:
    """Return the test rows; without any, those that an ensemble predicts out of fold, or the training rows."""
    everything, networks = prepared.split.evaluation_rows, Predictor([trained.network])
    if len(prepared.split.test):
        return _EvaluatedRows(TEST_ROWS, everything, prepared.x_evaluation, networks)
    if trained.out_of_fold is None:
        return _EvaluatedRows(TRAINING_ROWS, everything, prepared.x_evaluation, networks)
    rows = trained.out_of_fold.rows
    x = prepared.x_evaluation if len(rows) == len(everything) else prepared.encode_rows(rows)
    return _EvaluatedRows(OUT_OF_FOLD_ROWS, rows, x, trained.out_of_fold.predictor)


def _evaluate_linear_model(prepared: PreparedJob, evaluated: _EvaluatedRows) -> dict[str, Any] | None:
    """Return the main metrics of a linear model on the evaluated rows; None if there is none.

    Of an ensemble it has the rows of the first network; out of fold, there is one for each network.
    """
    count, jobs = prepared.job.settings.train.ensemble, [prepared]
    if count is not None:
        jobs = [without_fold(prepared, i + 1, count) for i in range(len(evaluated.predictor.networks))]
    linear = [fit_linear_model(job, make_generators(job.job.settings)[5]) for job in jobs]
    networks = [network for network in linear if network is not None]
    if len(networks) < len(linear):
        return None
    predictor, y_true = replace(evaluated.predictor, networks=networks), prepared.dataset.targets[evaluated.rows]
    outputs = predictor.apply(apply_in_pieces, evaluated.x)
    if not np.isfinite(outputs).all():
        return None
    output, weights = prepared.signature.output, prepared.weights(evaluated.rows)
    found = metrics.evaluate(output, y_true, outputs, weights, prepared.target_loss)
    if isinstance(output, MultiLabelOutput):
        return {key: found[key] for key in OVERALL_LABEL_METRICS}
    if isinstance(output, RegressionOutput):
        return found
    loss = metrics.log_loss(predictor.apply(metrics.log_probabilities, evaluated.x), y_true, weights)
    return {"accuracy": found["accuracy"], "log_loss": loss}
