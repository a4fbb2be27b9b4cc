"""The training of a job's network, or of the networks of an ensemble.

An ensemble is trained as in a cross-validation: the rows that are not tested are divided into folds, and each network
is trained on all folds but one, which early stopping watches. The model is the average of the networks.
"""

from __future__ import annotations

import math
import warnings
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from model_store.nn import Average, Sequential
from training.data.splitting import Fold, Split
from training.encoded_rows import apply_in_pieces, hold_features
from training.engine.batch_checks import SingleRowBatchWarning
from training.engine.checkpoint import Checkpoint
from training.engine.early_stopping import EarlyStopping, EpochCallback
from training.engine.loop import DivergedError, train
from training.evaluation import metrics
from training.network.post_training import hold_constant_features, set_output_range
from training.pipeline import factories
from training.pipeline.preparation import PreparedJob, make_generators
from training.pipeline.row_split import split_part
from training.pipeline.validation_metric import make_metric

_FOLDS_KEY, _MEMBERS_KEY = 6, 7  # of the generators of an ensemble, after those of `make_generators`


@dataclass(frozen=True)
class TrainedNetwork:
    """A network with the weights of its best epoch, and its training. `ensemble` describes the networks of an average.

    `history` (see `EarlyStopping.history_points`), `epochs` and `best_epoch` are those of an ensemble's first network.
    """

    network: Sequential
    epochs: int
    best_epoch: int
    history: list[dict[str, Any]]
    steps: int  # per epoch
    ensemble: dict[str, Any] | None = None


def train_ensemble(prepared: PreparedJob, count: int, on_epoch: EpochCallback | None = None) -> TrainedNetwork:
    """Train `count` networks, each with another fold of the training rows for validation, and return their average.

    Each row is validated once: the metrics `out_of_fold` are those of the networks for rows that they were not trained
    on, although early stopping has seen them.
    """
    rows, seed = prepared.split.training, prepared.job.settings.train.seed
    trained: list[TrainedNetwork] = []
    outputs: list[Any] = []
    validated: list[Any] = []
    for number in range(1, count + 1):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_FOLDS_KEY,)))
        parts = split_part(prepared.dataset, rows, prepared.job.settings.split, rng, Fold(number, count))
        member_seed = int(np.random.SeedSequence(seed, spawn_key=(_MEMBERS_KEY, number)).generate_state(1)[0])
        settings = prepared.job.settings
        settings = replace(settings, train=replace(settings.train, seed=member_seed))
        split = Split(parts.training, parts.test, prepared.split.test)
        member = replace(prepared, job=replace(prepared.job, settings=settings), split=split)
        trained.append(train_network(member, on_epoch))
        outputs.append(apply_in_pieces(trained[-1].network, member.x_validation))
        validated.append(split.validation)
        if not np.isfinite(outputs[-1]).all():
            raise DivergedError(trained[-1].best_epoch, trained[-1].steps, math.nan)
    targets = prepared.dataset.targets[np.concatenate(validated)]
    weights = prepared.weights(np.concatenate(validated))
    output, loss = prepared.signature.output, prepared.target_loss
    found = metrics.evaluate(output, targets, np.concatenate(outputs), weights, loss)
    described = {
        "networks": count,
        "epochs": [one.epochs for one in trained],
        "best_epochs": [one.best_epoch for one in trained],
        "out_of_fold": {"rows": len(targets), **_headline(found)},
    }
    network = Sequential([Average([one.network for one in trained])])
    return replace(trained[0], network=network, ensemble=described)


def _headline(found: dict[str, Any]) -> dict[str, Any]:
    return {key: found[key] for key in ("accuracy", "targets") if key in found}


def train_network(
    prepared: PreparedJob, on_epoch: EpochCallback | None = None, checkpoint: Checkpoint | None = None
) -> TrainedNetwork:
    """Train one network on the training rows; early stopping, if there is any, watches the validation rows."""
    settings, parts = prepared.job.settings.train, prepared.split
    _, weights_rng, order_rng, *_ = make_generators(prepared.job.settings)
    samples = prepared.samples
    network = prepared.network_spec.build(weights_rng)
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
    if checkpoint is not None:
        checkpoint.register(early_stopping=early_stopping)
    with (
        warnings.catch_warnings(action="ignore", category=SingleRowBatchWarning),  # a note of the job
        nullcontext() if checkpoint is None else checkpoint.stop_on_signals(),
    ):
        train(
            network, samples, None, loss, optimizer, settings.epochs, batch_size,
            rng=order_rng, on_epoch=early_stopping, schedule=schedule, checkpoint=checkpoint,
            regularization_schedule=regularization_schedule,
        )  # fmt: skip
    best = early_stopping.restore_best()
    network = hold_constant_features(network, prepared.constant_features, samples.first_sample)
    return TrainedNetwork(network, len(early_stopping.history), best.number, early_stopping.history_points(), steps)
