"""The training loop: forward, loss, backward, step, again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from model_store.nn import Array, Module, Sequential
from training.losses import CrossEntropy, Loss
from training.optimizers import Optimizer

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
) -> list[float]:
    """Trains `module` in place and returns the mean loss of each epoch, measured as it learns.

    `batch_size` chooses the variant: 1 is stochastic, n mini-batch, `len(x_train)` plain gradient descent. Gradients
    are averaged over a batch; the last batch of an epoch may be smaller.

    x_train: (samples, features), or the article's column vectors (samples, features, 1).
    y_train: (samples, outputs), columns likewise; for `CrossEntropy` also class numbers (samples,).
    rng: shuffles the samples anew every epoch; without it they come in their order.
    on_epoch: called with (epoch from 1, epochs, error); returning True ends the training.

    DivergedError as soon as a batch's loss is not finite; ValueError where shapes do not fit.
    """
    dtype = module.dtype if isinstance(module, Sequential) else None
    x = _samples(x_train, dtype)
    y = _targets(module, y_train, loss, dtype)
    if len(x) != len(y) or not len(x):
        raise ValueError(f"train: wanted as many targets as samples and at least one, found {len(y)} and {len(x)}")
    if batch_size < 1:
        raise ValueError(f"train: wanted a batch_size of at least 1, found {batch_size}")
    network, criterion = loss.fused(module)
    errors = []
    for epoch in range(1, epochs + 1):
        total = 0.0
        for step, (xs, ys) in enumerate(_batches(x, y, batch_size, rng), 1):
            output = network.forward(xs)
            if output.shape != ys.shape:
                raise ValueError(f"train: wanted targets of shape {output.shape} a batch, found {ys.shape}")
            error = criterion.loss(ys, output)
            if not math.isfinite(error):
                raise DivergedError(epoch, step, error)
            network.backward(criterion.loss_prime(ys, output))
            optimizer.step()
            optimizer.zero_gradients()
            total += error * len(xs)
        errors.append(total / len(x))
        if on_epoch is not None and on_epoch(epoch, epochs, errors[-1]):
            break
    return errors


def _batches(x: Array, y: Array, batch_size: int, rng: np.random.Generator | None) -> Iterator[tuple[Array, Array]]:
    order = None if rng is None else rng.permutation(len(x))
    for start in range(0, len(x), batch_size):
        rows = slice(start, start + batch_size) if order is None else order[start : start + batch_size]
        yield x[rows], y[rows]


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
