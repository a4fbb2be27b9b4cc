"""The learning-rate range test: the loss at a learning rate that rises with each step; Smith 2017.

At a rate that is too small the loss does not change, at a good one it falls, and at one that is too large it explodes.
The suggested rate is a tenth of the rate with the lowest smoothed loss, which leaves a safety margin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from model_store.nn import Array, Module
from training.encoded_rows import EncodedRows
from training.engine.loop import DivergedError, Samples, train
from training.losses import Loss
from training.optim.base import Optimizer
from training.pipeline import factories
from training.pipeline.job import PreparedJob

MIN_RATE, MAX_RATE, STEPS = 1e-6, 10.0, 200
_SMOOTHING = 0.95
_MAX_LOSS_RATIO = 4.0  # to the lowest loss; the test ends above it


@dataclass(frozen=True)
class RateCurve:
    """The smoothed loss at each rate. `suggestion` is None if no rate lowered the loss."""

    rates: list[float]
    losses: list[float]
    suggestion: float | None


def find_learning_rate(
    module: Module,
    x_train: EncodedRows,
    y_train: Array,
    loss: Loss,
    optimizer: Optimizer,
    batch_size: int,
    rng: np.random.Generator,
    *,
    min_rate: float = MIN_RATE,
    max_rate: float = MAX_RATE,
    steps: int = STEPS,
) -> RateCurve:
    """Return the curve from `min_rate` to `max_rate`, in logarithmic steps. It ends early where the loss explodes.

    `x_train` and `y_train` are rows as the network and the loss take them, see `Samples`.
    Each step trains on its own batch. The module's parameters are useless afterwards.
    """
    size = min(batch_size, len(x_train))
    order = np.concatenate([rng.permutation(len(x_train)) for _ in range(-(-steps * size // len(x_train)))])
    rates: list[float] = []
    losses: list[float] = []
    mean = 0.0
    for i in range(steps):
        rate = min_rate * (max_rate / min_rate) ** (i / (steps - 1))
        optimizer.learning_rate = rate
        batch = order[i * size : (i + 1) * size]
        try:
            samples = Samples(np.asarray(x_train[batch]), y_train[batch])
            [error] = train(module, samples, None, loss, optimizer, 1, size, on_epoch=None)
        except DivergedError:
            break
        mean = _SMOOTHING * mean + (1 - _SMOOTHING) * error
        rates.append(rate)
        losses.append(mean / (1 - _SMOOTHING ** (i + 1)))
        if losses[-1] > _MAX_LOSS_RATIO * min(losses):
            break
    return RateCurve(rates, losses, _suggestion(rates, losses))


def find_job_learning_rate(prepared: PreparedJob) -> RateCurve:
    """Return the curve of a job's network, optimizer and training rows; a streamed job uses one block."""
    settings = prepared.job.settings.train
    _, weights_rng, order_rng = (np.random.default_rng(seed) for seed in np.random.SeedSequence(settings.seed).spawn(3))
    network = prepared.network_spec.build(weights_rng)
    samples = prepared.samples
    size = len(samples) if settings.batch_size == "all" else int(settings.batch_size)
    if prepared.block_loader is None:
        x, y = prepared.x_training, prepared.encode_learned(prepared.split.training)
    else:
        x, y = prepared.block_loader.sample(STEPS * size, np.random.default_rng(settings.seed))
    with threadpool_limits(settings.threads, user_api="blas"), np.errstate(all="ignore"):
        return find_learning_rate(
            network,
            x,
            y,
            prepared.network_spec.criterion(),
            factories.make_optimizer(settings, network, prepared.job.settings.network.parametrization),
            size,
            order_rng,
        )


def _suggestion(rates: list[float], losses: list[float]) -> float | None:
    """Return a tenth of the rate with the lowest loss, to two digits, or None if the loss never fell."""
    if not losses:
        return None
    best = min(range(len(losses)), key=losses.__getitem__)
    rate = rates[best] / 10
    return None if best == 0 else round(rate, 1 - math.floor(math.log10(rate)))
