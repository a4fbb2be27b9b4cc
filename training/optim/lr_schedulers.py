"""Schedules of the learning rate, and of weight decay and dropout.

A schedule gives a factor for every step, by which the optimizer's learning rate α is multiplied: `αₜ = α factor(t)`; t
counts the steps taken so far. The factor depends on t alone, so a resumed training has the same rates. `OnPlateau`,
which also depends on the errors, has a `state`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from model_store.nn import Array
from training.stored_arrays import checked_array


@dataclass(frozen=True)
class ScheduleContext:
    """The planned length of a training."""

    total_steps: int
    steps_per_epoch: int


class Schedule:
    """A factor of the learning rate for every step."""

    def factor(self, step: int, context: ScheduleContext) -> float:
        """Return the factor after `step` steps."""
        raise NotImplementedError(f"{type(self).__name__} has no factor()")

    def on_epoch_end(self, error: float) -> None:
        """Note the training error of an epoch that has ended."""

    def state(self) -> dict[str, Array]:
        """Return what a resumed training needs, by name."""
        return {}

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Continue from what `state` returned."""


class Constant(Schedule):
    """`factor(t) = 1`."""

    def factor(self, step: int, context: ScheduleContext) -> float:
        return 1.0


class StepDecay(Schedule):
    """`factor(t) = decay^⌊t / (epochs · steps an epoch)⌋`: one step down every `epochs` epochs.

    As PyTorch's `StepLR`.
    """

    def __init__(self, epochs: int = 30, decay: float = 0.1) -> None:
        _require(epochs >= 1, "StepDecay.epochs", "a whole number of at least 1", epochs)
        _require(0 < decay <= 1, "StepDecay.decay", "a number above 0, at most 1", decay)
        self.epochs, self.decay = epochs, decay

    def factor(self, step: int, context: ScheduleContext) -> float:
        return float(self.decay ** (step // (self.epochs * context.steps_per_epoch)))


class Cosine(Schedule):
    """`factor(t) = min_factor + (1 - min_factor) (1 + cos(π t / T)) / 2`, T all steps; Loshchilov & Hutter 2017.

    Half a cosine wave, from 1 down to `min_factor`. As PyTorch's `CosineAnnealingLR`.
    """

    def __init__(self, min_factor: float = 0.0) -> None:
        _require(0 <= min_factor <= 1, "Cosine.min_factor", "a number from 0 to 1", min_factor)
        self.min_factor = min_factor

    def factor(self, step: int, context: ScheduleContext) -> float:
        return self.min_factor + (1 - self.min_factor) * (1 + math.cos(math.pi * step / context.total_steps)) / 2


class FlatCosine(Schedule):
    """`factor(t) = 1` in the first half of the training, then `(1 + cos(π (2t/T - 1))) / 2` down to 0, T all steps."""

    def factor(self, step: int, context: ScheduleContext) -> float:
        return (1 + math.cos(math.pi * max(0.0, 2 * step / context.total_steps - 1))) / 2


class CosLog4(Schedule):
    """`factor(t) = (1 - cos(2π log₂(1 + 15 t/T))) / 2`, T all steps: four waves from 0 to 1 to 0.

    Each wave takes twice as long as the one before, so that the rate returns to 0 early and late in a training, and the
    best epoch may be kept of any wave; Holzmüller, Grinsztajn & Steinwart 2024, section 3.
    """

    def factor(self, step: int, context: ScheduleContext) -> float:
        return (1 - math.cos(2 * math.pi * math.log2(1 + 15 * step / context.total_steps))) / 2


class WarmUp(Schedule):
    """`factor(t) = start + (1 - start) t / W` for the W steps of the first `epochs` epochs, then the schedule `then`.

    Linear from `start` to 1 (Goyal et al. 2017); `then`, or 1, covers the steps after them. As PyTorch's `SequentialLR`
    of a `LinearLR` and another. `epochs` may be a fraction; it is rounded to whole steps.
    """

    def __init__(self, epochs: float = 1, then: Schedule | None = None, start: float = 0.01) -> None:
        _require(epochs > 0, "WarmUp.epochs", "a number above 0", epochs)
        _require(0 < start <= 1, "WarmUp.start", "a number above 0, at most 1", start)
        self.epochs, self.start = epochs, start
        self.then = then or Constant()

    def factor(self, step: int, context: ScheduleContext) -> float:
        steps = min(round(self.epochs * context.steps_per_epoch), context.total_steps)
        if step < steps:
            return self.start + (1 - self.start) * step / steps
        return self.then.factor(step - steps, ScheduleContext(context.total_steps - steps, context.steps_per_epoch))

    def on_epoch_end(self, error: float) -> None:
        self.then.on_epoch_end(error)

    def state(self) -> dict[str, Array]:
        return self.then.state()

    def load_state(self, state: Mapping[str, Array]) -> None:
        self.then.load_state(state)


class OneCycle(Schedule):
    """From `initial_factor` up to 1 in the fraction `rise_fraction` of all steps, then down to `final_factor`.

    With `wave(a, b, p) = b + (a - b) (1 + cos πp) / 2`, T all steps and the top at `t* = rise_fraction·T - 1`:
    `factor(t) = wave(initial_factor, 1, t / t*)` for t ≤ t*, else
    `factor(t) = wave(1, final_factor, (t - t*) / (T - 1 - t*))`; Smith & Topin 2018.
    The optimizer's learning rate is the highest. As PyTorch's `OneCycleLR`, with its defaults, but the momentum does
    not change.
    """

    def __init__(
        self, rise_fraction: float = 0.3, initial_factor: float = 1 / 25, final_factor: float = 1 / 250_000
    ) -> None:
        _require(0 < rise_fraction < 1, "OneCycle.rise_fraction", "a number between 0 and 1", rise_fraction)
        _require(0 < initial_factor <= 1, "OneCycle.initial_factor", "a number above 0, at most 1", initial_factor)
        _require(0 <= final_factor <= 1, "OneCycle.final_factor", "a number from 0 to 1", final_factor)
        self.rise_fraction, self.initial_factor, self.final_factor = rise_fraction, initial_factor, final_factor

    def factor(self, step: int, context: ScheduleContext) -> float:
        top = self.rise_fraction * context.total_steps - 1
        if step <= top and top > 0:
            return _half_cosine(self.initial_factor, 1, step / top)
        return _half_cosine(1, self.final_factor, (step - top) / (context.total_steps - 1 - top))


class OnPlateau(Schedule):
    """Multiply the factor by `decay` if no error has improved for more than `patience` epochs.

    An improvement is `error < best (1 - threshold)`. For `cooldown` epochs after a cut no epochs are counted. The
    factor does not fall below `min_factor`. As PyTorch's `ReduceLROnPlateau`.

    score: maps an epoch's training error to the number to compare instead, usually a validation loss.
    """

    def __init__(
        self,
        patience: int = 10,
        decay: float = 0.1,
        threshold: float = 1e-4,
        cooldown: int = 0,
        min_factor: float = 0.0,
        score: Callable[[float], float] | None = None,
    ) -> None:
        _require(patience >= 0, "OnPlateau.patience", "a whole number of at least 0", patience)
        _require(0 < decay < 1, "OnPlateau.decay", "a number between 0 and 1", decay)
        _require(0 <= threshold < 1, "OnPlateau.threshold", "a number from 0 to below 1", threshold)
        _require(cooldown >= 0, "OnPlateau.cooldown", "a whole number of at least 0", cooldown)
        _require(0 <= min_factor <= 1, "OnPlateau.min_factor", "a number from 0 to 1", min_factor)
        self.patience, self.decay, self.threshold = patience, decay, threshold
        self.cooldown, self.min_factor, self.score = cooldown, min_factor, score
        self._factor, self._best, self._bad_epochs, self._cooldown_left = 1.0, math.inf, 0, 0

    def factor(self, step: int, context: ScheduleContext) -> float:
        return self._factor

    def on_epoch_end(self, error: float) -> None:
        score = error if self.score is None else self.score(error)
        if score < self._best * (1 - self.threshold):
            self._best, self._bad_epochs = score, 0
        else:
            self._bad_epochs += 1
        if self._cooldown_left:
            self._cooldown_left, self._bad_epochs = self._cooldown_left - 1, 0
        if self._bad_epochs > self.patience:
            self._factor = max(self._factor * self.decay, self.min_factor)
            self._cooldown_left, self._bad_epochs = self.cooldown, 0

    def state(self) -> dict[str, Array]:
        return {"plateau": np.array([self._factor, self._best, self._bad_epochs, self._cooldown_left], np.float64)}

    def load_state(self, state: Mapping[str, Array]) -> None:
        found = checked_array(state, "plateau", np.float64, (4,))
        self._factor, self._best, bad_epochs, cooldown_left = found.tolist()
        self._bad_epochs, self._cooldown_left = int(bad_epochs), int(cooldown_left)


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": Constant,
    "step": StepDecay,
    "cosine": Cosine,
    "flat_cos": FlatCosine,
    "coslog4": CosLog4,
    "one_cycle": OneCycle,
    "plateau": OnPlateau,
}


def _half_cosine(start: float, end: float, part: float) -> float:
    """Return the value at `part` (0 to 1) of half a cosine wave from `start` to `end`."""
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2


def _require(right: bool, location: str, expected: str, found: float) -> None:
    if not right:
        raise ValueError(f"{location}: expected {expected}, found {found}")
