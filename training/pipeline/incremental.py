"""Incremental training: one epoch on further rows, which continues from weights and the state of the optimizer."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from model_store.nn import Array, Clip, Sequential
from training.engine.batch_checks import SingleRowBatchWarning
from training.engine.loop import train
from training.network.post_training import copy_arrays, set_output_range
from training.pipeline import factories
from training.pipeline.prepared_job import PreparedJob


@dataclass(frozen=True)
class IncrementalNetwork:
    """A network, and the state of its optimizer: None before the first step, and after another kind of training."""

    network: Sequential
    optimizer: Mapping[str, Array] | None = None


def train_epoch(
    prepared: PreparedJob, before: IncrementalNetwork | None, rng: np.random.Generator
) -> tuple[IncrementalNetwork, float]:
    """Train on the training rows once. Return the network, a new one, and the mean loss of the steps.

    rng: draws the order of the rows, dropout, and without a network `before` the weights.

    The range to which a `Clip` limits the outputs grows with the targets. DivergedError if a loss is not finite.
    """
    settings, spec, samples = prepared.job.settings, prepared.network_spec, prepared.samples
    network = spec.build(rng)
    low, high = (limits[: spec.output_size] for limits in samples.target_range)
    if before is not None:
        copy_arrays(before.network, network)
        last = network.modules[-1]
        if isinstance(last, Clip):
            low, high = np.minimum(low, last.low), np.maximum(high, last.high)
    set_output_range(network, low, high)
    optimizer = factories.make_optimizer(settings.train, network, settings.network.parametrization)
    if before is not None and before.optimizer is not None:
        optimizer.load_state(before.optimizer)
    size = settings.train.batch_size
    with (
        threadpool_limits(settings.train.threads, user_api="blas"),
        np.errstate(all="ignore"),
        warnings.catch_warnings(action="ignore", category=SingleRowBatchWarning),
    ):
        batch_size = len(samples) if size == "all" else int(size)
        losses = train(network, samples, None, spec.criterion(), optimizer, 1, batch_size, rng=rng, on_epoch=None)
    return IncrementalNetwork(network, optimizer.state()), losses[-1]
