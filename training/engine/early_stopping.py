"""Early stopping: record each epoch, stop when the score no longer improves, keep the best weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from model_store.nn import Array, Sequential
from training.config.settings import EarlyStoppingSection
from training.encoded_rows import EncodedRows, apply_in_pieces
from training.engine.loop import DivergedError
from training.losses import Loss
from training.stored_arrays import checked_array

MAX_HISTORY_POINTS = 500  # epochs of the history that an artifact records


@dataclass(frozen=True)
class EpochResult:
    """The losses of an epoch. `validation_loss` is None without validation rows; `metric` if none is watched.

    `network` of `networks` is the network of an ensemble, from 1.
    """

    number: int
    total_epochs: int
    loss: float
    validation_loss: float | None
    metric: float | None = None
    network: int = field(default=1, kw_only=True)
    networks: int = field(default=1, kw_only=True)

    @property
    def score(self) -> float:
        """The loss that early stopping compares: the validation loss, or without one the training loss."""
        return self.loss if self.validation_loss is None else self.validation_loss


@dataclass(frozen=True)
class ValidationMetric:
    """A metric of the network's outputs for the validation rows, which early stopping watches instead of the loss."""

    measure: Callable[[Array], float]
    higher_is_better: bool


EpochCallback = Callable[[EpochResult], None]


class EarlyStopping:
    """The `on_epoch` callback of a job: records the history, stops the training, keeps the best weights."""

    def __init__(
        self,
        network: Sequential,
        loss: Loss,
        x_validation: EncodedRows,
        y_validation: Array,
        early_stopping: EarlyStoppingSection | None = None,
        on_epoch: EpochCallback | None = None,
        steps: int = 1,
        metric: ValidationMetric | None = None,
    ) -> None:
        self.network = network
        self.criterion = loss.fused(network)
        self.validation = (x_validation, y_validation)
        self.early_stopping = early_stopping
        self.on_epoch = on_epoch
        self.steps = steps  # per epoch
        self.metric = metric
        self.history: list[EpochResult] = []
        self.best: EpochResult | None = None
        self._best_arrays: dict[str, Array] = {}
        self._best_score = math.inf

    def __call__(self, number: int, total_epochs: int, error: float) -> bool:
        epoch = EpochResult(number, total_epochs, error, self._validation_loss(number), self._validation_metric())
        self.history.append(epoch)
        if self.on_epoch is not None:
            self.on_epoch(epoch)
        if self.early_stopping is None:
            self.best = epoch
            return False
        score = epoch.score
        if self.metric is not None and epoch.metric is not None:
            score = -epoch.metric if self.metric.higher_is_better else epoch.metric
        if self.best is None or score < self._best_score - self.early_stopping.min_delta:
            self.best, self._best_score = epoch, score
            self._best_arrays = {name: array.copy() for name, array in self.network.arrays().items()}
        return number - self.best.number >= self.early_stopping.patience

    @property
    def finished_epochs(self) -> int:
        """The number of finished epochs."""
        return len(self.history)

    def restore_best(self) -> EpochResult:
        """Restore the best weights if early stopping tracked them. Return the epoch of the current weights."""
        arrays = self.network.arrays()
        for name, best in self._best_arrays.items():
            arrays[name][...] = best
        return self.best or self.history[-1]

    def state(self) -> dict[str, Array]:
        """Return the state for a checkpoint; a missing validation loss is NaN."""
        nan = math.nan
        history = [
            (e.total_epochs, e.loss, *(nan if value is None else value for value in (e.validation_loss, e.metric)))
            for e in self.history
        ]
        return {
            "history": np.array(history).reshape(-1, 4),
            "best": np.array([0 if self.best is None else self.best.number, self._best_score]),
            **{f"best/{name}": array for name, array in self._best_arrays.items()},
        }

    def load_state(self, state: Mapping[str, Array]) -> None:
        width = 3 if state["history"].shape[1:] == (3,) else 4  # checkpoints of 0.1.0 have no metric
        history = checked_array(state, "history", np.float64, (None, width)).tolist()
        self.history = [
            EpochResult(number, int(total), loss, *(None if math.isnan(value) else value for value in others))
            for number, (total, loss, *others) in enumerate(history, 1)
        ]
        best, self._best_score = checked_array(state, "best", np.float64, (2,)).tolist()
        if best not in range(len(self.history) + 1):
            raise ValueError(f"best: expected an epoch up to {len(self.history)}, found {best}")
        self.best = self.history[int(best) - 1] if best else None
        arrays = self.network.arrays()
        self._best_arrays = {
            name: checked_array(state, f"best/{name}", arrays[name].dtype, arrays[name].shape)
            for name in arrays
            if f"best/{name}" in state
        }

    def history_points(self) -> list[dict[str, Any]]:
        """Return the history to record: every epoch, or evenly spaced ones with the first, the last and the best."""
        last = len(self.history) - 1
        chosen = (
            {i * last // (MAX_HISTORY_POINTS - 1) for i in range(MAX_HISTORY_POINTS)}
            if last >= MAX_HISTORY_POINTS
            else range(last + 1)
        )
        numbers = {*chosen, *([self.best.number - 1] if self.best else [])}
        return [_point(self.history[i]) for i in sorted(numbers)]

    def _validation_loss(self, number: int) -> float | None:
        x, y = self.validation
        if not len(x):
            return None
        network, criterion = self.criterion
        loss = criterion.loss(y, apply_in_pieces(network, x))
        if not math.isfinite(loss):
            raise DivergedError(number, self.steps, loss)
        return loss

    def _validation_metric(self) -> float | None:
        x, _ = self.validation
        if self.metric is None or not len(x):
            return None
        return self.metric.measure(apply_in_pieces(self.network, x))


def _point(epoch: EpochResult) -> dict[str, Any]:
    point: dict[str, Any] = {"epoch": epoch.number, "loss": epoch.loss}
    if epoch.validation_loss is not None:
        point["validation_loss"] = epoch.validation_loss
    if epoch.metric is not None:
        point["validation_metric"] = epoch.metric
    return point
