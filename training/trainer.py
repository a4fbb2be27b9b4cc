"""The training loop: forward, loss, backward, step, again."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from model_store.nn import Array, Module, Sequential
from training.losses import CrossEntropy, Loss
from training.optimizers import Optimizer
from training.schedules import Plan, Schedule

OnEpoch = Callable[[int, int, float], bool | None]


class DivergedError(ArithmeticError):
    """The loss is no longer a number. `epoch` and `step` count from 1; the parameters are of no use any more."""

    def __init__(self, epoch: int, step: int, loss: float) -> None:
        super().__init__(
            f"the loss became {loss} in epoch {epoch}, step {step}: try a smaller learning rate, "
            "scaled inputs, or smaller initial weights"
        )
        self.epoch, self.step, self.loss = epoch, step, loss


def print_epoch(epoch: int, epochs: int, error: float) -> None:
    """The article's line: `1/1000 error=2.19182`."""
    print(f"{epoch}/{epochs} error={error:.5f}")  # noqa: T201  # printing is what it is for


def train(
    module: Module,
    x_train: npt.ArrayLike,
    y_train: npt.ArrayLike,
    loss: Loss,
    optimizer: Optimizer,
    epochs: int,
    batch_size: int = 1,
    *,
    rng: np.random.Generator | None = None,
    on_epoch: OnEpoch | None = print_epoch,
    schedule: Schedule | None = None,
) -> list[float]:
    """Trains `module` in place and returns the mean loss of each epoch, measured as it learns.

    `batch_size` chooses the variant: 1 is stochastic, n mini-batch, `len(x_train)` plain gradient descent. Gradients
    are averaged over a batch; the last batch of an epoch may be smaller.

    x_train: (samples, features), or the article's column vectors (samples, features, 1).
    y_train: (samples, outputs), columns likewise; for `CrossEntropy` also class numbers (samples,).
    rng: shuffles the samples anew every epoch; without it they come in their order.
    on_epoch: called with (epoch from 1, epochs, error); returning True ends the training.
    schedule: sets the optimizer's learning rate before every step; afterwards it is what it was.

    DivergedError as soon as a batch's loss is not finite; ValueError where shapes do not fit.
    """
    dtype = module.dtype if isinstance(module, Sequential) else None
    x = _samples(x_train, dtype)
    y = _targets(module, y_train, loss, dtype)
    if len(x) != len(y) or not len(x):
        raise ValueError(f"train: wanted as many targets as samples and at least one, found {len(y)} and {len(x)}")
    if batch_size < 1:
        raise ValueError(f"train: wanted a batch_size of at least 1, found {batch_size}")
    steps: dict[int, Step] = {}
    errors = []
    taken, rate = 0, optimizer.learning_rate
    in_epoch = math.ceil(len(x) / batch_size)
    plan = Plan(epochs * in_epoch, in_epoch)
    for epoch in range(1, epochs + 1):
        total = 0.0
        order = None if rng is None or batch_size >= len(x) else rng.permutation(len(x))  # one batch has no order
        for number, start in enumerate(range(0, len(x), batch_size), 1):
            size = min(batch_size, len(x) - start)
            step = steps.get(size) or steps.setdefault(size, Step(module, loss, x, y, size))
            error = step(start, order)
            if not math.isfinite(error):
                raise DivergedError(epoch, number, error)
            if schedule is not None:
                optimizer.learning_rate = rate * schedule.factor(taken, plan)
                taken += 1
            optimizer.step()
            total += error * size
        errors.append(total / len(x))
        if on_epoch is not None and on_epoch(epoch, epochs, errors[-1]):
            break
        if schedule is not None:
            schedule.saw(errors[-1])
    optimizer.learning_rate = rate
    optimizer.zero_gradients()
    return errors


class Step:
    """Forward and backward over a batch of one size, recorded once (see model_store/nn/tape.py).

    Afterwards the gradients are those of the batch, whatever they were before.
    """

    def __init__(self, module: Module, loss: Loss, x: Array, y: Array, size: int) -> None:
        network, criterion = loss.fused(module)
        self.x, self.y, self.size = x, y, size
        self.whole = size == len(x)  # then the samples themselves are the batch, unless they are shuffled
        self.xs, self.ys = np.empty((size, *x.shape[1:]), x.dtype), np.empty((size, *y.shape[1:]), y.dtype)
        np.copyto(self.xs, x[:size])
        np.copyto(self.ys, y[:size])
        output, forward, tape = network.record(self.xs)
        self.error = np.empty((), output.dtype)
        if output.shape != self.ys.shape:
            raise ValueError(f"train: wanted targets of shape {output.shape} a batch, found {self.ys.shape}")
        prime, compare = criterion.record(self.ys, output, self.error)
        _, backward = tape(prime, False)
        self.lines = [*forward, *compare, *backward]

    def __call__(self, start: int, order: Array | None) -> float:
        """The loss of the samples from `start` on, in `order`."""
        if order is not None:
            rows = order[start : start + self.size]
            self.x.take(rows, 0, self.xs, "clip")
            self.y.take(rows, 0, self.ys, "clip")
        elif not self.whole:
            np.copyto(self.xs, self.x[start : start + self.size])
            np.copyto(self.ys, self.y[start : start + self.size])
        for function, operands in self.lines:
            function(*operands)
        return float(self.error)


def _samples(values: npt.ArrayLike, dtype: npt.DTypeLike | None) -> Array:
    """Samples as rows: the article's columns (samples, features, 1) lose their last axis."""
    rows = np.asarray(values, dtype)
    if rows.ndim == 3 and rows.shape[2] == 1:
        rows = rows[:, :, 0]
    return rows


def _targets(module: Module, y_train: npt.ArrayLike, loss: Loss, dtype: npt.DTypeLike | None) -> Array:
    targets = np.asarray(y_train)
    if targets.ndim == 1 and isinstance(loss, CrossEntropy) and isinstance(module, Sequential):
        classes = module.output_size or 0
        if targets.dtype.kind not in "iu" or targets.min(initial=0) < 0 or targets.max(initial=0) >= classes:
            raise ValueError(f"train: wanted class numbers from 0 to {classes - 1} in y_train")
        one_hot: Array = np.eye(classes, dtype=dtype)[targets]
        return one_hot
    if targets.ndim == 1:
        targets = targets.reshape(-1, 1)
    return _samples(targets, dtype)
