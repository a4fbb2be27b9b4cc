"""The training of a job's network, or of the networks of an ensemble.

An ensemble is trained as in a cross-validation: the rows that are not tested are divided into folds, and each network
is trained on all folds but one, which early stopping watches. The model is the average of the networks.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.errors import Fault
from model_store.evaluation.record import OVERALL_LABEL_METRICS
from model_store.nn import Array, Average, Sequential, build
from training.data.splitting import Fold, Split
from training.encoded_rows import apply_in_pieces, hold_features
from training.engine.batch_checks import SingleRowBatchWarning
from training.engine.checkpoint import Checkpoint, json_from_array, json_to_array
from training.engine.data_parallel import EXACT_PARTS, Communicator, DataParallel
from training.engine.early_stopping import EarlyStopping, EpochCallback
from training.engine.loop import DivergedError, Samples, train
from training.errors import JobError
from training.evaluation import metrics
from training.evaluation.predictor import Predictor
from training.network.post_training import copy_arrays, hold_constant_features, set_output_range
from training.pipeline import factories
from training.pipeline.preparation import make_generators
from training.pipeline.prepared_job import PreparedJob
from training.pipeline.row_split import split_part
from training.pipeline.validation_metric import make_metric

_FOLDS_KEY, _MEMBERS_KEY = 6, 7  # of the generators of an ensemble, after those of `make_generators`


@dataclass(frozen=True)
class OutOfFold:
    """The rows that the networks of an ensemble were not trained on, ascending, and which network predicts which."""

    rows: NDArray[np.int64]
    predictor: Predictor


@dataclass(frozen=True)
class TrainedNetwork:
    """A network with the weights of its best epoch, and its training.

    `ensemble` describes the networks of an average. `history` (see
    `EarlyStopping.history_points`), `epochs` and `best_epoch` are then those of the first network.
    """

    network: Sequential
    epochs: int
    best_epoch: int
    history: list[dict[str, Any]]
    steps: int  # per epoch
    ensemble: dict[str, Any] | None = None
    out_of_fold: OutOfFold | None = None


def train_ensemble(
    prepared: PreparedJob,
    count: int,
    on_epoch: EpochCallback | None = None,
    checkpoint: Checkpoint | None = None,
    communicator: Communicator | None = None,
) -> TrainedNetwork:
    """Train `count` networks, each with another fold of the training rows for validation, and return their average.

    Each row is validated once: the metrics `out_of_fold` are those of the networks for rows that they were not trained
    on, although early stopping has seen them. `on_epoch` gets the epochs of all networks. A checkpoint holds the
    networks that are finished, and the training of the next one.
    """
    finished = FinishedNetworks()
    if checkpoint is not None:
        checkpoint.register(ensemble=finished)
        checkpoint.restore("ensemble")
    members = [_member(prepared, number, count) for number in range(1, count + 1)]
    if communicator is not None:
        communicator.bcast(len(finished.networks))  # which `train_as_worker` skips
    with nullcontext() if checkpoint is None else checkpoint.stop_on_signals():
        for number, member in list(enumerate(members, 1))[len(finished.networks) :]:
            one = train_network(member, _numbered(on_epoch, number, count), checkpoint, communicator)
            finished.networks.append(one)
    trained = finished.networks
    out_of_fold = _out_of_fold([member.split for member in members], [one.network for one in trained])
    outputs = out_of_fold.predictor.apply(apply_in_pieces, prepared.encode_rows(out_of_fold.rows))
    if not np.isfinite(outputs).all():
        raise DivergedError(trained[0].best_epoch, trained[0].steps, math.nan)
    targets, weights = prepared.dataset.targets[out_of_fold.rows], prepared.weights(out_of_fold.rows)
    found = metrics.evaluate(prepared.signature.output, targets, outputs, weights, prepared.target_loss)
    described = {
        "networks": count,
        "epochs": [one.epochs for one in trained],
        "best_epochs": [one.best_epoch for one in trained],
        "out_of_fold": {"rows": len(targets), **_headline(found)},
    }
    return replace(
        trained[0],
        network=Sequential([Average([one.network for one in trained])]),
        ensemble=described,
        out_of_fold=out_of_fold,
    )


class FinishedNetworks:
    """The networks of an ensemble that are finished, as a part of a checkpoint."""

    def __init__(self) -> None:
        self.networks: list[TrainedNetwork] = []

    def state(self) -> dict[str, Array]:
        described = [
            [one.network.config(), str(one.network.dtype), one.epochs, one.best_epoch, one.history, one.steps]
            for one in self.networks
        ]
        arrays = {f"{i}/{name}": a for i, one in enumerate(self.networks) for name, a in one.network.arrays().items()}
        return {"networks": json_to_array(described), **arrays}

    def load_state(self, state: Mapping[str, Array]) -> None:
        self.networks = []
        for i, (config, dtype, *values) in enumerate(json_from_array(state["networks"])):
            own = f"{i}/"
            arrays = {name.removeprefix(own): array for name, array in state.items() if name.startswith(own)}
            self.networks.append(TrainedNetwork(build(config, np.dtype(dtype), arrays=arrays), *values))


def _numbered(on_epoch: EpochCallback | None, number: int, count: int) -> EpochCallback | None:
    if on_epoch is None:
        return None
    return lambda epoch: on_epoch(replace(epoch, network=number, networks=count))


def _member(prepared: PreparedJob, number: int, count: int) -> PreparedJob:
    """Return the job of one network of an ensemble: with its own seed, and its fold as validation rows."""
    settings, seed = prepared.job.settings, prepared.job.settings.train.seed
    member_seed = int(np.random.SeedSequence(seed, spawn_key=(_MEMBERS_KEY, number)).generate_state(1)[0])
    settings = replace(settings, train=replace(settings.train, seed=member_seed))
    initial = prepared.initial[number - 1 : number]
    return replace(without_fold(prepared, number, count), job=replace(prepared.job, settings=settings), initial=initial)


def without_fold(prepared: PreparedJob, number: int, count: int) -> PreparedJob:
    """Return a job whose validation rows are fold `number` of the training rows; of a stream, some of a large fold."""
    parts = prepared.split
    if (loader := prepared.block_loader) is not None:
        split = replace(parts, validation=loader.dataset.folds[number - 1])
        return replace(prepared, split=split, block_loader=loader.without(number - 1))
    settings = prepared.job.settings
    rng = np.random.default_rng(np.random.SeedSequence(settings.train.seed, spawn_key=(_FOLDS_KEY,)))
    found = split_part(prepared.dataset, parts.training, settings.split, rng, Fold(number, count))
    return replace(prepared, split=Split(found.training, found.test, parts.test))


def _out_of_fold(splits: Sequence[Split], networks: Sequence[Sequential]) -> OutOfFold:
    rows = np.concatenate([split.validation for split in splits])
    of_row = np.repeat(np.arange(len(splits)), [len(split.validation) for split in splits])
    order = np.argsort(rows)
    return OutOfFold(rows[order], Predictor(networks, of_row[order]))


def _headline(found: dict[str, Any]) -> dict[str, Any]:
    return {key: found[key] for key in ("accuracy", "targets", *OVERALL_LABEL_METRICS) if key in found}


def train_network(
    prepared: PreparedJob,
    on_epoch: EpochCallback | None = None,
    checkpoint: Checkpoint | None = None,
    communicator: Communicator | None = None,
) -> TrainedNetwork:
    """Train one network on the training rows; early stopping, if there is any, watches the validation rows.

    communicator: that of the ranks that train together; the others call `train_as_worker`.
    """
    samples = prepared.samples
    network, early_stopping = _fit(prepared, samples, on_epoch, checkpoint, communicator)
    best = early_stopping.restore_best()
    network = hold_constant_features(network, prepared.constant_features, samples.first_sample)
    epochs = len(early_stopping.history)
    return TrainedNetwork(network, epochs, best.number, early_stopping.history_points(), early_stopping.steps)


def check_ranks(prepared: PreparedJob, ranks: int) -> None:
    """Raise JobError if so many ranks cannot train the job's network together."""
    exact, spec = prepared.job.settings.train.reduce == "exact", prepared.network_spec
    if ranks == 1 and not exact:
        return
    faults = []
    if "batch_norm" in spec.layers:
        problem = "batch_norm needs the statistics of whole batches, and each rank has a part of a batch"
        faults.append(Fault("network.layers", problem, "use layer_norm, or train in one process without train.reduce"))
    if exact and ranks > EXACT_PARTS:
        problem = f"'exact' divides a batch into {EXACT_PARTS} parts, found {ranks} ranks"
        faults.append(Fault("train.reduce", problem, f"start {EXACT_PARTS} ranks at most, or write 'fast'"))
    if faults:
        raise JobError(spec.source, faults)


def train_as_worker(prepared: PreparedJob, communicator: Communicator) -> None:
    """Compute parts of the gradients of the networks that the main rank trains."""
    count = prepared.job.settings.train.ensemble
    if count is None:
        _fit(prepared, prepared.samples, communicator=communicator)
        return
    for number in range(communicator.bcast(None) + 1, count + 1):
        member = _member(prepared, number, count)
        _fit(member, member.samples, communicator=communicator)


def _fit(
    prepared: PreparedJob,
    samples: Samples,
    on_epoch: EpochCallback | None = None,
    checkpoint: Checkpoint | None = None,
    communicator: Communicator | None = None,
) -> tuple[Sequential, EarlyStopping]:
    """Train one network, and return it after its last epoch with the history of the main rank."""
    settings, parts = prepared.job.settings.train, prepared.split
    _, weights_rng, order_rng, *_ = make_generators(prepared.job.settings)
    network = prepared.network_spec.build(weights_rng)
    if prepared.initial:
        copy_arrays(prepared.initial[0], network)
    set_output_range(network, *(limits[: prepared.network_spec.output_size] for limits in samples.target_range))
    loss = prepared.network_spec.criterion()
    batch_size = len(samples) if settings.batch_size == "all" else int(settings.batch_size)
    # As the published network takes these rows: see `hold_constant_features`.
    x_validation = hold_features(prepared.x_validation, prepared.constant_features, samples.first_sample)
    y_validation = prepared.encode_learned(parts.validation)
    steps = math.ceil(len(samples) / batch_size)
    early_stopping = EarlyStopping(
        network,
        prepared.network_spec.criterion(smoothed=False),
        x_validation,
        y_validation,
        settings.early_stopping,
        on_epoch,
        steps,
        make_metric(
            settings.early_stopping,
            prepared.signature.output,
            prepared.dataset.targets[parts.validation],
            prepared.weights(parts.validation),
            prepared.target_loss,
        ),
    )
    optimizer = factories.make_optimizer(settings, network, prepared.job.settings.network.parametrization)
    schedule = factories.make_schedule(settings.schedule, lambda _: early_stopping.history[-1].score)
    regularization_schedule = factories.make_schedule(settings.regularization_schedule)
    parallel = None
    if settings.reduce == "exact" or communicator is not None:
        interrupted = (lambda: False) if checkpoint is None else lambda: checkpoint.interrupted
        parallel = DataParallel(communicator, exact=settings.reduce == "exact", interrupted=interrupted)
    if checkpoint is not None:
        checkpoint.register(early_stopping=early_stopping)
    with (
        warnings.catch_warnings(action="ignore", category=SingleRowBatchWarning),  # a note of the job
        nullcontext() if checkpoint is None else checkpoint.stop_on_signals(),
    ):
        train(
            network, samples, None, loss, optimizer, settings.epochs, batch_size,
            rng=order_rng, on_epoch=early_stopping, schedule=schedule, checkpoint=checkpoint,
            regularization_schedule=regularization_schedule, parallel=parallel,
        )  # fmt: skip
    return network, early_stopping
