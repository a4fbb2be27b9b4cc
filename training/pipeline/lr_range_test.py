"""The learning-rate finder: how the loss takes a rate that rises from step to step; Smith 2017.

Too small a rate changes nothing, a good one lets the loss fall, too great a one lets it shoot up. A rate a tenth of
that at which the smoothed loss is lowest still has some room above it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from model_store.nn import Array, Module
from training.engine.loop import DivergedError, train
from training.losses import Loss
from training.optim.base import Optimizer
from training.pipeline import factories
from training.pipeline.job import Prepared

LOWEST, HIGHEST, STEPS = 1e-6, 10.0, 200
_SMOOTHING = 0.95
_MUCH = 4.0  # times the lowest loss, and there is nothing more to see


@dataclass(frozen=True)
class RateCurve:
    """The smoothed loss at each rate. `suggestion` is None where no rate lowered it."""

    rates: list[float]
    losses: list[float]
    suggestion: float | None


def find_rate(
    module: Module,
    x_train: Array,
    y_train: Array,
    loss: Loss,
    optimizer: Optimizer,
    batch_size: int,
    rng: np.random.Generator,
    *,
    lowest: float = LOWEST,
    highest: float = HIGHEST,
    steps: int = STEPS,
) -> RateCurve:
    """The curve from `lowest` to `highest`, evenly in the logarithm, ending early where the loss shoots up.

    Each step takes a batch of its own. The module's parameters are of no use afterwards.
    """
    size = min(batch_size, len(x_train))
    order = np.concatenate([rng.permutation(len(x_train)) for _ in range(-(-steps * size // len(x_train)))])
    rates: list[float] = []
    losses: list[float] = []
    mean = 0.0
    for i in range(steps):
        rate = lowest * (highest / lowest) ** (i / (steps - 1))
        optimizer.learning_rate = rate
        batch = order[i * size : (i + 1) * size]
        try:
            [error] = train(module, x_train[batch], y_train[batch], loss, optimizer, 1, size, on_epoch=None)
        except DivergedError:
            break
        mean = _SMOOTHING * mean + (1 - _SMOOTHING) * error
        rates.append(rate)
        losses.append(mean / (1 - _SMOOTHING ** (i + 1)))
        if losses[-1] > _MUCH * min(losses):
            break
    return RateCurve(rates, losses, _suggestion(rates, losses))


def find_rate_of(prepared: Prepared) -> RateCurve:
    """The curve of a job's network, optimizer and training rows; of a stream's, those of one block."""
    settings = prepared.job.settings.train
    _, weights, order = (np.random.default_rng(seed) for seed in np.random.SeedSequence(settings.seed).spawn(3))
    network = prepared.design.network(weights)
    samples = prepared.samples
    size = len(samples) if settings.batch_size == "all" else int(settings.batch_size)
    if prepared.blocks is None:
        x, y = samples.x, samples.y
    else:
        x, y = prepared.blocks.some(STEPS * size, np.random.default_rng(settings.seed))
    with threadpool_limits(settings.threads, user_api="blas"), np.errstate(all="ignore"):
        return find_rate(
            network,
            x,
            y,
            prepared.design.criterion(),
            factories.optimizer(settings, network),
            size,
            order,
        )


def _suggestion(rates: list[float], losses: list[float]) -> float | None:
    """A tenth of the rate where the loss is lowest, to two digits, if it fell at all on the way there."""
    if not losses:
        return None
    best = min(range(len(losses)), key=losses.__getitem__)
    rate = rates[best] / 10
    return None if best == 0 else round(rate, 1 - math.floor(math.log10(rate)))
