"""The training loop: forward, loss, backward, step, again."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from math import isfinite
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from model_store.nn import Array, BatchNorm, Dropout, Module, Sequential
from training.engine.batch_checks import SingleRowBatchWarning, check_batch_norm
from training.engine.checkpoint import Checkpoint, Stateful, json_from_array, json_to_array
from training.engine.compiled import CompiledStep
from training.engine.data_parallel import DataParallel, InterruptedStepError, ParallelStep
from training.losses import CrossEntropy, Loss
from training.optim.base import Optimizer
from training.optim.lr_schedulers import Schedule, ScheduleContext
from training.stored_arrays import checked_array, checked_count

T = TypeVar("T")  # an order, or a seed of one; or what is found in a module
AnyModule = TypeVar("AnyModule", bound=Module)
OnEpoch = Callable[[int, int, float], bool | None]


class DivergedError(ArithmeticError):
    """The loss is not finite. `epoch` and `step` count from 1; the parameters are useless."""

    def __init__(self, epoch: int, step: int, loss: float) -> None:
        super().__init__(
            f"the loss became {loss} in epoch {epoch}, step {step}: try a smaller learning rate, "
            "scaled inputs, or smaller initial weights"
        )
        self.epoch, self.step, self.loss = epoch, step, loss


def print_epoch(epoch: int, epochs: int, error: float) -> None:
    """Print the article's line: `1/1000 error=2.19182`."""
    print(f"{epoch}/{epochs} error={error:.5f}")  # noqa: T201  # its purpose


def train(
    module: Module,
    x_train: npt.ArrayLike | Samples,
    y_train: npt.ArrayLike | None,
    loss: Loss,
    optimizer: Optimizer,
    epochs: int,
    batch_size: int = 1,
    *,
    rng: np.random.Generator | None = None,
    on_epoch: OnEpoch | None = print_epoch,
    schedule: Schedule | None = None,
    regularization_schedule: Schedule | None = None,
    checkpoint: Checkpoint | None = None,
    parallel: DataParallel | None = None,
) -> list[float]:
    """Train `module` in place and return the mean loss of each epoch, measured before each step.

    `batch_size` chooses the variant: 1 is stochastic, n mini-batch, `len(x_train)` plain gradient descent. Gradients
    are averaged over a batch; the last batch of an epoch may be smaller.

    x_train: (samples, features), or the article's column vectors (samples, features, 1).
    y_train: (samples, outputs), columns likewise; for `CrossEntropy` also class numbers (samples,).
        Alternatively x_train is `Samples`, for example rows that do not fit in memory, and y_train is None.
    rng: shuffles the samples before every epoch; without it they keep their order.
    on_epoch: called with (epoch from 1, epochs, error); returning True ends the training.
    schedule: sets the optimizer's learning rate before every step; the original is restored at the end.
    regularization_schedule: sets the factor of the weight decay and of all dropout rates before every step.
    checkpoint: saves the training to a file at intervals, and resumes from it if opened with `resume`.
    parallel: the ranks that train together. All call this function with the same arguments; `on_epoch` and `checkpoint`
        are those of the main rank.

    Raises DivergedError as soon as a batch's loss is not finite, ValueError if shapes do not fit, if batches of one
    row meet a BatchNorm, or parts of batches do; warns if only the last batch of an epoch has one row.
    """
    samples = x_train if isinstance(x_train, Samples) else _validate_samples(module, x_train, y_train, loss)
    if batch_size < 1:
        raise ValueError(f"train: expected a batch_size of at least 1, found {batch_size}")
    optimizer.check(module)
    try:
        single_row = check_batch_norm(module, len(samples), batch_size)
    except ValueError as e:
        raise ValueError(f"train: {e}; choose a larger batch_size") from e
    if single_row is not None:
        warnings.warn(f"train: {single_row}", SingleRowBatchWarning, stacklevel=2)
    if parallel is not None and next(find_modules(module, BatchNorm), None) is not None:
        problem = "BatchNorm needs the statistics of whole batches, and a rank has parts of them"
        raise ValueError(f"train: {problem}; use LayerNorm, or train in one process without reduce = 'exact'")
    steps: dict[int, CompiledStep | ParallelStep] = {}
    dropouts = list(find_modules(module, Dropout))
    rate = optimizer.learning_rate
    count = len(samples)
    in_epoch = math.ceil(count / batch_size)
    context = ScheduleContext(epochs * in_epoch, in_epoch)
    compile_part: Callable[..., CompiledStep] = partial(
        CompiledStep, module, loss, rows_sum_to_1=isinstance(loss, CrossEntropy) and samples.targets_sum_to_1
    )
    compile_step: Callable[..., CompiledStep | ParallelStep] = compile_part
    if parallel is not None:
        compile_step = partial(ParallelStep, parallel, compile_part, optimizer, list(random_generators(module)))
    state = TrainingState(module, rng, epochs, in_epoch)
    parts: dict[str, Stateful] = {"training": state, "optimizer": optimizer}
    if schedule is not None:
        parts["schedule"] = schedule
    if checkpoint is not None:
        checkpoint.register(**parts)
        checkpoint.restore()
    if parallel is not None:
        parallel.share(parts)
        if checkpoint is not None and parallel.ranks > 1:
            checkpoint.save()  # if this rank is killed, there is something to resume
    try:
        for epoch in range(len(state.errors) + 1, (len(state.errors) if state.ended else epochs) + 1):
            number, total = state.steps, state.total
            for x, y, order, first in samples.epoch_blocks(state, batch_size, parallel):
                rows = len(x)
                for start in range(first, rows, batch_size):
                    size = batch_size if start + batch_size <= rows else rows - start
                    if (step := steps.get(size)) is None:
                        step = compile_step(x, y, size, optimizer.gradient_scale, whole=size == count)
                        steps[size] = step
                    if regularization_schedule is not None:
                        factor = regularization_schedule.factor((epoch - 1) * in_epoch + number, context)
                        _scale_regularization(optimizer, dropouts, factor)
                    if schedule is not None:
                        optimizer.learning_rate = rate * schedule.factor((epoch - 1) * in_epoch + number, context)
                        step.rescale(optimizer.gradient_scale)
                    try:
                        error = step.run(x, y, start, order)
                    except InterruptedStepError:
                        state.steps, state.total = number, total
                        if checkpoint is not None:
                            checkpoint.save()  # raises InterruptedTrainingError
                        raise
                    if not isfinite(error):
                        raise DivergedError(epoch, number + 1, error)
                    optimizer.scaled_step()
                    number += 1
                    total += error * size
                    if checkpoint is not None and checkpoint.due():
                        state.steps, state.total = number, total
                        checkpoint.save()
            error = total / count
            state.end_epoch(error)
            if parallel is None or parallel.is_main:
                state.ended = on_epoch is not None and bool(on_epoch(epoch, epochs, error))
                if schedule is not None and not state.ended:
                    schedule.on_epoch_end(error)
            if parallel is not None:
                state.ended, optimizer.learning_rate = parallel.from_main((state.ended, optimizer.learning_rate))
                parallel.share({} if schedule is None else {"schedule": schedule})
                parallel.share_parameters(optimizer.parameters)
            if state.ended:
                break
            for step in steps.values():  # the callback may have changed the learning rate
                step.rescale(optimizer.gradient_scale)
    finally:
        optimizer.learning_rate = rate
        _scale_regularization(optimizer, dropouts, 1.0)
        optimizer.zero_gradients()
    return state.errors


def _scale_regularization(optimizer: Optimizer, dropouts: Sequence[Dropout], factor: float) -> None:
    optimizer.decay_scale = factor
    for dropout in dropouts:
        dropout.scale = factor


class Samples:
    """Samples `x` and targets `y` in memory. `training.pipeline.streaming_loader` has a subclass for larger data."""

    def __init__(self, x: Array, y: Array) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    @property
    def constant_features(self) -> Array:
        """Which features have one value in all samples, that of `first_sample`."""
        return np.asarray(self.x.min(axis=0) == self.x.max(axis=0))

    @property
    def first_sample(self) -> Array:
        return np.asarray(self.x[0])

    @property
    def target_range(self) -> tuple[Array, Array]:
        """The least and the greatest target of each output, (outputs,) each."""
        return np.asarray(self.y.min(axis=0)), np.asarray(self.y.max(axis=0))

    @property
    def targets_sum_to_1(self) -> bool:
        """Whether the targets of every sample sum to exactly 1, as one-hot ones do."""
        return bool((self.y.sum(axis=-1) == 1).all())

    def epoch_blocks(
        self, state: TrainingState, batch_size: int, parallel: DataParallel | None = None
    ) -> Iterable[tuple[Array, Array, Array | None, int]]:
        """Yield the rest of an epoch in blocks: samples, targets, their order, and the index to start at.

        A block holds whole batches, except at the end of the last block. It is valid until the next one is requested.
        Of rows that belong to other ranks it may hold anything.
        """
        order = None
        if state.rng is not None and batch_size < len(self.x):  # the order within one batch does not matter
            order = state.draw_order(lambda rng: rng.permutation(len(self)))
        return [(self.x, self.y, order, state.steps * batch_size)]


class TrainingState:
    """The progress of a training and what it needs to resume: the module's arrays and all random generators.

    `errors` holds the mean loss of each finished epoch; `steps` counts the steps of the current one, and `total` sums
    the losses of their samples. `ended` is True once `on_epoch` has ended the training. A state with more than
    `max_epochs` epochs or `max_steps` steps of an epoch is another training's.
    """

    def __init__(
        self,
        module: Module,
        rng: np.random.Generator | None = None,
        max_epochs: float = math.inf,
        max_steps: float = math.inf,
    ) -> None:
        self.module, self.rng, self.max_epochs, self.max_steps = module, rng, max_epochs, max_steps
        self.errors: list[float] = []
        self.steps, self.total, self.ended = 0, 0.0, False
        self._before: Any = None  # the state of `rng` before it drew the current epoch's order
        self._generators = ([] if rng is None else [rng]) + list(random_generators(module))

    def draw_order(self, order: Callable[[np.random.Generator], T]) -> T:
        """Return the order of this epoch, drawn from `rng`; after `load_state`, the same one again."""
        if self.rng is None:
            raise ValueError("TrainingState.draw_order: expected a generator, found none")
        rng = self.rng
        if self._before is None:
            self._before = rng.bit_generator.state
        else:
            rng = copy.deepcopy(rng)
            rng.bit_generator.state = self._before
        return order(rng)

    @property
    def finished_epochs(self) -> int:
        """The number of finished epochs."""
        return len(self.errors)

    def end_epoch(self, error: float) -> None:
        self.errors.append(error)
        self.steps, self.total, self._before = 0, 0.0, None

    def state(self) -> dict[str, Array]:
        rng_states = [self._before, *(generator.bit_generator.state for generator in self._generators)]
        return {
            "errors": np.array(self.errors),
            "steps": np.array(self.steps),
            "total": np.array(self.total),
            "ended": np.array(self.ended),
            "rng_states": json_to_array(rng_states),
            **{name: array.copy() for name, array in self.module.arrays().items()},
        }

    def load_state(self, state: Mapping[str, Array]) -> None:
        errors = checked_array(state, "errors", np.float64, (None,))
        if len(errors) > self.max_epochs:
            raise ValueError(f"errors: expected {self.max_epochs} epochs at most, found {len(errors)}")
        self.errors, self.steps = errors.tolist(), checked_count(state, "steps", self.max_steps)
        self.total = float(checked_array(state, "total", np.float64))
        if not isfinite(self.total):
            raise ValueError(f"total: expected a finite number, found {self.total}")
        # Checkpoints of 0.1.0 do not have "ended".
        self.ended = "ended" in state and bool(checked_array(state, "ended", np.bool_))
        self._before, *rng_states = json_from_array(state["rng_states"])
        if self._before is not None and self.rng is not None:
            copy.deepcopy(self.rng).bit_generator.state = self._before  # raises an error if it is no state
        for generator, found in zip(self._generators, rng_states, strict=True):
            generator.bit_generator.state = found
        for name, array in self.module.arrays().items():
            array[...] = checked_array(state, name, array.dtype, array.shape)


def random_generators(module: Module) -> Iterator[np.random.Generator]:
    """Yield the random generators of a module and of the modules in its attributes."""
    return _find_attributes(module, np.random.Generator)


def find_modules(module: Module, kind: type[AnyModule]) -> Iterator[AnyModule]:
    """Yield the modules of this kind: the module itself, and those in its attributes."""
    if isinstance(module, kind):
        yield module
    yield from _find_attributes(module, kind)


def _find_attributes(module: Module, kind: type[T]) -> Iterator[T]:
    for value in vars(module).values():
        for found in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(found, kind):
                yield found
            if isinstance(found, Module):
                yield from _find_attributes(found, kind)


def _validate_samples(module: Module, x_train: npt.ArrayLike, y_train: npt.ArrayLike | None, loss: Loss) -> Samples:
    dtype = module.dtype if isinstance(module, Sequential) else None
    for name, found in (("x_train", np.asarray(x_train)), ("y_train", np.asarray(y_train))):
        if found.dtype.kind not in "biufO":  # NumPy drops imaginary parts, and counts dates in their unit
            raise ValueError(f"train: expected numbers in {name}, found {found.dtype}; encode them as numbers")
    x, expected = _to_rows(x_train, dtype), module.input_shape
    if expected is not None and x.shape[1:] not in (expected, (math.prod(expected),)):
        shown = ", ".join(["samples", *map(str, expected)])
        raise ValueError(f"train: expected x_train of shape ({shown}), found {np.shape(x_train)}")
    given: npt.ArrayLike = [] if y_train is None else y_train
    y = _validate_targets(module, given, loss, dtype)
    outputs = module.output_shape(expected)
    if outputs is not None and len(y) and y.shape[1:] != outputs:
        shown = ", ".join(["samples", *map(str, outputs)])
        hint = "; class numbers are of shape (samples,)" if isinstance(loss, CrossEntropy) else ""
        raise ValueError(f"train: expected y_train of shape ({shown}), found {np.shape(given)}{hint}")
    if len(x) != len(y) or not len(x):
        raise ValueError(f"train: expected as many targets as samples and at least one, found {len(y)} and {len(x)}")
    for name, values in (("x_train", x), ("y_train", y)):
        if not np.isfinite(values).all():
            at = tuple(map(int, np.argwhere(~np.isfinite(values))[0]))
            raise ValueError(f"train: expected finite numbers; found {values[at]} in sample {at[0]} of {name}")
    if loss.find_invalid_targets(y).any() and not isinstance(loss, CrossEntropy):
        seen = f"found {y.min()} to {y.max()}"
        raise ValueError(f"train: expected targets {loss.target_range} for {type(loss).__name__}; {seen}")
    if isinstance(loss, CrossEntropy):
        if y.ndim < 2 or y.shape[-1] == 1:
            fix = "use BinaryCrossEntropy after a Sigmoid, or one output for each class"
            raise ValueError(f"train: expected two outputs or more for {type(loss).__name__}, found 1; {fix}")
        if y.min() < 0:
            raise ValueError(f"train: expected targets of at least 0 for {type(loss).__name__}; found {y.min()}")
    return Samples(x, y)


def _to_rows(values: npt.ArrayLike, dtype: npt.DTypeLike | None) -> Array:
    """Return samples as row-major rows: the article's columns (samples, features, 1) lose their last axis.

    `take` copies the whole of an array that is not row-major: 50,000 rows of 30 that pandas stores column by column
    took 26 times as long.
    """
    rows = np.ascontiguousarray(values, dtype)
    if rows.ndim == 3 and rows.shape[2] == 1:
        rows = rows[:, :, 0]
    return rows


def _validate_targets(module: Module, y_train: npt.ArrayLike, loss: Loss, dtype: npt.DTypeLike | None) -> Array:
    targets = np.asarray(y_train)
    if targets.ndim == 1 and isinstance(loss, CrossEntropy) and isinstance(module, Sequential):
        classes = module.output_size or 0
        if targets.dtype.kind not in "iu" or targets.min(initial=0) < 0 or targets.max(initial=0) >= classes:
            raise ValueError(f"train: expected class numbers from 0 to {classes - 1} in y_train")
        one_hot: Array = np.eye(classes, dtype=dtype)[targets]
        return one_hot
    if targets.ndim == 1:
        targets = targets.reshape(-1, 1)
    return _to_rows(targets, dtype)
